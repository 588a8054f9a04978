"""Pause, resume and stop of a running backtest are exact, and answered when they have taken effect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backtestr_engine.data.synthetic import synthetic_bars
from integration.test_end_to_end import SYNTH, tables
from support.harness import RawClient, RunningBroker, dense
from support.protocol.independent import messages_of

ALL_TABLES = ["equity", "orders", "trades", "positions"]


@pytest.fixture
def slow(slow_broker: RunningBroker, tmp_path: Path) -> Iterator[RawClient]:
    """Connect a raw client to a broker that has 300,000 bars of LONG."""
    with RawClient(slow_broker.connection_file) as client:
        client.hello()
        if "LONG" not in [one["symbol"] for one in client.ask("ListMarketData", {})["series"]]:
            file = tmp_path / "long.parquet"
            synthetic_bars("1m", 300_000, symbol="LONG").to_frame().write_parquet(file)
            client.ask("ImportMarketData", {"path": str(file), "symbol": "LONG", "timeframe": "1m"})
        yield client


def start_and_catch(slow: RawClient, symbol: str = "SYNTH") -> str:
    """Start a backtest and return its id once it has made progress.

    On LONG it does not end by itself for as long as a test may take.
    """
    progress = slow.subscribe("progress", "progress.")
    backtest_id: str = slow.ask(
        "StartBacktest", {**SYNTH, "symbol": symbol, "options": {"streams": {"progressIntervalMs": 1}}}
    )["backtestId"]
    progress.until(lambda data: data["backtestId"] == backtest_id and data["progressPercent"] > 0.01)
    return backtest_id


def wait_for(slow: RawClient, backtest_id: str, status: str) -> None:
    system = slow.subscribe("system", "system.backtests")
    if slow.ask("GetBacktestStatus", {"backtestId": backtest_id})["status"] != status:
        system.until(lambda data: data["backtestId"] == backtest_id and data["status"] == status)


def test_a_paused_and_resumed_backtest_equals_one_that_was_not_paused(slow: RawClient) -> None:
    paused = start_and_catch(slow)
    orders = slow.subscribe("orders", f"orders.{paused}")
    for _ in range(3):
        assert slow.ask("PauseBacktest", {"backtestId": paused}) == {"backtestId": paused, "status": "paused"}
        before = slow.ask("GetBacktestStatus", {"backtestId": paused})
        assert (before["status"], 0 < before["progressPercent"] < 100) == ("paused", True)
        assert slow.ask("PauseBacktest", {"backtestId": paused})["status"] == "paused"
        assert slow.ask("ResumeBacktest", {"backtestId": paused}) == {"backtestId": paused, "status": "running"}
    wait_for(slow, paused, "completed")

    straight: str = slow.ask("StartBacktest", SYNTH)["backtestId"]
    wait_for(slow, straight, "completed")
    results, stored = tables(slow, paused, ALL_TABLES)
    expected_results, expected = tables(slow, straight, ALL_TABLES)
    assert results["metrics"] == expected_results["metrics"]
    for name in ALL_TABLES:
        assert stored[name].equals(expected[name]), f"{name} differs"
    last = slow.ask("FetchMissed", {"topic": orders.topic, "fromSeq": 1})["toSeq"]
    assert len(dense(slow, orders, last)) == stored["orders"].height


def test_a_paused_backtest_makes_no_progress_and_frees_its_worker(slow: RawClient) -> None:
    paused = start_and_catch(slow)
    slow.ask("PauseBacktest", {"backtestId": paused})
    at = slow.ask("GetBacktestStatus", {"backtestId": paused})["progressPercent"]
    other: str = slow.ask("StartBacktest", SYNTH)["backtestId"]
    wait_for(slow, other, "completed")
    assert slow.ask("GetBacktestStatus", {"backtestId": paused})["progressPercent"] == at
    assert slow.ask("StopBacktest", {"backtestId": paused})["status"] == "stopped"


def test_a_stopped_backtest_keeps_its_simulated_bars(slow: RawClient) -> None:
    stopped = start_and_catch(slow, "LONG")
    assert slow.ask("StopBacktest", {"backtestId": stopped}) == {"backtestId": stopped, "status": "stopped"}
    assert slow.ask("StopBacktest", {"backtestId": stopped})["status"] == "stopped"
    results, stored = tables(slow, stopped, ALL_TABLES)
    assert results["status"] == "stopped"
    assert 0 < stored["equity"].height < 20_000
    assert results["metrics"]["finalEquity"] == stored["equity"]["equity"][-1]
    kept = slow.ask("FetchMissed", {"topic": f"progress.{stopped}", "fromSeq": 1})["messages"]
    progress = messages_of(kept[-1]["payload"])[-1]
    assert progress["data"]["equityCurvePoint"]["equity"] == stored["equity"]["equity"][-1]


def test_a_backtest_that_has_ended_can_neither_be_paused_nor_resumed(slow: RawClient) -> None:
    ended: str = slow.ask("StartBacktest", SYNTH)["backtestId"]
    wait_for(slow, ended, "completed")
    for request in ("PauseBacktest", "ResumeBacktest"):
        error = slow.refused(request, {"backtestId": ended})
        assert (error["code"], error["details"]["status"]) == ("STATE_CONFLICT", "completed")
    assert slow.ask("StopBacktest", {"backtestId": ended})["status"] == "completed"


def test_a_queued_backtest_can_be_stopped_and_waits_for_its_turn(slow: RawClient) -> None:
    first = start_and_catch(slow, "LONG")
    queued: str = slow.ask("StartBacktest", SYNTH)["backtestId"]
    assert slow.ask("GetBacktestStatus", {"backtestId": queued})["status"] == "queued"
    assert slow.ask("StopBacktest", {"backtestId": queued})["status"] == "stopped"
    assert slow.ask("StopBacktest", {"backtestId": first})["status"] == "stopped"


def test_results_of_an_unfinished_backtest_have_its_status_and_no_tables(slow: RawClient) -> None:
    running = start_and_catch(slow, "LONG")
    results = slow.ask("GetBacktestResults", {"backtestId": running})
    assert (results["status"], results["metrics"], results["tables"]) == ("running", None, [])
    assert results["config"]["symbol"] == "LONG"
    assert slow.ask("GetPerformanceMetrics", {"backtestId": running})["metrics"] is None
    slow.ask("StopBacktest", {"backtestId": running})


def test_a_backtest_past_its_time_limit_fails_with_timeout(slow: RawClient) -> None:
    late: str = slow.ask("StartBacktest", {**SYNTH, "options": {"timeLimitMs": 1}})["backtestId"]
    wait_for(slow, late, "failed")
    error = slow.ask("GetBacktestStatus", {"backtestId": late})["error"]
    assert error["code"] == "TIMEOUT"
    assert "timeLimitMs" in error["message"]
    assert slow.ask("GetBacktestResults", {"backtestId": late})["status"] == "failed"
