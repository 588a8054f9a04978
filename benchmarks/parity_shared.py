"""This module compares several symbols on one account with vectorbt's `cash_sharing`, and weights with its targets.

The equity of every bar and the figures of the run are compared, over grids of averages, directions, costs, sizes, stops
and both orders in which symbols are filled. Known differences are left out (docs/conventions.md): stops of short
positions under `auto`, and accounts that end below zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import oracles

from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.algorithms.weights import targets_of
from backtestr_engine.backtest.plan import Plan
from backtestr_engine.backtest.run import Result, Run
from backtestr_engine.built_in import find_algorithm
from backtestr_engine.config import load_config
from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.simulation.conventions import resolve_options
from backtestr_protocol.messages import BacktestConfig

CAPITAL = 10_000.0
COSTS = ((0.0, 0.0, 0.0), (0.001, 0.0, 0.0), (0.001, 3.0, 0.002))
CALL_SEQUENCE = {"given": "default", "sells_first": "auto"}
SIZES = (("all_in", 0.0), ("fraction", 0.4), ("value", 3_000.0), ("units", 40.0))
SIZE_TYPE = {"fraction": "percent", "value": "value", "units": "amount"}

Compared = tuple[str, Result, Any]


class _Market:
    """Three synthetic series in the forms of both sides."""

    def __init__(self) -> None:
        series = [synthetic_bars("1d", 900, symbol=f"S{number}", seed=100 + number) for number in range(3)]
        self.panel = Panel.of(series)
        pd = oracles.library("pandas")
        index = pd.to_datetime(self.panel.timestamp, unit="us")
        names = ("open", "high", "low", "close")
        self.frames = {
            name: pd.DataFrame({bars.symbol: getattr(bars, name) for bars in series}, index=index) for name in names
        }

    def ours(self, signals: Sequence[Signals], cost: tuple[float, float, float], order: str, **options: Any) -> Result:
        commission, fixed, slippage = cost
        given = {"preset": "vectorbt", "symbolOrder": order, "commissionFixed": fixed, **options}
        algorithm = find_algorithm("sma_cross")
        config = BacktestConfig(
            algorithm_id="",
            symbols=list(self.panel.symbols),
            initial_capital=CAPITAL,
            timeframe="1d",
            commission=commission,
            slippage=slippage,
            parameters={},
        )
        resolved = resolve_options(given, load_config(None).conventions)
        run = Run(Plan(config, algorithm, {}, resolved, self.panel), "parity")
        run.start_with(*signals)
        run.advance(len(self.panel))
        return run.finish()

    def settings(self, cost: tuple[float, float, float], order: str) -> dict[str, Any]:
        commission, fixed, slippage = cost
        costs = {"fees": commission, "fixed_fees": fixed, "slippage": slippage}
        shared = {"group_by": True, "cash_sharing": True, "call_seq": CALL_SEQUENCE[order], "engine": "numba"}
        return {"init_cash": CAPITAL, "freq": "1D", **costs, **shared}


def compare_shared(tolerance: float) -> int:
    """Run both on every case, print the differences, and return the number of cases that differ."""
    market = _Market()
    mismatches = 0
    for name, cases in (("signals", _signals(market)), ("weights", _weights(market))):
        worst, count = 0.0, 0
        for case, result, book in cases:
            count += 1
            difference = _difference(result, book)
            if difference > tolerance:
                mismatches += 1
                print(f"  {case}: differs by {difference:.1e}")
            else:
                worst = max(worst, difference)
        print(f"vectorbt, shared cash, {name}: {count} cases, worst relative difference {worst:.1e}")
    return mismatches


def _signals(market: _Market) -> Iterator[Compared]:
    library = oracles.library("vectorbt")
    close = market.frames["close"]
    grid = itertools.product(((5, 20), (10, 50)), COSTS, ("both", "long", "short"), SIZES, CALL_SEQUENCE, (0.0, 0.05))
    for (fast, slow), cost, direction, (size, value), order, stop in grid:
        if size == "fraction" and direction == "both":
            continue  # vectorbt refuses it
        if stop and order == "sells_first" and direction != "long":
            continue
        averages = (library.MA.run(close, fast), library.MA.run(close, slow))
        above, below = averages[0].ma_crossed_above(averages[1]), averages[0].ma_crossed_below(averages[1])
        above.columns = below.columns = close.columns
        signals = {
            "both": {"entries": above, "short_entries": below},
            "long": {"entries": above, "exits": below},
            "short": {"short_entries": below, "short_exits": above},
        }[direction]
        settings = market.settings(cost, order)
        options: dict[str, Any] = {"direction": direction, "stopLoss": stop}
        if stop:
            settings["sl_stop"] = stop
        if size != "all_in":
            settings |= {"size": value, "size_type": SIZE_TYPE[size]}
            options |= {"size": size, "sizeValue": value}
        prices = {name: frame for name, frame in market.frames.items() if name != "close"}
        book = library.Portfolio.from_signals(close, **prices, **signals, **settings)
        each = [
            Signals.of(**{name: frame.to_numpy()[:, column] for name, frame in signals.items()}) for column in range(3)
        ]
        case = f"{fast}/{slow}, costs {cost}, {direction}, {size}, {order}, stop {stop}"
        yield case, market.ours(each, cost, order, **options), book


def _weights(market: _Market) -> Iterator[Compared]:
    library, pd = oracles.library("vectorbt"), oracles.library("pandas")
    close, rows = market.frames["close"], len(market.panel)
    generator = np.random.default_rng(5)
    for cost, order, kind, every in itertools.product(
        COSTS, CALL_SEQUENCE, ("whole", "both sides", "too much"), (1, 7)
    ):
        weights: Floats = {
            "whole": lambda: generator.dirichlet(np.ones(3), size=rows),
            "both sides": lambda: generator.uniform(-0.4, 0.6, size=(rows, 3)),
            "too much": lambda: generator.uniform(0.0, 0.8, size=(rows, 3)),
        }[kind]()
        weights[np.arange(rows) % every != 0] = np.nan
        frame = pd.DataFrame(weights, index=close.index, columns=close.columns)
        settings = market.settings(cost, order)
        book = library.Portfolio.from_orders(close, size=frame, size_type="targetpercent", **settings)
        if book.value().min() > 0:
            signals = targets_of(market.panel, weights, fills_at_close=True)
            yield f"weights {kind} every {every}, costs {cost}, {order}", market.ours(signals, cost, order), book


def _difference(result: Result, book: Any) -> float:
    """Return the largest relative difference of the equity of any bar, and of the figures."""
    value = book.value().to_numpy()
    figures = {
        "totalTrades": int(book.trades.count()),
        "sharpeRatio": float(book.sharpe_ratio()),
        "sortinoRatio": float(book.sortino_ratio()),
        "maxDrawdown": -float(book.max_drawdown()),
        "totalFees": float(book.orders.records["fees"].sum()),
    }
    metrics = result.metrics.to_wire()
    of_figures = [abs(metrics[name] - theirs) / max(abs(theirs), 1e-4) for name, theirs in figures.items()]
    return float(max(np.max(np.abs(result.equity - value) / np.abs(value)), *of_figures))
