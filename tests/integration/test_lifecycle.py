"""A broker starts, stops by signals, is killed, and leaves no process and no socket behind."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path

import psutil
import pytest

from integration.test_end_to_end import SYNTH, run_to_end
from support.harness import RawClient, RunningBroker, short_directory, wait_until


def assert_nothing_is_left(broker: RunningBroker, workers: list[int]) -> None:
    assert not [pid for pid in workers if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
    assert not broker.connection_file.exists()
    left = [entry.name for entry in broker.runtime_dir.iterdir() if stat.S_ISSOCK(entry.lstat().st_mode)]
    assert not left, f"sockets are left: {left}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_within_three_seconds(own_broker: RunningBroker, number: signal.Signals) -> None:
    workers = own_broker.worker_pids()
    assert len(workers) >= 2
    assert own_broker.stop(number) == 0  # raises TimeoutExpired after three seconds
    assert_nothing_is_left(own_broker, workers)
    assert own_broker.log.endswith("run again when it is started.\n"), "the log says that it has stopped"


def test_a_signal_ends_a_broker_that_is_at_work(slow_broker: RunningBroker) -> None:
    with RawClient(slow_broker.connection_file) as raw_client:
        raw_client.hello()
        raw_client.ask("StartBacktest", SYNTH)
        workers = slow_broker.worker_pids()
        assert slow_broker.stop() == 0
    assert_nothing_is_left(slow_broker, workers)


def test_the_banner_has_paths_and_commands(broker: RunningBroker) -> None:
    wait_until(lambda: "In Python" in broker.log, 5)
    for text in (
        str(broker.connection_file),
        "SYNTH 1m (20,000 bars), SYNTH 1d (1,000 bars)",
        "backtest sma_cross",
    ):
        assert text in broker.log


def test_the_connection_file_is_private_and_complete(broker: RunningBroker) -> None:
    assert stat.S_IMODE(broker.connection_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(broker.runtime_dir.stat().st_mode) == 0o700
    connection = json.loads(broker.connection_file.read_text())
    assert connection["protocolVersion"] == 1
    assert connection["pid"] == broker.process.pid
    assert connection["curve"] is None
    assert set(connection["endpoints"]) == {"requests", "prices", "progress", "orders", "positions", "system"}
    assert len(bytes.fromhex(connection["signing"]["key"])) == 32


def test_a_second_start_is_refused_and_does_not_affect_the_first(broker: RunningBroker, raw_client: RawClient) -> None:
    assert f"already running in {broker.runtime_dir}" in broker.refused_start()
    assert broker.connection_file.exists()
    assert raw_client.ask("Ping", {})


def test_two_brokers_run_side_by_side(raw_client: RawClient, tcp_broker: RunningBroker) -> None:
    with RawClient(tcp_broker.connection_file) as second:
        assert second.hello()["instanceId"] != raw_client.connection["instanceId"]
        assert second.ask("ListMarketData", {})["series"]
    assert raw_client.ask("Ping", {})


def test_a_broker_over_tcp_serves_like_one_over_ipc(tcp_broker: RunningBroker) -> None:
    with RawClient(tcp_broker.connection_file) as raw_client:
        assert raw_client.connection["endpoints"]["requests"].startswith("tcp://127.0.0.1:")
        raw_client.hello()
        assert raw_client.ask("Ping", {})


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("broker.toml", "[limits]\nhartbeat_interval_ms = 5\n", "did you mean 'heartbeat_interval_ms'"),
        ("broker.toml", "[limts]\n", "did you mean 'limits'"),
        ("broker.toml", '[workers]\ncompute = "all"\n', "compute"),
        ("broker.toml", '[transport]\nkind = "tcp"\nhost = "0.0.0.0"\n', "the one IPv4 address"),
        ("broker.toml", "not toml", "not TOML"),
    ],
)
def test_a_wrong_option_is_refused_by_name(file: str, text: str, says: str) -> None:
    with short_directory() as home:
        broker = RunningBroker(home, {file: text})
        said = broker.refused_start(2)
        assert says in said
        assert file in said


def test_a_wrong_engine_option_stops_the_start_and_is_named() -> None:
    with short_directory() as home:
        broker = RunningBroker(home, {"engine.toml": "[worker]\nchunk_bras = 5\n"})
        said = broker.refused_start()
        assert said.count("did you mean 'chunk_bars'") <= 2, "each worker says so once, and none is started again"
        assert "did you mean 'chunk_bars'" in said


def test_a_socket_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    assert "BACKTESTR_RUNTIME_DIR" in RunningBroker(tmp_path / ("d" * 100)).refused_start()


def test_workers_of_a_killed_broker_end_by_themselves_and_the_next_start_sweeps(own_broker: RunningBroker) -> None:
    own_broker.kill()  # fails when a worker is left
    assert own_broker.connection_file.exists()  # no process was left to remove it
    own_broker.start()
    with RawClient(own_broker.connection_file) as raw_client:
        assert raw_client.hello()["instanceId"]


# With a pace, so that it cannot end before its worker is killed.
SHORT = {**SYNTH, "endDate": "2024-01-06"}
PACED = {**SHORT, "options": {"pace": 10_000.0}}


def test_a_killed_worker_is_replaced_and_its_backtest_continues_its_streams(tcp_broker: RunningBroker) -> None:
    with RawClient(tcp_broker.connection_file) as raw_client:
        raw_client.hello()
        system = raw_client.subscribe("system", "system.backtests")
        straight = raw_client.ask("StartBacktest", SHORT)["backtestId"]
        system.until(lambda data: data["backtestId"] == straight and data["status"] == "completed")

        progress = raw_client.subscribe("progress", "progress.")
        broken = raw_client.ask("StartBacktest", PACED)["backtestId"]
        seen = progress.until(lambda data: data["backtestId"] == broken and 10 < data["progressPercent"] < 90)
        workers = raw_client.ask("GetSystemStatus", {})["workers"]
        os.kill(next(one["pid"] for one in workers if one["workerId"] == "compute-1"), signal.SIGKILL)
        changes = system.until(lambda data: data["backtestId"] == broken and data["status"] == "completed")
        statuses = [one["payload"]["data"]["status"] for one in changes]
        assert statuses == ["queued", "running", "queued", "running", "completed"]

        seen += progress.until(lambda data: data["backtestId"] == broken and data["progressPercent"] == 100)
        steps = [one["payload"]["data"] for one in seen if one["payload"]["data"]["backtestId"] == broken]
        for figure in ("progressPercent", "currentTime", "ordersExecuted"):
            assert [one[figure] for one in steps] == sorted(one[figure] for one in steps), f"{figure} went back"

        orders = {
            one: raw_client.ask("FetchMissed", {"topic": f"orders.{one}", "fromSeq": 1})["toSeq"]
            for one in (straight, broken)
        }
        assert orders[broken] == orders[straight] > 100, "orders were published twice, or not at all"
        metrics = [
            raw_client.ask("GetPerformanceMetrics", {"backtestId": one})["metrics"] for one in (straight, broken)
        ]
        assert metrics[0] == metrics[1]
        status = raw_client.ask("GetSystemStatus", {})
        assert status["status"] == "warning", "for a minute people see what has happened"
        assert any("compute-1 was lost" in reason for reason in status["reasons"])


def test_results_outlive_the_broker_and_are_not_overwritten(own_broker: RunningBroker) -> None:
    with RawClient(own_broker.connection_file) as raw_client:
        raw_client.hello()
        run_to_end(raw_client, SYNTH, "kept")
        before = raw_client.ask("GetPerformanceMetrics", {"backtestId": "kept"})
    own_broker.stop()
    own_broker.start()
    with RawClient(own_broker.connection_file) as raw_client:
        raw_client.hello()
        assert raw_client.ask("GetPerformanceMetrics", {"backtestId": "kept"}) == before
        assert raw_client.refused("StartBacktest", {**SYNTH, "backtestId": "kept"})["code"] == "STATE_CONFLICT"
        assert raw_client.ask("GetBacktestStatus", {"backtestId": "kept"})["status"] == "completed"
    own_broker.stop()
    (own_broker.data_dir / "broker.db").unlink()
    own_broker.start()
    with RawClient(own_broker.connection_file) as raw_client:
        raw_client.hello()
        assert raw_client.refused("GetBacktestStatus", {"backtestId": "kept"})["code"] == "NOT_FOUND"
        assert raw_client.ask("GetPerformanceMetrics", {"backtestId": "kept"}) == before
        assert raw_client.refused("StartBacktest", {**SYNTH, "backtestId": "kept"})["code"] == "STATE_CONFLICT"
