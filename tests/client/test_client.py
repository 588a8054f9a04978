"""The blocking client on real sockets, against a scripted broker."""

from __future__ import annotations

import io
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zmq

import backtestr
from backtestr.client import Client
from backtestr.io.io_thread import MAX_WAITING
from backtestr_protocol.errors import (
    AlgorithmError,
    Busy,
    NetworkError,
    NotFound,
    ProtocolVersionUnsupported,
    SerializationError,
    TimedOut,
    ValidationError,
)
from backtestr_protocol.messages import IndicatorConfig, Nothing, Welcome
from support.client.peer import SILENCE, WALL_MS, Peer, welcome

PRICE = {"symbol": "S", "timestamp": 1, "bid": 1.0, "ask": 1.0, "last": 1.0, "volume": 0.0, "timeframe": "1m"}
SERIES = {"symbol": "S", "timeframe": "1m", "startTime": 1_640_995_200_000, "endTime": 1_640_998_740_000, "bars": 60}


def status(state: str, **more: Any) -> dict[str, Any]:
    return {
        "backtestId": "b1",
        "status": state,
        "algorithmId": "a",
        "symbol": "S",
        "progressPercent": 100.0,
        "submitTime": WALL_MS,
        **more,
    }


def order(number: int) -> dict[str, Any]:
    return {
        "orderId": str(number),
        "backtestId": "b1",
        "symbol": "S",
        "side": "buy",
        "quantity": 1.0,
        "price": 1.0,
        "orderType": "market",
        "status": "filled",
        "timestamp": 1,
    }


def nothing_missed(data: dict[str, Any]) -> dict[str, Any]:
    last = data["fromSeq"] - 1
    return {"topic": data["topic"], "fromSeq": data["fromSeq"], "toSeq": last, "oldestSeq": 1, "messages": []}


STARTING = {
    "ListMarketData": lambda _: {"series": [SERIES]},
    "StartBacktest": lambda data: {"backtestId": data["backtestId"], "status": "queued"},
    "FetchMissed": nothing_missed,
}


def connect(peer: Peer, **options: Any) -> Client:
    return backtestr.connect(connection_file=peer.file, **options)


# --- connecting ---


def test_without_a_broker_the_error_says_how_to_start_one(home: Path) -> None:
    with pytest.raises(NetworkError, match=r"backtestr run \(or make run-broker\)"):
        backtestr.connect(wait=0, connection_file=home / "connection.json")


def test_a_file_left_over_from_a_broker_that_is_gone_is_told(home: Path) -> None:
    with Peer(home) as peer:
        pass
    with pytest.raises(NetworkError, match=f"process {peer.connection.pid}.*backtestr run"):
        connect(peer, timeout=0.1)


def test_a_damaged_file_is_told(home: Path) -> None:
    (home / "connection.json").write_text("{}")
    with pytest.raises(NetworkError, match="damaged"):
        backtestr.connect(connection_file=home / "connection.json")


def test_a_broker_that_just_starts_is_waited_for(home: Path) -> None:
    with Peer(home, write_file=False) as peer, ThreadPoolExecutor(1) as pool:
        client = pool.submit(connect, peer, wait=30)
        with Peer(home), client.result() as connected:
            assert connected.ping() == WALL_MS


def test_a_broker_of_another_version_is_told_with_its_words(home: Path) -> None:
    script = {"Hello": lambda _: ProtocolVersionUnsupported("version 2 only", supported=[2])}
    with Peer(home, script) as peer, pytest.raises(ProtocolVersionUnsupported, match="version 2 only"):
        connect(peer)


def test_a_client_is_made_of_a_connection_and_a_context_alone(home: Path) -> None:
    with Peer(home, write_file=False) as peer, zmq.Context() as context:
        with Client(peer.connection, context=context) as client:
            assert client.ping() == WALL_MS
        assert not context.closed


# --- asking ---


def test_the_broker_s_error_is_raised_as_what_it_is(home: Path) -> None:
    script = {"GetBacktestStatus": lambda data: NotFound(f"unknown backtest {data['backtestId']!r}", known=["b2"])}
    with Peer(home, script) as peer, connect(peer) as client:
        with pytest.raises(NotFound, match="unknown backtest 'b1'") as caught:
            client.backtest_status("b1")
        assert caught.value.details == {"known": ["b2"]}
        assert client.ping() == WALL_MS


def test_a_request_without_an_answer_times_out_and_the_next_is_answered(home: Path) -> None:
    with Peer(home, {"GetSystemStatus": lambda _: SILENCE}) as peer, connect(peer, request_timeout=0.1) as client:
        with pytest.raises(TimedOut, match="GetSystemStatus was not answered"):
            client.status()
        assert client.ping() == WALL_MS


def test_threads_share_a_client(home: Path) -> None:
    with Peer(home) as peer, connect(peer) as client, ThreadPoolExecutor(8) as pool:
        pings = [pool.submit(lambda: [client.ping() for _ in range(50)]) for _ in range(8)]
        assert all(ping.result() == [WALL_MS] * 50 for ping in pings)


def test_a_closed_client_says_so(home: Path) -> None:
    with Peer(home) as peer:
        client = connect(peer)
        client.close()
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            client.ping()
        with pytest.raises(RuntimeError, match="closed"):
            client.subscribe("prices.")


def test_closing_lets_go_whoever_waits(home: Path) -> None:
    asked = threading.Event()

    def never(_: Any) -> Any:
        asked.set()
        return SILENCE

    with Peer(home, {"GetSystemStatus": never}) as peer, ThreadPoolExecutor(1) as pool:
        client = connect(peer)
        waiting = pool.submit(client.status)
        assert asked.wait(10)
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            waiting.result()


def test_closing_says_goodbye(home: Path) -> None:
    gone = threading.Event()

    def goodbye(_: Any) -> Any:
        gone.set()
        return {}

    with Peer(home, {"Goodbye": goodbye}) as peer:
        connect(peer).close()
        assert gone.wait(10)


def test_what_waits_is_sent_to_the_next_broker_under_the_same_id(home: Path) -> None:
    asked = threading.Event()

    def never(_: Any) -> Any:
        asked.set()
        return SILENCE

    with ThreadPoolExecutor(1) as pool:
        with Peer(home, {"Ping": never}) as first:
            client = connect(first)
            waiting = pool.submit(client.ping)
            assert asked.wait(10)
        with Peer(home) as second, client:
            assert waiting.result(timeout=10) == WALL_MS
    [sent] = [request_id for kind, request_id, _ in first.asked if kind == "Ping"]
    [resent] = [request_id for kind, request_id, _ in second.asked if kind == "Ping"]
    assert sent == resent


def test_a_broker_that_stopped_is_a_network_error_once_time_is_up(home: Path) -> None:
    with Peer(home, {"Ping": lambda _: SILENCE}) as peer:
        client = connect(peer, request_timeout=1.0)
    peer.file.unlink()
    with client, pytest.raises(NetworkError, match="connection to the broker is lost"):
        client.ping()


def test_a_complaint_of_the_broker_s_is_logged(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Peer(home) as peer, connect(peer) as client:
        peer.complain(SerializationError("what was that?"))
        client.ping()
    assert "what was that?" in caplog.text


def test_a_silent_broker_is_connected_to_again(home: Path) -> None:
    greeted_again = threading.Event()
    hellos: list[Any] = []

    def hello(data: Any) -> Welcome:
        hellos.append(data)
        if len(hellos) > 1:
            greeted_again.set()
        return welcome(heartbeat_interval_ms=20, session_timeout_ms=60)

    with Peer(home, {"Hello": hello, "Ping": lambda _: SILENCE}) as peer, connect(peer):
        assert greeted_again.wait(10)
        assert len({data["clientId"] for data in hellos}) == 1


def ping_until_it_fails(client: Client) -> None:
    while True:
        client.ping()


def test_a_damaged_file_is_survived_until_the_next_broker(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Peer(home) as first:
        client = connect(first, request_timeout=1.0)
        first.file.write_text("{")
        with pytest.raises(NetworkError):
            ping_until_it_fails(client)
    with Peer(home), client:
        assert client.ping() == WALL_MS
    assert "damaged" in caplog.text


def test_a_broker_of_another_version_that_takes_over_refuses_at_once(home: Path) -> None:
    with Peer(home) as first:
        client = connect(first)
        first.file.unlink()
    with Peer(home, {"Hello": lambda _: ProtocolVersionUnsupported("version 2 only")}), client:
        with pytest.raises(ProtocolVersionUnsupported, match="version 2 only"):
            client.ping()
        with pytest.raises(ProtocolVersionUnsupported):
            client.subscribe("system.backtests", history=True).next(timeout=10)


def test_more_requests_at_once_than_make_sense_are_refused_here(home: Path) -> None:
    with Peer(home, {"GetSystemStatus": lambda _: SILENCE}) as peer, connect(peer) as client:
        io_thread = client._io_thread
        waiting = [io_thread.ask("GetSystemStatus", Nothing(), 30.0) for _ in range(MAX_WAITING)]
        with pytest.raises(Busy, match="wait for an answer already"):
            client.ping()
    for reply in waiting:
        with pytest.raises(RuntimeError, match="closed"):
            reply.read()


# --- data ---


def table(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_ipc_stream(buffer)
    return buffer.getvalue()


def test_market_data_are_a_frame(home: Path) -> None:
    frame = pl.DataFrame({"timestamp": [1, 2], "close": [1.0, 2.0]})
    asked: list[Any] = []

    def answer(data: Any) -> Any:
        asked.append(data)
        ref = {"name": "bars", "frame": 0, "format": "arrow-ipc-stream", "rows": 2}
        return {"symbol": "S", "timeframe": "1m", "tables": [ref]}, [table(frame)]

    with Peer(home, {"GetMarketData": answer}) as peer, connect(peer) as client:
        found = client.market_data(
            "S",
            "1m",
            start="2022-01-03",
            limit=2,
            indicators=["RSI", IndicatorConfig(name="SMA", output_names=["slow"])],
        )
    assert found.equals(frame)
    assert asked == [
        {
            "symbol": "S",
            "timeframe": "1m",
            "startTime": 1_641_168_000_000,
            "limit": 2,
            "indicators": [{"name": "RSI"}, {"name": "SMA", "outputNames": ["slow"]}],
        }
    ]


def test_an_imported_path_is_absolute(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = {"symbol": "S", "timeframe": "1m", "bars": 1, "startTime": 1, "endTime": 1, "warnings": []}
    monkeypatch.chdir(home)
    with Peer(home, {"ImportMarketData": lambda _: imported}) as peer, connect(peer) as client:
        client.import_market_data("bars.csv", "S")
        assert peer.asked[-1][2]["path"] == str((home / "bars.csv").resolve())


# --- subscriptions ---


def test_a_subscription_gives_what_is_published(home: Path) -> None:
    with Peer(home) as peer, connect(peer) as client, client.subscribe("prices.") as prices:
        peer.heard("prices.")
        for _ in range(3):
            peer.publish("prices.S.1m", "PriceUpdate", PRICE)
        found = [prices.next(timeout=10) for _ in range(3)]
        assert [one.seq for one in found if isinstance(one, backtestr.Update)] == [1, 2, 3]
        assert found[0].data.symbol == "S"  # type: ignore[union-attr]
        with pytest.raises(TimedOut):
            prices.next(timeout=0.01)
        prices.close()
        assert list(prices) == []


def test_a_type_that_is_new_to_this_client_is_a_map(home: Path) -> None:
    with Peer(home) as peer, connect(peer) as client, client.subscribe("system.backtests") as events:
        peer.heard("system.backtests")
        peer.publish("system.backtests", "SweepStatus", {"done": 1})
        update = events.next(timeout=10)
        assert isinstance(update, backtestr.Update)
        assert (update.type, update.data) == ("SweepStatus", {"done": 1})


@pytest.mark.parametrize("wrong", ["price.", "prices", "", "orders", "state"])
def test_what_is_no_topic_is_refused_at_once(home: Path, wrong: str) -> None:
    with Peer(home) as peer, connect(peer) as client, pytest.raises(ValueError, match="neither a topic"):
        client.subscribe(wrong)


def test_a_restart_is_stated_to_subscribers(home: Path) -> None:
    with Peer(home) as first:
        client = connect(first)
        prices = client.subscribe("prices.")
        first.heard("prices.")
        first.publish("prices.S.1m", "PriceUpdate", PRICE)
        assert prices.next(timeout=10) is not None
    with Peer(home) as second, client:
        assert prices.next(timeout=10) == backtestr.Restarted(second.connection.instance_id)
        second.heard("prices.")
        second.publish("prices.S.1m", "PriceUpdate", PRICE)
        assert prices.next(timeout=10).seq == 1  # type: ignore[union-attr]


# --- runs ---


def test_a_run_streams_to_its_end(home: Path) -> None:
    with Peer(home, STARTING) as peer, connect(peer) as client:
        run = client.backtest(
            "a", "S", timeframe="1m", backtest_id="b1", fill_at="close", streams={"progress_interval_ms": 5}
        )
        [config] = [data for kind, _, data in peer.asked if kind == "StartBacktest"]
        assert (config["startDate"], config["endDate"]) == ("2022-01-01T00:00:00Z", "2022-01-01T01:00:00Z")
        assert config["options"] == {"fillAt": "close", "streams": {"progressIntervalMs": 5}}
        peer.heard("orders.b1")
        peer.heard("system.backtests")
        for number in (1, 2):
            peer.publish("orders.b1", "OrderUpdate", order(number))
        peer.publish("system.backtests", "BacktestStatus", status("completed"))
        assert [one.order_id for one in run.orders()] == ["1", "2"]
        assert list(run.positions()) == []
        assert run.wait(timeout=10).status == "completed"


def test_orders_that_were_lost_for_good_are_warned_of(home: Path) -> None:
    def gone(data: dict[str, Any]) -> dict[str, Any]:
        return nothing_missed(data) | ({"toSeq": 4, "oldestSeq": 5} if data["fromSeq"] == 2 else {})

    with Peer(home, {**STARTING, "FetchMissed": gone}) as peer, connect(peer) as client:
        run = client.backtest("a", "S", timeframe="1m", backtest_id="b1")
        peer.heard("orders.b1")
        peer.heard("system.backtests")
        peer.publish("orders.b1", "OrderUpdate", order(1))
        peer.publish("orders.b1", "OrderUpdate", order(5), seq=5)
        peer.publish("system.backtests", "BacktestStatus", status("completed"))
        with pytest.warns(backtestr.GapWarning, match="orders 2 to 4"):
            assert [one.order_id for one in run.orders()] == ["1", "5"]


def test_a_failed_backtest_raises_its_error_with_the_results(home: Path) -> None:
    error = AlgorithmError("division by zero", traceback="line 1").to_data(component="engine", timestamp=1)
    with Peer(home, STARTING) as peer, connect(peer) as client:
        run = client.backtest("a", "S", timeframe="1m", backtest_id="b1", watch=())
        peer.heard("system.backtests")
        peer.publish("system.backtests", "BacktestStatus", status("failed", error=error))
        assert run.wait(timeout=10).status == "failed"
        with pytest.raises(AlgorithmError, match="division by zero"):
            run.result()


def test_a_run_is_steered_by_its_methods(home: Path) -> None:
    def steered(state: str) -> Any:
        return lambda data: {"backtestId": data["backtestId"], "status": state}

    steering = {"PauseBacktest": "paused", "ResumeBacktest": "running", "StopBacktest": "stopped"}
    script = {
        **STARTING,
        **{kind: steered(state) for kind, state in steering.items()},
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


def test_a_bar_shows_progress(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
        peer.heard("progress.b1")
        peer.heard("system.backtests")
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


def test_a_backtest_started_elsewhere_can_be_looked_after(home: Path) -> None:
    script = {**STARTING, "GetBacktestStatus": lambda _: status("stopped")}
    with Peer(home, script) as peer, connect(peer) as client:
        run = client.run("b1")
        assert run.wait(timeout=10).status == "stopped"
        assert client.run("b1").wait(timeout=10).status == "stopped"
        assert list(run.orders()) == []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert list(run.progress()) == []


def test_fetch_missed_pages_and_states_gaps(home: Path) -> None:
    def two_at_a_time(data: dict[str, Any]) -> dict[str, Any]:
        first = max(3, data["fromSeq"])
        kept = [
            {"seq": seq, "payload": {"type": "PriceUpdate", "data": PRICE}} for seq in range(first, min(first + 2, 8))
        ]
        last = kept[-1]["seq"] if kept else 7
        return {"topic": data["topic"], "fromSeq": data["fromSeq"], "toSeq": last, "oldestSeq": 3, "messages": kept}

    with Peer(home, {"FetchMissed": two_at_a_time}) as peer, connect(peer) as client:
        gap, *updates = client.fetch_missed("prices.S.1m")
        assert gap == backtestr.Gap("prices.S.1m", 1, 2)
        assert [one.seq for one in updates if isinstance(one, backtestr.Update)] == [3, 4, 5, 6, 7]
        assert len(client.fetch_missed("prices.S.1m", 4, 5)) == 2


# --- shared state ---


def test_state_is_set_read_deleted_and_listed(home: Path) -> None:
    asked: list[tuple[str, Any]] = []

    def answering(kind: str, answer: dict[str, Any]) -> Any:
        def answer_to(data: Any) -> dict[str, Any]:
            asked.append((kind, data))
            return answer

        return answer_to

    entry = {"key": "ui.theme", "value": {"dark": True}, "version": 2, "checksum": "0" * 16, "timestamp": WALL_MS}
    script = {
        "GetState": answering("GetState", entry),
        "UpdateState": answering("UpdateState", {"key": "ui.theme", "version": 2, "checksum": "0" * 16}),
        "DeleteState": answering("DeleteState", {"key": "ui.theme", "version": 3}),
        "SnapshotState": answering("SnapshotState", {"entries": [entry], "watermark": 7}),
    }
    with Peer(home, script) as peer, connect(peer) as client:
        assert client.update_state("ui.theme", {"dark": True}, expected_version=1).version == 2
        found = client.get_state("ui.theme")
        assert (found.value, found.version) == ({"dark": True}, 2)
        assert client.snapshot_state("ui.").watermark == 7
        assert client.snapshot_state().entries[0].value == {"dark": True}
        assert client.delete_state("ui.theme").version == 3
        assert asked == [
            ("UpdateState", {"key": "ui.theme", "value": {"dark": True}, "expectedVersion": 1}),
            ("GetState", {"key": "ui.theme"}),
            ("SnapshotState", {"prefix": "ui."}),
            ("SnapshotState", {"prefix": ""}),
            ("DeleteState", {"key": "ui.theme"}),
        ]
        with pytest.raises(ValidationError, match="keys are strings"):
            client.update_state("ui.theme", {1: 2})
