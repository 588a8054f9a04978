"""A broker killed with `kill -9` has lost nothing that it acknowledged when the next one starts in its directory."""

from __future__ import annotations

import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

import backtestr
from backtestr import Update
from backtestr.embedded_broker import EmbeddedBroker
from backtestr_broker.io.database_rows import JOBS, put, read_table
from backtestr_broker.io.database_schema import SCHEMA_VERSION, application_id
from backtestr_protocol.errors import InvalidConfiguration, StateConflict
from integration.test_end_to_end import SYNTH, run_to_end, tables
from integration.test_steering import ALL_TABLES, wait_for
from support.harness import RawClient, RunningBroker, wait_until
from support.protocol.independent import Fields

NAMED = {**SYNTH, "options": {"streams": {"progressIntervalMs": 20}}}


def status(raw_client: RawClient, backtest_id: str) -> str:
    found: str = raw_client.ask("GetBacktestStatus", {"backtestId": backtest_id})["status"]
    return found


def test_no_acknowledged_backtest_is_lost_or_runs_twice_after_kill_9(slow_broker: RunningBroker) -> None:
    with RawClient(slow_broker.connection_file) as raw_client:
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
    slow_broker.kill()
    slow_broker.start()
    with RawClient(slow_broker.connection_file) as raw_client:
        raw_client.hello()
        system = raw_client.subscribe("system", "system.backtests")
        listed = [one["backtestId"] for one in raw_client.ask("ListBacktests", {})["backtests"]]
        assert listed[:5] == ["queued-2", "queued-1", "running", "paused", "ended"]
        assert status(raw_client, "ended") == "completed"
        again = raw_client.ask("StartBacktest", {**NAMED, "backtestId": "running"}, message_id="start running")
        assert again["backtestId"] == "running"
        wait_for(raw_client, "queued-2", "completed")
        for name in ("running", "queued-1", "queued-2"):
            assert_equal(raw_client, name, expected_results, expected)
        wait_for(raw_client, "paused", "paused")
        assert raw_client.ask("GetBacktestStatus", {"backtestId": "paused"})["progressPercent"] > 5, (
            "it is where it was"
        )
        assert raw_client.ask("ResumeBacktest", {"backtestId": "paused"})["status"] == "running"
        wait_for(raw_client, "paused", "completed")
        assert_equal(raw_client, "paused", expected_results, expected)
        last = raw_client.ask("FetchMissed", {"topic": system.topic, "fromSeq": 1})
        changes = [one["payload"]["data"] for one in last["messages"]]
        for name in ("running", "queued-1", "queued-2", "paused"):
            ended = [one for one in changes if one["backtestId"] == name and one["status"] == "completed"]
            assert len(ended) == 1, f"{name} ended {len(ended)} times"
        assert len(raw_client.ask("ListBacktests", {})["backtests"]) == len(listed)


def assert_equal(raw_client: RawClient, backtest_id: str, expected_results: Fields, expected: Fields) -> None:
    results, stored = tables(raw_client, backtest_id, ALL_TABLES)
    assert results["metrics"] == expected_results["metrics"]
    for name in ALL_TABLES:
        assert stored[name].equals(expected[name]), f"{name} of {backtest_id} differs"


def test_a_stored_result_that_the_killed_broker_did_not_record_is_the_result(slow_broker: RunningBroker) -> None:
    """The record on disk is still `running` when the broker is killed; the worker had stored the result before."""
    with RawClient(slow_broker.connection_file) as raw_client:
        raw_client.hello()
        run_to_end(raw_client, SYNTH, "stored")
        before = tables(raw_client, "stored", ALL_TABLES)
    slow_broker.kill()
    stored = slow_broker.data_dir / "results" / "stored" / "result.json"
    written = stored.stat().st_mtime_ns
    database = sqlite3.connect(slow_broker.data_dir / "broker.db", isolation_level=None)
    (record,) = (one for one in read_table(database, JOBS)[0] if one.backtest_id == "stored")
    put(database, JOBS, msgspec.structs.replace(record, status="running", end_time=None, progress_percent=40.0))
    database.close()
    slow_broker.start()
    with RawClient(slow_broker.connection_file) as raw_client:
        raw_client.hello()
        wait_for(raw_client, "stored", "completed")
        results, found = tables(raw_client, "stored", ALL_TABLES)
        assert results["metrics"] == before[0]["metrics"]
        assert all(found[name].equals(before[1][name]) for name in ALL_TABLES)
        assert raw_client.ask("GetBacktestStatus", {"backtestId": "stored"})["progressPercent"] == 100.0
    assert stored.stat().st_mtime_ns == written, "it was run again"


def test_a_corrupt_database_is_moved_aside_and_reported_to_all_clients(slow_broker: RunningBroker) -> None:
    slow_broker.stop()
    database = slow_broker.data_dir / "broker.db"
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
    database.write_bytes(b"this was a database once " * 1000)
    slow_broker.start()
    (aside,) = slow_broker.data_dir.glob("broker.db.corrupt-*Z")
    assert aside.read_bytes().startswith(b"this was")
    with RawClient(slow_broker.connection_file) as raw_client:
        raw_client.hello()
        (message,) = raw_client.ask("FetchMissed", {"topic": "system.errors", "fromSeq": 1})["messages"]
        assert message["payload"]["data"]["code"] == "SYSTEM_ERROR"
        assert str(aside) in message["payload"]["data"]["message"]
        assert run_to_end(raw_client, SYNTH)["status"] == "completed"
    wait_until(lambda: str(aside) in slow_broker.log, 5)


def test_a_database_of_a_later_version_is_refused_and_left_unchanged(slow_broker: RunningBroker) -> None:
    slow_broker.stop()
    path = slow_broker.data_dir / "broker.db"
    before = sorted(slow_broker.data_dir.glob("broker.db*"))
    assert with_schema_version(path, 1000) == SCHEMA_VERSION
    assert "schema version 1000" in slow_broker.refused_start()
    assert sorted(slow_broker.data_dir.glob("broker.db*")) == before
    assert with_schema_version(path, SCHEMA_VERSION) == 1000


def with_schema_version(path: Path, version: int) -> int:
    """Write another schema version into a database and return the one that it had."""
    database = sqlite3.connect(path)
    (known,) = database.execute("PRAGMA user_version").fetchone()
    database.execute(f"PRAGMA user_version = {version}")
    database.execute(f"PRAGMA application_id = {application_id(version)}")
    database.close()
    return int(known)


def test_damaged_rows_and_a_damaged_log_are_named_and_everything_else_is_served(slow_broker: RunningBroker) -> None:
    path = slow_broker.data_dir / "broker.db"
    with RawClient(slow_broker.connection_file) as raw_client:
        raw_client.hello()
        run_to_end(raw_client, SYNTH, "intact")
        run_to_end(raw_client, SYNTH, "flipped")
        for name in ("intact", "flipped"):
            raw_client.ask("UpdateState", {"key": f"damage.{name}", "value": name})
    slow_broker.stop()
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("UPDATE jobs SET symbols = '[]' WHERE backtest_id = 'flipped'")
    database.execute("UPDATE state SET value = x'a1ff' WHERE key = 'damage.flipped'")
    database.close()
    slow_broker.start()
    with RawClient(slow_broker.connection_file) as raw_client:
        raw_client.hello()
        (message,) = raw_client.ask("FetchMissed", {"topic": "system.errors", "fromSeq": 1})["messages"]
        said = message["payload"]["data"]["message"]
        assert "jobs flipped" in said
        assert "state damage.flipped" in said
        snapshot = raw_client.ask("SnapshotState", {"prefix": "damage."})
        assert [one["key"] for one in snapshot["entries"]] == ["damage.intact"]
        assert status(raw_client, "intact") == "completed"
        assert raw_client.refused("GetBacktestStatus", {"backtestId": "flipped"})["code"] == "NOT_FOUND"
        assert tables(raw_client, "flipped", ALL_TABLES)[0]["status"] == "completed", "results are not affected"
        system = raw_client.ask("GetSystemStatus", {})
        assert any("database was damaged" in reason for reason in system["reasons"])
        changes = [raw_client.ask("UpdateState", {"key": "damage.log", "value": number}) for number in range(20)]
        assert changes[-1]["version"] == 20
    slow_broker.kill()
    log = path.with_name("broker.db-wal")
    content = bytearray(log.read_bytes())
    content[len(content) // 4] ^= 1
    log.write_bytes(content)
    slow_broker.start()
    with RawClient(slow_broker.connection_file) as raw_client:
        raw_client.hello()
        (message,) = raw_client.ask("FetchMissed", {"topic": "system.errors", "fromSeq": 1})["messages"]
        assert "changes that were acknowledged are lost" in message["payload"]["data"]["message"]
        assert status(raw_client, "intact") == "completed"
    assert "Traceback" not in slow_broker.log


def test_two_brokers_do_not_share_a_data_directory(broker: RunningBroker) -> None:
    with pytest.raises(InvalidConfiguration, match="another broker uses the data directory"):
        EmbeddedBroker(broker.data_dir)
    with RawClient(broker.connection_file) as raw_client:
        assert raw_client.hello()["sessionId"]


# --- shared state ---


def test_acknowledged_changes_of_state_are_kept_after_kill_9_and_made_once(slow_broker: RunningBroker) -> None:
    with RawClient(slow_broker.connection_file) as raw_client:
        raw_client.hello()
        changes = {f"change {number}": {"key": f"kept.k{number % 5}", "value": {"n": number}} for number in range(50)}
        answers = {name: raw_client.ask("UpdateState", data, message_id=name) for name, data in changes.items()}
        gone = raw_client.ask("DeleteState", {"key": "kept.k0", "expectedVersion": 10}, message_id="gone")
        before = raw_client.ask("SnapshotState", {"prefix": "kept."})
    slow_broker.kill()
    slow_broker.start()
    with RawClient(slow_broker.connection_file) as raw_client:
        raw_client.hello()
        assert raw_client.ask("SnapshotState", {"prefix": "kept."}) == before
        assert [one["value"]["n"] for one in before["entries"]] == [46, 47, 48, 49]
        for name, data in changes.items():
            assert raw_client.ask("UpdateState", data, message_id=name) == answers[name]
        assert raw_client.ask("DeleteState", {"key": "kept.k0", "expectedVersion": 10}, message_id="gone") == gone
        assert raw_client.ask("SnapshotState", {"prefix": "kept."}) == before, "a change was made twice"
        assert raw_client.ask("UpdateState", {"key": "kept.k0", "value": 1, "expectedVersion": 0})["version"] == 12


def test_increments_of_many_clients_add_up(broker: RunningBroker) -> None:
    """Clients increment the same keys at the same time, each by the expected version: no change is lost or repeated."""
    clients, keys, times = 5, ("sum.a", "sum.b", "sum.c"), 50

    def increment(number: int) -> None:
        with backtestr.connect(connection_file=broker.connection_file, client_id=f"client-{number}") as client:
            for _ in range(times):
                for key in keys:
                    add_one(client, key)

    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(increment, number) for number in range(clients)]:
            done.result()
    with backtestr.connect(connection_file=broker.connection_file) as client:
        entries = client.snapshot_state("sum.").entries
        assert [(one.key, one.value, one.version) for one in entries] == [(key, 250, 250) for key in keys]
        changes = [one for one in client.fetch_missed("state.sum.a") if isinstance(one, Update)]
        assert [one.data.version for one in changes] == list(range(1, 251))


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


def test_subscribers_of_state_receive_every_change(broker: RunningBroker) -> None:
    with RawClient(broker.connection_file) as raw_client:
        raw_client.hello()
        system = raw_client.subscribe("system", "state.heard.")
        raw_client.ask("UpdateState", {"key": "heard", "value": 0})
        raw_client.ask("UpdateState", {"key": "heard.theme", "value": "dark"})
        raw_client.ask("DeleteState", {"key": "heard.theme"})
        heard = system.until(lambda data: data.get("deleted", False))
    assert [one["messageType"] for one in heard] == ["Event", "Event"]
    assert [(one["payload"]["type"], one["seq"]) for one in heard] == [("StateUpdate", 1), ("StateUpdate", 2)]
    assert [one["payload"]["data"]["value"] for one in heard] == ["dark", None]


def test_an_embedded_broker_keeps_state_too(tmp_path: Path) -> None:
    with backtestr.embedded(tmp_path) as client:
        client.update_state("a", [1, 2])
    with backtestr.embedded(tmp_path) as client:
        assert client.get_state("a").value == [1, 2]
