"""A pending request is sent as often and as late as the policy says, and never after its deadline."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr.core.pending_request import PendingRequest
from backtestr.core.recovery import Recovery
from backtestr_protocol.messages import Nothing

POLICIES = st.builds(
    Recovery,
    base_delay=st.floats(0.05, 1.0),
    max_delay=st.floats(1.0, 5.0),
    max_attempts=st.integers(1, 6),
    resend_after=st.none() | st.floats(0.1, 3.0),
)


@settings(deadline=None)
@given(POLICIES, st.floats(0.5, 30.0), st.lists(st.sampled_from(["fault", "silence"]), max_size=12))
def test_a_request_is_sent_no_more_often_and_no_later_than_the_policy_says(
    recovery: Recovery, timeout: float, outcomes: list[str]
) -> None:
    pending = PendingRequest("Ping", Nothing(), 0.0, timeout)
    now, sendings = 0.0, [0.0]
    pending.sent("s", now, recovery)
    for outcome in outcomes:
        if outcome == "fault":
            if not pending.may_retry(recovery) or not pending.retry_after(now, recovery.base_delay):
                break
            pending.faults += 1
        elif pending.due is None:
            break
        else:
            pending.silences += 1
        assert pending.due is not None
        now = pending.due
        sendings.append(now)
        pending.sent("s", now, recovery)
        pending.check_invariants(recovery)
    assert len(sendings) == pending.sendings <= recovery.max_attempts
    assert all(at < timeout for at in sendings)
    assert sendings == sorted(sendings)


@settings(deadline=None)
@given(st.integers(2, 8), st.floats(0.1, 3.0))
def test_silence_is_waited_for_twice_as_long_each_time(attempts: int, patience: float) -> None:
    recovery = Recovery(max_attempts=attempts, resend_after=patience)
    pending = PendingRequest("Ping", Nothing(), 0.0, 1e9)
    times = [0.0]
    pending.sent("s", 0.0, recovery)
    while pending.due is not None:
        times.append(pending.due)
        pending.silences += 1
        pending.sent("s", pending.due, recovery)
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert waits == pytest.approx([patience * 2**number for number in range(attempts - 1)])


def test_an_unsent_request_of_the_program_is_queued() -> None:
    sent, unsent = (PendingRequest("Ping", Nothing(), 0.0, 10.0) for _ in range(2))
    sent.sent("s", 0.0, Recovery())
    own = PendingRequest("Ping", Nothing(), 0.0, 10.0, is_own=True)
    assert [one.is_queued for one in (unsent, sent, own)] == [True, False, False]


def test_a_retry_after_the_deadline_is_refused_and_changes_nothing() -> None:
    pending = PendingRequest("Ping", Nothing(), 0.0, 10.0)
    pending.sent("s", 0.0, Recovery(resend_after=5.0))
    assert not pending.retry_after(4.0, 6.0)
    assert pending.due == 5.0
    assert pending.retry_after(4.0, 5.5)
    assert (pending.due, pending.resend_at) == (9.5, None)


def test_without_patience_nothing_is_due() -> None:
    pending = PendingRequest("Ping", Nothing(), 0.0, 10.0)
    pending.sent("s", 0.0, Recovery(resend_after=None))
    assert pending.due is None
