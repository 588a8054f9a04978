"""Reversion to the mean by Bollinger's bands."""

from __future__ import annotations

from backtestr_engine.authoring import Bars, Float, Int, Signals, algorithm, bbands, falls_below, rises_above


@algorithm(
    "bollinger_reversion",
    timeperiod=Int(20, low=2, high=1000, description="bars in the average and the deviation"),
    deviations=Float(2.0, low=0.1, high=10.0, description="standard deviations from the average to either band"),
    warmup=lambda timeperiod: timeperiod + 1,
)
def bollinger_reversion(bars: Bars, timeperiod: int, deviations: float) -> Signals:
    """Long when the close falls below the lower band, short when it rises above the upper; out at the average."""
    upper, middle, lower = bbands(bars.close, timeperiod, deviations)
    return Signals.of(
        entries=falls_below(bars.close, lower),
        exits=rises_above(bars.close, middle),
        short_entries=rises_above(bars.close, upper),
        short_exits=falls_below(bars.close, middle),
    )
