"""Backtests go on from their checkpoints in real workers, after the loss of a worker and after that of the broker."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from integration.conftest import with_algorithm
from integration.test_end_to_end import SYNTH, run_to_end, tables
from integration.test_steering import ALL_TABLES, wait_for
from support.harness import RawClient, RunningBroker, wait_until
from support.protocol.independent import Fields

NAMED = {**SYNTH, "endDate": "2024-01-04", "options": {"streams": {"progressIntervalMs": 20, "marks": False}}}
PACED = {**NAMED, "options": {"streams": NAMED["options"]["streams"], "pace": 50.0}}
ENDS = """
import os

from backtestr_engine.authoring import algorithm


@algorithm("ends_its_worker")
def ends_its_worker(bars):
    os._exit(7)
"""


def percent(raw_client: RawClient, backtest_id: str) -> float:
    found: float = raw_client.ask("GetBacktestStatus", {"backtestId": backtest_id})["progressPercent"]
    return found


def kept(broker: RunningBroker, backtest_id: str) -> Path:
    return broker.data_dir / "checkpoints" / backtest_id


def published(raw_client: RawClient, topic: str) -> Fields:
    return raw_client.ask("FetchMissed", {"topic": topic, "fromSeq": 1})


def first_of(missed: Fields) -> Fields:
    payload: Fields = missed["messages"][0]["payload"]
    found: Fields = payload["data"]["messages"][0]["data"] if payload["type"] == "Batch" else payload["data"]
    return found


def computing(raw_client: RawClient) -> int:
    """Return the process id of the compute worker while it is at work, else 0."""
    workers = raw_client.ask("GetSystemStatus", {})["workers"]
    (pid,) = [one["pid"] if one["state"] == "busy" else 0 for one in workers if one["workerId"] == "compute-1"]
    return int(pid)


def test_a_lost_worker_costs_no_bar_before_the_checkpoint(slow_broker: RunningBroker) -> None:
    with RawClient(slow_broker.connection_file) as raw_client:
        raw_client.hello()
        assert run_to_end(raw_client, NAMED, "whole")["status"] == "completed"
        expected_results, expected = tables(raw_client, "whole", ALL_TABLES)
        raw_client.ask("StartBacktest", {**NAMED, "backtestId": "lost"})
        for _ in range(2):
            wait_until(lambda: kept(slow_broker, "lost").exists() and percent(raw_client, "lost") > 2, 60)
            killed = computing(raw_client)
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda killed=killed: computing(raw_client) not in (0, killed), 60)  # type: ignore[misc]
        wait_for(raw_client, "lost", "completed")
        results, stored = tables(raw_client, "lost", ALL_TABLES)
        assert results["metrics"] == expected_results["metrics"]
        assert all(stored[name].equals(expected[name]) for name in ALL_TABLES)
        for kind in ("orders", "positions"):
            whole, lost = published(raw_client, f"{kind}.whole"), published(raw_client, f"{kind}.lost")
            assert lost["toSeq"] == whole["toSeq"]
        assert not kept(slow_broker, "lost").exists()


def test_backtests_go_on_in_the_next_broker(slow_broker: RunningBroker) -> None:
    names = ("held", "paced", "going")
    with RawClient(slow_broker.connection_file) as raw_client:
        raw_client.hello()
        assert run_to_end(raw_client, NAMED, "all")["status"] == "completed"
        expected_results, expected = tables(raw_client, "all", ALL_TABLES)
        raw_client.ask("StartBacktest", {**NAMED, "backtestId": "held"})
        wait_until(lambda: percent(raw_client, "held") > 5, 60)
        raw_client.ask("PauseBacktest", {"backtestId": "held"})
        raw_client.ask("StartBacktest", {**PACED, "backtestId": "paced"})
        wait_until(lambda: kept(slow_broker, "paced").exists() and percent(raw_client, "paced") > 0.6, 60)
        raw_client.ask("StartBacktest", {**NAMED, "backtestId": "going"})
        wait_until(lambda: kept(slow_broker, "going").exists(), 60)
        before = {name: published(raw_client, f"progress.{name}")["toSeq"] for name in names}
        held_at = percent(raw_client, "held")
    slow_broker.kill()
    with_algorithm(slow_broker, "ends", ENDS)
    slow_broker.start()
    with RawClient(slow_broker.connection_file) as raw_client:
        raw_client.hello()
        wait_for(raw_client, "held", "paused")
        assert percent(raw_client, "held") == held_at
        held = published(raw_client, "progress.held")
        assert (held["oldestSeq"], held["toSeq"]) == (before["held"] + 1, before["held"]), "nothing is made again"
        wait_until(lambda: published(raw_client, "progress.paced")["messages"] != [], 60)
        paced = published(raw_client, "progress.paced")
        assert paced["oldestSeq"] > 1
        assert first_of(paced)["progressPercent"] > 0.2
        raw_client.ask("StopBacktest", {"backtestId": "paced"})
        raw_client.ask("ResumeBacktest", {"backtestId": "held"})
        for name in ("going", "held"):
            wait_for(raw_client, name, "completed")
            results, stored = tables(raw_client, name, ALL_TABLES)
            assert results["metrics"] == expected_results["metrics"]
            assert all(stored[table].equals(expected[table]) for table in ALL_TABLES)
            assert published(raw_client, f"orders.{name}")["toSeq"] == expected["orders"].height
            assert published(raw_client, f"progress.{name}")["oldestSeq"] > 1

        ends = {**NAMED, "algorithmId": "ends_its_worker", "parameters": {}}
        failed = run_to_end(raw_client, ends, "ends")
        assert failed["status"] == "failed"
        assert failed["error"]["code"] == "SYSTEM_ERROR"
        assert "cost two workers at its algorithm, before its first bar" in failed["error"]["message"]
        assert "exit code 7" in failed["error"]["message"]
    (slow_broker.data_dir / "algorithms" / "ends.py").unlink()
