"""The built-in algorithms, each compared with a slow plain loop over the bars that states its rule again."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from backtestr_engine.algorithms.parameters import Value
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.data.arrays import Booleans
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.indicators import falls_below, rises_above

NAN = float("nan")
SignalNames = list[frozenset[str]]
"""The names of the signals on every bar."""
Prices = Sequence[float]


def crossing(fast: Prices, slow: Prices) -> SignalNames:
    """Return long and short wherever the side changes; a tie keeps the side, and NaN clears it."""
    signals: SignalNames = []
    side = 0
    for one, other in zip(fast, slow, strict=True):
        now = 0 if one != one or other != other else (one > other) - (one < other) or side
        if now > 0 > side:
            signals.append(frozenset({"entries", "short_exits"}))
        elif now < 0 < side:
            signals.append(frozenset({"short_entries", "exits"}))
        else:
            signals.append(frozenset())
        side = now
    return signals


def mean(values: Prices, period: int) -> list[float]:
    return [
        NAN if bar < period - 1 else statistics.fmean(values[bar - period + 1 : bar + 1]) for bar in range(len(values))
    ]


def exponential(values: Prices, period: int, first: int) -> list[float]:
    """Return the average with α = 2 / (period + 1), from bar `first` on, where it is the mean of `period` values."""
    averages = [NAN] * len(values)
    for bar in range(first, len(values)):
        if bar == first:
            averages[bar] = statistics.fmean(values[bar - period + 1 : bar + 1])
        else:
            averages[bar] = averages[bar - 1] + 2 / (period + 1) * (values[bar] - averages[bar - 1])
    return averages


def sma_cross(bars: Bars, fast: int, slow: int) -> SignalNames:
    close = bars.close.tolist()
    return crossing(mean(close, fast), mean(close, slow))


def ema_cross(bars: Bars, fast: int, slow: int) -> SignalNames:
    close = bars.close.tolist()
    return crossing(exponential(close, fast, fast - 1), exponential(close, slow, slow - 1))


def macd(bars: Bars, fast: int, slow: int, signal: int) -> SignalNames:
    close = bars.close.tolist()
    fasts, slows = exponential(close, fast, slow - 1), exponential(close, slow, slow - 1)
    line = [one - other for one, other in zip(fasts, slows, strict=True)]
    return crossing(line, exponential(line, signal, slow + signal - 2))


def wilder(close: Prices, period: int) -> list[float]:
    """Return the relative strength index."""
    index = [NAN] * len(close)
    up = down = 0.0
    for bar in range(1, len(close)):
        change = close[bar] - close[bar - 1]
        rose, fell = max(change, 0.0), max(-change, 0.0)
        if bar <= period:
            up, down = up + rose / period, down + fell / period
        else:
            up, down = (up * (period - 1) + rose) / period, (down * (period - 1) + fell) / period
        if bar >= period:
            index[bar] = 100 * up / (up + down)
    return index


def reverting(line: Prices, low: Prices, middle: Prices, high: Prices) -> SignalNames:
    signals: SignalNames = [frozenset()]
    for bar in range(1, len(line)):
        was, now, before = line[bar - 1], line[bar], bar - 1
        signals.append(
            frozenset(
                name
                for name, happened in {
                    "entries": now < low[bar] and was >= low[before],
                    "exits": now > middle[bar] and was <= middle[before],
                    "short_entries": now > high[bar] and was <= high[before],
                    "short_exits": now < middle[bar] and was >= middle[before],
                }.items()
                if happened
            )
        )
    return signals


def rsi_reversion(bars: Bars, timeperiod: int, oversold: float, overbought: float) -> SignalNames:
    count = len(bars)
    return reverting(wilder(bars.close.tolist(), timeperiod), [oversold] * count, [50.0] * count, [overbought] * count)


def bollinger_reversion(bars: Bars, timeperiod: int, deviations: float) -> SignalNames:
    close = bars.close.tolist()
    middle = mean(close, timeperiod)
    spread = [
        NAN if bar < timeperiod - 1 else statistics.pstdev(close[bar - timeperiod + 1 : bar + 1])
        for bar in range(len(close))
    ]
    low = [average - deviations * width for average, width in zip(middle, spread, strict=True)]
    high = [average + deviations * width for average, width in zip(middle, spread, strict=True)]
    return reverting(close, low, middle, high)


def donchian_breakout(bars: Bars, entry: int, exit: int) -> SignalNames:
    signals: SignalNames = []
    for bar, close in enumerate(bars.close):
        names = set()
        if bar >= entry and close > bars.high[bar - entry : bar].max():
            names.add("entries")
        if bar >= exit and close < bars.low[bar - exit : bar].min():
            names.add("exits")
        if bar >= entry and close < bars.low[bar - entry : bar].min():
            names.add("short_entries")
        if bar >= exit and close > bars.high[bar - exit : bar].max():
            names.add("short_exits")
        signals.append(frozenset(names))
    return signals


def buy_and_hold(bars: Bars) -> SignalNames:
    return [frozenset({"entries"}), *[frozenset()] * (len(bars) - 1)]


LOOPS: dict[str, Callable[..., SignalNames]] = {
    one.__name__: one
    for one in (bollinger_reversion, buy_and_hold, donchian_breakout, ema_cross, macd, rsi_reversion, sma_cross)
}
OTHERS: dict[str, dict[str, Value]] = {
    "bollinger_reversion": {"timeperiod": 7, "deviations": 1.2},
    "donchian_breakout": {"entry": 6, "exit": 6},
    "ema_cross": {"fast": 3, "slow": 8},
    "macd": {"fast": 3, "slow": 10, "signal": 4},
    "rsi_reversion": {"timeperiod": 5, "oversold": 40, "overbought": 55},
    "sma_cross": {"fast": 2, "slow": 5},
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_follows_its_rule(name: str) -> None:
    for seed in range(4):
        bars = synthetic_bars("1h", 400, seed=seed)
        for given in ({}, OTHERS.get(name, {})):
            values = BUILT_IN[name].check(given)
            signals = BUILT_IN[name].signals(bars, values)
            expected = LOOPS[name](bars, **values)
            for signal in ("entries", "exits", "short_entries", "short_exits"):
                made: Booleans = getattr(signals, signal)
                assert np.flatnonzero(made).tolist() == [bar for bar, names in enumerate(expected) if signal in names]
            assert any(expected), "a test without a signal shows nothing"


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_gives_no_signal_on_too_few_bars(name: str) -> None:
    signals = BUILT_IN[name].signals(synthetic_bars("1h", 2), BUILT_IN[name].check({}))

    assert len(signals) == 2


def test_a_crossing_needs_a_bar_on_the_other_side() -> None:
    line = np.array([NAN, 1.0, 3.0, 3.0, 2.0, 1.0, NAN, 3.0, 2.0, 2.5, 1.0, 2.0])

    assert np.flatnonzero(rises_above(line, 2.0)).tolist() == [2, 9]
    assert np.flatnonzero(falls_below(line, 2.0)).tolist() == [5, 10]
    assert np.flatnonzero(falls_below(-line, -2.0)).tolist() == [2, 9]
    assert not rises_above(np.array([]), 1.0).any()
