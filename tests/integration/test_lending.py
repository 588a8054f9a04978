"""A paced backtest lends the only compute worker of a real broker: others complete, and none loses anything."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

import backtestr
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_protocol.errors import TimedOut
from backtestr_protocol.messages import FINAL_STATES
from integration.conftest import ONE_WORKER, running_again, stopped_broker, with_algorithm
from integration.test_hostile_algorithms import SPOILERS
from support.harness import RawClient, RunningBroker, messages, wait_until
from support.protocol.independent import Fields

SECONDS = 60.0
# A bar every two seconds: no test waits for its end.
SLOW = 0.5
# 1,000 bars in five seconds: a test ends it, or waits for its end.
WATCHED = 200.0
DAILY: dict[str, Any] = {"timeframe": "1d", "watch": ()}
# Some seconds of work.
LONG: dict[str, Any] = {"timeframe": "1m", "watch": ()}
LONG_BARS = 100_000


@pytest.fixture(scope="module")
def lent_broker() -> Iterator[RunningBroker]:
    """Run a broker with one compute worker, which simulates five bars at a time."""
    with stopped_broker({"broker.toml": ONE_WORKER, "engine.toml": "[worker]\nchunk_bars = 5\n"}) as broker:
        with_algorithm(broker, "spoilers", SPOILERS)
        broker.start()
        file = broker.data_dir.parent / "long.parquet"
        synthetic_bars("1m", LONG_BARS, symbol="LONG").to_frame().write_parquet(file)
        with backtestr.connect(connection_file=broker.connection_file) as connected:
            connected.import_market_data(file, "LONG", timeframe="1m")
        yield broker


@pytest.fixture
def client(lent_broker: RunningBroker) -> Iterator[backtestr.Client]:
    with backtestr.connect(connection_file=running_again(lent_broker).connection_file) as connected:
        yield connected
        for one in connected.list_backtests():
            if one.status not in FINAL_STATES:
                connected.stop(one.backtest_id)


def begun(client: backtestr.Client, pace: float, algorithm: str = "sma_cross", **more: Any) -> backtestr.Run:
    """Start a paced backtest, and return it once it lends its worker."""
    run = client.backtest(algorithm, "SYNTH", pace=pace, **{**DAILY, **more})
    wait_until(lambda: run.status().lends, SECONDS)
    return run


def is_same(found: backtestr.Results, expected: backtestr.Results) -> bool:
    return found.metrics == expected.metrics and all(
        found.tables[name].equals(expected.tables[name]) for name in expected.tables
    )


@pytest.fixture
def alone(client: backtestr.Client) -> backtestr.Results:
    """Return the results of a backtest that had the worker for itself."""
    return client.backtest("sma_cross", "SYNTH", **DAILY).result(SECONDS)


def test_others_complete_while_a_paced_backtest_runs_and_all_have_the_same_results(
    client: backtestr.Client, alone: backtestr.Results
) -> None:
    assert alone.tables.keys() >= {"equity", "trades", "orders"}
    slow = begun(client, SLOW)
    for _ in range(3):
        assert is_same(client.backtest("sma_cross", "SYNTH", **DAILY).result(SECONDS), alone)
    assert slow.status().status == "running"
    quick = begun(client, 400.0)
    beside = client.backtest("sma_cross", "SYNTH", **DAILY)
    assert is_same(beside.result(SECONDS), alone)
    assert is_same(quick.result(SECONDS), alone)
    assert slow.status().lends


def test_either_is_paused_resumed_and_stopped_while_both_run(
    client: backtestr.Client, alone: backtestr.Results
) -> None:
    slow, other = begun(client, WATCHED), client.backtest("sma_cross", "LONG", **LONG)
    wait_until(lambda: other.status().status == "running", SECONDS)
    assert slow.pause() == "paused"
    assert other.status().status == "running"
    assert slow.resume() == "running", "it does not wait for the other"
    assert other.pause() == "paused"
    assert (slow.status().status, slow.status().lends) == ("running", True)
    assert other.resume() == "running"
    assert other.stop() == "stopped"
    assert is_same(slow.result(SECONDS), alone)
    slow, other = begun(client, SLOW), client.backtest("sma_cross", "SYNTH", **DAILY)
    assert slow.stop() == "stopped"
    assert is_same(other.result(SECONDS), alone)


def test_both_run_again_when_their_worker_is_killed(
    client: backtestr.Client, lent_broker: RunningBroker, alone: backtestr.Results
) -> None:
    straight = client.backtest("sma_cross", "LONG", **LONG).result(SECONDS)
    with RawClient(lent_broker.connection_file) as raw:
        raw.hello()
        slow = begun(client, WATCHED)
        other = client.backtest("sma_cross", "LONG", **LONG)
        for run in (slow, other):
            wait_until(lambda run=run: run.status().progress_percent > 3, SECONDS)  # type: ignore[misc]
        assert [run.status().status for run in (slow, other)] == ["running", "running"]
        os.kill(next(one.pid for one in client.status().workers if one.worker_id == "compute-1"), signal.SIGKILL)
        assert is_same(other.result(SECONDS), straight)
        assert is_same(slow.result(SECONDS), alone)
        for run, results in ((slow, alone), (other, straight)):
            numbers = [seq for seq, _ in retained(raw, f"orders.{run.id}")]
            last = results.orders.height
            assert numbers == list(range(last - len(numbers) + 1, last + 1)), "each is published once"
            percents = [payload["data"]["progressPercent"] for _, payload in retained(raw, f"progress.{run.id}")]
            assert percents == sorted(percents), "it never goes back"


def retained(raw: RawClient, topic: str) -> list[tuple[int, Fields]]:
    """Return the messages of a topic that the broker keeps, each with its sequence number."""
    fetched = raw.ask("FetchMissed", {"topic": topic, "fromSeq": 1})["messages"]
    return [one for envelope in fetched for one in messages(envelope)]


def test_both_run_again_after_a_restart_of_the_broker(lent_broker: RunningBroker) -> None:
    with backtestr.connect(connection_file=running_again(lent_broker).connection_file) as client:
        alone = client.backtest("sma_cross", "SYNTH", **DAILY).result(SECONDS)
        slow, other = begun(client, WATCHED), client.backtest("sma_cross", "LONG", **LONG)
        wait_until(lambda: other.status().status == "running", SECONDS)
    lent_broker.kill()
    lent_broker.start()
    with backtestr.connect(connection_file=lent_broker.connection_file) as client:
        assert client.run(other.id).result(SECONDS).status == "completed"
        assert is_same(client.run(slow.id).result(SECONDS), alone)


def test_a_backtest_that_spoils_the_worker_costs_the_one_that_lends_it_nothing(
    client: backtestr.Client, alone: backtestr.Results
) -> None:
    slow = begun(client, WATCHED)
    for algorithm in ("leaks_threads", "patches", "leaks_threads"):
        assert client.backtest(algorithm, "SYNTH", **DAILY).result(SECONDS).status == "completed"
        assert slow.status().status in ("queued", "running")
    assert is_same(slow.result(SECONDS), alone)


def test_a_paced_backtest_that_spoils_its_worker_keeps_it_and_a_late_one_says_so(client: backtestr.Client) -> None:
    spoils = client.backtest("leaks_threads", "SYNTH", pace=SLOW, timeframe="1d")
    next(spoils.progress())
    waits = client.backtest("sma_cross", "SYNTH", **DAILY)
    with pytest.raises(TimedOut, match=f"is queued behind {spoils.id} "):
        waits.result(0.5)
    assert spoils.status().lends is False
    spoils.stop()
    assert waits.result(SECONDS).status == "completed"


def test_one_that_is_late_is_not_behind_a_backtest_that_lends(client: backtestr.Client) -> None:
    slow, busy = begun(client, SLOW), client.backtest("sma_cross", "LONG", **LONG)
    waits = client.backtest("sma_cross", "SYNTH", **DAILY)
    with pytest.raises(TimedOut, match="is queued behind") as caught:
        waits.wait(0.01)
    assert (caught.value.details or {})["behind"] == [busy.id]
    assert slow.id not in str(caught.value)
