"""Backtests small enough to check by hand: bars as rows, signals by bar, and the orders as published."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import numpy as np

from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.backtest.plan import Plan
from backtestr_engine.backtest.run import Run
from backtestr_engine.built_in import find_algorithm
from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_engine.publishing.backtest_streams import BacktestStreams
from backtestr_engine.publishing.payloads import Messages as Messages
from backtestr_engine.publishing.record_encoding import EncodedMaps
from backtestr_engine.simulation.conventions import resolve_options
from backtestr_protocol.messages import BacktestConfig
from support.engine.cases import CAPITAL, shipped_conventions

MINUTE_MS = 60_000
FLAT = (10.0, 10.0, 10.0, 10.0)

Row = tuple[float, float, float, float]
"""open, high, low, close"""

SignalsByBar = Mapping[str, Mapping[int, Any]]
"""For each argument of `Signals.of` by name, its values by bar."""


def bars_of(rows: Sequence[Row]) -> Bars:
    open, high, low, close = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    return Bars("LINE", "1m", np.arange(len(rows), dtype=np.int64) * MINUTE_MS * 1000, open, high, low, close, 0 * open)


def run_of(rows: Sequence[Row], signals: SignalsByBar, *, slippage: float = 0.0, **options: Any) -> Run:
    """Return a started run: ten units a trade, a capital of `CAPITAL` and no costs, unless `options` differ."""
    bars = bars_of(rows)
    algorithm = find_algorithm("buy_and_hold")
    config = BacktestConfig(
        algorithm_id=algorithm.algorithm_id,
        symbol=bars.symbol,
        initial_capital=CAPITAL,
        timeframe=bars.timeframe,
        commission=0.0,
        slippage=slippage,
        parameters={},
    )
    given = {"size": "units", "sizeValue": 10.0, **options}
    if given["size"] == "all_in":
        del given["sizeValue"]
    run = Run(Plan(config, algorithm, {}, resolve_options(given, shipped_conventions()), Panel.of([bars])), "b")
    columns: dict[str, Any] = {name: _column(name, at, len(bars)) for name, at in signals.items()}
    run.start_with(Signals.of(**columns))
    return run


def _column(name: str, at: Mapping[int, Any], bars: int) -> Floats | np.ndarray:
    prices = name.endswith(("price", "loss", "profit", "stop"))
    column = np.full(bars, math.nan) if prices else np.zeros(bars, dtype=np.bool_)
    for bar, value in at.items():
        column[bar] = value
    return column


def unpacked(run: Messages) -> list[dict[str, Any]]:
    """Return messages as the independent decoder reads them."""
    assert isinstance(run, EncodedMaps)
    return [msgpack.unpackb(run.between(one, one + 1)) for one in range(len(run))]


def published_orders(run: Run, *, bars_at_once: int = 1000) -> list[dict[str, Any]]:
    """Return the orders stream of the whole run, with `bar` in place of the time."""
    streams = BacktestStreams("b", run.plan.panel, run.plan.options.streams, {})
    orders: list[dict[str, Any]] = []
    while not run.done:
        first = run.bars_simulated
        for topic, events in streams.chunk(run.advance(bars_at_once), first, run.bars_simulated):
            if topic == "orders.b":
                orders += [one["data"] for one in unpacked(events)]
    return [{**one, "bar": one["timestamp"] // MINUTE_MS} for one in orders]


def order_history(run: Run) -> list[tuple[str, int, str, str | float | None]]:
    """Return for every message order, bar, status, and the price of the fill or the reason of the end."""
    return [
        (one["orderId"], one["bar"], one["status"], one.get("fillPrice", one.get("reason") or None))
        for one in published_orders(run)
    ]
