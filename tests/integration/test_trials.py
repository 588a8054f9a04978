"""Real brokers count every combination that they ever ran, once, whatever is killed, deleted or run again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from backtestr.sweep import Sweep
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_protocol.errors import AlgorithmError
from backtestr_protocol.trial_messages import TrialGroup
from integration.conftest import QUICK, running_again, stopped_broker, with_algorithm
from support.harness import RunningBroker, wait_until

TWO_WORKERS = QUICK + "[workers]\ncompute = 2\n"
# A combination takes ten milliseconds, so that a sweep is long enough to be killed in its middle; some fail.
SLOW = """
import time

from backtestr_engine.authoring import Int, Signals, algorithm


@algorithm("unhurried", n=Int(10, 1, 100_000))
def unhurried(bars, n):
    time.sleep(0.01)
    if n % 50 == 49:
        raise ValueError(f"{n} is not for me")
    return Signals.of(bars.close > bars.open, bars.close < bars.open - n / 1000)
"""
BLOCK = 10


@pytest.fixture(scope="module")
def counting_broker() -> Iterator[RunningBroker]:
    with stopped_broker({"broker.toml": TWO_WORKERS}) as broker:
        with_algorithm(broker, "unhurried", SLOW)
        broker.start()
        yield broker


@pytest.fixture
def running(counting_broker: RunningBroker) -> RunningBroker:
    return running_again(counting_broker)


@pytest.fixture
def client(running: RunningBroker) -> Iterator[Client]:
    with Client(ConnectionFile(running.connection_file).read()) as connected:
        yield connected


def unhurried(client: Client, first: int, last: int, sweep_id: str | None = None) -> Sweep:
    """Start a sweep over [first, last)."""
    return client.sweep(
        "unhurried",
        "SYNTH",
        timeframe="1d",
        space={"n": range(first, last)},
        objective="total_return",
        sweep_id=sweep_id,
        block_size=BLOCK,
    )


def group_of(client: Client, algorithm: str, bars: int | None = None) -> TrialGroup:
    """Return the group of an algorithm, on so many bars if it has several."""
    [found] = [one for one in client.trials(algorithm) if bars in (None, one.bars)]
    return found


def test_a_combination_counts_once_as_a_row_of_two_sweeps_and_as_backtests(client: Client) -> None:
    first = client.sweep("sma_cross", "SYNTH", timeframe="1h", space={"fast": range(5, 15), "slow": [20, 30]})
    assert first.wait(60.0).trials_before == 0
    assert first.trials() == 20
    second = client.sweep("sma_cross", "SYNTH", timeframe="1h", space={"fast": range(10, 20), "slow": [20, 30]})
    assert second.accepted is not None
    assert second.accepted.trials_before == 20
    second.wait(60.0)
    assert second.trials() == 30, "10 of its 20 combinations were rows of the first"
    of_a_row = client.backtest("sma_cross", "SYNTH", timeframe="1h", parameters={"fast": 12, "slow": 30})
    of_a_row.result()
    assert of_a_row.trials() == 30, "it equals a row of both"
    assert first.run(0).result().metrics is not None
    another = client.backtest("sma_cross", "SYNTH", timeframe="1h", parameters={"fast": 3, "slow": 50})
    another.result()
    again = client.backtest("sma_cross", "SYNTH", timeframe="1h", parameters={"fast": 3, "slow": 50})
    result = again.result()
    assert again.trials() == 31
    counted = group_of(client, "sma_cross")
    assert (counted.trials, counted.runs) == (31, 20 + 20 + 1 + 1 + 2)
    assert counted.group == result.trial_group == first.status().trial_group


def test_the_status_of_a_sweep_tells_the_number_soon_after_its_end(client: Client) -> None:
    found = client.sweep("ema_cross", "SYNTH", timeframe="1h", space={"fast": [5, 8, 13]})
    found.wait(60.0)
    wait_until(lambda: found.status().trials_after == 3, 10.0)
    assert [one.trials_after for one in client.list_sweeps(limit=1)] == [3]


def test_nothing_that_is_deleted_lowers_the_number(client: Client) -> None:
    found = client.sweep("macd", "SYNTH", timeframe="1h", space={"fast": [5, 8, 13]})
    found.wait(60.0)
    run = client.backtest("macd", "SYNTH", timeframe="1h", parameters={"fast": 6})
    run.result()
    assert group_of(client, "macd").trials == 4
    found.delete()
    run.delete()
    assert group_of(client, "macd").trials == 4


def test_other_bars_and_another_range_are_other_groups(client: Client, tmp_path: Path) -> None:
    def store(first: int) -> None:
        file = tmp_path / f"{first}.parquet"
        synthetic_bars("1d", 300)[first:].to_frame().write_parquet(file)
        client.import_market_data(file, symbol="OWN", timeframe="1d")

    def run(start: datetime | None = None) -> int | None:
        done = client.backtest("buy_and_hold", "OWN", timeframe="1d", start=start)
        done.result()
        return done.trials()

    store(0)
    assert (run(), run()) == (1, 1)
    store(100)
    assert run() == 1
    assert {one.bars for one in client.trials("buy_and_hold", "OWN")} == {300, 200}
    store(0)
    assert run() == 1, "the bars of the first import are those of its group again"
    assert group_of(client, "buy_and_hold", 300).runs == 3
    start = client.market_data("OWN", "1d")["timestamp"][50]
    assert run(start=start) == 1
    assert {one.bars for one in client.trials("buy_and_hold", "OWN")} == {300, 200, 250}


def test_backtests_that_fail_and_rows_that_fail_count_once(client: Client) -> None:
    with pytest.raises(AlgorithmError):
        client.backtest("unhurried", "SYNTH", timeframe="1h", parameters={"n": 49}).result()
    found = client.sweep("unhurried", "SYNTH", timeframe="1h", space={"n": [48, 49]}, objective="total_return")
    assert found.wait(60.0).failed == 1
    assert found.trials() == 2


def trials_of(client: Client) -> int:
    """Return the trials of `unhurried` on days, which its sweeps count in."""
    return sum(one.trials for one in client.trials(symbol="SYNTH", timeframe="1d") if one.algorithm == "unhurried")


def test_a_worker_that_is_killed_loses_no_row_that_counts_and_counts_none_twice(client: Client) -> None:
    had = trials_of(client)
    found = unhurried(client, 1_000, 1_300, "killed-worker")
    wait_until(lambda: found.status().done >= 60, 60.0)
    victim = next(one for one in client.status().workers if one.worker_id.startswith("compute") and one.state == "busy")
    os.kill(victim.pid, signal.SIGKILL)
    done = found.status().done
    assert done <= trials_of(client) - had <= 300, "what counts is in the ledger"
    assert found.wait(60.0).status == "completed"
    assert found.trials() == had + 300


def test_a_broker_that_is_killed_counts_on_where_it_was(running: RunningBroker) -> None:
    with Client(ConnectionFile(running.connection_file).read()) as client:
        had = trials_of(client)
        found = unhurried(client, 2_000, 2_300, "killed-broker")
        wait_until(lambda: found.status().done >= 60, 60.0)
        told = found.status().done
    running.kill()
    running.start()
    with Client(ConnectionFile(running.connection_file).read()) as client:
        found = client.find_sweep("killed-broker")
        assert told <= trials_of(client) - had <= 300, "what counted is in the ledger"
        assert found.wait(60.0).status == "completed"
        assert found.trials() == had + 300
        unhurried(client, 2_290, 2_310).wait(60.0)
        assert trials_of(client) == had + 310
