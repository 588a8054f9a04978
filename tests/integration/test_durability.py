"""What an acknowledgement means: brokers killed with `kill -9`, and what the next one in the same directory finds."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import backtestr
from backtestr import Update
from backtestr.embedded_broker import EmbeddedBroker
from backtestr_protocol.errors import InvalidConfiguration, StateConflict
from integration.conftest import QUICK
from integration.test_end_to_end import SYNTH, run_to_end, tables
from integration.test_steering import ALL_TABLES, wait_for
from support.harness import RawClient, RunningBroker, running_broker, wait_until
from support.protocol.independent import Fields

# One compute worker that takes one bar at a time, so that a broker can be killed in the middle of a run.
SLOW = {"broker.toml": QUICK + "[workers]\ncompute = 1\n", "engine.toml": "[worker]\nchunk_bars = 1\n"}
NAMED = {**SYNTH, "options": {"streams": {"progressIntervalMs": 20}}}


@pytest.fixture
def broker() -> Iterator[RunningBroker]:
    with running_broker(SLOW) as running:
        yield running


def status(raw_client: RawClient, backtest_id: str) -> str:
    found: str = raw_client.ask("GetBacktestStatus", {"backtestId": backtest_id})["status"]
    return found


def test_no_acknowledged_backtest_is_lost_or_runs_twice_after_kill_9(broker: RunningBroker) -> None:
    with RawClient(broker.connection_file) as raw_client:
        raw_client.hello()
        assert run_to_end(raw_client, SYNTH, "ended")["status"] == "completed"
        expected_results, expected = tables(raw_client, "ended", ALL_TABLES)
        progress = raw_client.subscribe("progress", "progress.")
        raw_client.ask("StartBacktest", {**NAMED, "backtestId": "paused"})
        progress.until(lambda data: data["backtestId"] == "paused" and data["progressPercent"] > 5)
        assert raw_client.ask("PauseBacktest", {"backtestId": "paused"})["status"] == "paused"
        for name in ("running", "queued-1", "queued-2"):
            raw_client.ask("StartBacktest", {**NAMED, "backtestId": name}, message_id=f"start {name}")
        progress.until(lambda data: data["backtestId"] == "running" and data["progressPercent"] > 5)
        assert [status(raw_client, name) for name in ("ended", "paused", "running", "queued-1")] == [
            "completed",
            "paused",
            "running",
            "queued",
        ]
    broker.kill()
    broker.start()
    with RawClient(broker.connection_file) as raw_client:
        raw_client.hello()
        system = raw_client.subscribe("system", "system.backtests")
        listed = [one["backtestId"] for one in raw_client.ask("ListBacktests", {})["backtests"]]
        assert listed == ["queued-2", "queued-1", "running", "paused", "ended"]
        assert status(raw_client, "ended") == "completed"
        again = raw_client.ask("StartBacktest", {**NAMED, "backtestId": "running"}, message_id="start running")
        assert again["backtestId"] == "running"
        wait_for(raw_client, "queued-2", "completed")
        for name in ("running", "queued-1", "queued-2"):
            assert_equal(raw_client, name, expected_results, expected)
        wait_for(raw_client, "paused", "paused")
        assert raw_client.ask("GetBacktestStatus", {"backtestId": "paused"})["progressPercent"] == 0.0
        assert raw_client.ask("ResumeBacktest", {"backtestId": "paused"})["status"] == "running"
        wait_for(raw_client, "paused", "completed")
        assert_equal(raw_client, "paused", expected_results, expected)
        last = raw_client.ask("FetchMissed", {"topic": system.topic, "fromSeq": 1})
        changes = [one["payload"]["data"] for one in last["messages"]]
        for name in ("running", "queued-1", "queued-2", "paused"):
            ended = [one for one in changes if one["backtestId"] == name and one["status"] == "completed"]
            assert len(ended) == 1, f"{name} ended {len(ended)} times"
        assert len(raw_client.ask("ListBacktests", {})["backtests"]) == 5


def assert_equal(raw_client: RawClient, backtest_id: str, expected_results: Fields, expected: Fields) -> None:
    results, stored = tables(raw_client, backtest_id, ALL_TABLES)
    assert results["metrics"] == expected_results["metrics"]
    for name in ALL_TABLES:
        assert stored[name].equals(expected[name]), f"{name} of {backtest_id} differs"


def test_a_result_that_the_killed_broker_did_not_hear_of_is_the_result(broker: RunningBroker) -> None:
    """The record on disk still says `running` when the broker dies; the worker had stored the result before."""
    with RawClient(broker.connection_file) as raw_client:
        raw_client.hello()
        run_to_end(raw_client, SYNTH, "b1")
        before = tables(raw_client, "b1", ALL_TABLES)
    broker.kill()
    stored = broker.data_dir / "results" / "b1" / "result.json"
    written = stored.stat().st_mtime_ns
    database = sqlite3.connect(broker.data_dir / "broker.db", isolation_level=None)
    database.execute(
        "UPDATE jobs SET status = 'running', end_time = NULL, progress_percent = 40 WHERE backtest_id = 'b1'"
    )
    database.close()
    broker.start()
    with RawClient(broker.connection_file) as raw_client:
        raw_client.hello()
        wait_for(raw_client, "b1", "completed")
        results, found = tables(raw_client, "b1", ALL_TABLES)
        assert results["metrics"] == before[0]["metrics"]
        assert all(found[name].equals(before[1][name]) for name in ALL_TABLES)
        assert raw_client.ask("GetBacktestStatus", {"backtestId": "b1"})["progressPercent"] == 100.0
    assert stored.stat().st_mtime_ns == written, "it was run again"


def test_a_corrupt_database_is_moved_aside_and_everyone_hears_of_it(broker: RunningBroker) -> None:
    broker.stop()
    database = broker.data_dir / "broker.db"
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
    database.write_bytes(b"this was a database once " * 1000)
    broker.start()
    (aside,) = broker.data_dir.glob("broker.db.corrupt-*Z")
    assert aside.read_bytes().startswith(b"this was")
    with RawClient(broker.connection_file) as raw_client:
        raw_client.hello()
        (message,) = raw_client.ask("FetchMissed", {"topic": "system.errors", "fromSeq": 1})["messages"]
        assert message["payload"]["data"]["code"] == "SYSTEM_ERROR"
        assert str(aside) in message["payload"]["data"]["message"]
        assert run_to_end(raw_client, SYNTH)["status"] == "completed"
    wait_until(lambda: str(aside) in broker.log, 5)


def test_a_database_of_a_later_version_is_refused_and_left_alone(broker: RunningBroker) -> None:
    broker.stop()
    path = broker.data_dir / "broker.db"
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 1000")
    database.close()
    assert "schema version 1000" in broker.refused_start()
    assert [entry.name for entry in broker.data_dir.glob("broker.db*")] == ["broker.db"]


def test_two_brokers_do_not_share_a_data_directory(broker: RunningBroker) -> None:
    with pytest.raises(InvalidConfiguration, match="another broker uses the data directory"):
        EmbeddedBroker(broker.data_dir)
    with RawClient(broker.connection_file) as raw_client:
        assert raw_client.hello()["sessionId"]


# --- shared state ---


def test_acknowledged_changes_of_state_are_there_after_kill_9_and_made_once(broker: RunningBroker) -> None:
    with RawClient(broker.connection_file) as raw_client:
        raw_client.hello()
        changes = {f"change {number}": {"key": f"k{number % 5}", "value": {"n": number}} for number in range(50)}
        answers = {name: raw_client.ask("UpdateState", data, message_id=name) for name, data in changes.items()}
        gone = raw_client.ask("DeleteState", {"key": "k0", "expectedVersion": 10}, message_id="gone")
        before = raw_client.ask("SnapshotState", {"prefix": ""})
    broker.kill()
    broker.start()
    with RawClient(broker.connection_file) as raw_client:
        raw_client.hello()
        assert raw_client.ask("SnapshotState", {"prefix": ""}) == before
        assert [one["value"]["n"] for one in before["entries"]] == [46, 47, 48, 49]
        for name, data in changes.items():
            assert raw_client.ask("UpdateState", data, message_id=name) == answers[name]
        assert raw_client.ask("DeleteState", {"key": "k0", "expectedVersion": 10}, message_id="gone") == gone
        assert raw_client.ask("SnapshotState", {"prefix": ""}) == before, "a change was made twice"
        assert raw_client.ask("UpdateState", {"key": "k0", "value": 1, "expectedVersion": 0})["version"] == 12


def test_increments_of_many_clients_add_up(broker: RunningBroker) -> None:
    """Compare and set, again and again, on the same keys at the same time: none is lost, none is made twice."""
    clients, keys, times = 5, ("a", "b", "c"), 50

    def increment(number: int) -> None:
        with backtestr.connect(connection_file=broker.connection_file, client_id=f"client-{number}") as client:
            for _ in range(times):
                for key in keys:
                    add_one(client, key)

    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(increment, number) for number in range(clients)]:
            done.result()
    with backtestr.connect(connection_file=broker.connection_file) as client:
        entries = client.snapshot_state().entries
        assert [(one.key, one.value, one.version) for one in entries] == [(key, 250, 250) for key in keys]
        heard = [one for one in client.fetch_missed("state.a") if isinstance(one, Update)]
        assert [one.data.version for one in heard] == list(range(1, 251))


def add_one(client: backtestr.Client, key: str) -> None:
    version, value = 0, 0
    while True:
        try:
            client.update_state(key, value + 1, expected_version=version)
        except StateConflict as conflict:
            details = conflict.details or {}
            version, value = details["currentVersion"], details["currentValue"]
        else:
            return


def test_subscribers_of_state_hear_of_every_change(broker: RunningBroker) -> None:
    with RawClient(broker.connection_file) as raw_client:
        raw_client.hello()
        system = raw_client.subscribe("system", "state.ui.")
        raw_client.ask("UpdateState", {"key": "uid", "value": 0})
        raw_client.ask("UpdateState", {"key": "ui.theme", "value": "dark"})
        raw_client.ask("DeleteState", {"key": "ui.theme"})
        heard = system.until(lambda data: data.get("deleted", False))
    assert [one["messageType"] for one in heard] == ["Event", "Event"]
    assert [(one["payload"]["type"], one["seq"]) for one in heard] == [("StateUpdate", 1), ("StateUpdate", 2)]
    assert [one["payload"]["data"]["value"] for one in heard] == ["dark", None]


def test_an_embedded_broker_keeps_state_too(tmp_path: Path) -> None:
    with backtestr.embedded(tmp_path) as client:
        client.update_state("a", [1, 2])
    with backtestr.embedded(tmp_path) as client:
        assert client.get_state("a").value == [1, 2]
