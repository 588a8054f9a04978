"""This program measures a backtest on 1M bars, its stages and its kinds of order, beside vectorbt and a floor.

    make bench-engine

Every round runs each kind once, in turn, so that a noisy machine is noisy for all; medians are compared. The direct
call and those through the broker have rounds of their own; the stages and kinds of order follow, then vectorbt.

The bars are synthetic and in memory, as is the result of the direct call; reading and storing have lines of their own.
The lines through the broker are from the request until the client knows that the result is stored. Every order and
position update is published: once without a listener, once read to the last message by a client in this process. Set
TMPDIR to a folder in memory to exclude the disk.

The floor is the time of the least memory traffic of a backtest: every column of the bars is read once, and the equity
written once. vectorbt is given the signals, which backtestr computes: `Portfolio.from_signals` and `stats()` by its
numba engine, with the same costs and exits. It needs the extra `bench`; without it those lines are left out.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import uuid
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import oracles
from brokers import running_broker
from subject import backtest, config
from turns import Took, Work, in_turn, print_table, ratios

from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from backtestr.run import Stream
from backtestr_engine.authoring import Bars, Int, Signals, algorithm, sma
from backtestr_engine.backtest.plan import Plan, prepare
from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.backtest.run import Run
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.config import load_config
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import SYMBOL, synthetic_bars
from backtestr_engine.worker.warm_up import warm
from backtestr_protocol.messages import BacktestConfig

TO_REACH_MS = 25.0
STOPS_TO_REACH_MS = 40.0
THROUGH_TO_REACH = 1.5
RIVAL_TO_REACH = 15.0
RIVAL_ROUNDS = 31
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
"""Each kind of vectorbt, with the kind of backtestr beside which it stands, and its arguments."""


@algorithm("sma_cross_limit", fast=Int(10, low=2, high=500), slow=Int(30, low=3, high=1000))
def sma_cross_limit(bars: Bars, fast: int, slow: int) -> Signals:
    """Cross averages as sma_cross does, with limit orders 0.05 % better than the close of the signal."""
    crossed = Signals.from_cross(sma(bars.close, fast), sma(bars.close, slow))
    return Signals.of(
        entries=crossed.entries,
        short_entries=crossed.short_entries,
        limit_price=bars.close * np.where(crossed.entries, 0.9995, 1.0005),
    )


def config_of(kind: str) -> BacktestConfig:
    return config(sma_cross_limit.name if kind == LIMITS else "sma_cross", EXITS.get(kind))


def read_bars_and_write_equity(bars: Bars) -> object:
    sums = [column.sum() for column in (bars.timestamp, bars.open, bars.high, bars.low, bars.close, bars.volume)]
    return sums, np.full(len(bars), 1.0)


def kinds(plans: dict[str, Plan], folder: Path, client: Client) -> dict[str, Work]:
    """Return the kinds of work by name: the whole, its stages, reading and storing, and through the broker."""
    plan = plans[WHOLE]
    bars = plan.bars
    signals = plan.algorithm.signals(bars, plan.parameters)
    finished = backtest(plan)
    result = finished.finish()
    results = ResultStore(folder / "results")

    def simulate() -> Run:
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
        WHOLE: lambda: backtest(plan),
        "  signals": lambda: plan.algorithm.signals(bars, plan.parameters),
        "  fills": simulate,
        "  metrics": finished.finish,
        STOPS: lambda: backtest(plans[STOPS]),
        TRAILING: lambda: backtest(plans[TRAILING]),
        LIMITS: lambda: backtest(plans[LIMITS]),
        FLOOR: lambda: read_bars_and_write_equity(bars),
        "load from Parquet": load_cold,
        "store the result": lambda: results.write(str(uuid.uuid4()), "completed", plan.resolved_config(), result),
        THROUGH: lambda: through_the_broker(()),
        READ: lambda: through_the_broker(("orders", "positions")),
    }


def rivals(plans: dict[str, Plan]) -> dict[str, Work]:
    """Return vectorbt on the same bars and signals, each kind beside that of backtestr."""
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
        works[own] = partial(backtest, plans[own])
        works[name] = partial(theirs, given)
    return works


def ratio(took: Took, above: str, below: str) -> str:
    """Return the median of the ratios within a round, and their spread."""
    values = ratios(took[above], took[below])
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
        plans = {
            kind: prepare(config_of(kind), catalog, conventions, algorithms.__getitem__) for kind in (WHOLE, *EXITS)
        }
        print(f"sma_cross 10/30 on {arguments.bars:,} bars")
        for kind, plan in plans.items():
            result = backtest(plan).finish()
            print(f"  {kind.strip()}: {len(result.orders):,} orders, {len(result.trades):,} closed trades")
        with running_broker(home) as broker, Client(ConnectionFile(broker.connection_file).read()) as client:
            works = kinds(plans, home, client)
            in_turn(works, 2)
            # Apart from the kinds that write to disk, since the disk is still busy when the next kind runs.
            compared = {name: works.pop(name) for name in (WHOLE, THROUGH, READ)}
            took = in_turn(compared, arguments.rounds) | in_turn(works, arguments.rounds)
    print_table("", took, dict.fromkeys(took, FLOOR))
    print(f"direct: {1e3 * statistics.median(took[WHOLE]):.1f} ms (to reach: {TO_REACH_MS:.0f} ms)", end="; ")
    print(
        f"with stops and profits {1e3 * statistics.median(took[STOPS]):.1f} ms (to reach: {STOPS_TO_REACH_MS:.0f} ms)"
    )
    print(f"through the broker ÷ direct: {ratio(took, THROUGH, WHOLE)} (to reach: {THROUGH_TO_REACH:.1f} ×)\n")
    if not oracles.installed("vectorbt"):
        print(f"vectorbt {oracles.MISSING}: NOT COMPARED")
        return
    works = rivals(plans)
    in_turn(works, 1)
    took = in_turn(works, RIVAL_ROUNDS)
    print_table("", took, {})
    for name, (own, _) in RIVALS.items():
        print(f"{name} ÷ ours: {ratio(took, name, own)} (to reach: {RIVAL_TO_REACH:.0f} ×)")


if __name__ == "__main__":
    main()
