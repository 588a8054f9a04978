"""This part measures a backtest from its request to its result, beside the direct call, by number of bars.

    make bench-backtests

The direct call simulates bars that are in memory, and keeps its result there. Through the broker the backtest is
checked, written to disk, run by a worker that has read the bars before, stored and synced, and its metrics and tables
are read: `client.backtest(…).result()`. Every order and position update is published meanwhile, without a listener.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from brokers import running_broker
from figures import Figure, Missing, rounds, run_part
from round_trips import connect
from subject import backtest, config
from turns import Work, in_turn

from backtestr.client import Client
from backtestr_engine.backtest.plan import Plan, prepare
from backtestr_engine.built_in import find_algorithm
from backtestr_engine.config import load_config
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import SYMBOL, synthetic_bars
from backtestr_engine.worker.warm_up import warm

BARS = {1_000: 20, 100_000: 12, 1_000_000: 8}
"""The numbers of bars, with the rounds of each."""
DIRECT = "direct call"
THROUGH = "StartBacktest to result"


def through_the_broker(client: Client) -> Work:
    asked = config()

    def run() -> None:
        client.backtest(
            asked.algorithm_id,
            SYMBOL,
            timeframe="1m",
            start=asked.start_date,
            end=asked.end_date,
            capital=asked.initial_capital,
            commission=asked.commission,
            slippage=asked.slippage,
            parameters=asked.parameters,
            watch=(),
        ).result()

    return run


def of_bars(count: int, usual: int, effort: float) -> list[Figure | Missing]:
    with tempfile.TemporaryDirectory(prefix="bt-") as folder:
        catalog = Catalog(Path(folder) / "data" / "catalog", cache_bytes=1 << 30)
        catalog.write(synthetic_bars("1m", count))
        plan: Plan = prepare(config(), catalog, load_config(None).conventions, find_algorithm)
        with running_broker(Path(folder)) as broker, connect(broker) as client:
            works: dict[str, Work] = {DIRECT: lambda: backtest(plan), THROUGH: through_the_broker(client)}
            in_turn(works, 2)
            took = in_turn(works, rounds(usual, effort))
    return [
        Figure(
            part=f"sma_cross 10/30 on {count:,} bars",
            name=name,
            unit="ms",
            values=[1e3 * seconds for seconds in values],
            beside=None if name == DIRECT else DIRECT,
        )
        for name, values in took.items()
    ]


def measure(effort: float) -> list[Figure | Missing]:
    warm(load_config(None).conventions)
    return [figure for count, usual in BARS.items() for figure in of_bars(count, usual, effort)]


if __name__ == "__main__":
    run_part(__doc__, measure)
