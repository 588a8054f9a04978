"""The client's session against the broker's real core, with losses, restarts and time between them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr.core.effects import Answered, Failed, Reconnect, Refused, Send, UnattributedError, Welcomed
from backtestr.core.recovery import Recovery
from backtestr.core.session import HELLO_TIMEOUT, MAX_RESENDS, Session
from backtestr_protocol.codec import REQUEST, RESPONSE, Signer, decode_message, encode_message
from backtestr_protocol.envelopes import Outgoing, OutgoingPayload
from backtestr_protocol.errors import (
    BacktestrError,
    Busy,
    NetworkError,
    NotFound,
    ProtocolVersionUnsupported,
    ReplayDetected,
    SerializationError,
    SessionUnknown,
    TimedOut,
)
from backtestr_protocol.messages import BacktestRef, FetchMissed, Nothing, Pong, Welcome
from support.client.link import WALL_MS, Link

KEY = Signer(bytes(32))
WELCOME = Welcome(
    session_id="s1",
    instance_id="i1",
    protocol_version=1,
    server_version="1",
    heartbeat_interval_ms=1_000,
    session_timeout_ms=30_000,
    max_message_bytes=1 << 24,
    topics=[],
)


def answer(correlation_id: str | None, kind: str, data: object, signer: Signer = KEY) -> list[bytes]:
    envelope = Outgoing(
        id="a",
        timestamp=WALL_MS,
        schema_version=1,
        message_type="Response",
        payload=OutgoingPayload(kind, data),
        correlation_id=correlation_id,
    )
    return encode_message(signer, RESPONSE, envelope)


def failure(correlation_id: str, error: BacktestrError) -> list[bytes]:
    return answer(correlation_id, "Failure", error.to_data(component="test", timestamp=WALL_MS))


def sent_envelopes(effects: list[object]) -> list[tuple[str, str, str | None, int | None]]:
    sent = [decode_message(KEY, REQUEST, effect.frames).envelope for effect in effects if isinstance(effect, Send)]
    return [(one.payload.type, one.id, one.session_id, one.counter) for one in sent]


def welcomed(session: Session, now: float = 0.0, welcome: Welcome = WELCOME) -> None:
    [(_, hello_id, _, _)] = sent_envelopes([*session.connected(KEY, now, WALL_MS)])
    session.receive(answer(hello_id, "Success", welcome), now, WALL_MS)
    assert session.state == "ready"


def test_a_request_is_answered_with_its_own_data(link: Link) -> None:
    ping = link.ask("Ping", Nothing())
    missing = link.ask("GetBacktestStatus", BacktestRef(backtest_id="none"))
    assert link.answers[ping] == Pong(timestamp=WALL_MS)
    assert isinstance(link.answers[missing], NotFound)


def test_answers_in_any_order_find_their_requests() -> None:
    session = Session("c", "n")
    welcomed(session)
    first, _ = session.request("Ping", Nothing(), 0.0, WALL_MS, 5.0)
    second, _ = session.request("Ping", Nothing(), 0.0, WALL_MS, 5.0)
    [late] = session.receive(answer(second, "Success", Pong(timestamp=2)), 0.1, WALL_MS)
    [early] = session.receive(answer(first, "Success", Pong(timestamp=1)), 0.1, WALL_MS)
    assert (late.request_id, late.data.timestamp) == (second, 2)  # type: ignore[union-attr]
    assert (early.request_id, early.data.timestamp) == (first, 1)  # type: ignore[union-attr]


def test_requests_made_before_the_welcome_are_sent_after_it() -> None:
    session = Session("c", "n")
    request_id, effects = session.request("Ping", Nothing(), 0.0, WALL_MS, 5.0)
    assert effects == []
    [(_, hello_id, *_)] = sent_envelopes([*session.connected(KEY, 0.0, WALL_MS)])
    welcome, *sends = session.receive(answer(hello_id, "Success", WELCOME), 0.0, WALL_MS)
    assert welcome == Welcomed(WELCOME)
    assert sent_envelopes([*sends]) == [("Ping", request_id, "s1", 1)]


def test_a_lost_request_times_out_and_its_late_answer_is_dropped(link: Link) -> None:
    with link.drop_requests():
        request_id = link.ask("Ping", Nothing(), timeout=2.0)
    link.advance(2.1)
    assert isinstance(link.answers[request_id], TimedOut)
    assert "2 s" in str(link.answers[request_id])
    signed = Signer(bytes([1]) * 32)
    late = answer(request_id, "Success", Pong(timestamp=1), signed)
    assert link.session.receive(late, link.now, WALL_MS) == []


def test_without_a_connection_a_request_that_times_out_is_a_network_error(link: Link) -> None:
    link.session.disconnected()
    request_id = link.ask("Ping", Nothing(), timeout=1.0)
    link.advance(1.1)
    assert isinstance(link.answers[request_id], NetworkError)


def test_a_restarted_broker_gets_pending_requests_under_the_same_id(link: Link) -> None:
    with link.drop_replies():
        request_id = link.ask("Ping", Nothing())
    assert request_id not in link.answers
    link.start_broker()
    assert link.answers[request_id] == Pong(timestamp=WALL_MS)


def test_an_expired_session_is_opened_again_without_the_caller_noticing(link: Link) -> None:
    link.pass_unnoticed(31.0)
    request_id = link.ask("Ping", Nothing())
    assert link.answers[request_id] == Pong(timestamp=WALL_MS)
    assert len([one for one in link.events if isinstance(one, Welcomed)]) == 2


def test_two_requests_of_a_lost_session_cause_one_hello() -> None:
    session = Session("c", "n")
    welcomed(session)
    first, _ = session.request("Ping", Nothing(), 0.0, WALL_MS, 5.0)
    second, _ = session.request("Ping", Nothing(), 0.0, WALL_MS, 5.0)
    [(kind, hello_id, *_)] = sent_envelopes([*session.receive(failure(first, SessionUnknown("no")), 0.1, WALL_MS)])
    assert kind == "Hello"
    assert session.receive(failure(second, SessionUnknown("no")), 0.1, WALL_MS) == []
    _, *sends = session.receive(answer(hello_id, "Success", WELCOME), 0.2, WALL_MS)
    assert sent_envelopes([*sends]) == [("Ping", first, "s1", 1), ("Ping", second, "s1", 2)]
    session.check_invariants()


@pytest.mark.parametrize("automatic", [True, False])
def test_the_refusal_of_a_copy_of_what_was_sent_changes_nothing(automatic: bool) -> None:
    session = Session("c", "n", recovery=Recovery(automatic=automatic))
    welcomed(session)
    request_id, _ = session.request("Ping", Nothing(), 0.0, WALL_MS, 5.0)
    for highest in (1, 2, 1024):
        assert (
            session.receive(failure(request_id, ReplayDetected("seen", counter=1, highest=highest)), 0.1, WALL_MS) == []
        )
    [answered] = session.receive(answer(request_id, "Success", Pong(timestamp=WALL_MS)), 0.2, WALL_MS)
    assert answered == Answered(request_id, Pong(timestamp=WALL_MS), [])


def test_a_counter_that_came_too_late_is_sent_again() -> None:
    session = Session("c", "n")
    welcomed(session)
    request_id, _ = session.request("Ping", Nothing(), 0.0, WALL_MS, 5.0)
    late = ReplayDetected("too old", counter=1, highest=1025)
    [(_, again, _, counter)] = sent_envelopes([*session.receive(failure(request_id, late), 0.1, WALL_MS)])
    assert (again, counter) == (request_id, 2)


def test_a_request_that_is_taken_for_a_message_replay_is_resent_with_a_fresh_counter_and_the_same_id() -> None:
    session = Session("c", "n")
    welcomed(session)
    request_id, _ = session.request("Ping", Nothing(), 0.0, WALL_MS, 5.0)
    effects = session.receive(failure(request_id, ReplayDetected("seen")), 0.1, WALL_MS)
    assert sent_envelopes([*effects]) == [("Ping", request_id, "s1", 2)]


def test_a_request_that_the_broker_never_accepts_is_resent_a_bounded_number_of_times() -> None:
    session = Session("c", "n")
    welcomed(session)
    request_id, _ = session.request("Ping", Nothing(), 0.0, WALL_MS, 5.0)
    for _ in range(MAX_RESENDS):
        assert sent_envelopes([*session.receive(failure(request_id, ReplayDetected("seen")), 0.1, WALL_MS)])
    [failed] = session.receive(failure(request_id, ReplayDetected("seen")), 0.1, WALL_MS)
    assert isinstance(failed.error, ReplayDetected)  # type: ignore[union-attr]


def test_a_busy_broker_gets_the_request_again_after_the_time_it_states() -> None:
    session = Session("c", "n")
    welcomed(session)
    request_id, _ = session.request("Ping", Nothing(), 0.0, WALL_MS, 5.0)
    assert session.receive(failure(request_id, Busy("full", retryAfterMs=400)), 0.1, WALL_MS) == []
    assert session.tick(0.4, WALL_MS) == []
    assert sent_envelopes([*session.tick(0.5, WALL_MS)]) == [("Ping", request_id, "s1", 2)]


def test_a_broker_that_is_busy_beyond_the_timeout_is_the_answer() -> None:
    session = Session("c", "n")
    welcomed(session)
    request_id, _ = session.request("Ping", Nothing(), 0.0, WALL_MS, 1.0)
    [failed] = session.receive(failure(request_id, Busy("full", retryAfterMs=2_000)), 0.1, WALL_MS)
    assert isinstance(failed.error, Busy)  # type: ignore[union-attr]


def test_a_session_without_requests_pings_and_stays_open(link: Link) -> None:
    link.advance(65.0, step=0.5)
    assert len(link.core.sessions) == 1
    assert len([one for one in link.events if isinstance(one, Welcomed)]) == 1


def test_an_unanswered_ping_asks_for_another_connection() -> None:
    session = Session("c", "n")
    welcomed(session)
    assert sent_envelopes([*session.tick(1.0, WALL_MS)])[0][0] == "Ping"
    assert session.tick(30.9, WALL_MS) == []
    assert [type(effect) for effect in session.tick(31.0, WALL_MS)] == [Reconnect]
    session.check_invariants()


def test_an_unanswered_hello_asks_for_another_connection() -> None:
    session = Session("c", "n")
    session.connected(KEY, 0.0, WALL_MS)
    assert session.next_deadline() == HELLO_TIMEOUT
    assert [type(effect) for effect in session.tick(HELLO_TIMEOUT, WALL_MS)] == [Reconnect]


def test_a_broker_of_another_version_refuses_everything_at_once() -> None:
    session = Session("c", "n")
    waiting, _ = session.request("Ping", Nothing(), 0.0, WALL_MS, 5.0)
    [(_, hello_id, *_)] = sent_envelopes([*session.connected(KEY, 0.0, WALL_MS)])
    refused, failed = session.receive(failure(hello_id, ProtocolVersionUnsupported("no")), 0.0, WALL_MS)
    assert isinstance(refused, Refused)
    assert failed.request_id == waiting  # type: ignore[union-attr]
    _, [failed] = session.request("Ping", Nothing(), 0.0, WALL_MS, 5.0)
    assert isinstance(failed.error, ProtocolVersionUnsupported)  # type: ignore[union-attr]
    session.check_invariants()


def test_a_full_broker_gets_hello_again_later() -> None:
    session = Session("c", "n")
    [(_, hello_id, *_)] = sent_envelopes([*session.connected(KEY, 0.0, WALL_MS)])
    assert session.receive(failure(hello_id, Busy("full", retryAfterMs=700)), 0.0, WALL_MS) == []
    assert session.next_deadline() == pytest.approx(0.7)
    assert [type(effect) for effect in session.tick(0.7, WALL_MS)] == [Reconnect]


def test_a_request_that_the_broker_would_not_take_fails_unsent_and_others_are_sent() -> None:
    session = Session("ann", "n")
    small = msgspec.structs.replace(WELCOME, max_message_bytes=1_000)
    session.connected(KEY, 0.0, WALL_MS)
    queued, _ = session.request("FetchMissed", FetchMissed(topic="t" * 1_000, from_seq=1), 0.0, WALL_MS, 9.0)
    small_one, _ = session.request("Ping", Nothing(), 0.0, WALL_MS, 9.0)
    _, failed, sent = session.receive(answer("n-1", "Success", small), 0.0, WALL_MS)
    assert isinstance(failed, Failed)
    assert (failed.request_id, failed.error.code) == (queued, "MESSAGE_TOO_LARGE")
    assert [request_id for _, request_id, _, _ in sent_envelopes([sent])] == [small_one]
    session.check_invariants()
    late, effects = session.request("FetchMissed", FetchMissed(topic="t" * 1_000, from_seq=1), 0.0, WALL_MS, 9.0)
    assert [type(one) for one in effects] == [Failed]
    assert session.waiting == 1, f"{late} waits for no answer"
    details = effects[0].error.details or {}  # type: ignore[union-attr]
    assert details["maxMessageBytes"] == 1_000 < details["bytes"] < 1_500
    exact = details["bytes"]
    session = Session("ann", "n")
    welcomed(session, welcome=msgspec.structs.replace(WELCOME, max_message_bytes=exact))
    _, [fits] = session.request("FetchMissed", FetchMissed(topic="t" * 1_000, from_seq=1), 0.0, WALL_MS, 9.0)
    assert isinstance(fits, Send)
    assert exact - 1 <= sum(map(len, fits.frames)) <= exact


def test_goodbye_ends_the_session_at_once(link: Link) -> None:
    link.say_goodbye()
    assert len(link.core.sessions) == 0


def test_an_answer_with_other_fields_fails_its_request() -> None:
    session = Session("c", "n")
    welcomed(session)
    request_id, _ = session.request("Ping", Nothing(), 0.0, WALL_MS, 5.0)
    [failed] = session.receive(answer(request_id, "Success", {"time": 1}), 0.1, WALL_MS)
    assert failed.request_id == request_id  # type: ignore[union-attr]
    assert "timestamp" in str(failed.error)  # type: ignore[union-attr]


def test_an_error_without_a_request_is_an_unattributed_error() -> None:
    session = Session("c", "n")
    welcomed(session)
    complaint = SerializationError("what was that?").to_data(component="broker", timestamp=WALL_MS)
    [noticed] = session.receive(answer(None, "Error", complaint), 0.1, WALL_MS)
    assert isinstance(noticed, UnattributedError)
    assert str(noticed.error) == "what was that?"


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_hostile_frames_are_unattributed_errors_and_change_nothing(frames: list[bytes]) -> None:
    session = Session("c", "n")
    welcomed(session)
    request_id, _ = session.request("Ping", Nothing(), 0.0, WALL_MS, 5.0)
    assert [type(effect) for effect in session.receive(frames, 0.1, WALL_MS)] == [UnattributedError]
    [answered] = session.receive(answer(request_id, "Success", Pong(timestamp=1)), 0.2, WALL_MS)
    assert answered.request_id == request_id  # type: ignore[union-attr]


def test_an_answer_signed_with_another_key_is_not_believed() -> None:
    session = Session("c", "n")
    welcomed(session)
    request_id, _ = session.request("Ping", Nothing(), 0.0, WALL_MS, 5.0)
    signature, *rest = answer(request_id, "Success", Pong(timestamp=1))
    forged = [bytes([signature[0] ^ 1]) + signature[1:], *rest]
    assert [type(effect) for effect in session.receive(forged, 0.1, WALL_MS)] == [UnattributedError]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["ask", "lose request", "lose reply", "restart", "reconnect", "wait"]), max_size=25))
def test_every_request_is_answered_exactly_once_under_all_faults(steps: list[str]) -> None:
    link = Link()
    asked: list[str] = []
    for step in steps:
        match step:
            case "ask":
                asked.append(link.ask("FetchMissed", FetchMissed(topic="system.status", from_seq=1)))
            case "lose request":
                with link.drop_requests():
                    asked.append(link.ask("Ping", Nothing()))
            case "lose reply":
                with link.drop_replies():
                    asked.append(link.ask("Ping", Nothing()))
            case "restart":
                link.start_broker()
            case "reconnect":
                link.connect()
            case "wait":
                link.advance(3.0, step=0.5)
        link.check_invariants()
    link.advance(11.0, step=0.5)
    assert sorted(link.answers) == sorted(asked)
    assert link.session.waiting <= 1  # a Ping of the client itself


def test_there_is_room_for_half_of_the_offline_queue_while_a_session_is_awaited() -> None:
    session = Session("c", "n", recovery=Recovery(offline_queue=5))
    assert session.room(100) == 2
    session.request("Ping", Nothing(), 0.0, WALL_MS, 5.0)
    assert session.room(100) == 1
    assert session.room(1) == 0
    welcomed(session)
    assert (session.room(100), session.room(1)) == (99, 0)
    assert Session("c", "n", recovery=Recovery(offline_queue=1)).room(100) == 1
    assert Session("c", "n", recovery=Recovery(offline_queue=0)).room(100) == 100, "it refuses at once"


def test_a_request_that_has_waited_before_times_out_as_much_earlier(link: Link) -> None:
    with link.drop_requests():
        request_id = link.send("Ping", Nothing(), 3.0, waited=2.0)
    link.advance(0.9)
    assert request_id not in link.answers
    link.advance(0.2)
    assert "3 s" in str(link.answers[request_id])
