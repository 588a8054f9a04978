"""A refused request gets its own error code, and the broker serves the next request."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from integration.test_end_to_end import SYNTH
from support.harness import RawClient, RunningBroker
from support.protocol.independent import REQUEST, Fields, pack, signature


@pytest.fixture(autouse=True)
def serves_the_next_request(raw_client: RawClient) -> Iterator[None]:
    yield
    assert raw_client.ask("Ping", {})["timestamp"] > 0


WRONG_BACKTESTS: list[tuple[Fields, str, str]] = [
    ({"algorithmId": "sma_cros"}, "NOT_FOUND", "did you mean 'sma_cross'"),
    ({"symbol": "SYNHT"}, "DATA_ERROR", "did you mean 'SYNTH'"),
    ({"timeframe": "2y"}, "VALIDATION_ERROR", "unknown timeframe '2y'"),
    ({"parameters": {"fats": 10}}, "VALIDATION_ERROR", "did you mean 'fast'? (fast: 2..500, slow: 3..1000)"),
    ({"parameters": {"fast": 1}}, "VALIDATION_ERROR", "2..500"),
    ({"parameters": {"fast": "ten"}}, "VALIDATION_ERROR", "'ten'"),
    ({"startDate": "2024-01-02", "endDate": "2024-01-02"}, "INVALID_CONFIGURATION", "is not before"),
    ({"startDate": "yesterday"}, "VALIDATION_ERROR", "yesterday"),
    ({"initialCapital": 0}, "INVALID_CONFIGURATION", "above 0"),
    ({"initialCapital": float("nan")}, "VALIDATION_ERROR", "finite"),
    ({"commission": -0.1}, "VALIDATION_ERROR", "commission"),
    ({"commission": 1}, "VALIDATION_ERROR", "commission"),
    ({"startDate": "1980-01-01", "endDate": "1980-02-01"}, "DATA_ERROR", "there are bars from 2024-01-01"),
    ({"options": {"fillOn": "close"}}, "VALIDATION_ERROR", "did you mean 'fillAt'"),
    ({"options": {"pace": -3}}, "VALIDATION_ERROR", "'pace' must be bars a second, from 0.01"),
    ({"initialCapital": "much"}, "VALIDATION_ERROR", "$.initialCapital"),
    ({"backtestId": "../../etc"}, "VALIDATION_ERROR", "$.backtestId"),
]


@pytest.mark.parametrize(("change", "code", "says"), WRONG_BACKTESTS, ids=lambda value: str(value)[:40])
def test_a_backtest_that_cannot_be_run_is_refused_before_it_is_accepted(
    raw_client: RawClient, change: Fields, code: str, says: str
) -> None:
    known = len(raw_client.ask("ListBacktests", {})["backtests"])
    error = raw_client.refused("StartBacktest", {**SYNTH, **change})
    assert error["code"] == code
    assert says in error["message"]
    assert error["recoveryActions"]
    assert {"action", "description", "automatic", "userRequired"} == error["recoveryActions"][0].keys()
    assert error["severity"] in ("Info", "Warning", "Error", "Critical")
    assert len(raw_client.ask("ListBacktests", {})["backtests"]) == known


def test_a_missing_field_is_named(raw_client: RawClient) -> None:
    config = {name: value for name, value in SYNTH.items() if name != "symbol"}
    error = raw_client.refused("StartBacktest", config)
    assert (error["code"], error["details"]["path"]) == ("VALIDATION_ERROR", "$.symbol")


MALFORMED_FILES: list[tuple[str, int, str, str]] = [
    ("timestamp,open,high,low,close\n2022-01-03,1,2,1,1.5\n2022-01-04,1,2,x,1.5\n", 3, "low", "x"),
    ("timestamp,open,high,low,close\n2022-01-03,1,2,1,1.5\nsoon,1,2,1,1.5\n", 3, "timestamp", "soon"),
    ("timestamp,open,high,low,close\n2022-01-03,1,2,1,1.5\n2022-01-04,1,2,1\n", 3, "close", "missing"),
    ("timestamp,open,high,low,close\n2022-01-03,1,2,1,1.5\n2022-01-04,-1,2,1,1.5\n", 3, "open", "zero or negative"),
    ("timestamp,open,high,low,close\n2022-01-03,1,2,1,1.5\n2022-01-04,1,1.2,1,1.5\n", 3, "high", "below open or close"),
]


@pytest.mark.parametrize(("text", "line", "column", "says"), MALFORMED_FILES, ids=lambda value: str(value)[-20:])
def test_a_malformed_csv_is_refused_whole(
    raw_client: RawClient, tmp_path: Path, text: str, line: int, column: str, says: str
) -> None:
    file = tmp_path / "bars.csv"
    file.write_text(text)
    error = raw_client.refused("ImportMarketData", {"path": str(file), "symbol": "BROKEN", "timeframe": "1d"})
    assert error["code"] == "DATA_ERROR"
    assert (error["details"]["line"], error["details"]["column"]) == (line, column)
    assert f"line {line}" in error["message"]
    assert says in error["message"]
    assert "BROKEN" not in [one["symbol"] for one in raw_client.ask("ListMarketData", {})["series"]]


def test_a_file_that_is_not_there_is_named(raw_client: RawClient, tmp_path: Path) -> None:
    error = raw_client.refused("ImportMarketData", {"path": str(tmp_path / "none.csv"), "symbol": "NONE"})
    assert error["code"] == "DATA_ERROR"
    assert "none.csv" in error["message"]


def test_an_unknown_request_type_names_the_near_miss(raw_client: RawClient) -> None:
    error = raw_client.refused("StartBacktst", {})
    assert error["code"] == "UNSUPPORTED_COMMAND"
    assert "did you mean 'StartBacktest'" in error["message"]


@pytest.mark.parametrize(
    ("type_name", "data"),
    [
        ("GetBacktestStatus", {"backtestId": "nothing"}),
        ("PauseBacktest", {"backtestId": "nothing"}),
        ("GetBacktestResults", {"backtestId": str(uuid.uuid4())}),
        ("GetPerformanceMetrics", {"backtestId": str(uuid.uuid4())}),
        ("GetAlgorithmStatus", {"algorithmId": "nothing"}),
        ("FetchMissed", {"topic": "orders.nothing", "fromSeq": 1}),
    ],
)
def test_what_does_not_exist_is_not_found(raw_client: RawClient, type_name: str, data: Any) -> None:
    assert raw_client.refused(type_name, data)["code"] == "NOT_FOUND"


def bad_frames(raw_client: RawClient) -> dict[str, tuple[list[bytes], str]]:
    good = raw_client.requests.make("Ping", {})
    signed, envelope = good
    envelope_without_meaning = pack(raw_client.key, REQUEST, {})[1]
    return {
        "unsigned": ([b"", envelope], "AUTHENTICATION_ERROR"),
        "signed with another key": (pack(bytes(32), REQUEST, {"id": "x"}), "AUTHENTICATION_ERROR"),
        "a bit flipped": ([signed, envelope[:-1] + bytes([envelope[-1] ^ 1])], "AUTHENTICATION_ERROR"),
        "an attachment added": ([*good, b"more"], "AUTHENTICATION_ERROR"),
        "signed as an answer": (pack(raw_client.key, b"rep", {"id": "x"}), "AUTHENTICATION_ERROR"),
        "truncated": ([signed], "IPC_SERIALIZATION_ERROR"),
        "random": ([os.urandom(32), os.urandom(200)], "AUTHENTICATION_ERROR"),
        "an empty map": ([envelope_without_meaning, envelope_without_meaning], "AUTHENTICATION_ERROR"),
        "too large": ([signed, b"\0" * (17 << 20)], "MESSAGE_TOO_LARGE"),
    }


BAD_FRAMES = (
    "unsigned",
    "signed with another key",
    "a bit flipped",
    "an attachment added",
    "signed as an answer",
    "truncated",
    "random",
    "an empty map",
    "too large",
)


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_frames_that_are_not_authentic_get_an_unattributed_error(
    broker: RunningBroker, raw_client: RawClient, name: str
) -> None:
    with RawClient(broker.connection_file, "intruder") as intruder:  # each connection gets one such error a second
        frames, code = bad_frames(raw_client)[name]
        envelope, _ = intruder.send_and_receive(frames)
        assert envelope["messageType"] == "Error"
        assert "correlationId" not in envelope
        assert envelope["payload"]["data"]["code"] == code


def test_unattributed_errors_come_at_most_once_a_second(broker: RunningBroker) -> None:
    with RawClient(broker.connection_file, "noisy") as noisy:
        for _ in range(50):
            noisy.dealer.send_multipart([b"", b"noise"])
        first, _ = noisy.receive()
        assert first["messageType"] == "Error"
        # The answer to a proper request comes next: nothing else is in between.
        welcome = noisy.hello()
        assert welcome["protocolVersion"] == 1


def test_undecodable_bytes_that_are_signed_are_a_serialization_error(broker: RunningBroker) -> None:
    for body in (b"\xc1", b"\x91" * 100_000, b"\x82\xa2id", b"\xdd\xff\xff\xff\xff"):
        with RawClient(broker.connection_file, "garbled") as garbled:
            envelope, _ = garbled.send_and_receive([signature(garbled.key, REQUEST, [body]), body])
            assert envelope["messageType"] == "Error"
            assert envelope["payload"]["data"]["code"] in ("IPC_SERIALIZATION_ERROR", "VALIDATION_ERROR")


def test_an_invalid_envelope_with_a_readable_id_is_answered_under_that_id(raw_client: RawClient) -> None:
    envelope, _ = raw_client.send_and_receive(pack(raw_client.key, REQUEST, {"id": "mine", "timestamp": "now"}))
    assert envelope["correlationId"] == "mine"
    assert envelope["payload"]["data"]["code"] == "VALIDATION_ERROR"


def test_a_message_replay_is_not_executed(raw_client: RawClient) -> None:
    frames = raw_client.requests.make("StartBacktest", SYNTH)
    raw_client.exchange(frames)
    known = len(raw_client.ask("ListBacktests", {})["backtests"])
    again, _ = raw_client.send_and_receive(frames)
    assert again["payload"]["data"]["code"] == "REPLAY_DETECTED"
    assert len(raw_client.ask("ListBacktests", {})["backtests"]) == known


def test_a_duplicate_is_answered_and_not_executed_again(raw_client: RawClient) -> None:
    message_id = str(uuid.uuid4())
    first = raw_client.ask("StartBacktest", SYNTH, message_id=message_id)
    known = len(raw_client.ask("ListBacktests", {})["backtests"])
    second = raw_client.ask("StartBacktest", SYNTH, message_id=message_id)
    assert second["backtestId"] == first["backtestId"]
    assert len(raw_client.ask("ListBacktests", {})["backtests"]) == known


def test_a_session_is_bound_to_its_connection(broker: RunningBroker, raw_client: RawClient) -> None:
    with RawClient(broker.connection_file, "thief") as thief:
        thief.requests.session_id = raw_client.requests.session_id
        thief.requests.counter = 1_000
        assert thief.refused("Ping", {})["code"] == "SESSION_UNKNOWN"
    raw_client.requests.session_id, kept = "never opened", raw_client.requests.session_id
    assert raw_client.refused("Ping", {})["code"] == "SESSION_UNKNOWN"
    raw_client.requests.session_id = kept


def test_the_welcome_names_the_instance_in_envelope_and_data(broker: RunningBroker) -> None:
    with RawClient(broker.connection_file, "polite") as polite:
        envelope, _ = polite.send_and_receive(polite.requests.hello())
        instance_id = polite.connection["instanceId"]
        assert envelope["instanceId"] == envelope["payload"]["data"]["instanceId"] == instance_id


def test_another_version_of_the_protocol_is_refused(broker: RunningBroker) -> None:
    with RawClient(broker.connection_file, "future") as future:
        error = future.refused("Hello", {"clientId": "future", "protocolVersions": [2, 3]})
        assert (error["code"], error["details"]["supported"]) == ("PROTOCOL_VERSION_UNSUPPORTED", [1])


def test_random_frames_on_every_socket_leave_the_broker_healthy(broker: RunningBroker, raw_client: RawClient) -> None:
    endpoints = {**raw_client.connection["endpoints"], "engine": f"ipc://{broker.runtime_dir}/engine"}
    for name, endpoint in endpoints.items():
        socket = raw_client.open(zmq.SUB if name not in ("requests", "engine") else zmq.DEALER)
        socket.connect(endpoint)
        for _ in range(200):
            if name in ("requests", "engine"):
                socket.send_multipart([os.urandom(5) for _ in range(1 + os.urandom(1)[0] % 5)])
            else:
                socket.subscribe(os.urandom(20))
    assert raw_client.ask("GetSystemStatus", {})["status"] == "healthy"
