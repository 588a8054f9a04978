"""The file of the ticks of one symbol, opened once for each use, and read in parts that fit into memory.

A row is the number of a tick in its file, from 0. Several ticks may share a time, so that rows, and not times, say
where a part begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backtestr_protocol.messages import TICK, SeriesInfo

from .series_file import ROW_GROUP_BARS, DamagedFile, FileVersion, SeriesFile, open_series, write_series
from .ticks import FIELDS, Ticks, ticks_from_frame
from .zones import UTC

PART_TICKS = 64 * ROW_GROUP_BARS
"""The ticks that are read together: 1,048,576, which take 40 MiB at the most."""


class TickFile:
    """An open file of ticks; versions that take its name meanwhile do not change it. `open_ticks` opens it."""

    def __init__(self, file: SeriesFile) -> None:
        """Take an open file that has checksums. Raises `DamagedFile` for one that has none."""
        if file.row_groups is None:
            raise DamagedFile("it has no checksums")
        self._file = file
        first = file.read_rows(range(1))
        self.columns = [name for name in FIELDS if name in first.columns]

    @property
    def info(self) -> SeriesInfo:
        return self._file.info

    @property
    def file_version(self) -> FileVersion:
        return self._file.version

    @property
    def version(self) -> str:
        """The text by which a client knows that two answers are of the same ticks."""
        return "-".join(f"{part:x}" for part in self._file.version)

    def rows_between(self, start_us: int | None, end_us: int | None) -> range:
        """Return the rows of the ticks in [start, end), microseconds UTC; None is unbounded. Raises as `read` does."""
        return self._file.rows_between(start_us, end_us)

    def read(self, rows: range) -> Ticks:
        """Return the ticks of these rows. Raises `DamagedFile`, `OSError` and polars' errors."""
        return ticks_from_frame(self.info.symbol, self._file.read_rows(rows), self.info.time_zone or UTC)

    def parts(self, rows: range) -> Iterator[Ticks]:
        """Yield the ticks of these rows, up to `PART_TICKS` at a time. Raises as `read` does."""
        for first in range(rows.start, rows.stop, PART_TICKS):
            yield self.read(range(first, min(first + PART_TICKS, rows.stop)))


@contextmanager
def open_ticks(path: Path) -> Iterator[TickFile]:
    """Open the file of ticks, and close it when the block ends. Raises `DamagedFile` and `OSError`."""
    with open_series(path) as file:
        yield TickFile(file)


def write_ticks(path: Path, ticks: Ticks) -> SeriesInfo:
    """Write the file of ticks, at least one, whole or not at all. Raises `OSError` and polars' errors."""
    info = SeriesInfo(
        symbol=ticks.symbol,
        timeframe=TICK,
        start_time=int(ticks.timestamp[0]) // 1000,
        end_time=int(ticks.timestamp[-1]) // 1000,
        bars=len(ticks),
        time_zone=None if ticks.zone == UTC else ticks.zone,
    )
    write_series(path, ticks.to_frame().select("timestamp", *ticks.columns), info)
    return info
