"""A higher timeframe as it looks from a lower one: on every lower bar, the last higher bar that had closed by then.

    hourly = bars.at("1h")                                   # bars of 5m
    trend = hourly.align(sma(hourly.bars.close, 20))         # one value per bar of 5m
    return Signals.of(entries=(bars.close > trend) & (hourly.close > hourly.open))

A bar of 10:00 to 11:00 is first seen on the lower bar that closes at 11:00, with all of its prices; what trades before
that sees the one of 9:00 to 10:00.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .arrays import AnyArray, Floats, Integers
from .timeframes import LENGTH_US

if TYPE_CHECKING:
    from .bars import Bars


@dataclass(frozen=True, slots=True, eq=False)
class Higher:
    """Made by `Bars.at`. `bars` are the higher bars that have closed, the first perhaps made of less than all of its
    time. `open high low close volume` are theirs, one value per lower bar, NaN before the first has closed."""

    bars: Bars
    seen_for: Integers
    """For how many lower bars no higher bar is seen yet, then for how many each is the last."""

    def align(self, values: AnyArray) -> AnyArray:
        """One value per higher bar as one per lower bar: that of the last closed. Before the first: NaN, or False where
        the values are booleans. Raises `ValueError` for another number of values."""
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


def seen_from(lower: Bars, made: Bars) -> Higher:
    """`made` of `lower`, as it is seen from there; its last bar is left out unless it has closed."""
    closed_at = lower.timestamp + LENGTH_US[lower.timeframe]
    ends = made.timestamp + LENGTH_US[made.timeframe]
    first_seen = np.searchsorted(closed_at, ends)
    closed = int(np.searchsorted(first_seen, len(lower)))
    seen_for = np.diff(first_seen[:closed], prepend=0, append=len(lower))
    return Higher(made[:closed], seen_for.astype(np.int64))
