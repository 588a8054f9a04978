"""Bars: the one form in which prices exist inside the engine, what is wrong with them, and higher timeframes.

A `Bars` is valid by construction: whoever makes one from outside data calls `checked_bars`, which refuses what no
algorithm could use and names each fault with its count and first rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from backtestr_protocol.errors import DataError
from backtestr_protocol.messages import Timeframe

from .arrays import AnyArray, Booleans, Floats, Integers
from .timeframes import LENGTH_US, divides, open_times

COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")
FIRST_ROWS = 5
"""How many offending rows a fault shows: enough to find it, few enough to read."""


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """Bars of one symbol and timeframe, all arrays of equal length, C-contiguous and read-only.

    `timestamp`: open times, int64 microseconds since the Unix epoch UTC, strictly increasing.
    `open high low close`: float64, finite and positive, low ≤ open, close ≤ high. `volume`: float64, not negative.
    """

    symbol: str
    timeframe: Timeframe
    timestamp: Integers
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    def __post_init__(self) -> None:
        for name in COLUMNS:
            kind: type = np.int64 if name == "timestamp" else np.float64
            # A view: freezing it leaves the caller's own array writable.
            column: AnyArray = np.ascontiguousarray(getattr(self, name), dtype=kind).view()
            if column.shape != self.timestamp.shape or column.ndim != 1:
                raise ValueError(f"{name} has shape {column.shape}, timestamp has {self.timestamp.shape}")
            column.flags.writeable = False
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.timestamp)

    def __getitem__(self, rows: slice) -> Bars:
        """The bars of a slice without a step, sharing memory."""
        if rows.step not in (None, 1):
            raise ValueError("bars are sliced without a step")
        return Bars(self.symbol, self.timeframe, *(getattr(self, name)[rows] for name in COLUMNS))

    def between(self, start_us: int | None, end_us: int | None) -> Bars:
        """The bars that open in [start, end), microseconds UTC; None is unbounded."""
        first = 0 if start_us is None else int(np.searchsorted(self.timestamp, start_us))
        last = len(self) if end_us is None else int(np.searchsorted(self.timestamp, end_us))
        return self[first : max(first, last)]

    def closed_at(self, row: int) -> int:
        """When bar `row` is complete: its open time plus the timeframe, microseconds UTC."""
        return int(self.timestamp[row]) + LENGTH_US[self.timeframe]

    @property
    def nbytes(self) -> int:
        return sum(int(getattr(self, name).nbytes) for name in COLUMNS)

    def to_frame(self) -> pl.DataFrame:
        """`timestamp` (datetime[us, UTC]) `open high low close volume`, without copying."""
        frame = pl.DataFrame({name: getattr(self, name) for name in COLUMNS})
        return frame.with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))


def bars_from_frame(symbol: str, timeframe: Timeframe, frame: pl.DataFrame) -> Bars:
    """The inverse of `Bars.to_frame`, of a frame known to hold valid bars (the catalogue's own)."""
    whole = frame.select(pl.col("timestamp").to_physical(), *COLUMNS[1:]).rechunk()
    return Bars(symbol, timeframe, *(whole[name].to_numpy() for name in COLUMNS))


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a column in `count` rows; `first` are the first of their row numbers, counted from 0."""

    column: str
    reason: str
    count: int
    first: tuple[int, ...]


def faults(bars: Bars) -> list[Fault]:
    """Everything that makes these rows no bars, in the order in which a reader would look: time, then prices."""
    steps = np.diff(bars.timestamp)
    found = [
        _fault("timestamp", "the same time as the row before", steps == 0, shift=1),
        _fault("timestamp", "an earlier time than the row before", steps < 0, shift=1),
    ]
    all_finite = np.ones(len(bars), dtype=np.bool_)
    for name in ("open", "high", "low", "close"):
        prices: Floats = getattr(bars, name)
        finite = np.isfinite(prices)
        all_finite &= finite
        found.append(_fault(name, f"{name} is not a finite number", ~finite))
        found.append(_fault(name, f"{name} is zero or negative", finite & (prices <= 0)))
    high_is_low = bars.high < np.maximum(bars.open, bars.close)
    low_is_high = bars.low > np.minimum(bars.open, bars.close)
    volume_is_sound = np.isfinite(bars.volume) & (bars.volume >= 0)
    return [
        fault
        for fault in (
            *found,
            _fault("high", "high is below open or close", all_finite & high_is_low),
            _fault("low", "low is above open or close", all_finite & low_is_high),
            _fault("volume", "volume is negative or not a finite number", ~volume_is_sound),
        )
        if fault is not None
    ]


def _fault(column: str, reason: str, wrong: Booleans, *, shift: int = 0) -> Fault | None:
    if not wrong.any():
        return None
    rows = np.flatnonzero(wrong)
    return Fault(column, reason, len(rows), tuple(int(row) + shift for row in rows[:FIRST_ROWS]))


def checked_bars(
    symbol: str,
    timeframe: Timeframe,
    timestamp: AnyArray,
    open: AnyArray,
    high: AnyArray,
    low: AnyArray,
    close: AnyArray,
    volume: AnyArray,
) -> Bars:
    """`Bars` of arrays from outside, or a `DataError` that names every fault with its count and first rows."""
    bars = Bars(symbol, timeframe, timestamp, open, high, low, close, volume)
    found = faults(bars)
    if found:
        described = "; ".join(f"{f.reason} in {f.count} rows (first: {', '.join(map(str, f.first))})" for f in found)
        raise DataError(
            f"{symbol} {timeframe} is no series of bars: {described}",
            faults=[{"reason": fault.reason, "count": fault.count, "rows": list(fault.first)} for fault in found],
        )
    return bars


def resample(bars: Bars, timeframe: Timeframe) -> Bars:
    """Bars of a higher timeframe that theirs divides: first open, highest high, lowest low, last close, summed volume.

    Opens lie on the edges of `timeframe` in UTC (weeks on Monday). A bar exists where at least one finer bar does; the
    first and the last may be incomplete.
    """
    if bars.timeframe == timeframe:
        return bars
    if not divides(bars.timeframe, timeframe):
        raise ValueError(f"{timeframe} bars cannot be made from {bars.timeframe} bars")
    if not len(bars):
        return Bars(bars.symbol, timeframe, *(getattr(bars, name) for name in COLUMNS))
    opened = open_times(bars.timestamp, timeframe)
    first = np.flatnonzero(np.concatenate(([True], opened[1:] != opened[:-1])))
    last = np.append(first[1:], len(bars)) - 1
    return Bars(
        bars.symbol,
        timeframe,
        opened[first],
        bars.open[first],
        np.maximum.reduceat(bars.high, first),
        np.minimum.reduceat(bars.low, first),
        bars.close[last],
        np.add.reduceat(bars.volume, first),
    )
