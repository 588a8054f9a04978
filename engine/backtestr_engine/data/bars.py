"""Bars: the one form in which prices exist inside the engine, and higher timeframes made of them.

Bars are valid wherever they exist: an import validates the rows of a file before it makes bars of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from backtestr_protocol.messages import Timeframe

from .arrays import AnyArray, Floats, Integers
from .timeframes import close_time, close_times, divides, is_dated, open_times, parse_timeframe
from .zones import UTC

COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """Bars of one symbol and timeframe, all arrays of equal length, C-contiguous and read-only.

    `timestamp`: open times, int64 microseconds since the Unix epoch UTC, strictly increasing. Bars of a day and longer
    open on their date at midnight UTC, wherever their market is. `zone`: the IANA name of the zone whose dates shorter
    bars belong to.
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
    zone: str = field(default=UTC, kw_only=True)

    def __post_init__(self) -> None:
        for name in COLUMNS:
            kind: type = np.int64 if name == "timestamp" else np.float64
            # A view: making it read-only leaves the caller's own array writable.
            column: AnyArray = np.ascontiguousarray(getattr(self, name), dtype=kind).view()
            if column.shape != self.timestamp.shape or column.ndim != 1:
                raise ValueError(f"{name} has shape {column.shape}, timestamp has {self.timestamp.shape}")
            column.flags.writeable = False
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.timestamp)

    def __getitem__(self, rows: slice) -> Bars:
        """Return the bars of a slice without a step, sharing memory."""
        if rows.step not in (None, 1):
            raise ValueError("bars are sliced without a step")
        return Bars(self.symbol, self.timeframe, *(getattr(self, name)[rows] for name in COLUMNS), zone=self.zone)

    def between(self, start_us: int | None, end_us: int | None) -> Bars:
        """Return the bars that open in [start, end), microseconds UTC; None is unbounded."""
        first = 0 if start_us is None else int(np.searchsorted(self.timestamp, start_us))
        last = len(self) if end_us is None else int(np.searchsorted(self.timestamp, end_us))
        return self[first : max(first, last)]

    def closed_at(self, row: int) -> int:
        """Return when bar `row` is complete: its open time plus the timeframe, microseconds UTC."""
        return close_time(int(self.timestamp[row]), self.timeframe)

    def at(self, timeframe: str) -> Higher:
        """Return these bars in a higher timeframe: every bar sees only what has closed by then (`Higher`).

        Raises `ValidationError` for an unknown timeframe, and `ValueError` for one that theirs does not divide.
        """
        return seen_from(self, resample(self, parse_timeframe(timeframe, path="timeframe")))

    @property
    def nbytes(self) -> int:
        return sum(int(getattr(self, name).nbytes) for name in COLUMNS)

    def to_frame(self) -> pl.DataFrame:
        """Return `timestamp` (datetime[us, UTC]) `open high low close volume`, without copying."""
        frame = pl.DataFrame({name: getattr(self, name) for name in COLUMNS})
        return frame.with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))


@dataclass(frozen=True, slots=True, eq=False)
class Higher:
    """Bars of a higher timeframe as a lower one sees them: on every lower bar, the last that had closed by then.

    hourly = bars.at("1h")                                   # bars of 5m
    trend = hourly.align(sma(hourly.bars.close, 20))         # one value per bar of 5m
    return Signals.of(entries=(bars.close > trend) & (hourly.close > hourly.open))

    A bar of 10:00 to 11:00 is first seen on the lower bar that closes at 11:00, with all of its prices; lower bars that
    close earlier see the bar of 9:00 to 10:00.

    `Bars.at` makes it. `bars` are the higher bars that have closed; the first may cover only a part of its time. `open
    high low close volume` are theirs, one value per lower bar, NaN before the first has closed.
    """

    bars: Bars
    seen_for: Integers
    """The number of lower bars that see no higher bar yet, then for each higher bar the number that see it last."""

    def align(self, values: AnyArray) -> AnyArray:
        """Spread one value per higher bar to the lower bars: each has the value of the last higher bar that closed.

        Before the first it is NaN, or False where the values are booleans. Raises `ValueError` for another number of
        values.
        """
        if values.shape != (len(self.bars),):
            raise ValueError(f"there are {len(self.bars)} closed {self.bars.timeframe} bars, not {values.shape} values")
        unknown = np.zeros(1, dtype=np.bool_) if values.dtype == np.bool_ else np.full(1, np.nan)
        return np.repeat(np.concatenate((unknown, values)), self.seen_for)

    @property
    def open(self) -> Floats:
        return self.align(self.bars.open)

    @property
    def high(self) -> Floats:
        return self.align(self.bars.high)

    @property
    def low(self) -> Floats:
        return self.align(self.bars.low)

    @property
    def close(self) -> Floats:
        return self.align(self.bars.close)

    @property
    def volume(self) -> Floats:
        return self.align(self.bars.volume)


def bars_from_frame(symbol: str, timeframe: Timeframe, frame: pl.DataFrame, zone: str = UTC) -> Bars:
    """Invert `Bars.to_frame`, for a frame known to hold valid bars (the catalogue's own)."""
    whole = frame.select(pl.col("timestamp").to_physical(), *COLUMNS[1:]).rechunk()
    return Bars(symbol, timeframe, *(whole[name].to_numpy() for name in COLUMNS), zone=zone)


def resample(bars: Bars, timeframe: Timeframe) -> Bars:
    """Make bars of a higher timeframe: first open, highest high, lowest low, last close, summed volume.

    The timeframe of `bars` divides it. Opens lie on the edges of `timeframe` in UTC (weeks on Monday); a bar of days,
    weeks or months is made of the finer ones that open on its dates in the zone of `bars`. A bar exists where at least
    one finer bar does; the first and the last may be incomplete.
    """
    if bars.timeframe == timeframe:
        return bars
    if not divides(bars.timeframe, timeframe):
        raise ValueError(f"{timeframe} bars cannot be made from {bars.timeframe} bars")
    if not len(bars):
        return Bars(bars.symbol, timeframe, *(getattr(bars, name) for name in COLUMNS), zone=bars.zone)
    opened = open_times(bars.timestamp, timeframe, UTC if is_dated(bars.timeframe) else bars.zone)
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
        zone=bars.zone,
    )


def seen_from(lower: Bars, made: Bars) -> Higher:
    """Return `made`, which was made of `lower`, as the lower bars see it; its last bar must have closed to be seen."""
    closed_at = close_times(lower.timestamp, lower.timeframe)
    ends = close_times(made.timestamp, made.timeframe, UTC if is_dated(lower.timeframe) else lower.zone)
    first_seen = np.searchsorted(closed_at, ends)
    closed = int(np.searchsorted(first_seen, len(lower)))
    seen_for = np.diff(first_seen[:closed], prepend=0, append=len(lower))
    return Higher(made[:closed], seen_for.astype(np.int64))
