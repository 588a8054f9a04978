"""Find the parts of a recording, and read their records as a stream.

Memory holds one record and `_READ_BYTES` of a part at a time, however long the part is.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgpack

from .format import BIN_32, PREFIX_BYTES, SUFFIX, Header, Record, Unreadable, decode_header

# The folder of one recording: when it began, and the first characters of the instance id.
RECORDING = re.compile(r"\d{8}T\d{6}\.\d{3}Z-[0-9a-f]{8}")
_READ_BYTES = 1 << 16


def parts_of(path: Path) -> list[Path]:
    """Return the parts of a recording in order; `path` is its folder, or one of its parts in any folder.

    Raises `Unreadable` where there are none, or where `path` is something else.
    """
    if not path.exists():
        raise Unreadable(f"there is no {path}")
    folder = path if path.is_dir() else path.parent
    try:
        wanted = None if path.is_dir() else read_header(path).instance_id
    except Unreadable as error:
        raise Unreadable(f"{path}: {error}") from error
    found: dict[int, Path] = {}
    for one in sorted(folder.glob(f"*{SUFFIX}")) + ([path] if wanted else []):
        with contextlib.suppress(Unreadable):
            header = read_header(one)
            if wanted in (None, header.instance_id):
                found[header.part] = one
    if not found:
        recordings = sorted(one.name for one in folder.iterdir() if RECORDING.fullmatch(one.name))
        hint = f"; name one of the recordings in it, the latest is {recordings[-1]}" if recordings else ""
        raise Unreadable(f"{path} has no part of a recording{hint}")
    return [found[part] for part in sorted(found)]


def read_header(path: Path) -> Header:
    """Read the first record of a part. Raises `Unreadable`."""
    with path.open("rb") as file:
        for _, body in records(file):
            return decode_header(body)
    raise Unreadable("it is empty")


def read_part(path: Path) -> Iterator[Record]:
    """Yield the records of a part. Raises `Unreadable` where it is damaged, after every record before that."""
    with path.open("rb") as file:
        yield from records(file)


def records(file: BinaryIO) -> Iterator[Record]:
    """Yield the records of a seekable file from its beginning. Raises `Unreadable` at one that is not whole."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    # No record is larger than its file. Anything but a `bin` is refused before memory is allocated for it.
    unpacker = msgpack.Unpacker(
        file,
        read_size=min(_READ_BYTES, max(size, 1)),
        max_buffer_size=max(size, 1),
        max_str_len=0,
        max_array_len=0,
        max_map_len=0,
        max_ext_len=0,
    )
    offset = 0
    while True:
        try:
            body = unpacker.unpack()
        except msgpack.OutOfData:
            if file.tell() == offset:
                return
            raise _damage(file, offset) from None
        except (ValueError, msgpack.UnpackException) as error:
            raise _damage(file, offset) from error
        if not isinstance(body, bytes) or unpacker.tell() - offset != PREFIX_BYTES + len(body):
            raise _damage(file, offset)
        yield offset, body
        offset = unpacker.tell()


def _damage(file: BinaryIO, offset: int) -> Unreadable:
    """Return what is wrong with the record at `offset`: it is none, or the file ends before it does."""
    left = file.seek(0, io.SEEK_END) - offset
    file.seek(offset)
    if file.read(1) != bytes((BIN_32,)):
        return Unreadable(f"no record begins at byte {offset:,}")
    return Unreadable(f"the last record, at byte {offset:,}, is torn: {left:,} bytes are left of it")
