"""A session resends requests for each reason of the policy, as often and as late as the policy says."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr.core.recovery import OfflineQueueFull, Recovery
from backtestr_protocol.codec import REQUEST, decode_message
from backtestr_protocol.errors import (
    BacktestrError,
    Busy,
    DataError,
    NetworkError,
    NotFound,
    RateLimitExceeded,
    RecoveryAction,
    SessionUnknown,
    StateConflict,
    SystemFault,
    TimedOut,
    ValidationError,
)
from backtestr_protocol.messages import FetchMissed, Nothing, Pong
from support.client.link import WALL_MS, Link

QUICK = Recovery(base_delay=0.5, max_delay=8.0, max_attempts=4, resend_after=2.0, offline_queue=3)


@pytest.fixture
def link() -> Link:
    return Link(QUICK)


def sent(link: Link, request_id: str) -> int:
    """Count how often the request was sent."""
    return sum(msgspec.msgpack.decode(frames[1])["id"] == request_id for frames in link.sent)


# --- reasons to resend ---


def test_a_request_is_retried_under_the_same_id_after_a_fault_of_the_broker(link: Link) -> None:
    with link.answering(SystemFault("the disk hiccuped")):
        request_id = link.ask("Ping", Nothing())
    assert request_id not in link.answers
    link.advance(0.6)
    assert link.answers[request_id] == Pong(timestamp=WALL_MS)
    assert sent(link, request_id) == 2
    assert link.session.counters.resent == 1


def test_a_lasting_fault_is_the_answer_after_the_attempts_of_the_policy(link: Link) -> None:
    with link.answering(SystemFault("the disk is gone")):
        request_id = link.ask("Ping", Nothing(), timeout=60.0)
        link.advance(3.4)  # 0.5 + 1 + 2, less a little
        assert request_id not in link.answers
        link.advance(0.2)
    assert isinstance(link.answers[request_id], SystemFault)
    assert sent(link, request_id) == 4


@pytest.mark.parametrize("error", [Busy("full", retryAfterMs=100), RateLimitExceeded("slowly", retryAfterMs=100)])
def test_the_waits_for_a_busy_broker_grow(link: Link, error: BacktestrError) -> None:
    with link.answering(error):
        request_id = link.ask("Ping", Nothing(), timeout=20.0)
        link.advance(8.0)  # refused now, and after 0.5, 1.5, 3.5 and 7.5 seconds: more often than faults are retried
    link.advance(7.0)
    assert request_id not in link.answers
    link.advance(1.0)
    assert link.answers[request_id] == Pong(timestamp=WALL_MS)
    assert sent(link, request_id) == 6


def test_a_lasting_busy_is_the_answer_when_the_next_retry_would_come_too_late(link: Link) -> None:
    with link.answering(Busy("full", retryAfterMs=100)):
        request_id = link.ask("Ping", Nothing(), timeout=7.0)
        link.advance(3.6)
    assert isinstance(link.answers[request_id], Busy)


def test_a_longer_wait_that_the_broker_states_counts(link: Link) -> None:
    with link.answering(Busy("full", retryAfterMs=3_000)):
        request_id = link.ask("Ping", Nothing())
    link.advance(2.9)
    assert request_id not in link.answers
    link.advance(0.2)
    assert link.answers[request_id] == Pong(timestamp=WALL_MS)


@pytest.mark.parametrize("fault", ["request", "reply"])
def test_a_lost_request_or_answer_is_replaced_by_a_resend(link: Link, fault: str) -> None:
    with link.drop_requests() if fault == "request" else link.drop_replies():
        request_id = link.ask("Ping", Nothing())
    link.advance(1.9)
    assert request_id not in link.answers
    link.advance(0.2)
    assert link.answers[request_id] == Pong(timestamp=WALL_MS)
    assert sent(link, request_id) == 2


def test_without_resend_after_a_silent_request_times_out() -> None:
    link = Link(Recovery(resend_after=None))
    with link.drop_requests():
        request_id = link.ask("Ping", Nothing(), timeout=60.0)
    link.advance(60.1, step=0.5)
    assert isinstance(link.answers[request_id], TimedOut)
    assert sent(link, request_id) == 1


@pytest.mark.parametrize("error", [ValidationError("no"), NotFound("no"), DataError("no"), StateConflict("no")])
def test_an_error_that_advises_no_retry_is_the_answer(link: Link, error: BacktestrError) -> None:
    with link.answering(error):
        request_id = link.ask("Ping", Nothing())
        assert isinstance(link.answers[request_id], type(error))
        link.advance(10.0, step=0.5)
    assert sent(link, request_id) == 1


def test_advice_that_this_client_does_not_know_is_left_to_the_program(link: Link) -> None:
    error = ValidationError("no")
    error._advice = [RecoveryAction(action="dance", description="Dance", automatic=True, user_required=False)]
    with link.answering(error):
        request_id = link.ask("Ping", Nothing())
    [advice] = link.answers[request_id].recovery_actions  # type: ignore[union-attr]
    assert advice.action == "dance"


def test_a_fault_without_automatic_actions_is_not_retried(link: Link) -> None:
    error = SystemFault("beyond repair")
    error._advice = []
    with link.answering(error):
        request_id = link.ask("Ping", Nothing())
    assert isinstance(link.answers[request_id], SystemFault)


@pytest.mark.parametrize("error", [SystemFault("no"), Busy("no", retryAfterMs=1), RateLimitExceeded("no")])
def test_without_automatic_actions_every_error_is_the_answer(error: BacktestrError) -> None:
    link = Link(Recovery(automatic=False))
    with link.answering(error):
        request_id = link.ask("Ping", Nothing())
    assert isinstance(link.answers[request_id], type(error))


def test_without_automatic_actions_the_session_is_still_kept_up() -> None:
    link = Link(Recovery(automatic=False))
    link.pass_unnoticed(31.0)
    lost = link.ask("Ping", Nothing())
    assert isinstance(link.answers[lost], SessionUnknown)
    assert link.answers[link.ask("Ping", Nothing())] == Pong(timestamp=WALL_MS)


# --- without a broker ---


def test_requests_wait_for_the_broker_in_order_and_are_executed_once(link: Link) -> None:
    with link.broker_gone():
        asked = [link.ask("FetchMissed", FetchMissed(topic=f"orders.{one}", from_seq=1)) for one in range(3)]
        link.advance(3.0)
        assert not link.answers
        assert link.session.queued == 3
        before = len(link.sent)
    after = [decode_message(link.signer, REQUEST, frames).envelope.id for frames in link.sent[before:]]
    assert after[1:] == asked  # the first is the Hello
    assert sorted(link.answers) == sorted(asked)
    assert link.session.queued == link.session.counters.resent == link.session.counters.dropped == 0


def test_a_full_offline_queue_says_what_to_do_and_keeps_its_requests(link: Link) -> None:
    with link.broker_gone():
        asked = [link.ask("Ping", Nothing()) for _ in range(4)]
        error = link.answers[asked[3]]
        assert isinstance(error, OfflineQueueFull)
        assert "3 requests wait for one already" in str(error)
        assert "offline_queue" in str(error)
        link.check_invariants()
    assert all(link.answers[one] == Pong(timestamp=WALL_MS) for one in asked[:3])
    assert link.session.counters.dropped == 1


def test_a_queued_request_has_its_own_deadline_and_its_error_says_that_it_was_never_sent(link: Link) -> None:
    with link.broker_gone():
        hurried = link.ask("Ping", Nothing(), timeout=1.0)
        patient = link.ask("Ping", Nothing(), timeout=9.0)
        link.advance(1.1)
        error = link.answers[hurried]
        assert isinstance(error, NetworkError)
        assert "never sent" in str(error)
    assert link.answers[patient] == Pong(timestamp=WALL_MS)
    assert link.session.counters.dropped == 1


def test_a_request_that_was_sent_to_a_lost_broker_may_have_been_executed(link: Link) -> None:
    with link.drop_replies():
        request_id = link.ask("Ping", Nothing(), timeout=1.0)
    with link.broker_gone():
        link.advance(1.1)
    assert "may have been executed" in str(link.answers[request_id])
    assert link.session.counters.dropped == 0


def test_requests_of_the_client_itself_are_not_bounded_by_the_offline_queue(link: Link) -> None:
    for number in range(1, 6):
        link.subscribe(number, f"orders.{number}", "retained")
        link.publish(f"orders.{number}", number)
    with link.broker_gone():
        for number in range(6, 16):
            link.subscribe(number, f"orders.{number}", "retained")
        assert link.session.queued == 0
        assert link.session.waiting >= 10
    assert not link.ended


@settings(deadline=None)
@given(st.data())
def test_under_all_faults_the_offline_queue_is_bounded_and_every_request_is_answered_once(data: st.DataObject) -> None:
    link = Link(QUICK)
    asked: list[str] = []
    for _ in range(data.draw(st.integers(1, 8))):
        match data.draw(st.sampled_from(["gone", "fault", "busy", "lost", "quiet"])):
            case "gone":
                with link.broker_gone():
                    asked += [link.ask("Ping", Nothing()) for _ in range(data.draw(st.integers(0, 5)))]
                    link.advance(data.draw(st.sampled_from([0.1, 3.0, 12.0])), step=0.5)
                    link.check_invariants()
            case "fault":
                with link.answering(SystemFault("no")):
                    asked.append(link.ask("Ping", Nothing()))
                    link.advance(data.draw(st.sampled_from([0.1, 3.0])), step=0.5)
            case "busy":
                with link.answering(Busy("no", retryAfterMs=200)):
                    asked.append(link.ask("Ping", Nothing()))
                    link.advance(data.draw(st.sampled_from([0.1, 3.0])), step=0.5)
            case "lost":
                with link.drop_replies(data.draw(st.integers(1, 3))):
                    asked.append(link.ask("Ping", Nothing()))
                    link.advance(data.draw(st.sampled_from([0.1, 3.0])), step=0.5)
            case "quiet":
                link.advance(1.0, step=0.5)
        link.check_invariants()
    link.advance(11.0, step=0.5)
    assert sorted(link.answers) == sorted(asked)
    assert all(sent(link, one) <= QUICK.max_attempts + 8 for one in asked)
