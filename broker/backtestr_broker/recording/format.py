"""The layout of a recording: its records as data and as bytes.

A recording is a folder of parts. A part is a stream of MessagePack `bin` values, each of which holds one record in
MessagePack: first a `Header`, then `[now, event]` for each event. So any MessagePack library reads a part, a reader
knows where a record ends before it decodes it, and a record that a crash cut short differs from a whole one.

`recorder` writes parts, and `parts` reads them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from backtestr_broker.core.events import Event
from backtestr_broker.core.settings import Start
from backtestr_protocol import __version__

# Version of a part's layout. The events may change with every version of backtestr; the header names that one too.
FORMAT = 1
# The folder in the data directory that holds the recordings.
RECORDINGS = "recordings"
SUFFIX = ".msgpack"
# MessagePack's `bin 32`: this byte, then the length in four.
BIN_32 = 0xC6
PREFIX_BYTES = 5


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first record of a part. `start` is in part 1 only."""

    format: int
    version: str
    instance_id: str
    part: int
    start: Start | None = None


class Skipped(msgspec.Struct, frozen=True, tag=True):
    """Stands in place of an event that is larger than a part may be, or of several that the disk did not take.

    `event` is the type of the event, and `size` its bytes; or `event` is the number of events, and `size` 0.
    """

    event: str
    size: int
    wall_ms: int


Entry = tuple[float, Event | Skipped]
# A record's position in its part, in bytes, and its MessagePack.
Record = tuple[int, bytes]


class Unreadable(Exception):
    """A file is not part of a recording, or is damaged from some byte on; the text says where and why."""


_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(Header)
_entry_decoder: msgspec.msgpack.Decoder[Entry] = msgspec.msgpack.Decoder(Entry)


def header(instance_id: str, part: int, start: Start | None) -> Header:
    """Return the header of a part that this version of backtestr writes."""
    return Header(format=FORMAT, version=__version__, instance_id=instance_id, part=part, start=start)


def write_record(record: Any, into: bytearray) -> None:
    """Replace the content of `into` with the bytes of one record.

    Raises `ValueError`, `OverflowError` or `msgspec.MsgspecError` for a value that MessagePack cannot express.
    """
    into[:] = bytes((BIN_32, 0, 0, 0, 0))
    _encoder.encode_into(record, into, -1)
    into[1:PREFIX_BYTES] = (len(into) - PREFIX_BYTES).to_bytes(4, "big")


def decode_header(body: bytes) -> Header:
    """Decode the first record of a part. Raises `Unreadable`, also for another format than `FORMAT`."""
    try:
        found = _header_decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise Unreadable(f"it does not begin with the header of a recording: {error}") from error
    if found.format != FORMAT:
        raise Unreadable(f"it has format {found.format}, and this version reads {FORMAT}")
    return found


def decode_entry(record: Record) -> Entry:
    """Decode any other record. Raises `Unreadable`."""
    offset, body = record
    try:
        return _entry_decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise Unreadable(f"the record at byte {offset:,} is no event of this version: {error}") from error
