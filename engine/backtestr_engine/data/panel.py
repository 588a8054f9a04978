"""The panel: bars of several symbols in one timeframe, along the union of their open times.

    average = panel.each(lambda bars: sma(bars.close, 200))              # (rows, symbols), NaN where there is no bar
    return np.where(panel.close > average, 1 / len(panel.symbols), 0.0)  # weights

A row is an open time. `algorithms.weights` says when the weight of a symbol without a bar there is traded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from backtestr_protocol.messages import Timeframe

from .arrays import AnyArray, Floats, Integers
from .bars import Bars
from .zones import UTC


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """Bars of several symbols in one timeframe, made with `Panel.of`.

    `timestamp` is the union of the open times of all `series`, int64 µs UTC, increasing and read-only.
    """

    series: tuple[Bars, ...]
    timestamp: Integers

    @classmethod
    def of(cls, series: Sequence[Bars]) -> Panel:
        """Make a panel of at least one series, all of one timeframe and each of another symbol."""
        symbols = [bars.symbol for bars in series]
        if not series or len({bars.timeframe for bars in series}) != 1 or len(set(symbols)) != len(symbols):
            raise ValueError(f"a panel has one or more series of one timeframe, each of another symbol, not {symbols}")
        if all(np.array_equal(bars.timestamp, series[0].timestamp) for bars in series):
            return cls(tuple(series), series[0].timestamp)
        times = np.unique(np.concatenate([bars.timestamp for bars in series]))
        times.flags.writeable = False  # as those of bars are: kernels are compiled for read-only times
        return cls(tuple(series), times)

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(bars.symbol for bars in self.series)

    @property
    def timeframe(self) -> Timeframe:
        return self.series[0].timeframe

    @property
    def zone(self) -> str:
        """The zone whose dates the bars belong to: that of all series, UTC where they have several."""
        zones = {bars.zone for bars in self.series}
        return zones.pop() if len(zones) == 1 else UTC

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.timestamp)

    def first(self, rows: int) -> Panel:
        """Return the first `rows` rows; a symbol may have no bar in them."""
        times = self.timestamp[:rows]
        parts = (
            bars[: int(np.searchsorted(bars.timestamp, times[-1], "right")) if rows else 0] for bars in self.series
        )
        return Panel(tuple(parts), times)

    def rows_of(self, symbol: int) -> Integers:
        """Return the row of each bar of the symbol, symbols counted from 0."""
        rows: Integers = np.searchsorted(self.timestamp, self.series[symbol].timestamp)
        return rows

    def each(self, function: Callable[[Bars], AnyArray]) -> Floats:
        """Call `function` with the bars of each symbol and return its values as float64 of shape (rows, symbols).

        `function` returns one value per bar; where a symbol has no bar, the value is NaN.
        """
        values = np.full((len(self), len(self.series)), np.nan)
        for column, bars in enumerate(self.series):
            if len(bars):
                values[self.rows_of(column), column] = function(bars)
        return values

    @property
    def open(self) -> Floats:
        return self.each(lambda bars: bars.open)

    @property
    def high(self) -> Floats:
        return self.each(lambda bars: bars.high)

    @property
    def low(self) -> Floats:
        return self.each(lambda bars: bars.low)

    @property
    def close(self) -> Floats:
        return self.each(lambda bars: bars.close)

    @property
    def volume(self) -> Floats:
        return self.each(lambda bars: bars.volume)

    def market(self) -> Floats:
        """Return the value, on every row, of equal parts of 1 put into each symbol at its first close.

        Until then a part is cash. For one symbol, the closes themselves are returned.
        """
        if len(self.series) == 1:
            return self.series[0].close
        value = np.zeros(len(self))
        for bars in self.series:
            if len(bars) == len(self):
                value += bars.close / bars.close[0]
                continue
            if not len(bars):  # a part of a panel may end before the symbol's first bar
                value += 1.0
                continue
            latest = np.searchsorted(bars.timestamp, self.timestamp, "right") - 1
            value += np.where(latest < 0, 1.0, bars.close[np.maximum(latest, 0)] / bars.close[0])
        return value / len(self.series)
