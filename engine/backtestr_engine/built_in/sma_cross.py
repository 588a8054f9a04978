"""The crossover of two simple moving averages of the close."""

from __future__ import annotations

from backtestr_engine.authoring import Bars, Int, Signals, algorithm, sma


@algorithm(
    "sma_cross",
    fast=Int(10, low=2, high=500, description="bars in the fast average"),
    slow=Int(30, low=3, high=1000, description="bars in the slow average"),
    requires=["fast < slow"],
    warmup="slow",
)
def sma_cross(bars: Bars, fast: int, slow: int) -> Signals:
    """Long when the fast average crosses above the slow one, short when it crosses below."""
    return Signals.from_cross(sma(bars.close, fast), sma(bars.close, slow))
