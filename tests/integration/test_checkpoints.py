"""Backtests go on from their checkpoints in real workers, after the loss of a worker and after that of the broker."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from integration.conftest import with_algorithm
from integration.test_end_to_end import SYNTH, run_to_end, tables
from integration.test_late_readers import everything
from integration.test_steering import ALL_TABLES, wait_for
from support.harness import RawClient, RunningBroker, wait_until
from support.protocol.independent import Fields

NAMED = {
    **SYNTH,
    "endDate": "2024-01-01T03:00",
    "parameters": {"fast": 3, "slow": 7},
    "options": {"streams": {"progressIntervalMs": 20}},
}
# At this pace the 180 bars take two seconds, and the first checkpoint comes after a quarter of a second.
PACED = {**NAMED, "options": {**NAMED["options"], "pace": 100.0}}
STREAMS = ("orders", "positions", "progress")
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


def streams(raw_client: RawClient, backtest_id: str) -> dict[str, list[Fields]]:
    """Fetch all messages of a backtest from number 1."""
    return {name: everything(raw_client, f"{name}.{backtest_id}") for name in STREAMS}


def at_work(raw_client: RawClient) -> int:
    """Return the process id of the compute worker that takes tasks, 0 while there is none."""
    workers = raw_client.ask("GetSystemStatus", {})["workers"]
    found = [one for one in workers if one["workerId"].startswith("compute-") and one["state"] in ("idle", "busy")]
    return int(found[0]["pid"]) if found else 0


def is_further(broker: RunningBroker, raw_client: RawClient, backtest_id: str, before: float) -> bool:
    """Return true if a backtest has a checkpoint, and more progress than before."""
    return kept(broker, backtest_id).exists() and percent(raw_client, backtest_id) > before


def test_a_lost_worker_costs_no_bar_before_the_checkpoint(slow_broker: RunningBroker) -> None:
    with RawClient(slow_broker.connection_file) as raw_client:
        raw_client.hello()
        assert run_to_end(raw_client, NAMED, "whole")["status"] == "completed"
        expected_results, expected = tables(raw_client, "whole", ALL_TABLES)
        raw_client.ask("StartBacktest", {**PACED, "backtestId": "lost"})
        for _ in range(2):
            wait_until(lambda: at_work(raw_client) != 0, 60)
            before = percent(raw_client, "lost")
            wait_until(lambda before=before: is_further(slow_broker, raw_client, "lost", before), 60)  # type: ignore[misc]
            fetched = streams(raw_client, "lost")
            os.kill(at_work(raw_client), signal.SIGKILL)
        wait_for(raw_client, "lost", "completed")
        results, stored = tables(raw_client, "lost", ALL_TABLES)
        assert results["metrics"] == expected_results["metrics"]
        assert all(stored[name].equals(expected[name]) for name in ALL_TABLES)
        ended = streams(raw_client, "lost")
        assert {name: found[: len(fetched[name])] for name, found in ended.items()} == fetched
        assert len(ended["orders"]) == expected["orders"].height
        changes = [one for one in ended["positions"] if "mark" not in one]
        assert len(changes) == expected["positions"].height
        assert not kept(slow_broker, "lost").exists()


def test_backtests_go_on_in_the_next_broker(slow_broker: RunningBroker) -> None:
    with RawClient(slow_broker.connection_file) as raw_client:
        raw_client.hello()
        assert run_to_end(raw_client, NAMED, "all")["status"] == "completed"
        expected_results, expected = tables(raw_client, "all", ALL_TABLES)
        raw_client.ask("StartBacktest", {**PACED, "backtestId": "held"})
        wait_until(lambda: percent(raw_client, "held") > 5, 60)
        raw_client.ask("PauseBacktest", {"backtestId": "held"})
        held_at, held = percent(raw_client, "held"), streams(raw_client, "held")
        raw_client.ask("StartBacktest", {**PACED, "backtestId": "going"})
        wait_until(lambda: kept(slow_broker, "going").exists(), 60)
        going = streams(raw_client, "going")
    slow_broker.kill()
    with_algorithm(slow_broker, "ends", ENDS)
    slow_broker.start()
    with RawClient(slow_broker.connection_file) as raw_client:
        raw_client.hello()
        wait_for(raw_client, "held", "paused")
        assert percent(raw_client, "held") == held_at
        assert streams(raw_client, "held") == held, "nothing is made again"
        raw_client.ask("ResumeBacktest", {"backtestId": "held"})
        for name, before in (("going", going), ("held", held)):
            wait_for(raw_client, name, "completed")
            results, stored = tables(raw_client, name, ALL_TABLES)
            assert results["metrics"] == expected_results["metrics"]
            assert all(stored[table].equals(expected[table]) for table in ALL_TABLES)
            ended = streams(raw_client, name)
            assert len(ended["orders"]) == expected["orders"].height
            assert ended["orders"][: len(before["orders"])] == before["orders"]
            assert ended["progress"][0] == before["progress"][0], "it has not begun again"

        ends = {**NAMED, "algorithmId": "ends_its_worker", "parameters": {}}
        failed = run_to_end(raw_client, ends, "ends")
        assert failed["status"] == "failed"
        assert failed["error"]["code"] == "SYSTEM_ERROR"
        assert "cost two workers at its algorithm, before its first bar" in failed["error"]["message"]
        assert "exit code 7" in failed["error"]["message"]
    (slow_broker.data_dir / "algorithms" / "ends.py").unlink()
