"""The catalogue: the stored series, on disk as Parquet and in memory while they are used.

One file per symbol and timeframe, `<root>/<symbol>/<timeframe>.parquet`, replaced as a whole and atomically. The file's
own metadata has everything that a listing shows (symbol, number of bars, first and last open time), so a listing reads
no bars. A timeframe that is not stored is resampled from the finest stored one that divides it.

Before a worker reads a file for the first time it compares the file's checksums (`series_file`): also
before it reads a part, since damaged bars can end a process as well. A file of version 0.1 has none: it is read in a
process of its own, and then stored with checksums.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

import polars as pl

from backtestr_protocol.errors import DataError, DiskUnwritable, ValidationError, did_you_mean
from backtestr_protocol.messages import SeriesInfo, Timeframe, is_symbol
from backtestr_protocol.private_files import make_private
from backtestr_protocol.ranges import SYMBOL_MAX_CHARACTERS, SYMBOL_RULE

from .atomic_files import sync
from .bars import Bars, bars_from_frame, resample
from .instants import instant
from .series_file import DamagedFile, Footer, check_whole, read_footer, write_series
from .timeframes import LENGTH_US, divides, next_open_time, open_time, parse_timeframe

MAX_CHECKED = 10_000
"""The most files that a worker remembers to have checked."""

_BYTES_PER_BAR = 6 * 8
# A range shorter than this part of its series is read alone; for a longer one the whole series is read and kept.
_PART_READ_ALONE = 0.25


class _SeriesKey(NamedTuple):
    """A file as it was when it was read, and the range read of it; a rewritten file has another key."""

    path: Path
    mtime_ns: int
    size: int
    timeframe: Timeframe
    start_us: int | None = None
    end_us: int | None = None


class _BarCache:
    """Series and ranges of series in memory, at most `capacity_bytes`; the least recently used is dropped first."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._bytes = 0
        self._series: OrderedDict[_SeriesKey, Bars] = OrderedDict()

    def get(self, key: _SeriesKey) -> Bars | None:
        bars = self._series.get(key)
        if bars is not None:
            self._series.move_to_end(key)
        return bars

    def put(self, key: _SeriesKey, bars: Bars) -> None:
        if not self.fits(bars.nbytes):
            return
        for stale in [one for one in self._series if one.path == key.path and one[1:3] != key[1:3]]:
            self._bytes -= self._series.pop(stale).nbytes
        self._series[key] = bars
        self._bytes += bars.nbytes
        while self._bytes > self._capacity_bytes:
            _, dropped = self._series.popitem(last=False)
            self._bytes -= dropped.nbytes

    def fits(self, nbytes: int) -> bool:
        return nbytes <= self._capacity_bytes


class Catalog:
    """The series under `root`, with up to `cache_bytes` of them kept in memory between loads.

    `read_apart` reads a file that has no checksums where that may end the process. It raises `DataError`.
    """

    def __init__(
        self, root: Path, *, cache_bytes: int, read_apart: Callable[[Path, str, Timeframe], Bars] | None = None
    ) -> None:
        self._root = root
        self._cache = _BarCache(cache_bytes)
        self._read_apart = read_apart
        self._checked: OrderedDict[_SeriesKey, None] = OrderedDict()

    def write(self, bars: Bars) -> SeriesInfo:
        """Store `bars` in place of the series of that symbol and timeframe. Readers see the old file or the new one.

        Raises `DataError` for no bars, and `DiskUnwritable` when they cannot be written (the old file then stays).
        """
        if not len(bars):
            raise DataError(f"{bars.symbol} {bars.timeframe} has no bars to store")
        info = SeriesInfo(
            symbol=bars.symbol,
            timeframe=bars.timeframe,
            start_time=int(bars.timestamp[0]) // 1000,
            end_time=int(bars.timestamp[-1]) // 1000,
            bars=len(bars),
        )
        path = self._path(bars.symbol, bars.timeframe)
        try:
            make_private(path.parent)
            write_series(path, bars.to_frame(), info)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DiskUnwritable(
                f"the catalogue's file {_name(path)} cannot be written, and is as it was: {error}", file=str(path)
            ) from error
        return info

    def series(self) -> list[SeriesInfo]:
        """List every stored series, sorted by symbol, then from the finest timeframe to the coarsest.

        A file that cannot be read is left out; `load` raises the reason.
        """
        found = []
        for path in self._root.glob("*/*.parquet"):
            with contextlib.suppress(DataError):
                info = _read_info(path)
                if (folder_name(info.symbol), info.timeframe) == (path.parent.name, path.stem):
                    found.append(info)
        return sorted(found, key=lambda info: (info.symbol, LENGTH_US[info.timeframe]))

    def load(self, symbol: str, timeframe: str, start_us: int | None = None, end_us: int | None = None) -> Bars:
        """Return the bars that open in [start, end), microseconds UTC; None is unbounded.

        Raises `ValidationError` for an unknown timeframe, and `DataError` for an unknown symbol (naming the near miss),
        a timeframe that cannot be made from the stored ones, a range without bars (naming the stored range) and a file
        that cannot be read.
        """
        wanted = parse_timeframe(timeframe)
        stored = self.source_of(symbol, wanted)
        path = self._path(symbol, stored)
        key = _key_of(path, wanted)
        whole = self._cache.get(key)
        if whole is None:
            key = self._checked_key(key, symbol, stored)
            if not self._is_read_alone(key, start_us, end_us):
                whole = self._whole(key, symbol, stored)
        if whole is None:
            bars = self._range(key._replace(start_us=start_us, end_us=end_us), symbol, stored)
        else:
            bars = whole.between(start_us, end_us)
        if not len(bars):
            raise self._nothing_between(symbol, wanted, start_us, end_us, path)
        return bars

    def _checked_key(self, key: _SeriesKey, symbol: str, stored: Timeframe) -> _SeriesKey:
        """Return the key of a series whose file is not damaged, which is checked once. Raises `DataError`.

        It is another if the file was stored anew.
        """
        path = key.path
        file = key._replace(timeframe=stored)
        if file in self._checked:
            return key
        try:
            footer = check_whole(path)
        except (DamagedFile, OSError) as error:
            raise _unreadable(path, error) from error
        _check_series(path, footer, symbol, stored)
        if footer.checksum is None and self._read_apart is not None:
            try:
                bars = self._read_apart(path, symbol, stored)
            except DataError as error:
                raise _unreadable(path, error) from error
            self.write(bars)
            file = _key_of(path, stored)
        self._checked[file] = None
        if len(self._checked) > MAX_CHECKED:
            self._checked.popitem(last=False)
        return file._replace(timeframe=key.timeframe)

    def _is_read_alone(self, key: _SeriesKey, start_us: int | None, end_us: int | None) -> bool:
        """Return whether the range is a small part of a series that is not in memory."""
        info = _read_info(key.path)
        if self._cache.get(key._replace(timeframe=info.timeframe)) is not None:
            return False
        first, last = info.start_time * 1000, info.end_time * 1000
        start = first if start_us is None else max(first, start_us)
        end = last if end_us is None else min(last, end_us)
        return end - start < _PART_READ_ALONE * (last - first)

    def _range(self, key: _SeriesKey, symbol: str, stored: Timeframe) -> Bars:
        """Return the bars of the key's range from memory, or read the row groups that hold it and keep the bars."""
        bars = self._cache.get(key)
        if bars is None:
            start, end = key.start_us, key.end_us
            first = None if start is None else open_time(start, key.timeframe)
            last = None if end is None else next_open_time(end, key.timeframe)
            bars = resample(_scan(key.path, symbol, stored, first, last), key.timeframe).between(start, end)
            self._cache.put(key, bars)
        return bars

    def _whole(self, key: _SeriesKey, symbol: str, stored: Timeframe) -> Bars | None:
        """Return the whole series from memory, or read and keep it; None when it is too large to be kept."""
        bars = self._cache.get(key)
        if bars is None and key.timeframe != stored:
            finer = self._whole(key._replace(timeframe=stored), symbol, stored)
            bars = None if finer is None else resample(finer, key.timeframe)
            if bars is not None:
                self._cache.put(key, bars)
        elif bars is None and self._cache.fits(_read_info(key.path).bars * _BYTES_PER_BAR):
            bars = _scan(key.path, symbol, stored, None, None)
            self._cache.put(key, bars)
        return bars

    def stored(self, symbol: str) -> list[Timeframe]:
        """Return the stored timeframes of `symbol`, finest first.

        Raises `DataError`, naming the near miss, for a symbol without series.
        """
        folder = self._folder(symbol)
        stored = [timeframe for timeframe in LENGTH_US if (folder / f"{timeframe}.parquet").is_file()]
        if stored:
            return stored
        symbols = sorted({info.symbol for info in self.series()})
        listed = ", ".join(symbols[:20]) + (", …" if len(symbols) > 20 else "") or "there is none yet"
        raise DataError(
            f"unknown symbol {symbol!r}{did_you_mean(symbol, symbols)} ({listed})",
            path="$.symbol",
            symbol=symbol,
            known=symbols[:20],
        )

    def delete(self, symbol: str, timeframe: str | None = None) -> list[Timeframe]:
        """Remove a series, or every series of `symbol`, and return the removed timeframes. A damaged file goes too.

        Raises `ValidationError` for an unknown timeframe and `DataError` for a series that is not stored.
        """
        stored = self.stored(symbol)
        removed = stored if timeframe is None else [parse_timeframe(timeframe)]
        for one in removed:
            if one not in stored:
                raise self._not_stored(symbol, one, stored)
        for one in removed:
            self._path(symbol, one).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another worker has written a file to it
            self._folder(symbol).rmdir()
        sync(self._root)
        return removed

    def load_stored(self, symbol: str, timeframe: str) -> Bars:
        """Return all bars of a series that is stored in this very timeframe. Raises as `load` does."""
        wanted, stored = parse_timeframe(timeframe), self.stored(symbol)
        if wanted not in stored:
            raise self._not_stored(symbol, wanted, stored)
        return self.load(symbol, wanted)

    def _not_stored(self, symbol: str, timeframe: Timeframe, stored: list[Timeframe]) -> DataError:
        return DataError(
            f"{symbol} is not stored in {timeframe} (there are: {', '.join(stored)})",
            path="$.timeframe",
            symbol=symbol,
            timeframe=timeframe,
            known=stored,
        )

    def source_of(self, symbol: str, timeframe: str) -> Timeframe:
        """Return the timeframe to read for `timeframe`: itself if stored, else the finest stored one that divides it.

        Raises as `load` does.
        """
        wanted, stored = parse_timeframe(timeframe), self.stored(symbol)
        if wanted in stored:
            return wanted
        finer = [timeframe for timeframe in stored if divides(timeframe, wanted)]
        if not finer:
            raise DataError(
                f"no {wanted} bars of {symbol}, and none to make them from (there are: {', '.join(stored)})",
                path="$.timeframe",
                symbol=symbol,
                timeframe=wanted,
                known=stored,
            )
        return finer[0]

    def _nothing_between(
        self, symbol: str, timeframe: Timeframe, start_us: int | None, end_us: int | None, path: Path
    ) -> DataError:
        info = _read_info(path)
        asked_range = " ".join(
            f"{word} {instant(bound)}" for word, bound in (("from", start_us), ("before", end_us)) if bound is not None
        )
        return DataError(
            f"no {timeframe} bars of {symbol} {asked_range}; there are bars from {instant(info.start_time * 1000)} "
            f"to {instant(info.end_time * 1000)}",
            symbol=symbol,
            timeframe=timeframe,
            startTime=info.start_time,
            endTime=info.end_time,
            bars=info.bars,
        )

    def _path(self, symbol: str, timeframe: Timeframe) -> Path:
        return self._folder(symbol) / f"{timeframe}.parquet"

    def _folder(self, symbol: str) -> Path:
        return self._root / folder_name(check_symbol(symbol))


def describe_series(info: SeriesInfo) -> str:
    """Return `2,148 bars from 2004-08-19 to 2013-03-01`, for messages."""
    return f"{info.bars:,} bars from {instant(info.start_time * 1000)} to {instant(info.end_time * 1000)}"


def check_symbol(symbol: str) -> str:
    """Return `symbol` if it can name a series, as `SYMBOL_RULE` says, else raise a `ValidationError`."""
    if is_symbol(symbol):
        return symbol
    raise ValidationError(
        f"{SYMBOL_RULE}, not {symbol!r}",
        path="$.symbol",
        expected=f"1 to {SYMBOL_MAX_CHARACTERS} printable characters",
        got=symbol,
    )


def folder_name(symbol: str) -> str:
    """Return `symbol` as one path component: all but letters, digits, `-` and `_` percent-escaped, dots too."""
    return quote(symbol, safe="").replace(".", "%2E").replace("~", "%7E")


def _read_info(path: Path) -> SeriesInfo:
    try:
        return read_footer(path).info
    except (DamagedFile, OSError) as error:
        raise _unreadable(path, error) from error


def _key_of(path: Path, timeframe: Timeframe) -> _SeriesKey:
    try:
        file = path.stat()
    except OSError as error:  # it was deleted a moment ago
        raise _unreadable(path, error) from error
    return _SeriesKey(path, file.st_mtime_ns, file.st_size, timeframe)


def _check_series(path: Path, footer: Footer, symbol: str, timeframe: Timeframe) -> None:
    """Raise `DataError` for a file that holds another series than its name says: it was copied there."""
    if (footer.info.symbol, footer.info.timeframe) != (symbol, timeframe):
        held = f"it holds {footer.info.symbol} {footer.info.timeframe}"
        raise _unreadable(path, DamagedFile(held))


def _scan(path: Path, symbol: str, stored: Timeframe, start_us: int | None, end_us: int | None) -> Bars:
    """Return the bars of [start, end), reading only the row groups that can hold them."""
    rows = pl.scan_parquet(path)
    if start_us is not None:
        rows = rows.filter(pl.col("timestamp") >= pl.lit(start_us).cast(pl.Datetime("us", "UTC")))
    if end_us is not None:
        rows = rows.filter(pl.col("timestamp") < pl.lit(end_us).cast(pl.Datetime("us", "UTC")))
    try:
        return bars_from_frame(symbol, stored, rows.collect())
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> DataError:
    symbol, timeframe = unquote(path.parent.name), path.stem
    return DataError(
        f"the catalogue's file {_name(path)} cannot be read: {error}; import the data again, or remove it: "
        f"backtestr data delete {symbol} {timeframe}",
        file=str(path),
    )


def _name(path: Path) -> str:
    return os.path.join(path.parent.name, path.name)
