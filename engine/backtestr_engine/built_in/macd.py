"""Moving average convergence and divergence (Appel 1979): its line against its signal."""

from __future__ import annotations

from backtestr_engine.authoring import Bars, Int, Signals, algorithm
from backtestr_engine.authoring import macd as macd_lines


@algorithm(
    "macd",
    fast=Int(12, low=2, high=500, description="bars in the fast exponential average"),
    slow=Int(26, low=3, high=1000, description="bars in the slow exponential average"),
    signal=Int(9, low=2, high=500, description="bars in the exponential average of their difference"),
    requires=["fast < slow"],
    # As in ema_cross: what came before weighs e^−10 in each average.
    warmup=lambda slow, signal: 5 * (slow + signal),
)
def macd(bars: Bars, fast: int, slow: int, signal: int) -> Signals:
    """Long when the MACD line crosses above its signal, short when it crosses below."""
    return Signals.from_cross(*macd_lines(bars.close, fast, slow, signal))
