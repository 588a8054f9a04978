"""The crossover of two exponential moving averages of the close."""

from __future__ import annotations

from backtestr_engine.authoring import Bars, Int, Signals, algorithm, ema


@algorithm(
    "ema_cross",
    fast=Int(12, low=2, high=500, description="bars in the fast average"),
    slow=Int(26, low=3, high=1000, description="bars in the slow average"),
    requires=["fast < slow"],
    # By then the first value of an exponential average weighs (1 − 2 / (slow + 1))^(5 slow), which is e^−10.
    warmup=lambda slow: 5 * slow,
)
def ema_cross(bars: Bars, fast: int, slow: int) -> Signals:
    """Long when the fast exponential average crosses above the slow one, short when it crosses below."""
    return Signals.from_cross(ema(bars.close, fast), ema(bars.close, slow))
