"""The catalogue: the stored series, on disk as Parquet and in memory while they are used.

One file per symbol and timeframe, `<root>/<symbol>/<timeframe>.parquet`, replaced as a whole and atomically. That of
`1M` is `1mo.parquet`, since `1m.parquet` is the same name to some file systems. The file's
own metadata has everything that a listing shows (symbol, number of bars, first and last open time), so a listing reads
no bars. A timeframe that is not stored is resampled from the finest stored one that divides it, or made of the stored
ticks (`<root>/<symbol>/tick.parquet`) if there is none.

Every load opens a file once: an import meanwhile gives later loads the new file, and this one the old. The checksums of
what is read are compared first (`series_file`), since damaged bars can end a process. A file of an earlier version has
none: it is read in a process of its own, and then stored with checksums.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote, unquote

import polars as pl

from backtestr_protocol.errors import DataError, DiskUnwritable, InvalidConfiguration, ValidationError, did_you_mean
from backtestr_protocol.file_names import file_name
from backtestr_protocol.messages import TICK, SeriesInfo, SeriesTimeframe, TickPrice, Timeframe, is_symbol
from backtestr_protocol.private_files import make_private
from backtestr_protocol.ranges import SYMBOL_MAX_CHARACTERS, SYMBOL_RULE
from backtestr_protocol.system.durable_files import remove, sync_folder
from backtestr_protocol.system_status import CacheStatus
from backtestr_protocol.timeframes import canonical_timeframe

from .bar_cache import BarCache, SeriesKey
from .bars import Bars, bars_from_frame, resample
from .instants import instant
from .series_file import DamagedFile, FileVersion, SeriesFile, open_series, version_of, write_series
from .tick_bars import bars_of_ticks
from .tick_file import TickFile, open_ticks, write_ticks
from .ticks import Ticks, check_price
from .timeframes import DAY_US, divides, is_dated, length_us, next_open_time, open_time, parse_timeframe
from .zones import UTC

_MAX_OPENINGS = 5
"""Openings of one file for a load: a file of an earlier version is opened again when it has been stored anew."""

_MONTHS = "mo"  # 1M and 1m would be one file where names do not differ in case
_BYTES_PER_BAR = 6 * 8
# The most bytes of a name on the usual file systems, and the characters of a hash that stands for what is left out.
_MAX_NAME = 255
_DIGEST_CHARACTERS = 32
# A range shorter than this part of its series is read alone; for a longer one the whole series is read and kept.
_PART_READ_ALONE = 0.25


class Catalog:
    """The series under `root`, with up to `cache_bytes` of them kept in memory between loads.

    `read_apart` reads a file that has no checksums where that may end the process. It raises `DataError`.
    """

    def __init__(
        self, root: Path, *, cache_bytes: int, read_apart: Callable[[Path, str, Timeframe], Bars] | None = None
    ) -> None:
        self._root = root
        self._cache = BarCache(cache_bytes)
        self._read_apart = read_apart

    @property
    def root(self) -> Path:
        """The folder that the series are in."""
        return self._root

    @property
    def cache_status(self) -> CacheStatus:
        """The counters of the bars that are kept in memory."""
        return self._cache.status

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
            time_zone=None if bars.zone == UTC or is_dated(bars.timeframe) else bars.zone,
        )
        path = self._path(bars.symbol, bars.timeframe)
        self._check_case(bars.symbol)
        with _writing(path):
            write_series(path, bars.to_frame(), info)
        return info

    def write_ticks(self, ticks: Ticks) -> SeriesInfo:
        """Store `ticks` in place of those of that symbol. Raises as `write` does."""
        if not len(ticks):
            raise DataError(f"{ticks.symbol} has no ticks to store")
        path = self._path(ticks.symbol, TICK)
        self._check_case(ticks.symbol)
        with _writing(path):
            return write_ticks(path, ticks)

    def _check_case(self, symbol: str) -> None:
        """Raise `DataError` where the folder is that of another symbol: some file systems ignore case."""
        folder = self._folder(symbol)
        if not folder.exists() or folder.name in (names := os.listdir(self._root)):
            return
        held = next((unquote(name) for name in names if name.casefold() == folder.name.casefold()), folder.name)
        raise DataError(
            f"{held} is stored here, and this file system does not tell it from {symbol}: name one of them otherwise, "
            f"or remove the stored one first: backtestr data delete {held}",
            path="$.symbol",
            symbol=symbol,
            known=[held],
        )

    def series(self) -> list[SeriesInfo]:
        """List every stored series, sorted by symbol, then from the finest timeframe to the coarsest.

        A file that cannot be read is left out; `load` raises the reason.
        """
        found = []
        for path in self._root.glob("*/*.parquet"):
            with contextlib.suppress(DataError):
                info = _read_info(path)
                if (folder_name(info.symbol), info.timeframe) == (path.parent.name, _timeframe_named(path)):
                    found.append(info)
        return sorted(found, key=lambda info: (info.symbol, _length_us(info.timeframe)))

    def load(
        self,
        symbol: str,
        timeframe: str,
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        price: TickPrice | None = None,
    ) -> Bars:
        """Return the bars that open in [start, end), microseconds UTC; None is unbounded.

        With a `price` they are made of that price of the stored ticks. Without, they are made of ticks where no stored
        bars make them, at `check_price`'s default.

        Raises `ValidationError` for an unknown timeframe, `InvalidConfiguration` for a price that the stored series
        does not have, and `DataError` for an unknown symbol (naming the near miss), a timeframe that cannot be made
        from the stored ones, a range without bars (naming the stored range) and a file that cannot be read.
        """
        wanted = parse_timeframe(timeframe)
        stored = self.source_of(symbol, wanted, price)
        path = self._path(symbol, stored)
        if stored == TICK:
            return self._made_of_ticks(symbol, wanted, start_us, end_us, price)
        whole = self._cache.get(SeriesKey(path, _version_of(path), wanted))
        if whole is not None and len(bars := whole.between(start_us, end_us)):
            return bars
        with self._opened(path, symbol, stored) as file:
            key = SeriesKey(path, file.version, wanted)
            whole = None if self._is_read_alone(key, file, start_us, end_us) else self._whole(key, file)
            if whole is None:
                bars = self._range(key._replace(start_us=start_us, end_us=end_us), file)
            else:
                bars = whole.between(start_us, end_us)
            if not len(bars):
                raise nothing_between(file.info, wanted, start_us, end_us)
        return bars

    @contextmanager
    def open_ticks(self, symbol: str) -> Iterator[TickFile]:
        """Open the stored ticks of `symbol`; what is read in the block is of one version.

        Raises `DataError` for a symbol without ticks, and for a file that cannot be read.
        """
        stored = self.stored(symbol)
        if TICK not in stored:
            raise self._not_stored(symbol, TICK, stored)
        path = self._path(symbol, TICK)
        try:
            with open_ticks(path) as file:
                _check_series(file.info, symbol, TICK)
                yield file
        except (DamagedFile, pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise _unreadable(path, error) from error

    def tick_price(self, symbol: str, timeframe: str, price: TickPrice | None) -> TickPrice | None:
        """Return the price of ticks that `load` makes bars of; None where it reads stored bars. Raises as `load`."""
        if self.source_of(symbol, timeframe, price) != TICK:
            return None
        with self.open_ticks(symbol) as file:
            return check_price(symbol, file.columns, price)

    def _made_of_ticks(
        self, symbol: str, timeframe: Timeframe, start_us: int | None, end_us: int | None, price: TickPrice | None
    ) -> Bars:
        """Return the bars of a range from memory, or make them of ticks, part after part, and keep them."""
        with self.open_ticks(symbol) as file:
            chosen = check_price(symbol, file.columns, price)
            key = SeriesKey(self._path(symbol, TICK), file.file_version, timeframe, start_us, end_us, chosen)
            bars = self._cache.get(key)
            if bars is None:
                zone = file.info.time_zone or UTC
                parts = file.parts(file.rows_between(*_finer_range(timeframe, zone, start_us, end_us)))
                bars = bars_of_ticks(symbol, timeframe, chosen, parts, zone).between(start_us, end_us)
                self._cache.put(key, bars)
            if not len(bars):
                raise nothing_between(file.info, timeframe, start_us, end_us)
        return bars

    @contextmanager
    def _opened(self, path: Path, symbol: str, stored: Timeframe) -> Iterator[SeriesFile]:
        """Open a file of the catalogue that holds what its name says. Raises `DataError`."""
        for _ in range(_MAX_OPENINGS):
            try:
                with open_series(path) as file:
                    _check_series(file.info, symbol, stored)
                    if file.row_groups is not None or self._read_apart is None:
                        yield file
                        return
            except (DamagedFile, OSError) as error:
                raise _unreadable(path, error) from error
            self._store_anew(path, file.version, symbol, stored)
        raise _unreadable(path, DamagedFile("it is stored anew again and again"))

    def _store_anew(self, path: Path, version: FileVersion, symbol: str, stored: Timeframe) -> None:
        """Store a file of an earlier version with checksums, unless another file has taken its name meanwhile."""
        assert self._read_apart is not None
        try:
            bars = self._read_apart(path, symbol, stored)
        except DataError as error:
            if _version_of(path) == version:
                raise _unreadable(path, error) from error
            return
        if _version_of(path) == version:
            self.write(bars)

    def _is_read_alone(self, key: SeriesKey, file: SeriesFile, start_us: int | None, end_us: int | None) -> bool:
        """Return whether the range is a small part of a series that is not in memory."""
        info = file.info
        if self._cache.get(key._replace(timeframe=parse_timeframe(info.timeframe))) is not None:
            return False
        first, last = info.start_time * 1000, info.end_time * 1000
        start = first if start_us is None else max(first, start_us)
        end = last if end_us is None else min(last, end_us)
        return end - start < _PART_READ_ALONE * (last - first)

    def _range(self, key: SeriesKey, file: SeriesFile) -> Bars:
        """Return the bars of the key's range from memory, or read the row groups that hold it and keep the bars."""
        bars = self._cache.get(key)
        if bars is None:
            start, end = key.start_us, key.end_us
            first, last = _finer_range(key.timeframe, file.info.time_zone or UTC, start, end)
            bars = resample(_bars_of(file, key.path, first, last), key.timeframe).between(start, end)
            self._cache.put(key, bars)
        return bars

    def _whole(self, key: SeriesKey, file: SeriesFile) -> Bars | None:
        """Return the whole series from memory, or read and keep it; None when it is too large to be kept."""
        bars, stored = self._cache.get(key), parse_timeframe(file.info.timeframe)
        if bars is None and key.timeframe != stored:
            finer = self._whole(key._replace(timeframe=stored), file)
            bars = None if finer is None else resample(finer, key.timeframe)
            if bars is not None:
                self._cache.put(key, bars)
        elif bars is None and self._cache.fits(file.info.bars * _BYTES_PER_BAR):
            bars = _bars_of(file, key.path)
            self._cache.put(key, bars)
        return bars

    def stored(self, symbol: str) -> list[SeriesTimeframe]:
        """Return the stored timeframes of `symbol`, finest first; `tick` before all.

        Raises `DataError`, naming the near miss, for a symbol without series.
        """
        folder = self._folder(symbol)
        named = (_timeframe_named(path) for path in folder.glob("*.parquet") if path.is_file())
        stored = [timeframe for timeframe in named if timeframe is not None]
        if stored:
            return sorted(stored, key=_length_us)
        symbols = sorted({info.symbol for info in self.series()})
        listed = ", ".join(symbols[:20]) + (", …" if len(symbols) > 20 else "") or "there is none yet"
        raise DataError(
            f"unknown symbol {symbol!r}{did_you_mean(symbol, symbols)} ({listed})",
            path="$.symbol",
            symbol=symbol,
            known=symbols[:20],
        )

    def delete(self, symbol: str, timeframe: str | None = None) -> list[SeriesTimeframe]:
        """Remove a series, or every series of `symbol`, and return the removed timeframes. A damaged file goes too.

        Raises `ValidationError` for an unknown timeframe and `DataError` for a series that is not stored.
        """
        stored = self.stored(symbol)
        removed = stored if timeframe is None else [TICK if timeframe == TICK else parse_timeframe(timeframe)]
        for one in removed:
            if one not in stored:
                raise self._not_stored(symbol, one, stored)
        for one in removed:
            remove(self._path(symbol, one))
        with contextlib.suppress(OSError):  # another worker has written a file to it
            self._folder(symbol).rmdir()
        sync_folder(self._root)
        return removed

    def load_stored(self, symbol: str, timeframe: str) -> Bars:
        """Return all bars of a series that is stored in this very timeframe. Raises as `load` does."""
        wanted, stored = parse_timeframe(timeframe), self.stored(symbol)
        if wanted not in stored:
            raise self._not_stored(symbol, wanted, stored)
        return self.load(symbol, wanted)

    def _not_stored(self, symbol: str, timeframe: SeriesTimeframe, stored: list[SeriesTimeframe]) -> DataError:
        what = "has no stored ticks" if timeframe == TICK else f"is not stored in {timeframe}"
        return DataError(
            f"{symbol} {what} (there are: {', '.join(stored)})",
            path="$.timeframe",
            symbol=symbol,
            timeframe=timeframe,
            known=stored,
        )

    def source_of(self, symbol: str, timeframe: str, price: TickPrice | None = None) -> SeriesTimeframe:
        """Return the timeframe to read for `timeframe`: itself if stored, else the finest stored one that divides it.

        It is `tick` with a price of ticks, and where no stored bars make it. Raises as `load` does.
        """
        wanted, stored = parse_timeframe(timeframe), self.stored(symbol)
        if price is not None:
            if TICK in stored:
                return TICK
            raise InvalidConfiguration(
                f"price {price!r} chooses the price of ticks, and {symbol} has none (there are: {', '.join(stored)})",
                paths=["$.price"],
            )
        if wanted in stored:
            return wanted
        finer = [one for one in stored if one != TICK and divides(one, wanted)]
        if not finer and TICK in stored:
            return TICK
        if not finer:
            raise DataError(
                f"no {wanted} bars of {symbol}, and none to make them from (there are: {', '.join(stored)})",
                path="$.timeframe",
                symbol=symbol,
                timeframe=wanted,
                known=stored,
            )
        return finer[0]

    def _path(self, symbol: str, timeframe: SeriesTimeframe) -> Path:
        return self._folder(symbol) / f"{timeframe.replace('M', _MONTHS)}.parquet"

    def _folder(self, symbol: str) -> Path:
        return self._root / folder_name(check_symbol(symbol))


def nothing_between(
    info: SeriesInfo, timeframe: SeriesTimeframe, start_us: int | None, end_us: int | None
) -> DataError:
    """Return the error for a range in which the stored series `info` has no bars of `timeframe`, or no ticks."""
    asked_range = " ".join(
        f"{word} {instant(bound)}" for word, bound in (("from", start_us), ("before", end_us)) if bound is not None
    )
    asked = "ticks" if timeframe == TICK else f"{timeframe} bars"
    kind = "ticks" if info.timeframe == TICK else "bars"
    return DataError(
        f"no {asked} of {info.symbol} {asked_range}; there are {kind} from {instant(info.start_time * 1000)} "
        f"to {instant(info.end_time * 1000)}",
        symbol=info.symbol,
        timeframe=timeframe,
        startTime=info.start_time,
        endTime=info.end_time,
        bars=info.bars,
    )


def describe_series(info: SeriesInfo) -> str:
    """Return `2,148 bars from 2004-08-19 to 2013-03-01`, for messages."""
    kind = "ticks" if info.timeframe == TICK else "bars"
    return f"{info.bars:,} {kind} from {instant(info.start_time * 1000)} to {instant(info.end_time * 1000)}"


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
    """Return `symbol` as one path component: all but letters, digits, `-` and `_` percent-escaped, dots too.

    A name that no file system takes ends after its first characters, with `~` and a hash of the symbol: 29 Chinese
    characters are 261 bytes when they are escaped. No other name has a `~`. The file has the whole symbol.
    The first character of what would be a device on Windows is percent-escaped.
    """
    name = file_name(quote(symbol, safe="").replace(".", "%2E").replace("~", "%7E"))
    if len(name) <= _MAX_NAME:
        return name
    digest = sha256(symbol.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{name[: _MAX_NAME - len(digest) - 1]}~{digest}"


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Make the file's folder, and raise `DiskUnwritable` for what keeps the file from being written."""
    try:
        make_private(path.parent)
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DiskUnwritable(
            f"the catalogue's file {_name(path)} cannot be written, and is as it was: {error}", file=str(path)
        ) from error


def _finer_range(
    timeframe: Timeframe, zone: str, start_us: int | None, end_us: int | None
) -> tuple[int | None, int | None]:
    """Return the range of bars or ticks that hold all of the bars of `timeframe` that open in [start, end)."""
    # A date begins up to 14 hours before or after it does in UTC.
    away = DAY_US if is_dated(timeframe) and zone != UTC else 0
    first = None if start_us is None else open_time(start_us, timeframe) - away
    last = None if end_us is None else next_open_time(end_us, timeframe) + away
    return first, last


def _read_info(path: Path) -> SeriesInfo:
    try:
        with open_series(path) as file:
            return file.info
    except (DamagedFile, OSError) as error:
        raise _unreadable(path, error) from error


def _version_of(path: Path) -> FileVersion:
    try:
        return version_of(path)
    except OSError as error:  # it was deleted a moment ago
        raise _unreadable(path, error) from error


def _check_series(info: SeriesInfo, symbol: str, timeframe: SeriesTimeframe) -> None:
    """Raise `DamagedFile` for a file that holds another series than its name says: it was copied there."""
    if (info.symbol, info.timeframe) != (symbol, timeframe):
        raise DamagedFile(f"it holds {info.symbol} {info.timeframe}")


def _bars_of(file: SeriesFile, path: Path, start_us: int | None = None, end_us: int | None = None) -> Bars:
    """Return the bars of [start, end), reading only the row groups that can hold them. Raises `DataError`."""
    info = file.info
    try:
        frame = file.read(start_us, end_us)
        return bars_from_frame(info.symbol, parse_timeframe(info.timeframe), frame, info.time_zone or UTC)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, DamagedFile, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _length_us(timeframe: SeriesTimeframe) -> int:
    """Return the length of a timeframe, 0 for ticks: they are finer than bars."""
    return 0 if timeframe == TICK else length_us(timeframe)


def _timeframe_named(path: Path) -> SeriesTimeframe | None:
    """Return the timeframe that a file of the catalogue is named for, None for another file."""
    name = path.stem
    timeframe = f"{name.removesuffix(_MONTHS)}M" if name.endswith(_MONTHS) else name
    return timeframe if timeframe == TICK or canonical_timeframe(timeframe) == timeframe else None


def _unreadable(path: Path, error: BaseException) -> DataError:
    symbol, timeframe = unquote(path.parent.name), _timeframe_named(path)
    command = "its folder" if "~" in path.parent.name else f"backtestr data delete {symbol} {timeframe}"
    return DataError(
        f"the catalogue's file {_name(path)} cannot be read: {error}; import the data again, or remove it: {command}",
        file=str(path),
    )


def _name(path: Path) -> str:
    return os.path.join(path.parent.name, path.name)
