"""Reversion to the mean by Wilder's relative strength index (1978)."""

from __future__ import annotations

from backtestr_engine.authoring import Bars, Float, Int, Signals, algorithm, falls_below, rises_above, rsi

NEUTRAL = 50.0
"""The index where gains and losses are even: the mean to which it reverts."""


@algorithm(
    "rsi_reversion",
    timeperiod=Int(14, low=2, high=500, description="bars in the index"),
    oversold=Float(30.0, low=1.0, high=49.0, description="buy when the index falls below this"),
    overbought=Float(70.0, low=51.0, high=99.0, description="sell short when the index rises above this"),
    # Wilder's average is an exponential one with α = 1 / timeperiod: what came before weighs e^−10.
    warmup=lambda timeperiod: 10 * timeperiod,
)
def rsi_reversion(bars: Bars, timeperiod: int, oversold: float, overbought: float) -> Signals:
    """Long when the RSI falls below `oversold`, short when it rises above `overbought`; out when it passes 50."""
    index = rsi(bars.close, timeperiod)
    return Signals.of(
        entries=falls_below(index, oversold),
        exits=rises_above(index, NEUTRAL),
        short_entries=rises_above(index, overbought),
        short_exits=falls_below(index, NEUTRAL),
    )
