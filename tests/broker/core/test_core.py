"""The core checks a request in a fixed order, remembers its answer, and acts when time has passed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import msgspec
import pytest

from backtestr_broker.core.clients import idempotency as idempotency_module
from backtestr_broker.core.clients import log_limits
from backtestr_broker.core.clients import sessions as sessions_module
from backtestr_broker.core.events import ClientsDropped, RequestReceived, WorkerSent
from backtestr_protocol import worker_channel
from backtestr_protocol.codec import TO_BROKER
from backtestr_protocol.errors import RECOVERY_ACTIONS
from support.broker.clients import Client, failure
from support.broker.link import LIMITS, Link, Worker, config
from support.protocol.independent import REQUEST, Fields, pack

MakeLink = Callable[..., Link]


@pytest.fixture
def ann(link: Link) -> Client:
    return link.client()


def envelope(client: Client, **changes: Any) -> Fields:
    """Return a valid Ping, but for the changes; None removes a key."""
    client.requests.counter += 1
    fields = {
        "id": f"made-{client.requests.counter}",
        "timestamp": client.link.wall_ms,
        "schemaVersion": 1,
        "messageType": "Request",
        "payload": {"type": "Ping", "data": {}},
        "sessionId": client.requests.session_id,
        "counter": client.requests.counter,
    } | changes
    return {name: value for name, value in fields.items() if value is not None}


def sent(client: Client, **changes: Any) -> Fields:
    (answer,) = client.send_frames(pack(client.link.key, REQUEST, envelope(client, **changes)))
    return answer


def code(answer: Fields) -> str:
    found: str = answer["payload"]["data"]["code"]
    return found


# --- Hello ---


def test_welcome_has_the_fields_of_the_protocol(link: Link) -> None:
    welcome = link.raw_client().hello()
    assert welcome.pop("sessionId")
    assert welcome.pop("serverVersion")
    assert welcome == {
        "instanceId": link.instance_id,
        "protocolVersion": 1,
        "heartbeatIntervalMs": 1000,
        "sessionTimeoutMs": 30_000,
        "maxMessageBytes": 1 << 20,
        "topics": [
            "prices.",
            "progress.",
            "orders.",
            "positions.",
            "system.status",
            "system.errors",
            "system.backtests",
            "system.watermarks",
            "system.replays",
            "state.",
        ],
    }
    assert link.signals("client_joined") == [{"clientId": "ann", "clientName": None}]


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"clientId": "", "protocolVersions": [1]}, "$.clientId"),
        ({"clientId": "x" * 129, "protocolVersions": [1]}, "$.clientId"),
        ({"protocolVersions": [1]}, "$.clientId"),
        ({"clientId": "ann"}, "$.protocolVersions"),
        ({"clientId": "ann", "protocolVersions": ["1"]}, "$.protocolVersions[0]"),
        ({"clientId": "ann", "clientName": 5, "protocolVersions": [1]}, "$.clientName"),
    ],
)
def test_a_wrong_hello_names_the_field(link: Link, data: Fields, path: str) -> None:
    (answer,) = link.raw_client().send("Hello", data)
    assert (code(answer), failure(answer)["details"]) == ("VALIDATION_ERROR", {"path": path})
    assert len(link.core.sessions) == 0


@pytest.mark.parametrize("versions", [[], [2], [0, 2, 3]])
def test_no_version_in_common(link: Link, versions: list[int]) -> None:
    error = link.raw_client().refused("Hello", {"clientId": "ann", "protocolVersions": versions})
    assert (error["code"], error["details"]) == ("PROTOCOL_VERSION_UNSUPPORTED", {"supported": [1]})


def test_a_long_list_of_versions_is_not_sent_back(link: Link) -> None:
    error = link.raw_client().refused("Hello", {"clientId": "ann", "protocolVersions": [2] * 100_000})
    assert len(error["message"]) < 200


def test_hello_again_ends_the_session_before(link: Link, ann: Client) -> None:
    old = ann.requests.session_id
    ann.hello()
    assert ann.requests.session_id != old
    assert code(sent(ann, sessionId=old)) == "SESSION_UNKNOWN"
    assert ann.ask("Ping")["timestamp"] == link.wall_ms
    assert link.signals("client_left") == [{"clientId": "ann", "reason": "said Hello again"}]
    assert ann.ask("GetSystemStatus")["connectedClients"] == 1


def test_a_recorded_hello_opens_no_session(link: Link, ann: Client) -> None:
    frames = ann.requests.hello()
    (answer,) = ann.send_frames(frames)
    ann.requests.welcomed(answer["payload"]["data"])
    thief = link.raw_client("thief")
    for client in (ann, thief):
        (answer,) = client.send_frames(frames)
        assert code(answer) == "REPLAY_DETECTED"
    assert ann.ask("GetSystemStatus")["connectedClients"] == 1, "and ann's session is not changed"


def test_dropped_connections_end_their_sessions(link: Link, ann: Client) -> None:
    bob = link.client("bob")
    link.feed(ClientsDropped("the list has changed", link.wall_ms))
    assert link.signals("client_left") == [
        {"clientId": name, "reason": "the list has changed"} for name in ("ann", "bob")
    ]
    assert [one.refused("Ping")["code"] for one in (ann, bob)] == ["SESSION_UNKNOWN"] * 2
    ann.hello()
    assert ann.ask("GetSystemStatus")["connectedClients"] == 1


def test_a_hello_is_busy_while_the_session_table_is_full(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "MAX_SESSIONS", 1)
    ann = link.client("ann")
    (answer,) = link.raw_client("bob").send("Hello", {"clientId": "bob", "protocolVersions": [1]})
    assert code(answer) == "BUSY"
    ann.hello()


def test_goodbye_ends_the_session_at_once(link: Link, ann: Client) -> None:
    assert ann.ask("Goodbye") == {}
    assert ann.refused("Ping")["code"] == "SESSION_UNKNOWN"
    assert link.signals("client_left") == [{"clientId": "ann", "reason": "said goodbye"}]


def test_a_broker_stops_after_its_answer_when_a_client_asks(link: Link, ann: Client) -> None:
    assert ann.ask("StopBroker") == {}
    assert link.is_stopped
    assert link.signals("stops") == [{"clientId": "ann"}]


def test_a_session_belongs_to_its_connection(link: Link, ann: Client) -> None:
    eve = link.client("eve")
    assert code(sent(eve, sessionId=ann.requests.session_id, counter=50)) == "SESSION_UNKNOWN"
    assert sent(ann, counter=50)["payload"]["type"] == "Success", "and its counter is not used up"


# --- the order of the checks: signature, envelope, session, counter, duplicate, type, data ---


def test_each_check_comes_before_the_next(ann: Client) -> None:
    """One request has every mistake, and the mistakes are fixed one by one."""
    answered = envelope(ann, id="answered")
    ann.send_frames(pack(ann.link.key, REQUEST, answered))
    wrong: Fields = {
        "id": "answered",
        "messageType": "Response",
        "sessionId": "none such",
        "counter": answered["counter"],
        "payload": {"type": "Pong", "data": {"limit": 0}},
    }
    frames = pack(ann.link.key, REQUEST, envelope(ann, **wrong))
    (answer,) = ann.send_frames([bytes(32), *frames[1:]])
    assert (answer["messageType"], code(answer)) == ("Error", "AUTHENTICATION_ERROR")
    assert "correlationId" not in answer
    assert failure(sent(ann, **wrong))["details"] == {"path": "$.messageType"}
    wrong["messageType"] = "Request"
    assert code(sent(ann, **wrong)) == "SESSION_UNKNOWN"
    wrong["sessionId"] = ann.requests.session_id
    assert code(sent(ann, **wrong)) == "REPLAY_DETECTED"
    del wrong["counter"]
    assert sent(ann, **wrong)["payload"]["type"] == "Success", "the answer that is remembered under this id"
    wrong["id"] = "new"
    error = failure(sent(ann, **wrong))
    assert error["code"] == "UNSUPPORTED_COMMAND"
    assert "did you mean 'Ping'" in error["message"]
    wrong |= {"id": "newer", "payload": {"type": "ListBacktests", "data": {"limit": 0}}}
    assert failure(sent(ann, **wrong))["details"] == {"path": "$.limit"}


@pytest.mark.parametrize("missing", ["sessionId", "counter"])
def test_every_request_but_hello_has_session_and_counter(ann: Client, missing: str) -> None:
    answer = sent(ann, **{missing: None, "id": "mine"})
    assert (code(answer), answer["correlationId"]) == ("VALIDATION_ERROR", "mine")
    assert failure(answer)["details"] == {"path": f"$.{missing}"}


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"schemaVersion": 2}, "$.schemaVersion"),
        ({"timestamp": None}, "$.timestamp"),
        ({"counter": 0}, "$.counter"),
        ({"counter": "1"}, "$.counter"),
        ({"payload": {"type": "Ping"}}, "$.payload.data"),
        ({"messageType": "Inquiry"}, "$.messageType"),
    ],
)
def test_a_wrong_envelope_is_answered_under_its_id(ann: Client, changes: Fields, path: str) -> None:
    answer = sent(ann, id="mine", **changes)
    assert (code(answer), answer["correlationId"]) == ("VALIDATION_ERROR", "mine")
    assert failure(answer)["details"] == {"path": path}


def test_a_refused_request_does_not_use_its_id(ann: Client) -> None:
    """A message replay and an unknown session are errors of the message, so the same request id may be tried again."""
    first = sent(ann, id="mine", sessionId="none such")
    assert code(first) == "SESSION_UNKNOWN"
    assert sent(ann, id="mine")["payload"]["type"] == "Success"


@pytest.mark.parametrize(
    "frames",
    [[], [b""], [bytes(32)], [bytes(32), b"\x80"], [b"short", b"\x80"], [bytes(32), b"\xc1", b"attachment"]],
)
def test_an_unattributed_error_is_answered_without_correlation(ann: Client, frames: list[bytes]) -> None:
    (answer,) = ann.send_frames(frames)
    assert answer["messageType"] == answer["payload"]["type"] == "Error"
    assert "correlationId" not in answer
    assert code(answer) in ("IPC_SERIALIZATION_ERROR", "AUTHENTICATION_ERROR")
    assert ann.ask("Ping")


def test_a_request_over_the_limit_is_refused_before_decoding(link: Link, ann: Client) -> None:
    room = LIMITS.max_message_bytes - sum(map(len, ann.requests.make("Ping", {})))
    (answer,) = ann.send_frames(ann.requests.make("Ping", {}, attachments=[bytes(room)]))
    assert answer["payload"]["type"] == "Success"
    (answer,) = ann.send_frames(ann.requests.make("Ping", {}, attachments=[bytes(room + 1)]))
    assert code(answer) == "MESSAGE_TOO_LARGE"
    assert answer["payload"]["data"]["details"] == {
        "bytes": LIMITS.max_message_bytes + 1,
        "maxMessageBytes": LIMITS.max_message_bytes,
    }


def test_a_signed_request_over_the_limit_is_answered_under_its_id(ann: Client) -> None:
    error = ann.refused("UpdateState", {"key": "a", "value": bytes(LIMITS.max_message_bytes)}, message_id="big")
    assert error["code"] == "MESSAGE_TOO_LARGE"
    assert ann.refused("GetState", {"key": "a"})["code"] == "NOT_FOUND"


def test_a_request_far_over_the_limit_or_with_a_wrong_signature_is_not_attributed(ann: Client) -> None:
    most = LIMITS.max_message_bytes
    far = ann.requests.make("Ping", {}, attachments=[bytes(most), bytes(most)])
    (answer,) = ann.send_frames(far)
    assert (code(answer), answer.get("correlationId")) == ("MESSAGE_TOO_LARGE", None)


@pytest.mark.parametrize("cut", [0, 1])
def test_a_large_message_that_cannot_be_read_is_not_attributed(ann: Client, cut: int) -> None:
    signature, *signed = ann.requests.make("Ping", {}, attachments=[bytes(LIMITS.max_message_bytes)])
    frames = [[bytes(32), *signed], [signature, b"\xc1", signed[1]]][cut]
    (answer,) = ann.send_frames(frames)
    assert (code(answer), answer.get("correlationId")) == ("MESSAGE_TOO_LARGE", None)


def test_bad_frames_are_answered_once_a_second_on_each_connection(link: Link, ann: Client) -> None:
    bob = link.client("bob")
    assert len(ann.send_frames([b"junk"])) == 1
    link.advance(0.999)
    assert ann.send_frames([b"junk"]) == []
    assert len(bob.send_frames([b"junk"])) == 1
    link.advance(0.001)
    assert len(ann.send_frames([b"junk"])) == 1
    assert ann.send_frames([b"junk"]) == []
    assert len(link.signals("message_refused")) == 3
    assert ann.ask("Ping"), "and valid requests are served all the time"


def test_the_connections_that_sent_bad_frames_are_remembered_within_a_bound(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_limits, "MAX_KEYS", 2)
    for number in range(5):
        link.request(b"hostile-%d" % number, [b"junk"])
    link.core.check_invariants()


def test_a_long_wrong_name_is_not_sent_back_whole(ann: Client) -> None:
    for answer in (ann.send("x" * 100_000, {}), ann.send("GetAlgorithmStatus", {"algorithmId": "x" * 100_000})):
        assert len(msgpack.packb(answer)) < 3000


def test_every_error_has_its_recovery_actions(ann: Client) -> None:
    error = ann.refused("GetBacktestStatus", {"backtestId": "nothing"})
    assert [one["action"] for one in error["recoveryActions"]] == [one.action for one in RECOVERY_ACTIONS["NOT_FOUND"]]
    assert (error["component"], error["timestamp"], error["severity"]) == ("broker", ann.link.wall_ms, "Error")


# --- idempotency ---


def test_a_remembered_answer_is_sent_again_without_running_again(link: Link, ann: Client) -> None:
    first = ann.ask("StartBacktest", config(), message_id="start")
    link.worker("compute-1").finish()
    assert ann.ask("StartBacktest", config(), message_id="start") == first == {**first, "status": "queued"}
    assert len(ann.ask("ListBacktests")["backtests"]) == 1


def test_a_started_backtest_answers_for_its_request_when_the_answer_is_forgotten(link: Link, ann: Client) -> None:
    backtest_id = ann.ask("StartBacktest", config(), message_id="start")["backtestId"]
    for _ in range(2000):
        ann.send("Ping", {})
    link.advance(idempotency_module.KEPT_SECONDS - 10)
    link.worker("compute-1").finish()
    ann.hello()
    again = ann.ask("StartBacktest", config(), message_id="start")
    assert again == {"backtestId": backtest_id, "status": "completed"}
    assert len(ann.ask("ListBacktests")["backtests"]) == 1


def test_an_answer_outlives_its_session(link: Link) -> None:
    first = link.client("ann")
    started = first.ask("StartBacktest", config(), message_id="start")
    again = link.client("ann")
    assert again.ask("StartBacktest", config(), message_id="start") == started
    bob = link.client("bob")
    assert bob.ask("StartBacktest", config(), message_id="start") != started


def test_an_answer_goes_to_the_connection_that_asked_last(link: Link) -> None:
    link.worker("interactive-1").answers = False
    first, second = link.client("ann"), link.client("ann")
    first.later("ListMarketData", message_id="ask")
    second.later("ListMarketData", message_id="ask")
    link.worker("interactive-1").finish(data={"series": []})
    assert first.answers("ask") == []
    assert second.answer("ask") == {"series": []}
    assert len(link.worker("interactive-1").assigned) == 1


def test_a_failure_is_remembered_too(link: Link, ann: Client) -> None:
    error = ann.refused("GetBacktestStatus", {"backtestId": "b1"}, message_id="look")
    ann.ask("StartBacktest", config(backtestId="b1"))
    assert ann.refused("GetBacktestStatus", {"backtestId": "b1"}, message_id="look") == error
    link.advance(29)
    ann.ask("Ping")
    assert ann.refused("GetBacktestStatus", {"backtestId": "b1"}, message_id="look") == error


def test_after_five_minutes_a_request_is_a_new_one(link: Link, ann: Client) -> None:
    ann.refused("GetBacktestStatus", {"backtestId": "b1"}, message_id="look")
    ann.ask("StartBacktest", config(backtestId="b1"))
    link.advance(idempotency_module.KEPT_SECONDS)
    ann.hello()
    assert ann.ask("GetBacktestStatus", {"backtestId": "b1"}, message_id="look")["status"] == "running"


# --- time ---


def test_deadlines_are_handled_on_tick_only(make_link: MakeLink) -> None:
    """Only Tick handles deadlines; other events do not."""
    link = make_link()
    link.advance(0)
    ann = link.client()
    due = link.core.next_deadline()
    link.now += 5.0
    ann.ask("Ping")
    assert link.core.next_deadline() == due < link.now


def test_a_heartbeat_comes_every_interval(link: Link) -> None:
    link.advance(10.0)
    data = [payload["data"] for _, payload in link.streams["system.status"]]
    assert [one["uptimeMs"] for one in data] == [1000 * number for number in range(11)]
    assert [seq for seq, _ in link.streams["system.status"]] == list(range(1, 12))
    assert data[-1]["lastHeartbeat"] == link.wall_ms


def test_an_idle_core_is_due_once_a_heartbeat(link: Link) -> None:
    """The watermark of the heartbeat goes with it."""
    link.advance(0.5)
    before = len(link.events)
    link.advance(10.0)
    assert len(link.events) - before == 10


def test_watermarks_have_the_topics_that_advanced_but_not_their_own(link: Link, ann: Client) -> None:
    link.advance(0.5)
    link.streams.clear()
    ann.ask("StartBacktest", config(backtestId="b1"))
    link.worker("compute-1").publish("orders.b1", 1, 2, 3)
    assert link.streams["system.watermarks"] == []
    link.advance(0.25)
    ((_, watermarks),) = link.streams["system.watermarks"]
    assert watermarks["data"] == {"topics": {"orders.b1": 3, "system.backtests": 2}}
    link.advance(0.1)
    assert len(link.streams["system.watermarks"]) == 1, "no topic has advanced since"


def test_watermarks_come_once_an_interval_whatever_advances(link: Link, ann: Client) -> None:
    ann.ask("StartBacktest", config(backtestId="b1"))
    link.advance(0.6)
    before = len(link.streams["system.watermarks"])
    for number in range(100):
        link.worker("compute-1").publish("orders.b1", number)
        link.advance(0.01)
    watermarks = link.streams["system.watermarks"][before:]
    assert 4 <= len(watermarks) <= 5
    assert watermarks[-1][1]["data"]["topics"]["orders.b1"] <= 100


def test_a_silent_session_is_dropped_on_time(link: Link, ann: Client) -> None:
    link.advance(29.0)
    ann.ask("Ping")
    link.advance(29.999)
    assert link.signals("client_left") == []
    link.advance(0.001)
    assert link.signals("client_left") == [{"clientId": "ann", "reason": "silent for too long"}]
    assert ann.refused("Ping")["code"] == "SESSION_UNKNOWN"


def test_the_deadline_of_a_session_is_exact(make_link: MakeLink) -> None:
    link = make_link(limits=msgspec.structs.replace(LIMITS, heartbeat_interval_ms=1_000_000, session_timeout_ms=100))
    link.advance(1.0)
    link.client()
    assert link.core.next_deadline() == link.now + 0.1


# --- status ---


def test_status_counts_what_there_is(link: Link, ann: Client) -> None:
    ann.ask("StartBacktest", config(backtestId="b1"))
    ann.ask("StartBacktest", config(backtestId="b2"))
    link.tick()
    link.now += 2.0
    found = ann.ask("GetSystemStatus")
    assert found["memoryUsage"] == {"used": 1 << 30, "total": 8 << 30, "percentage": 12.5}
    assert (found["cpuUsage"], found["loopLagMs"]) == (5.0, 1.0)
    assert (found["activeBacktests"], found["queuedRequests"], found["connectedClients"]) == (1, 1, 1)
    assert found["uptimeMs"] == 2000
    workers = {one["workerId"]: (one["state"], one["lastSeenMs"]) for one in found["workers"]}
    assert workers == {"compute-1": ("busy", 2000), "interactive-1": ("idle", 2000)}
    link.worker("compute-1").say(worker_channel.Beat(task_id="b1"))
    link.lose_worker(link.worker("interactive-1"), again=False)
    found = ann.ask("GetSystemStatus")
    workers = {one["workerId"]: (one["state"], one["lastSeenMs"]) for one in found["workers"]}
    assert workers == {"compute-1": ("busy", 0), "interactive-1": ("lost", 2000)}


def test_the_core_serves_once_there_is_a_worker_of_each_kind(make_link: MakeLink) -> None:
    link = make_link(start=False, compute=2)
    compute = [link.start_worker(f"compute-{number}", "compute") for number in (1, 2)]
    interactive = link.start_worker("interactive-1", "interactive")
    compute[0].ready()
    assert link.signals("serving") == []
    interactive.ready()
    assert len(link.signals("serving")) == 1
    assert [one.symbol for one in link.core.worker_messages.series_at_start] == ["SYNTH"]
    compute[1].ready()
    link.lose_worker(interactive)
    assert len(link.signals("serving")) == 1, "reported once"


def test_a_request_before_the_first_worker_waits_for_one(make_link: MakeLink) -> None:
    link = make_link(start=False)
    ann = link.client()
    assert ann.ask("ListAlgorithms") == {"algorithms": []}
    asked = ann.later("ListMarketData")
    link.start_workers()
    assert ann.answer(asked)["series"][0]["symbol"] == "SYNTH"
    assert [one["name"] for one in ann.ask("ListAlgorithms")["algorithms"]] == ["sma_cross"]


def test_an_error_about_an_unknown_algorithm_names_the_nearest(ann: Client) -> None:
    error = ann.refused("GetAlgorithmStatus", {"algorithmId": "sma_cros"})
    assert error["code"] == "NOT_FOUND"
    assert "did you mean 'sma_cross'" in error["message"]


# --- streams and repair ---


def test_a_late_joiner_fetches_what_it_missed(link: Link, ann: Client) -> None:
    ann.ask("StartBacktest", config(backtestId="b1"))
    fetch = {"topic": "orders.b1", "fromSeq": 1}
    assert ann.ask("FetchMissed", fetch) == {"messages": [], "topic": "orders.b1"} | {
        "fromSeq": 1,
        "toSeq": 0,
        "oldestSeq": 1,
    }
    link.worker("compute-1").publish("orders.b1", 7)
    link.worker("compute-1").publish("orders.b1", 8, 9)
    missed = ann.ask("FetchMissed", fetch)
    assert (missed["toSeq"], missed["oldestSeq"]) == (3, 1)
    assert [(one["seq"], one["payload"]) for one in missed["messages"]] == link.streams["orders.b1"]


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"topic": "system.status", "fromSeq": 0}, "$.fromSeq"),
        ({"topic": "system.status", "fromSeq": 2, "toSeq": 1}, "$.toSeq"),
        ({"topic": 5, "fromSeq": 1}, "$.topic"),
    ],
)
def test_a_wrong_fetch_names_the_field(link: Link, ann: Client, data: Fields, path: str) -> None:
    link.advance(0)
    assert ann.refused("FetchMissed", data)["details"] == {"path": path}


def test_payloads_are_forwarded_byte_for_byte(link: Link, ann: Client) -> None:
    """Payloads of types that the broker does not know are forwarded as well."""
    ann.ask("StartBacktest", config(backtestId="b1"))
    payload = msgpack.packb({"type": "FromTheFuture", "data": {"π": [1, None, {"deep": 2.5}]}})
    link.worker("compute-1").say(worker_channel.Published(topic="orders.b1", count=1), [payload])
    ((seq, published),) = link.streams["orders.b1"]
    assert (seq, msgpack.packb(published)) == (1, payload)


def test_an_attachment_is_allowed_where_none_is_expected(ann: Client) -> None:
    (answer,) = ann.send_frames(ann.requests.make("Ping", {}, attachments=[b"one", b"two"]))
    assert answer["payload"]["type"] == "Success"


def test_unsigned_frames_on_the_engine_socket_are_refused(link: Link, ann: Client) -> None:
    for peer, frames in enumerate(
        (
            [],
            [b"x"],
            [bytes(32), b"\x80"],
            worker_channel.encode_to_broker(worker_channel.Beat(task_id=None)),
        )
    ):
        for _ in range(100):  # a flood is logged once a second
            link.feed(WorkerSent(b"%d" % peer, frames, link.wall_ms))
    assert len(link.signals("message_refused")) == 4
    assert all(facts["reason"].startswith("on the engine socket: ") for facts in link.signals("message_refused"))


def test_a_request_signed_for_the_engine_socket_is_not_taken_on_the_other(link: Link, ann: Client) -> None:
    frames = link.signer.seal(TO_BROKER, worker_channel.encode_to_broker(worker_channel.Beat(task_id=None)))
    link.feed(RequestReceived(ann.peer, frames, link.wall_ms))
    assert ann.inbox[-1][0]["payload"]["data"]["code"] == "AUTHENTICATION_ERROR"


def test_a_worker_has_the_kind_it_was_started_with(make_link: MakeLink) -> None:
    link = make_link(start=False)
    worker = link.start_worker("compute-1", "compute")
    Worker(link, "compute-1", "interactive", worker.peer).ready()
    assert link.signals("worker_ready") == [{"workerId": "compute-1", "pid": 1000, "kind": "compute"}]
    link.client().later("ListMarketData")
    assert worker.received == []
