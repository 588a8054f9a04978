"""The file of one series: Parquet that carries checksums of itself, so that a damaged file is found before it is read.

Readers of Parquet believe what a file says about itself. A damaged one can have them allocate without end, or end their
process. So the metadata has the CRC-32 of every row group, and that of the footer. What is read is compared first, and
nothing else is read: a day costs its row group. The footer also has what a listing shows, as JSON, and the first open
time of every row group.

A file is opened once for each use. An import replaces the name, never the content, so that a reader has the old series
or the new one, whatever is written meanwhile.

Files of earlier versions have no checksums of row groups.
"""

from __future__ import annotations

import os
import re
import stat
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import numpy as np
import polars as pl

from backtestr_protocol.messages import SeriesInfo
from backtestr_protocol.system.open_flags import WITHOUT_WAITING

from .atomic_files import replace_file
from .parquet_footer import row_group_begins

ROW_GROUP_BARS = 16_384
"""Bars that are read together: eleven days of minutes. A whole series is read as fast as from larger groups."""

MAX_FOOTER_BYTES = 64 << 20
"""The footer of a thousand million bars has less."""

_MAGIC = b"PAR1"
_TAIL_BYTES = 8  # the length of the footer, and the magic
_FIRST_READ = 1 << 16
_BLOCK = 1 << 20
_SERIES_KEY, _CHECKSUM_KEY = "backtestr.series", "backtestr.row_groups"
_GROUP = "{:016x}{:012x}{:08x}"  # the first open time, where the group begins, the checksum of its bytes
_GROUP_CHARACTERS = 36
_TIME_OFFSET = 1 << 63  # a time before 1970 is negative, and hexadecimal digits have no sign
_CHECKSUMS = re.compile(rb"crc32:([0-9a-f]{8}):((?:[0-9a-f]{36})+)")
_INFO = re.compile(
    rb'\{"symbol":"(?:[^"\\]|\\.)*","timeframe":"[0-9a-zM]+","startTime":-?\d+,"endTime":-?\d+,"bars":\d+'
    rb'(?:,"timeZone":"[^"\\]*")?\}'
)


class DamagedFile(Exception):
    """A file of a series is not what was written. The text is the reason."""


class FileVersion(NamedTuple):
    """A file as it is at one moment; one that takes its name has another."""

    inode: int
    mtime_ns: int
    size: int


class RowGroup(NamedTuple):
    """The part of a file that holds up to `ROW_GROUP_BARS` bars, whose first opens at `first_us`."""

    first_us: int
    begins_at: int
    checksum: int


class SeriesFile:
    """An open file of a series, whose footer has been checked. `open_series` opens it.

    `row_groups` is None for a file of an earlier version, of which nothing is checked.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.version = _version(os.fstat(file.fileno()))
        footer, self._footer_begins_at = _read_footer(file, self.version.size)
        self.info = _info_of(footer)
        self.row_groups = _row_groups_of(footer)

    def read(self, start_us: int | None = None, end_us: int | None = None) -> pl.DataFrame:
        """Return the bars that open in [start, end), microseconds UTC, from the row groups that can hold them.

        Raises `DamagedFile` where their checksums do not match, `OSError`, and polars' errors.
        """
        self._file.seek(0)
        rows = pl.scan_parquet(self._file)
        if self.row_groups is not None:
            groups = self._groups_between(start_us, end_us)
            self._check(groups)
            self._file.seek(0)
            rows = rows.slice(groups.start * ROW_GROUP_BARS, len(groups) * ROW_GROUP_BARS)
        found = rows.collect()
        if start_us is not None:
            found = found.filter(pl.col("timestamp") >= _time(start_us))
        if end_us is not None:
            found = found.filter(pl.col("timestamp") < _time(end_us))
        return found

    def rows_between(self, start_us: int | None, end_us: int | None) -> range:
        """Return the rows of [start, end), microseconds UTC, counted from 0; several rows may share a time.

        Raises as `read` does.
        """
        first = 0 if start_us is None else self._rows_before(start_us)
        stop = self.info.bars if end_us is None else self._rows_before(end_us)
        return range(first, max(first, stop))

    def _rows_before(self, time_us: int) -> int:
        groups = bisect_left([group.first_us for group in self.row_groups or ()], time_us)
        if not groups:
            return 0
        first = (groups - 1) * ROW_GROUP_BARS
        times = self.read_rows(range(first, first + ROW_GROUP_BARS))["timestamp"].to_physical().to_numpy()
        return first + int(np.searchsorted(times, time_us))

    def read_rows(self, rows: range) -> pl.DataFrame:
        """Return rows by their numbers; the row groups that hold them are compared first. Raises as `read` does."""
        first, last = rows.start // ROW_GROUP_BARS, -(-rows.stop // ROW_GROUP_BARS)
        self._check(range(first, min(last, len(self.row_groups or ()))))
        self._file.seek(0)
        return pl.scan_parquet(self._file).slice(rows.start, len(rows)).collect()

    def _groups_between(self, start_us: int | None, end_us: int | None) -> range:
        firsts = [group.first_us for group in self.row_groups or ()]
        first = 0 if start_us is None else max(bisect_right(firsts, start_us) - 1, 0)
        last = len(firsts) if end_us is None else bisect_left(firsts, end_us)
        return range(first, max(last, first))

    def _check(self, groups: range) -> None:
        """Compare the checksums of row groups with their bytes."""
        all_groups = self.row_groups or ()
        begins = [*(group.begins_at for group in all_groups), self._footer_begins_at]
        for number in groups:
            if _checksum(self._file, begins[number], begins[number + 1]) != all_groups[number].checksum:
                raise DamagedFile("the checksum of its bars does not match")


def write_series(path: Path, frame: pl.DataFrame, info: SeriesInfo) -> None:
    """Write the file of a series whole or not at all. Raises `OSError` and polars' errors."""
    firsts = frame["timestamp"].to_physical().gather_every(ROW_GROUP_BARS).to_list()
    unset = _rendered(0, [RowGroup(0, 0, 0)] * len(firsts))
    metadata = {_SERIES_KEY: msgspec.json.encode(info).decode(), _CHECKSUM_KEY: unset.decode()}
    with replace_file(path) as file:
        frame.write_parquet(file, compression="lz4", row_group_size=ROW_GROUP_BARS, metadata=metadata)
        file.seek(0)
        place, checksums = _checksums_of(file.read(), firsts, unset)
        file.seek(place)
        file.write(checksums)


def _checksums_of(whole: bytes, firsts: list[int], unset: bytes) -> tuple[int, bytes]:
    """Return the place of the `unset` checksums in the content of a file, and the checksums that belong there."""
    footer_begins_at = _footer_begin(whole[-_TAIL_BYTES:], len(whole))
    footer = whole[footer_begins_at:-_TAIL_BYTES]
    begins = [0, *row_group_begins(footer)[1:]]  # the magic before the first is checked with it
    groups = [
        RowGroup(first, begin, zlib.crc32(whole[begin:end]))
        for first, begin, end in zip(firsts, begins, [*begins[1:], footer_begins_at], strict=True)
    ]
    place = footer.index(unset, footer.index(_CHECKSUM_KEY.encode()))  # no symbol has room for both
    before_own = _rendered(0, groups)
    own = zlib.crc32(footer[:place] + before_own + footer[place + len(unset) :])
    return footer_begins_at + place, _rendered(own, groups)


@contextmanager
def open_series(path: Path) -> Iterator[SeriesFile]:
    """Open the file of a series, and close it when the block ends. Raises `DamagedFile` and `OSError`."""
    # A pipe is not waited for.
    handle = os.open(path, os.O_RDONLY | WITHOUT_WAITING)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise DamagedFile("it is no regular file")
        yield SeriesFile(file)


def version_of(path: Path) -> FileVersion:
    """Return the version of the file that has this name now. Raises `OSError`."""
    return _version(path.stat())


def _version(facts: os.stat_result) -> FileVersion:
    return FileVersion(facts.st_ino, facts.st_mtime_ns, facts.st_size)


def _read_footer(file: BinaryIO, size: int) -> tuple[bytes, int]:
    """Return the footer, and its place in the file."""
    file.seek(max(0, size - _FIRST_READ))
    end = file.read(_FIRST_READ)
    begins_at = _footer_begin(end[-_TAIL_BYTES:], size)
    if size - begins_at > len(end):
        file.seek(begins_at)
        end = file.read(size - begins_at)
    return end[begins_at - size : -_TAIL_BYTES], begins_at


def _footer_begin(tail: bytes, size: int) -> int:
    length = int.from_bytes(tail[:4], "little")
    if len(tail) < _TAIL_BYTES or not tail.endswith(_MAGIC):
        raise DamagedFile("its end is not that of a Parquet file")
    if length > min(size - _TAIL_BYTES - len(_MAGIC), MAX_FOOTER_BYTES):
        raise DamagedFile("it states a wrong length of its metadata")
    return size - _TAIL_BYTES - length


def _info_of(footer: bytes) -> SeriesInfo:
    found = _INFO.search(footer)
    if found is None:
        raise DamagedFile("it does not say which series it holds")
    try:
        return msgspec.json.decode(found[0], type=SeriesInfo)
    except msgspec.MsgspecError as error:
        raise DamagedFile(f"it does not say which series it holds: {error}") from error


def _rendered(own: int, groups: Sequence[RowGroup]) -> bytes:
    """Return the checksums of the footer and of row groups as they stand in the footer."""
    texts = (_GROUP.format(first + _TIME_OFFSET, begin, checksum) for first, begin, checksum in groups)
    return f"crc32:{own:08x}:{''.join(texts)}".encode()


def _row_groups_of(footer: bytes) -> list[RowGroup] | None:
    """Return the row groups, None for a footer without checksums. Raises `DamagedFile` for a wrong one."""
    if _CHECKSUM_KEY.encode() not in footer:
        return None
    for place in _CHECKSUMS.finditer(footer):  # a symbol may look like one
        texts = place[2].decode()
        parts = [texts[at : at + _GROUP_CHARACTERS] for at in range(0, len(texts), _GROUP_CHARACTERS)]
        groups = [RowGroup(int(one[:16], 16) - _TIME_OFFSET, int(one[16:28], 16), int(one[28:], 16)) for one in parts]
        with_own_unset = footer[: place.start()] + _rendered(0, groups) + footer[place.end() :]
        if zlib.crc32(with_own_unset) == int(place[1], 16):
            return groups
    raise DamagedFile("the checksum of its metadata does not match")


def _checksum(file: BinaryIO, begin: int, end: int) -> int:
    file.seek(begin)
    left, found = end - begin, 0
    while left and (block := file.read(min(_BLOCK, left))):
        found = zlib.crc32(block, found)
        left -= len(block)
    if left:
        raise DamagedFile("it ends early")
    return found


def _time(timestamp_us: int) -> pl.Expr:
    return pl.lit(timestamp_us).cast(pl.Datetime("us", "UTC"))
