"""Warming: compiling, or loading from the cache on disk, every kernel that a first backtest would wait for."""

from __future__ import annotations

from backtestr_protocol.messages import BacktestConfig

from .algorithms import BUILT_IN
from .backtest import Plan, Run
from .options import Conventions, resolve_options
from .publisher import Publisher
from .synthetic import synthetic_bars

_BARS = 64


def warm(conventions: Conventions) -> None:
    """Run every built-in algorithm once on a few bars, and publish what happens to nobody."""
    bars = synthetic_bars("1m", _BARS)
    options = resolve_options({"streams": {"prices": True}}, conventions)
    for algorithm in BUILT_IN.values():
        config = BacktestConfig(
            algorithm_id=algorithm.algorithm_id,
            symbol=bars.symbol,
            start_date="",
            end_date="",
            initial_capital=10_000.0,
            timeframe=bars.timeframe,
            commission=0.001,
            slippage=0.001,
            parameters={},
        )
        run = Run(Plan(config, algorithm, algorithm.check({}), options, bars), "warm")
        publisher = Publisher("warm", bars, options.streams, {})
        publisher.chunk(run.advance(_BARS), 0, _BARS)
        publisher.progress(run.progress())
        run.finish()
