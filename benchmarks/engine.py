"""One backtest on 1M bars: the whole, its stages and its kinds of order, beside vectorbt and the memory's floor.

    make bench-engine

Every round runs each kind once, in turn, so that a noisy machine is noisy for all; medians are compared. The direct
call and those through the broker have rounds of their own, then come the stages and kinds of order, then vectorbt.

The bars are synthetic, in memory, and so is the result of the direct call: reading and storing are measured on their
own lines. The lines through the broker are from asking for the backtest to hearing that its result is stored: with
every order and position update published, once with nobody listening, once read to the last message by a client in
this process. Set TMPDIR to a folder in memory to leave the disk out of it.

The floor is what memory takes for the least that a backtest has to move: every column of the bars read once, the equity
written once. vectorbt is given the signals, ours computes them: `Portfolio.from_signals` and `stats()` by its numba
engine, with the same costs and exits. It needs the extra `bench`; without it those lines say so.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import oracles
from brokers import running_broker

from backtestr.client import Client
from backtestr.discovery import ConnectionFile
from backtestr.run import Stream
from backtestr_engine.algorithms import BUILT_IN
from backtestr_engine.authoring import Bars, Int, Signals, algorithm, sma
from backtestr_engine.backtest import Plan, Run, prepare
from backtestr_engine.catalog import Catalog
from backtestr_engine.config import load_config
from backtestr_engine.results import ResultStore
from backtestr_engine.synthetic import SYMBOL, synthetic_bars
from backtestr_engine.warm import warm
from backtestr_protocol.messages import BacktestConfig

TO_REACH_MS = 25.0
STOPS_TO_REACH_MS = 40.0
THROUGH_TO_REACH = 1.5
RIVAL_TO_REACH = 15.0
RIVAL_ROUNDS = 7
WHOLE = "backtest, all metrics"
STOPS = "  stop loss, take profit"
TRAILING = "  trailing stop"
LIMITS = "  limit orders"
FLOOR = "floor: read bars, write equity"
THROUGH = "through the broker"
READ = "  and read"
RIVAL = "vectorbt, with stats"
RIVAL_STOPS = "vectorbt, stops and profits"
RIVAL_TRAILING = "vectorbt, trailing stop"

EXITS: dict[str, dict[str, Any]] = {
    STOPS: {"stopLoss": 0.005, "takeProfit": 0.01},
    TRAILING: {"trailingStop": 0.005},
    LIMITS: {"orderType": "limit"},
}
RIVALS: dict[str, tuple[str, dict[str, Any]]] = {
    RIVAL: (WHOLE, {}),
    RIVAL_STOPS: (STOPS, {"sl_stop": 0.005, "tp_stop": 0.01}),
    RIVAL_TRAILING: (TRAILING, {"sl_stop": 0.005, "sl_trail": True}),
}
"""Each beside the kind of ours that it is compared with, and what it is given for it."""

Work = Callable[[], object]


@algorithm("sma_cross_limit", fast=Int(10, low=2, high=500), slow=Int(30, low=3, high=1000))
def sma_cross_limit(bars: Bars, fast: int, slow: int) -> Signals:
    """sma_cross that waits for a price 0.05 % better than the close of its signal."""
    crossed = Signals.from_cross(sma(bars.close, fast), sma(bars.close, slow))
    return Signals.of(
        entries=crossed.entries,
        short_entries=crossed.short_entries,
        limit_price=bars.close * np.where(crossed.entries, 0.9995, 1.0005),
    )


def config(kind: str = WHOLE) -> BacktestConfig:
    return BacktestConfig(
        algorithm_id="sma_cross_limit" if kind == LIMITS else "sma_cross",
        symbol=SYMBOL,
        start_date="2024-01-01",
        end_date="2100-01-01",
        initial_capital=100_000.0,
        timeframe="1m",
        commission=0.0005,
        slippage=0.0001,
        parameters={"fast": 10, "slow": 30},
        options=EXITS.get(kind, {}),
    )


def whole(plan: Plan) -> Run:
    run = Run(plan, "benchmark")
    run.start()
    run.advance(run.bars_total)
    run.finish()
    return run


def read_bars_and_write_equity(bars: Bars) -> object:
    sums = [column.sum() for column in (bars.timestamp, bars.open, bars.high, bars.low, bars.close, bars.volume)]
    return sums, np.full(len(bars), 1.0)


def kinds(plans: dict[str, Plan], folder: Path, client: Client) -> dict[str, Work]:
    """What is measured, by name: the whole first, then its stages, then what lies around it."""
    plan = plans[WHOLE]
    bars = plan.bars
    signals = plan.algorithm.signals(bars, plan.parameters)
    finished = whole(plan)
    result = finished.finish()
    results = ResultStore(folder / "results")

    def walk() -> Run:
        run = Run(plan, "benchmark")
        run.start_with(signals)
        run.advance(run.bars_total)
        return run

    def load_cold() -> Bars:
        return Catalog(folder / "data" / "catalog", cache_bytes=1 << 30).load(SYMBOL, "1m")

    start, end = config().start_date, config().end_date

    def through_the_broker(watch: tuple[Stream, ...]) -> None:
        run = client.backtest(
            "sma_cross",
            SYMBOL,
            timeframe="1m",
            start=start,
            end=end,
            commission=config().commission,
            slippage=config().slippage,
            parameters=config().parameters,
            watch=watch,
        )
        if watch:
            for _ in run.orders():
                pass
            for _ in run.positions():
                pass
        run.wait()

    return {
        WHOLE: lambda: whole(plan),
        "  signals": lambda: plan.algorithm.signals(bars, plan.parameters),
        "  fills": walk,
        "  metrics": finished.finish,
        STOPS: lambda: whole(plans[STOPS]),
        TRAILING: lambda: whole(plans[TRAILING]),
        LIMITS: lambda: whole(plans[LIMITS]),
        FLOOR: lambda: read_bars_and_write_equity(bars),
        "load from Parquet": load_cold,
        "store the result": lambda: results.write(str(uuid.uuid4()), "completed", plan.resolved_config(), result),
        THROUGH: lambda: through_the_broker(()),
        READ: lambda: through_the_broker(("orders", "positions")),
    }


def rivals(plans: dict[str, Plan]) -> dict[str, Work]:
    """vectorbt on the same bars and signals, each kind beside ours."""
    plan = plans[WHOLE]
    rows = oracles.frame(plan.bars)
    signals = plan.algorithm.signals(plan.bars, plan.parameters)
    columns = oracles.as_columns(rows, signals, "entries", "short_entries")
    money = {"init_cash": config().initial_capital, "fees": config().commission, "slippage": config().slippage}

    def theirs(given: dict[str, Any]) -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return oracles.from_signals(rows, columns, freq="1min", **money, **given).stats()

    works: dict[str, Work] = {}
    for name, (own, given) in RIVALS.items():
        works[own] = partial(whole, plans[own])
        works[name] = partial(theirs, given)
    return works


def measure(works: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every round, by name."""
    took: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            took[name].append((time.perf_counter() - began) * 1e3)
    return took


def report(took: dict[str, list[float]], floor: float) -> None:
    print(f"{'':32}{'median ms':>10}{'10..90 %':>18}{'÷ floor':>9}")
    for name, values in took.items():
        tenths = statistics.quantiles(values, n=10)
        median = statistics.median(values)
        print(f"{name:32}{median:10.2f}{tenths[0]:10.2f}..{tenths[-1]:6.2f}{median / floor:9.1f}")


def ratios(took: dict[str, list[float]], above: str, below: str) -> str:
    """The median of the ratios within a round, and how far they spread."""
    values = [one / other for one, other in zip(took[above], took[below], strict=True)]
    return f"{statistics.median(values):.2f} × ({min(values):.2f}..{max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bars", type=int, default=1_000_000, help="bars in the series (default 1,000,000)")
    parser.add_argument("--rounds", type=int, default=31, help="times each kind is run (default 31)")
    arguments = parser.parse_args()
    conventions = load_config(None).conventions
    warm(conventions)
    with tempfile.TemporaryDirectory(prefix="backtestr-bench-") as folder:
        home = Path(folder)
        catalog = Catalog(home / "data" / "catalog", cache_bytes=1 << 30)
        catalog.write(synthetic_bars("1m", arguments.bars))
        algorithms = {**BUILT_IN, sma_cross_limit.name: sma_cross_limit}
        plans = {kind: prepare(config(kind), catalog, conventions, algorithms.__getitem__) for kind in (WHOLE, *EXITS)}
        print(f"sma_cross 10/30 on {arguments.bars:,} bars")
        for kind, plan in plans.items():
            result = whole(plan).finish()
            print(f"  {kind.strip()}: {len(result.orders):,} orders, {len(result.trades):,} closed trades")
        with running_broker(home) as broker, Client(ConnectionFile(broker.connection_file).read()) as client:
            works = kinds(plans, home, client)
            measure(works, 2)
            # Apart from the kinds that write to disk on their own, whose dust settles on whatever runs next.
            compared = {name: works.pop(name) for name in (WHOLE, THROUGH, READ)}
            took = measure(compared, arguments.rounds) | measure(works, arguments.rounds)
    floor = statistics.median(took[FLOOR])
    report(took, floor)
    print(f"direct: {statistics.median(took[WHOLE]):.1f} ms (to reach: {TO_REACH_MS:.0f} ms)", end="; ")
    print(f"with stops and profits {statistics.median(took[STOPS]):.1f} ms (to reach: {STOPS_TO_REACH_MS:.0f} ms)")
    print(f"through the broker ÷ direct: {ratios(took, THROUGH, WHOLE)} (to reach: {THROUGH_TO_REACH:.1f} ×)\n")
    if not oracles.installed("vectorbt"):
        print(f"vectorbt {oracles.MISSING}: NOT COMPARED")
        return
    works = rivals(plans)
    measure(works, 1)
    took = measure(works, RIVAL_ROUNDS)
    report(took, floor)
    for name, (own, _) in RIVALS.items():
        print(f"{name} ÷ ours: {ratios(took, name, own)} (to reach: {RIVAL_TO_REACH:.0f} ×)")


if __name__ == "__main__":
    main()
