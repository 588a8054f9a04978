"""This module has the backtest that the engine's benchmarks measure: sma_cross 10/30 on synthetic minutes."""

from __future__ import annotations

from typing import Any

from backtestr_engine.backtest.plan import Plan
from backtestr_engine.backtest.run import Run
from backtestr_engine.data.synthetic import SYMBOL
from backtestr_protocol.messages import BacktestConfig


def config(algorithm_id: str = "sma_cross", options: dict[str, Any] | None = None) -> BacktestConfig:
    return BacktestConfig(
        algorithm_id=algorithm_id,
        symbol=SYMBOL,
        start_date="2024-01-01",
        end_date="2100-01-01",
        initial_capital=100_000.0,
        timeframe="1m",
        commission=0.0005,
        slippage=0.0001,
        parameters={"fast": 10, "slow": 30},
        options=options or {},
    )


def backtest(plan: Plan, chunk_bars: int | None = None) -> Run:
    """Run it to its result, at once or in chunks."""
    run = Run(plan, "benchmark")
    run.start()
    while not run.done:
        run.advance(chunk_bars or run.bars_total)
    run.finish()
    return run
