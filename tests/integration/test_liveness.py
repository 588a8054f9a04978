"""A real broker tells workers that hang, crash or are stuck from busy ones, and replaces them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.conftest import stopped_broker, with_algorithm
from integration.test_end_to_end import SYNTH
from support.harness import RawClient, RunningBroker, running_broker, wait_until
from support.protocol.independent import Fields

# Workers beat ten times a second and are checked twice: more frequent checks would be late on a busy machine, and a
# late one counts as two intervals at most. A worker is hung after three seconds without a beat and without processor
# time: a start on a busy machine may wait for the disk almost that long.
WATCHFUL = """\
[limits]
heartbeat_interval_ms = 500
watermark_interval_ms = 50
session_timeout_ms = 120_000
[workers]
compute = 1
[liveness]
worker_hung_ms = 3000
"""
# The status names a worker that was silent for 5 seconds. The time is calibrated while other tests may slow the machine
# down, so the call may take half as long as it should.
HELD_SECONDS = 11.0
BEATING = "[worker]\nbeat_interval_ms = 100\n"
COMPUTE = "compute-1"


def worker_of(raw_client: RawClient, worker_id: str = COMPUTE) -> Fields:
    workers = raw_client.ask("GetSystemStatus", {})["workers"]
    found: Fields = next(one for one in workers if one["workerId"] == worker_id)
    return found


def holding_the_lock(seconds: float) -> str:
    """Return an algorithm that holds Python's lock in one call into C, for about so many seconds of processor time."""
    began = time.process_time()
    sum(range(10_000_000))
    count = round(10_000_000 * seconds / (time.process_time() - began))
    return f"""\
from backtestr_engine.authoring import algorithm
from backtestr_engine.authoring import Signals

@algorithm("holds")
def holds(bars):
    sum(range({count}))
    return Signals.of(entries=bars.close > 0)
"""


@pytest.fixture(scope="module")
def watched() -> Iterator[RunningBroker]:
    """Run a broker with the algorithm `holds` in its folder."""
    with stopped_broker({"broker.toml": WATCHFUL, "engine.toml": f"{BEATING}chunk_bars = 20\n"}) as broker:
        with_algorithm(broker, "holds", holding_the_lock(HELD_SECONDS))
        broker.start()
        yield broker


@pytest.fixture
def client(watched: RunningBroker) -> Iterator[RawClient]:
    """Connect a raw client to that broker and wait until its compute worker is ready."""
    with RawClient(watched.connection_file) as client:
        client.hello()
        wait_until(lambda: worker_of(client)["state"] == "idle", 60.0)
        yield client


# With a pace, so that it cannot end before its worker is stopped.
SHORT = {**SYNTH, "endDate": "2024-01-06"}
PACED = {**SHORT, "options": {"pace": 10_000.0}}


def test_a_stopped_worker_is_killed_and_its_backtest_completes_once_on_another(client: RawClient) -> None:
    system = client.subscribe("system", "system.backtests")
    straight = client.ask("StartBacktest", SHORT)["backtestId"]
    system.until(lambda data: data["backtestId"] == straight and data["status"] == "completed")
    progress = client.subscribe("progress", "progress.")
    hung = client.ask("StartBacktest", PACED)["backtestId"]
    progress.until(lambda data: data["backtestId"] == hung and 10 < data["progressPercent"] < 90)
    before = worker_of(client)
    os.kill(before["pid"], signal.SIGSTOP)
    changes = system.until(lambda data: data["backtestId"] == hung and data["status"] == "completed")
    statuses = [one["payload"]["data"]["status"] for one in changes]
    assert statuses == ["queued", "running", "queued", "running", "completed"]
    worker = worker_of(client)
    assert worker["pid"] != before["pid"]
    assert worker["restarts"] == before.get("restarts", 0) + 1
    orders = [client.ask("FetchMissed", {"topic": f"orders.{one}", "fromSeq": 1})["toSeq"] for one in (straight, hung)]
    assert orders[0] == orders[1] > 100, "orders were published twice, or not at all"
    (reason,) = client.ask("GetSystemStatus", {})["reasons"]
    assert "compute-1 was lost" in reason
    assert "no beat and no processor time" in reason


def test_a_worker_that_holds_pythons_lock_is_busy_and_not_killed(client: RawClient) -> None:
    before = worker_of(client)
    system = client.subscribe("system", "system.")
    held = client.ask("StartBacktest", {**SYNTH, "algorithmId": "holds", "parameters": {}})["backtestId"]
    said = "compute-1 has not been heard of for "
    found = system.until(lambda data: any(one.startswith(said) for one in data.get("reasons", [])))
    assert found[-1]["payload"]["data"]["status"] == "warning"
    system.until(lambda data: data.get("backtestId") == held and data["status"] == "completed")
    worker = worker_of(client)
    assert worker["pid"] == before["pid"], "it was killed for being busy"
    assert worker.get("restarts") == before.get("restarts")


def test_a_crash_loop_is_reported_and_ends_with_its_cause(client: RawClient, watched: RunningBroker) -> None:
    system = client.subscribe("system", "system.")
    options = Path(watched.environment["BACKTESTR_CONFIG_DIR"]) / "engine.toml"
    good = options.read_text()
    options.write_text("unknown = 1\n")  # a file of algorithms cannot do that
    os.kill(worker_of(client)["pid"], signal.SIGKILL)
    found = system.until(lambda data: data.get("code") == "SYSTEM_ERROR", 60.0)
    message = found[-1]["payload"]["data"]["message"]
    assert "compute-1 has ended 4 times in a row within 10 s of its start, the last time: exit code 2" in message
    status = client.ask("GetSystemStatus", {})
    assert status["status"] == "error"
    assert status["reasons"][0] == "no compute worker is ready"
    assert "compute-1 ends soon after its start" in status["reasons"][1]
    assert client.ask("ListMarketData", {})["series"], "everything else is served"
    options.write_text(good)
    wait_until(lambda: worker_of(client)["state"] == "idle", 60.0)
    client.ask("StartBacktest", SYNTH)
    system.until(lambda data: data.get("status") == "completed")


def test_a_request_fails_with_the_reason_while_no_interactive_worker_can_start(
    client: RawClient, watched: RunningBroker
) -> None:
    options = Path(watched.environment["BACKTESTR_CONFIG_DIR"]) / "engine.toml"
    good = options.read_text()
    options.write_text("unknown = 1\n")
    os.kill(worker_of(client, "interactive-1")["pid"], signal.SIGKILL)
    error = client.refused("ListMarketData", {})
    assert error["code"] == "SYSTEM_ERROR"
    assert "no interactive worker can start: 4 in a row have ended before they were ready" in error["message"]
    assert "the last time: exit code 2" in error["message"]
    options.write_text(good)
    wait_until(lambda: worker_of(client, "interactive-1")["state"] == "idle", 60.0)
    assert client.ask("ListMarketData", {})["series"]


def test_an_event_loop_that_was_away_is_a_warning_until_the_next_heartbeat(
    broker: RunningBroker, raw_client: RawClient
) -> None:
    system = raw_client.subscribe("system", "system.status")
    os.kill(broker.process.pid, signal.SIGSTOP)
    until = time.monotonic() + 0.5
    wait_until(lambda: time.monotonic() >= until, 5.0)
    os.kill(broker.process.pid, signal.SIGCONT)
    late = system.until(lambda data: data["loopLagMs"] > 300)[-1]["payload"]["data"]
    assert late["status"] == "warning"
    assert any(one.startswith("the broker's loop was away for ") for one in late["reasons"])
    system.until(lambda data: data["status"] == "healthy")


def test_a_worker_without_an_answer_in_time_is_replaced_and_the_request_fails() -> None:
    engine = f"{BEATING}question_time_limit_ms = 200\n"
    with running_broker({"broker.toml": WATCHFUL, "engine.toml": engine}) as broker:
        folder = broker.data_dir / "results" / "stuck"
        folder.mkdir(parents=True)
        os.mkfifo(folder / "result.json")  # a program that reads it waits until another writes
        with RawClient(broker.connection_file) as raw_client:
            raw_client.hello()
            error = raw_client.refused("GetPerformanceMetrics", {"backtestId": "stuck"})
            assert error["code"] == "TIMEOUT"
            assert "took longer than 0.2 s" in error["message"]
            assert "question_time_limit_ms" in error["message"]
            assert raw_client.ask("ListMarketData", {})["series"], "another worker has taken its place"
            assert raw_client.ask("GetSystemStatus", {})["workers"][1]["restarts"] == 1
