"""What stands in the flight recorder's files, as data and as bytes. `recorder` writes them, `replay` reads them.

A recording is a folder of parts. A part is a stream of MessagePack `bin` values, each of which is one record in
MessagePack: first a `Header`, then `[now, event]` again and again. So any MessagePack library reads a part, a reader
knows where a record ends before it decodes it, and one that a crash tore is told from one that is whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from backtestr_broker.core.core import Core, Limits
from backtestr_broker.core.events import Event
from backtestr_broker.core.records import Restored
from backtestr_protocol import __version__
from backtestr_protocol.worker_channel import WorkerKind

# Counts the layouts of a part. What an event is may change with every version, and the header has that too.
FORMAT = 1
# MessagePack's `bin 32`: this byte, then the length in four.
_BIN_32 = 0xC6
_PREFIX_BYTES = 5


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What the core was made of. The key is what the recorded frames are signed with: replay verifies them again."""

    key: bytes
    limits: Limits
    workers: dict[WorkerKind, int]
    now: float
    restored: Restored


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first record of a part. `start` is in part 1 only."""

    format: int
    version: str
    instance_id: str
    part: int
    start: Start | None = None


class Skipped(msgspec.Struct, frozen=True, tag=True):
    """An event was here that is larger than a part may be."""

    event: str
    size: int
    wall_ms: int


Entry = tuple[float, Event | Skipped]


class Unreadable(Exception):
    """This is no part of a recording, or it ends to be one here: the text says where and why."""


_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(Header)
_entry_decoder: msgspec.msgpack.Decoder[Entry] = msgspec.msgpack.Decoder(Entry)


def header(instance_id: str, part: int, start: Start | None) -> Header:
    return Header(format=FORMAT, version=__version__, instance_id=instance_id, part=part, start=start)


def write_record(record: Any, into: bytearray) -> None:
    """Make `into` the bytes of one record. Raises `ValueError` and the like for what MessagePack cannot say."""
    into[:] = bytes((_BIN_32, 0, 0, 0, 0))
    _encoder.encode_into(record, into, -1)
    into[1:_PREFIX_BYTES] = (len(into) - _PREFIX_BYTES).to_bytes(4, "big")


def read_header(data: bytes) -> Header:
    """Raises `Unreadable`."""
    for _, body in records(data):
        try:
            found = _header_decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise Unreadable(f"it does not begin as the flight recorder's files do: {error}") from error
        if found.format != FORMAT:
            raise Unreadable(f"it has format {found.format}, and this version reads {FORMAT}")
        return found
    raise Unreadable("it is empty")


def read_entries(data: bytes) -> Iterator[Entry]:
    """What follows the header. Raises `Unreadable` where the part ends to be one, after all that was whole."""
    following = records(data)
    next(following, None)
    for offset, body in following:
        try:
            yield _entry_decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise Unreadable(f"the record at byte {offset:,} is no event of this version: {error}") from error


def records(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """Where each record begins, and its MessagePack. Raises `Unreadable` at one that is not whole."""
    view = memoryview(data)
    offset = 0
    while offset < len(view):
        body = offset + _PREFIX_BYTES
        end = body + int.from_bytes(view[offset + 1 : body], "big")
        if view[offset] != _BIN_32:
            raise Unreadable(f"no record begins at byte {offset:,}")
        if body > len(view) or end > len(view):
            raise Unreadable(
                f"the last record, at byte {offset:,}, is torn: {len(view) - offset:,} bytes are left of it"
            )
        yield offset, view[body:end]
        offset = end


def new_core(instance_id: str, start: Start) -> Core:
    """The core before its first event."""
    return Core(
        key=start.key,
        instance_id=instance_id,
        limits=start.limits,
        workers=start.workers,
        now=start.now,
        restored=start.restored,
    )
