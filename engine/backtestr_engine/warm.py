"""Warming: compiling, or loading from the cache on disk, every kernel that a first backtest would wait for."""

from __future__ import annotations

from .account import rules
from .algorithms import BUILT_IN
from .metrics import Walked, annualisation, compute_metrics
from .options import Conventions
from .synthetic import synthetic_bars
from .timeframes import LENGTH_US
from .walk import Walk

_BARS = 64
_CAPITAL = 10_000.0


def warm(conventions: Conventions) -> None:
    """Run every built-in algorithm, the fill loop and the metrics once on a few bars."""
    bars = synthetic_bars("1m", _BARS)
    rule = annualisation(bars.timeframe, conventions.calendar, conventions.risk_free)
    for algorithm in BUILT_IN.values():
        signals = algorithm.signals(bars, algorithm.check({}))
        walk = Walk(bars, signals.flags, rules(conventions, commission=0.001, slippage=0.001), _CAPITAL)
        events = walk.advance(_BARS)
        walked = Walked(
            initial_capital=_CAPITAL,
            bar_length_us=LENGTH_US[bars.timeframe],
            timestamp=bars.timestamp,
            equity=walk.equity,
            close=bars.close,
            trades=events.trades,
            account=walk.account[0],
        )
        compute_metrics(walked, rule)
