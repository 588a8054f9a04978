"""One backtest on 1M bars: the whole and its stages, beside copying the closes, all interleaved in one run.

    make bench-engine

Every round runs each kind once, in turn, so that a noisy machine is noisy for all; medians are compared. The direct
call and those through the broker have rounds of their own, then come the stages.

The bars are synthetic, in memory, and so is the result of the direct call: reading and storing are measured on their
own lines. The lines through the broker are from asking for the backtest to hearing that its result is stored: with
every order and position update published, once with nobody listening, once read to the last message by a client in
this process. Set TMPDIR to a folder in memory to leave the disk out of it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
from brokers import running_broker

from backtestr.client import Client
from backtestr.discovery import ConnectionFile
from backtestr.run import Stream
from backtestr_engine.backtest import Plan, Run, prepare
from backtestr_engine.bars import Bars
from backtestr_engine.catalog import Catalog
from backtestr_engine.config import load_config
from backtestr_engine.results import ResultStore
from backtestr_engine.synthetic import SYMBOL, synthetic_bars
from backtestr_engine.warm import warm
from backtestr_protocol.messages import BacktestConfig

TO_REACH_MS = 25.0
THROUGH_TO_REACH = 1.5
WHOLE = "backtest, all metrics"
FLOOR = "copy of the closes"
THROUGH = "through the broker"
READ = "  and read"

Work = Callable[[], object]


def config() -> BacktestConfig:
    return BacktestConfig(
        algorithm_id="sma_cross",
        symbol=SYMBOL,
        start_date="2024-01-01",
        end_date="2100-01-01",
        initial_capital=100_000.0,
        timeframe="1m",
        commission=0.0005,
        slippage=0.0001,
        parameters={"fast": 10, "slow": 30},
    )


def whole(plan: Plan) -> Run:
    run = Run(plan, "benchmark")
    run.start()
    run.advance(run.bars_total)
    run.finish()
    return run


def kinds(plan: Plan, folder: Path, client: Client) -> dict[str, Work]:
    """What is measured, by name: the whole first, then its stages, then what lies around it."""
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
        FLOOR: lambda: np.copy(bars.close),
        "load from Parquet": load_cold,
        "store the result": lambda: results.write(str(uuid.uuid4()), "completed", plan.resolved_config(), result),
        THROUGH: lambda: through_the_broker(()),
        READ: lambda: through_the_broker(("orders", "positions")),
    }


def measure(works: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every round, by name."""
    took: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            took[name].append((time.perf_counter() - began) * 1e3)
    return took


def report(took: dict[str, list[float]]) -> None:
    floor = statistics.median(took[FLOOR])
    print(f"{'':24}{'median ms':>10}{'10..90 %':>18}{'÷ copy':>8}")
    for name, values in took.items():
        tenths = statistics.quantiles(values, n=10)
        median = statistics.median(values)
        print(f"{name:24}{median:10.2f}{tenths[0]:10.2f}..{tenths[-1]:6.2f}{median / floor:8.1f}")


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
        plan = prepare(config(), catalog, conventions)
        metrics = whole(plan).finish().metrics
        print(f"sma_cross 10/30 on {len(plan.bars):,} bars, {metrics['totalTrades']:,} trades")
        with running_broker(home) as broker, Client(ConnectionFile(broker.connection_file).read()) as client:
            works = kinds(plan, home, client)
            measure(works, 2)
            # Apart from the kinds that write to disk on their own, whose dust settles on whatever runs next.
            compared = {name: works.pop(name) for name in (WHOLE, THROUGH, READ)}
            took = measure(compared, arguments.rounds) | measure(works, arguments.rounds)
    report(took)
    direct, through = statistics.median(took[WHOLE]), statistics.median(took[THROUGH])
    ratio = statistics.median(ours / alone for ours, alone in zip(took[THROUGH], took[WHOLE], strict=True))
    print(
        f"direct: {direct:.1f} ms (to reach: {TO_REACH_MS:.0f} ms); through the broker {through:.1f} ms, {ratio:.2f} ×"
    )


if __name__ == "__main__":
    main()
