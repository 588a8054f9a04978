"""The file of one series: Parquet that carries checksums of itself, so that a damaged file is found before it is read.

Readers of Parquet believe what a file says about itself. A damaged one can have them allocate without end, or end their
process. So the metadata has the CRC-32 of the part before the footer, and that of the footer. The footer also has what
a listing shows, as JSON, and a listing reads no other part.

Files of version 0.1 have no checksums.
"""

from __future__ import annotations

import io
import os
import re
import stat
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import polars as pl

from backtestr_protocol.messages import SeriesInfo

from .atomic_files import replace_file

ROW_GROUP_BARS = 16_384
"""Bars that are read together: eleven days of minutes. A whole series is read as fast as from larger groups."""

MAX_FOOTER_BYTES = 64 << 20
"""The footer of a thousand million bars has less."""

_MAGIC = b"PAR1"
_TAIL_BYTES = 8  # the length of the footer, and the magic
_FIRST_READ = 1 << 16
_BLOCK = 1 << 20
_SERIES_KEY, _CHECKSUM_KEY = "backtestr.series", "backtestr.checksums"
_PLACE = "crc32:{:08x}:{:08x}"
_UNSET = _PLACE.format(0, 0)
_CHECKSUMS = re.compile(rb"crc32:([0-9a-f]{8}):([0-9a-f]{8})")
_INFO = re.compile(
    rb'\{"symbol":"(?:[^"\\]|\\.)*","timeframe":"[0-9a-z]+","startTime":-?\d+,"endTime":-?\d+,"bars":\d+\}'
)


class DamagedFile(Exception):
    """A file of a series is not what was written. The text is the reason."""


class Footer(NamedTuple):
    """The footer of a file: what a listing shows, where it begins, and the checksum of all before it, if it has one."""

    info: SeriesInfo
    begins_at: int
    checksum: int | None


def write_series(path: Path, frame: pl.DataFrame, info: SeriesInfo) -> None:
    """Write the file of a series whole or not at all. Raises `OSError` and polars' errors."""
    content = io.BytesIO()
    metadata = {_SERIES_KEY: msgspec.json.encode(info).decode(), _CHECKSUM_KEY: _UNSET}
    frame.write_parquet(content, compression="lz4", row_group_size=ROW_GROUP_BARS, metadata=metadata)
    whole = content.getbuffer()
    begins_at = _footer_begin(bytes(whole[-_TAIL_BYTES:]), len(whole))
    body = zlib.crc32(whole[:begins_at])
    footer = bytes(whole[begins_at:-_TAIL_BYTES])
    place = footer.rindex(_UNSET.encode())
    for checksums in (_PLACE.format(body, 0), _PLACE.format(body, zlib.crc32(_placed(footer, place, body, 0)))):
        whole[begins_at + place : begins_at + place + len(checksums)] = checksums.encode()
    with replace_file(path) as file:
        file.write(whole)


def _placed(footer: bytes, place: int, body: int, own: int) -> bytes:
    """Return the footer with these checksums at `place`."""
    return footer[:place] + _PLACE.format(body, own).encode() + footer[place + len(_UNSET) :]


def read_footer(path: Path) -> Footer:
    """Return the footer of a file, checked. Raises `DamagedFile` and `OSError`."""
    with _opened(path) as file:
        return _footer(file)


def _opened(path: Path) -> BinaryIO:
    """Open a regular file; a pipe is not waited for."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise DamagedFile("it is no regular file")
    return os.fdopen(handle, "rb")


def _footer(file: BinaryIO) -> Footer:
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - _FIRST_READ))
    end = file.read(_FIRST_READ)
    begins_at = _footer_begin(end[-_TAIL_BYTES:], size)
    if size - begins_at > len(end):
        file.seek(begins_at)
        end = file.read(size - begins_at)
    footer = end[begins_at - size : -_TAIL_BYTES]
    found = _INFO.search(footer)
    if found is None:
        raise DamagedFile("it does not say which series it holds")
    try:
        info = msgspec.json.decode(found[0], type=SeriesInfo)
    except msgspec.MsgspecError as error:
        raise DamagedFile(f"it does not say which series it holds: {error}") from error
    return Footer(info, begins_at, _body_checksum(footer))


def _footer_begin(tail: bytes, size: int) -> int:
    length = int.from_bytes(tail[:4], "little")
    if len(tail) < _TAIL_BYTES or not tail.endswith(_MAGIC):
        raise DamagedFile("its end is not that of a Parquet file")
    if length > min(size - _TAIL_BYTES - len(_MAGIC), MAX_FOOTER_BYTES):
        raise DamagedFile("it states a wrong length of its metadata")
    return size - _TAIL_BYTES - length


def _body_checksum(footer: bytes) -> int | None:
    """Return the checksum of the body, None for a footer without checksums. Raises `DamagedFile` for a wrong one."""
    if _CHECKSUM_KEY.encode() not in footer:
        return None
    for place in _CHECKSUMS.finditer(footer):  # a symbol may look like one
        body, own = (int(digits, 16) for digits in place.groups())
        if zlib.crc32(_placed(footer, place.start(), body, 0)) == own:
            return body
    raise DamagedFile("the checksum of its metadata does not match")


def check_whole(path: Path) -> Footer:
    """Read a whole file, and return its footer if its checksums match or it has none. Raises as `read_footer`."""
    with _opened(path) as file:
        footer = _footer(file)
        if footer.checksum is not None:
            file.seek(0)
            left, found = footer.begins_at, 0
            while left and (block := file.read(min(_BLOCK, left))):
                found = zlib.crc32(block, found)
                left -= len(block)
            if left or found != footer.checksum:
                raise DamagedFile("the checksum of its bars does not match")
    return footer
