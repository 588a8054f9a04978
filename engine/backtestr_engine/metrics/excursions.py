"""Drawdowns of the account, and excursions of single trades."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from backtestr_engine.bit_masks import bits_from
from backtestr_engine.compiled import compiled
from backtestr_engine.data.arrays import Floats, Integers, Records
from backtestr_engine.data.bars import Bars
from backtestr_engine.vectors import BARS_PER_MASK, FALLS_TOGETHER, falls_of_64, falls_of_few, reaching


class Drawdowns(NamedTuple):
    """The drawdowns of equity from a first value on; each lasts from a peak to the bar that regains it, or to the last.

    `deepest` and `mean_depth` are the largest and the mean of their depths 1 − eᵢ / peak, each at its deepest point;
    the mean is NaN without any. `longest_us` and `mean_us` are those of their durations. `ulcer` is
    √mean((1 − eᵢ / peak)²) over all bars. `peak` and `lowest` are the largest and smallest value.
    """

    deepest: float
    mean_depth: float
    longest_us: int
    mean_us: float
    ulcer: float
    peak: float
    lowest: float


ROUNDING = 1e-12
"""A fraction of the peak: equity that is below it by no more is at the peak, but for rounding."""


@compiled(error_model="numpy")
def drawdowns(equity: Floats, timestamp: Integers, first: float, first_time: int) -> Drawdowns:
    """Find all drawdowns in one pass; the first peak is the value `first`, at `first_time`.

    Equity within `ROUNDING` of its peak has regained it, so that sums in another order have the same drawdowns. Where
    many bars are below the peak, as most are, they are taken at once.
    """
    peak = trough = lowest = first
    per_peak, floor = 1.0 / peak, peak - abs(peak) * ROUNDING
    peak_time = first_time
    deepest = depths = squares = 0.0
    count = longest = total = 0
    fell = False
    regained, seen = np.uint64(0), 0  # bars up to `seen` that reach the floor of the first: it only rises
    bar = 0
    while bar < equity.size:
        if bar + BARS_PER_MASK <= equity.size and bar % BARS_PER_MASK == 0:
            regained, seen = reaching(equity, floor, bar), bar + BARS_PER_MASK
            if regained == 0:
                below, of_part = falls_of_64(equity, bar, per_peak)
                trough, fell = min(trough, below), True
                squares += of_part
                bar = seen
                continue
        end = min(bar + FALLS_TOGETHER, equity.size)
        if end <= seen and bits_from(regained, bar % BARS_PER_MASK, FALLS_TOGETHER) == 0:
            below, of_part = falls_of_few(equity, bar, per_peak)
            trough, fell = min(trough, below), True
            squares += of_part
            bar = end
            continue
        for at in range(bar, end):
            now = equity[at]
            if now < floor:
                trough, fell = min(trough, now), True
                fall = 1.0 - now * per_peak
                squares += fall * fall
                continue
            if fell and peak > 0.0:
                depth = 1.0 - trough / peak
                lasted = timestamp[at] - peak_time
                deepest, longest = max(deepest, depth), max(longest, lasted)
                depths += depth
                total += lasted
                count += 1
            lowest = min(lowest, trough)
            trough, fell = now, False
            peak_time = timestamp[at]
            if now > peak:
                peak = now
                per_peak, floor = 1.0 / peak, peak - abs(peak) * ROUNDING
        bar = end
    if fell and peak > 0.0:
        depth = 1.0 - trough / peak
        lasted = timestamp[equity.size - 1] - peak_time
        deepest, longest = max(deepest, depth), max(longest, lasted)
        depths += depth
        total += lasted
        count += 1
    lowest = min(lowest, trough)
    ulcer = math.sqrt(squares / equity.size)
    if deepest > 0.0:  # a fall is a product with a reciprocal, a depth a quotient: they round differently
        ulcer = min(ulcer, deepest)
    return Drawdowns(deepest, depths / count, longest, total / max(count, 1), ulcer, peak, lowest)


def fill_in_excursions(
    trades: Records, series: Sequence[Bars], *, fills_at_close: bool, still_open: bool = False
) -> None:
    """Set `mae` and `mfe` of trades in the symbols of `series`; for `still_open` trades the last bar counts too.

    They are the largest moves against and for the holder of each trade, as fractions of its entry price from 0 up. The
    prices are the entry's, the exit's, and the highs and lows of the bars between. The bar of the entry is one of them
    with fills at the open. The bar of the exit never is: a stop ends a trade within its bar, and the other prices of
    that bar may have come later. A trade of several entries counts from the first, and from their average price.
    """
    for symbol, bars in enumerate(series):
        _fill_in(trades, symbol, bars.timestamp, bars.high, bars.low, fills_at_close, still_open)


@compiled()
def _fill_in(
    trades: Any, symbol: int, timestamp: Integers, high: Floats, low: Floats, fills_at_close: bool, still_open: bool
) -> None:
    entry_bar = 0
    for at in range(trades.size):
        trade = trades[at]
        if trade.symbol != symbol:
            continue
        entry_time, exit_time = trade.entry_time, trade.exit_time + (1 if still_open else 0)
        if timestamp[entry_bar] > entry_time:
            entry_bar = np.searchsorted(timestamp, entry_time)
        while timestamp[entry_bar] < entry_time:  # a search that jumps would wait for memory
            entry_bar += 1
        highest, lowest = max(trade.entry_price, trade.exit_price), min(trade.entry_price, trade.exit_price)
        bar = entry_bar + (1 if fills_at_close else 0)
        while bar < timestamp.size and timestamp[bar] < exit_time:
            highest = max(highest, high[bar])
            lowest = min(lowest, low[bar])
            bar += 1
        entry_bar = min(bar, timestamp.size - 1)  # where the search for the next one begins
        up, down = highest / trade.entry_price - 1.0, 1.0 - lowest / trade.entry_price
        trade.mae, trade.mfe = (down, up) if trade.side > 0 else (up, down)
