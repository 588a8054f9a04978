"""Breakouts from Donchian's channel, as the Turtles traded them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backtestr_engine.authoring import Bars, Int, Signals, algorithm, highest, lowest


@algorithm(
    "donchian_breakout",
    entry=Int(20, low=2, high=1000, description="bars whose high or low has to be exceeded to get in"),
    exit=Int(10, low=2, high=1000, description="bars whose low or high has to be exceeded to get out"),
    requires=["exit <= entry"],
    warmup=lambda entry: entry + 1,
)
def donchian_breakout(bars: Bars, entry: int, exit: int) -> Signals:
    """Long on a close above the highest high of `entry` bars, out below the lowest low of `exit` bars; short mirrored.

    The bar itself is not among the `entry` or `exit` bars.
    """
    return Signals.of(
        entries=bars.close > _before(highest(bars.high, entry)),
        exits=bars.close < _before(lowest(bars.low, exit)),
        short_entries=bars.close < _before(lowest(bars.low, entry)),
        short_exits=bars.close > _before(highest(bars.high, exit)),
    )


def _before(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the line of the bar before; NaN on the first bar."""
    return np.concatenate(([np.nan], line[:-1]))
