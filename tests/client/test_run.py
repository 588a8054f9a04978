"""Runs of backtests on a scripted broker: their streams, their control and their ends."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

import backtestr
from backtestr_protocol.errors import (
    AlgorithmError,
    NotFound,
    TimedOut,
)
from support.client.answers import STARTING, connect, nothing_missed, order, status
from support.client.peer import WALL_MS, Peer


def test_the_streams_of_a_run_end_with_it(home: Path) -> None:
    with Peer(home, STARTING) as peer, connect(peer) as client:
        run = client.backtest(
            "a", "S", timeframe="1m", backtest_id="b1", fill_at="close", streams={"progress_interval_ms": 5}
        )
        [config] = [data for kind, _, data in peer.asked if kind == "StartBacktest"]
        assert config["options"] == {"fillAt": "close", "streams": {"progressIntervalMs": 5}}
        peer.wait_for_subscription("orders.b1")
        peer.wait_for_subscription("system.backtests")
        for number in (1, 2):
            peer.publish("orders.b1", "OrderUpdate", order(number))
        peer.publish("system.backtests", "BacktestStatus", status("completed"))
        assert [one.order_id for one in run.orders()] == ["1", "2"]
        assert list(run.positions()) == []
        assert run.wait(timeout=10).status == "completed"


@pytest.mark.parametrize(
    ("streams", "sent"),
    [
        ({"prices": True}, {"prices": True, "columns": True}),
        ({"prices": True, "columns": False}, {"prices": True, "columns": False}),
        ({"prices": False, "marks": True}, {"prices": False, "marks": True}),
    ],
)
def test_prices_are_asked_for_as_columns_unless_the_program_says_other(
    home: Path, streams: dict[str, Any], sent: dict[str, Any]
) -> None:
    with Peer(home, STARTING) as peer, connect(peer) as client:
        client.backtest("a", "S", timeframe="1m", backtest_id="b1", streams=streams, watch=()).abandon()
        [config] = [data for kind, _, data in peer.asked if kind == "StartBacktest"]
        assert config["options"] == {"streams": sent}


def position(at: int, *, mark: bool = False) -> dict[str, Any]:
    made = {"positionId": "1", "backtestId": "b1", "symbol": "S", "quantity": 1.0, "averagePrice": 1.0}
    made |= {"currentPrice": 2.0, "unrealizedPnL": 1.0, "realizedPnL": 0.0, "timestamp": at}
    return {**made, "mark": True} if mark else made


@pytest.mark.parametrize("marks", [True, False])
def test_positions_come_with_their_marks_or_without(home: Path, marks: bool) -> None:
    with Peer(home, STARTING) as peer, connect(peer) as client:
        run = client.backtest("a", "S", timeframe="1m", backtest_id="b1")
        peer.wait_for_subscription("positions.b1")
        peer.wait_for_subscription("system.backtests")
        for one in (position(1), position(2, mark=True), position(3)):
            peer.publish("positions.b1", "PositionUpdate", one)
        peer.publish("system.backtests", "BacktestStatus", status("completed"))
        assert [one.timestamp for one in run.positions(marks=marks)] == ([1, 2, 3] if marks else [1, 3])


def test_a_warning_states_orders_that_are_lost_for_good(home: Path) -> None:
    def gone(data: dict[str, Any]) -> dict[str, Any]:
        return nothing_missed(data) | ({"toSeq": 4, "oldestSeq": 5} if data["fromSeq"] == 2 else {})

    with Peer(home, {**STARTING, "FetchMissed": gone}) as peer, connect(peer) as client:
        run = client.backtest("a", "S", timeframe="1m", backtest_id="b1")
        peer.wait_for_subscription("orders.b1")
        peer.wait_for_subscription("system.backtests")
        peer.publish("orders.b1", "OrderUpdate", order(1))
        peer.publish("orders.b1", "OrderUpdate", order(5), seq=5)
        peer.publish("system.backtests", "BacktestStatus", status("completed"))
        with pytest.warns(backtestr.GapWarning, match="orders 2 to 4"):
            assert [one.order_id for one in run.orders()] == ["1", "5"]


def test_a_failed_backtest_raises_its_error_with_the_results(home: Path) -> None:
    error = AlgorithmError("division by zero", traceback="line 1").to_data(component="engine", timestamp=1)
    with Peer(home, STARTING) as peer, connect(peer) as client:
        run = client.backtest("a", "S", timeframe="1m", backtest_id="b1", watch=())
        peer.wait_for_subscription("system.backtests")
        peer.publish("system.backtests", "BacktestStatus", status("failed", error=error))
        assert run.wait(timeout=10).status == "failed"
        with pytest.raises(AlgorithmError, match="division by zero"):
            run.result()


def test_a_run_is_paused_resumed_and_stopped(home: Path) -> None:
    def controlled(state: str) -> Any:
        return lambda data: {"backtestId": data["backtestId"], "status": state}

    control = {"PauseBacktest": "paused", "ResumeBacktest": "running", "StopBacktest": "stopped"}
    script = {
        **STARTING,
        **{kind: controlled(state) for kind, state in control.items()},
        "GetBacktestStatus": lambda _: status("stopped"),
    }
    with Peer(home, script) as peer, connect(peer) as client:
        run = client.backtest("a", "S", timeframe="1m", backtest_id="b1")
        assert (run.pause(), run.resume(), run.stop()) == ("paused", "running", "stopped")
        assert run.status().status == "stopped"
        assert repr(run) == "Run('b1')"
        run.close()
    with pytest.raises(RuntimeError, match="closed"):
        run.status()


def test_a_progress_bar_shows_equity_and_orders(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = {
        "backtestId": "b1",
        "currentTime": 1,
        "progressPercent": 100.0,
        "ordersExecuted": 7,
        "positionsOpened": 7,
        "positionsClosed": 7,
        "unrealizedPnL": 0.0,
        "realizedPnL": 0.0,
        "equityCurvePoint": {"timestamp": 1, "equity": 1234.5, "drawdown": 0.0, "returns": 0.0},
    }
    with Peer(home, STARTING) as peer, connect(peer) as client:
        run = client.backtest("a", "S", timeframe="1m", backtest_id="b1", watch=["progress"])
        peer.wait_for_subscription("progress.b1")
        peer.wait_for_subscription("system.backtests")
        peer.publish("progress.b1", "BacktestProgress", progress)
        peer.publish("system.backtests", "BacktestStatus", status("completed"))
        assert run.show_progress().status == "completed"
    shown = capsys.readouterr().err
    assert "100%" in shown
    assert "equity 1,234.50, 7 orders" in shown


def test_waiting_for_a_run_can_time_out(home: Path) -> None:
    with Peer(home, STARTING) as peer, connect(peer) as client:
        run = client.backtest("a", "S", timeframe="1m")
        with pytest.raises(TimedOut):
            run.wait(timeout=0.01)


def test_a_backtest_that_is_refused_leaves_nothing_subscribed(home: Path) -> None:
    script = {**STARTING, "StartBacktest": lambda _: NotFound("unknown algorithm 'a'")}
    with Peer(home, script) as peer, connect(peer) as client:
        with pytest.raises(NotFound, match="unknown algorithm"):
            client.backtest("a", "S", timeframe="1m", backtest_id="b1")
        assert client.ping() == WALL_MS


def test_a_backtest_started_elsewhere_can_be_followed(home: Path) -> None:
    script = {**STARTING, "GetBacktestStatus": lambda _: status("stopped")}
    with Peer(home, script) as peer, connect(peer) as client:
        run = client.run("b1")
        assert run.wait(timeout=10).status == "stopped"
        assert client.run("b1").wait(timeout=10).status == "stopped"
        assert list(run.orders()) == []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert list(run.progress()) == []


def results(state: str, **more: Any) -> dict[str, Any]:
    return {"backtestId": "b1", "status": state, "config": {}, "metrics": None, "tables": [], **more}


def test_a_result_comes_with_the_answer_that_waits_for_the_end(home: Path) -> None:
    ended = results("completed", metrics={"totalTrades": 7})
    with Peer(home, {**STARTING, "GetBacktestResults": lambda _: ended}) as peer, connect(peer) as client:
        run = client.backtest("a", "S", timeframe="1m", backtest_id="b1")
        found = run.result()
        assert found.metrics is not None
        assert (found.status, found.metrics.total_trades) == ("completed", 7)
        assert [data["waitMs"] for kind, _, data in peer.asked if kind == "GetBacktestResults"] == [2_000]


@pytest.mark.parametrize("early", [results("running"), results("queued"), NotFound("no result")])
def test_a_result_that_does_not_come_at_once_is_waited_for(home: Path, early: Any) -> None:
    answers = [early, results("completed", metrics={"totalTrades": 7})]
    with Peer(home, {**STARTING, "GetBacktestResults": lambda _: answers.pop(0)}) as peer, connect(peer) as client:
        run = client.backtest("a", "S", timeframe="1m", backtest_id="b1")
        peer.wait_for_subscription("system.backtests")
        peer.publish("system.backtests", "BacktestStatus", status("completed"))
        found = run.result(timeout=10.0)
        assert found.metrics is not None
        assert found.metrics.total_trades == 7
        assert answers == []


def test_a_result_is_not_waited_for_longer_than_its_timeout(home: Path) -> None:
    with Peer(home, {**STARTING, "GetBacktestResults": lambda _: results("running")}) as peer, connect(peer) as client:
        run = client.backtest("a", "S", timeframe="1m")
        with pytest.raises(TimedOut):
            run.result(timeout=1.6)
        assert [data["waitMs"] for kind, _, data in peer.asked if kind == "GetBacktestResults"] == [100]


def test_a_result_can_time_out(home: Path) -> None:
    script = {**STARTING, "GetBacktestResults": lambda _: results("running")}
    with Peer(home, script) as peer, connect(peer) as client:
        run = client.backtest("a", "S", timeframe="1m")
        with pytest.raises(TimedOut):
            run.result(timeout=0.05)
        assert not [kind for kind, _, _ in peer.asked if kind == "GetBacktestResults"], "nothing could wait so long"
