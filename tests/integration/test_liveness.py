"""Workers that hang, that are busy, that crash and that are stuck, in a real broker: told apart, and replaced."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from integration.conftest import QUICK
from integration.test_end_to_end import SYNTH
from support.harness import RawClient, RunningBroker, running_broker, short_directory, wait_until
from support.protocol.independent import Fields

# Beats and looks ten times a second, and a worker is hung after four seconds of silence without work: a start on a busy
# machine may wait for the disk that long.
WATCHFUL = f"{QUICK}[workers]\ncompute = 1\n[liveness]\nworker_hung_ms = 4000\n"
BEATING = "[worker]\nbeat_interval_ms = 100\n"
COMPUTE = "compute-1"


def compute_worker(raw_client: RawClient) -> Fields:
    workers = raw_client.ask("GetSystemStatus", {})["workers"]
    found: Fields = next(one for one in workers if one["workerId"] == COMPUTE)
    return found


def test_a_stopped_worker_is_killed_and_its_backtest_completes_once_on_another() -> None:
    config = {"broker.toml": WATCHFUL, "engine.toml": f"{BEATING}chunk_bars = 20\n"}
    with running_broker(config) as broker, RawClient(broker.connection_file) as raw_client:
        raw_client.hello()
        system = raw_client.subscribe("system", "system.backtests")
        straight = raw_client.ask("StartBacktest", SYNTH)["backtestId"]
        system.until(lambda data: data["backtestId"] == straight and data["status"] == "completed")
        progress = raw_client.subscribe("progress", "progress.")
        hung = raw_client.ask("StartBacktest", SYNTH)["backtestId"]
        progress.until(lambda data: data["backtestId"] == hung and 10 < data["progressPercent"] < 90)
        pid = compute_worker(raw_client)["pid"]
        os.kill(pid, signal.SIGSTOP)
        changes = system.until(lambda data: data["backtestId"] == hung and data["status"] == "completed")
        statuses = [one["payload"]["data"]["status"] for one in changes]
        assert statuses == ["queued", "running", "queued", "running", "completed"]
        worker = compute_worker(raw_client)
        assert worker["pid"] != pid
        assert worker["restarts"] == 1
        orders = [
            raw_client.ask("FetchMissed", {"topic": f"orders.{one}", "fromSeq": 1})["toSeq"] for one in (straight, hung)
        ]
        assert orders[0] == orders[1] > 100, "orders were published twice, or not at all"
        (reason,) = raw_client.ask("GetSystemStatus", {})["reasons"]
        assert "compute-1 was lost" in reason
        assert "no sign of life and no processor time" in reason


def holding_the_lock(seconds: float) -> str:
    """An algorithm that calls into C once, for about so long, without ever letting go of Python."""
    began = time.perf_counter()
    sum(range(10_000_000))
    count = round(10_000_000 * seconds / (time.perf_counter() - began))
    return f"""\
from backtestr_engine.authoring import algorithm
from backtestr_engine.authoring import Signals

@algorithm("holds")
def holds(bars):
    sum(range({count}))
    return Signals.of(entries=bars.close > 0)
"""


def with_algorithm(broker: RunningBroker, source: str) -> None:
    folder = broker.data_dir / "algorithms"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "own.py").write_text(source, "utf-8")


def test_a_worker_that_holds_pythons_lock_is_busy_and_not_killed() -> None:
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(short_directory())
        broker = RunningBroker(home, {"broker.toml": WATCHFUL, "engine.toml": BEATING})
        with_algorithm(broker, holding_the_lock(7.5))
        stack.enter_context(broker)
        raw_client = stack.enter_context(RawClient(broker.connection_file))
        raw_client.hello()
        pid = compute_worker(raw_client)["pid"]
        system = raw_client.subscribe("system", "system.")
        held = raw_client.ask("StartBacktest", {**SYNTH, "algorithmId": "holds", "parameters": {}})["backtestId"]
        said = "compute-1 has not been heard of for "
        found = system.until(lambda data: any(one.startswith(said) for one in data.get("reasons", [])))
        assert found[-1]["payload"]["data"]["status"] == "warning"
        system.until(lambda data: data.get("backtestId") == held and data["status"] == "completed")
        worker = compute_worker(raw_client)
        assert worker["pid"] == pid, "it was killed for being busy"
        assert "restarts" not in worker


def test_a_crash_loop_is_reported_and_is_over_when_its_cause_is() -> None:
    with running_broker({"broker.toml": WATCHFUL}) as broker, RawClient(broker.connection_file) as raw_client:
        raw_client.hello()
        system = raw_client.subscribe("system", "system.")
        with_algorithm(broker, "import os\nos._exit(7)\n")
        os.kill(compute_worker(raw_client)["pid"], signal.SIGKILL)
        found = system.until(lambda data: data.get("code") == "SYSTEM_ERROR", 60.0)
        message = found[-1]["payload"]["data"]["message"]
        assert "compute-1 has ended 4 times in a row within 10 s of its start, the last time: exit code 7" in message
        status = raw_client.ask("GetSystemStatus", {})
        assert status["status"] == "error"
        assert status["reasons"][0] == "no compute worker is ready"
        assert "compute-1 ends soon after its start" in status["reasons"][1]
        assert raw_client.ask("ListMarketData", {})["series"], "everything else is served"
        (broker.data_dir / "algorithms" / "own.py").unlink()
        wait_until(lambda: compute_worker(raw_client)["state"] == "idle", 60.0)
        raw_client.ask("StartBacktest", SYNTH)
        system.until(lambda data: data.get("status") == "completed")


def test_a_loop_that_was_away_says_so_once() -> None:
    with running_broker({"broker.toml": WATCHFUL}) as broker, RawClient(broker.connection_file) as raw_client:
        system = raw_client.subscribe("system", "system.status")
        os.kill(broker.process.pid, signal.SIGSTOP)
        until = time.monotonic() + 0.5
        wait_until(lambda: time.monotonic() >= until, 5.0)
        os.kill(broker.process.pid, signal.SIGCONT)
        late = system.until(lambda data: data["loopLagMs"] > 300)[-1]["payload"]["data"]
        assert late["status"] == "warning"
        assert any(one.startswith("the broker's loop was away for ") for one in late["reasons"])
        system.until(lambda data: data["loopLagMs"] < 250)


def test_an_answer_that_never_comes_is_given_up_with_its_worker() -> None:
    engine = f"{BEATING}question_time_limit_ms = 200\n"
    with running_broker({"broker.toml": WATCHFUL, "engine.toml": engine}) as broker:
        folder = broker.data_dir / "results" / "stuck"
        folder.mkdir(parents=True)
        os.mkfifo(folder / "result.json")  # whoever reads it waits for somebody to write
        with RawClient(broker.connection_file) as raw_client:
            raw_client.hello()
            error = raw_client.refused("GetPerformanceMetrics", {"backtestId": "stuck"})
            assert error["code"] == "TIMEOUT"
            assert "took longer than 0.2 s" in error["message"]
            assert "question_time_limit_ms" in error["message"]
            assert raw_client.ask("ListMarketData", {})["series"], "another worker has taken its place"
            assert raw_client.ask("GetSystemStatus", {})["workers"][1]["restarts"] == 1
