"""The blocking client on real sockets, against a scripted broker."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zmq

from backtestr.client import Client
from backtestr.core.request_encoding import encode_request
from backtestr.io.io_thread import MAX_WAITING
from backtestr_protocol.errors import (
    Busy,
    NetworkError,
    NotFound,
    ProtocolVersionUnsupported,
    SerializationError,
    TimedOut,
    ValidationError,
)
from backtestr_protocol.messages import IndicatorConfig, Nothing, Welcome
from support.client.answers import STARTING, connect
from support.client.peer import SILENCE, WALL_MS, Peer, welcome


def test_a_connection_and_a_context_are_enough_for_a_client(home: Path) -> None:
    with Peer(home, write_file=False) as peer, zmq.Context() as context:
        with Client(peer.connection, context=context) as client:
            assert client.ping() == WALL_MS
        assert not context.closed


# --- requests ---


def test_the_broker_s_error_is_raised_as_its_exception(home: Path) -> None:
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


def test_a_closed_client_refuses_requests(home: Path) -> None:
    with Peer(home) as peer:
        client = connect(peer)
        client.close()
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            client.ping()
        with pytest.raises(RuntimeError, match="closed"):
            client.subscribe("prices.")


def test_closing_ends_requests_that_wait(home: Path) -> None:
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


def test_closing_sends_goodbye(home: Path) -> None:
    gone = threading.Event()

    def goodbye(_: Any) -> Any:
        gone.set()
        return {}

    with Peer(home, {"Goodbye": goodbye}) as peer:
        connect(peer).close()
        assert gone.wait(10)


def test_a_pending_request_is_sent_to_the_next_broker_under_the_same_id(home: Path) -> None:
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


def test_without_its_broker_a_request_times_out_with_a_network_error(home: Path) -> None:
    with Peer(home, {"Ping": lambda _: SILENCE}) as peer:
        client = connect(peer, request_timeout=1.0)
    peer.file.unlink()
    with client, pytest.raises(NetworkError, match="connection to the broker is lost"):
        client.ping()


def test_an_unattributed_error_is_logged(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Peer(home) as peer, connect(peer) as client:
        peer.send_error(SerializationError("what was that?"))
        client.ping()
    assert "what was that?" in caplog.text


def test_the_client_connects_again_to_a_silent_broker(home: Path) -> None:
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


def test_a_damaged_connection_file_is_tolerated_until_the_next_broker(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
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


def test_too_many_pending_requests_are_refused_by_the_client(home: Path) -> None:
    with Peer(home, {"GetSystemStatus": lambda _: SILENCE}) as peer, connect(peer) as client:
        io_thread = client._io_thread
        waiting = [io_thread.ask("GetSystemStatus", encode_request(Nothing()), 30.0) for _ in range(MAX_WAITING)]
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


def test_market_data_are_a_table(home: Path) -> None:
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


# --- shared state ---


def test_results_are_listed_pinned_pruned_and_deleted(home: Path) -> None:
    due = {"backtestId": "b0", "bytes": 5, "reason": "older than 1 day"}
    script: dict[str, Any] = {
        "ListResults": lambda _: {"results": [], "count": 3, "bytes": 9},
        "PinBacktest": lambda data: data,
        "DeleteBacktest": lambda data: {**data, "freedBytes": 5},
        "PruneResults": lambda data: {"results": [due], "freedBytes": 5, "dryRun": data["dryRun"], "remaining": 0},
    }
    with Peer(home, script) as peer, connect(peer) as client:
        assert client.stored_results().count == 3
        assert client.pin_backtest("b1")
        assert not client.pin_backtest("b1", pinned=False)
        assert client.delete_backtest("b1") == 5
        pruned = client.prune_results(dry_run=True, max_age_days=1, max_count=2, max_bytes=3, keep_newest=0)
        assert [one.reason for one in pruned.results] == ["older than 1 day"]
        assert [data for kind, _, data in peer.asked if kind in script] == [
            {},
            {"backtestId": "b1", "pinned": True},
            {"backtestId": "b1", "pinned": False},
            {"backtestId": "b1"},
            {"dryRun": True, "maxAgeMs": 86_400_000, "maxCount": 2, "maxBytes": 3, "keepNewest": 0},
        ]


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


# --- backtests ---


def started(peer: Peer) -> tuple[dict[str, Any], list[str]]:
    """Return the configuration of the backtest that was started, and the types of the program's requests.

    The client itself sends `Hello`, and `FetchMissed` for what its streams may have missed.
    """
    [config] = [data for kind, _, data in peer.asked if kind == "StartBacktest"]
    return config, [kind for kind, *_ in peer.asked if kind not in ("Hello", "FetchMissed")]


def test_a_backtest_without_dates_is_exactly_one_request(home: Path) -> None:
    with Peer(home, STARTING) as peer, connect(peer) as client:
        run = client.backtest("a", ["S", "T"], timeframe="1m", watch=(), fill_at="close", parameters={"fast": 2})
        config, kinds = started(peer)
        assert kinds == ["StartBacktest"]
        assert client.statistics.requests == 1
        assert config == {
            "backtestId": run.id,
            "algorithmId": "a",
            "symbol": "S",
            "symbols": ["S", "T"],
            "initialCapital": 100_000.0,
            "timeframe": "1m",
            "commission": 0.0,
            "slippage": 0.0,
            "parameters": {"fast": 2},
            "options": {"fillAt": "close"},
        }


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"start": "2022-01-03"}, {"startDate": "2022-01-03T00:00:00Z"}),
        ({"end": datetime(2022, 1, 3, 14, 30, tzinfo=UTC)}, {"endDate": "2022-01-03T14:30:00Z"}),
        (
            {"start": date(2022, 1, 3), "end": date(2022, 1, 4)},
            {"startDate": "2022-01-03T00:00:00Z", "endDate": "2022-01-04T00:00:00Z"},
        ),
    ],
    ids=["start", "end", "both"],
)
def test_the_dates_that_are_given_are_sent(home: Path, given: dict[str, Any], sent: dict[str, str]) -> None:
    with Peer(home, STARTING) as peer, connect(peer) as client:
        client.backtest("a", "S", timeframe="1m", watch=(), **given)
        config, kinds = started(peer)
        assert kinds == ["StartBacktest"]
        assert {name: config[name] for name in ("startDate", "endDate") if name in config} == sent


def test_a_backtest_needs_a_symbol(home: Path) -> None:
    with Peer(home) as peer, connect(peer) as client, pytest.raises(ValueError, match="at least one symbol"):
        client.backtest("a", [], timeframe="1m")
