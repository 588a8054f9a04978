"""This part measures a backtest from its request to its result, beside the direct call, by number of bars.

    make bench-backtests

The direct call simulates bars that are in memory, and keeps its result there. Through the broker the backtest is
checked, written to disk, run by a worker that has read the bars before, stored and synced, and its metrics and tables
are read: `client.backtest(…).result()`. Every order and position update is numbered meanwhile, without a listener. With
one, a thread for each stream reads every order, position and progress, until the last has come.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from brokers import running_broker
from figures import Figure, Missing, Target, rounds, run_part
from round_trips import connect
from subject import backtest, config
from turns import Work, in_turn

from backtestr.client import Client
from backtestr.run import Run, Stream
from backtestr_engine.backtest.plan import Plan, prepare
from backtestr_engine.built_in import find_algorithm
from backtestr_engine.config import load_config
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import SYMBOL, synthetic_bars
from backtestr_engine.worker.warm_up import warm

BARS = {1_000: 20, 100_000: 12, 1_000_000: 8}
"""The numbers of bars, with the rounds of each."""
TARGETS = {1_000: Target(10.0), 100_000: Target(6.0), 1_000_000: Target(3.0)}
READ_TARGET = Target(4.0)
DIRECT = "direct call"
THROUGH = "StartBacktest to result"
READ = "the same, and one reader of every message"


def started(client: Client, watch: Sequence[Stream]) -> Run:
    asked = config()
    return client.backtest(
        asked.algorithm_id,
        SYMBOL,
        timeframe="1m",
        start=asked.start_date,
        end=asked.end_date,
        capital=asked.initial_capital,
        commission=asked.commission,
        slippage=asked.slippage,
        parameters=asked.parameters,
        watch=watch,
    )


def without_a_reader(client: Client) -> Work:
    def run() -> None:
        started(client, ()).result()

    return run


def with_a_reader(client: Client, readers: ThreadPoolExecutor) -> Work:
    def run() -> None:
        backtest = started(client, ("progress", "orders", "positions"))
        reading = [
            readers.submit(deque, read(), 0) for read in (backtest.progress, backtest.orders, backtest.positions)
        ]
        backtest.result()
        for one in reading:
            one.result()

    return run


def of_bars(count: int, usual: int, effort: float) -> list[Figure | Missing]:
    with tempfile.TemporaryDirectory(prefix="bt-") as folder:
        catalog = Catalog(Path(folder) / "data" / "catalog", cache_bytes=1 << 30)
        catalog.write(synthetic_bars("1m", count))
        plan: Plan = prepare(config(), catalog, load_config(None).conventions, find_algorithm)
        with (
            running_broker(Path(folder)) as broker,
            connect(broker) as client,
            ThreadPoolExecutor(3) as readers,
        ):
            works: dict[str, Work] = {
                DIRECT: lambda: backtest(plan),
                THROUGH: without_a_reader(client),
                READ: with_a_reader(client, readers),
            }
            in_turn(works, 2)
            took = in_turn(works, rounds(usual, effort))
    return [
        Figure(
            part=f"sma_cross 10/30 on {count:,} bars",
            name=name,
            unit="ms",
            values=[1e3 * seconds for seconds in values],
            beside=None if name == DIRECT else DIRECT,
            target={THROUGH: TARGETS[count], READ: READ_TARGET}.get(name),
        )
        for name, values in took.items()
    ]


def measure(effort: float) -> list[Figure | Missing]:
    warm(load_config(None).conventions)
    return [figure for count, usual in BARS.items() for figure in of_bars(count, usual, effort)]


if __name__ == "__main__":
    run_part(__doc__, measure)
