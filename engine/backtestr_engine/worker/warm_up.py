"""The warm-up compiles every kernel that a first backtest would wait for, or loads it from the cache on disk."""

from __future__ import annotations

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.backtest.plan import Plan
from backtestr_engine.backtest.run import Run
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.kernel_cache import close_kernel_cache
from backtestr_engine.publishing.backtest_streams import BacktestStreams
from backtestr_engine.simulation.conventions import Conventions, Options, resolve_options
from backtestr_protocol.messages import BacktestConfig

_BARS = 64


def warm(conventions: Conventions) -> None:
    """Run every built-in algorithm once on a few bars, and one on two symbols; their messages are encoded, not sent."""
    options = resolve_options({"streams": {"prices": True}}, conventions)
    bars, more = synthetic_bars("1m", _BARS), synthetic_bars("1m", _BARS, symbol="MORE")
    for algorithm in BUILT_IN.values():
        _run(algorithm, Panel.of([bars]), options)
    _run(BUILT_IN["buy_and_hold"], Panel.of([bars, more]), options)
    close_kernel_cache()


def _run(algorithm: Algorithm, panel: Panel, options: Options) -> None:
    config = BacktestConfig(
        algorithm_id=algorithm.algorithm_id,
        symbol=panel.symbols[0],
        initial_capital=10_000.0,
        timeframe=panel.timeframe,
        commission=0.001,
        slippage=0.001,
        parameters={},
    )
    run = Run(Plan(config, algorithm, algorithm.check({}), options, panel), "warm")
    streams = BacktestStreams("warm", panel, options.streams, {})
    streams.chunk(run.advance(_BARS), 0, _BARS)
    streams.progress(run.progress())
    run.finish()
