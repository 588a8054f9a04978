"""The circuit breaker opens after failures in a row, lets one request through after a time, and closes on an answer."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr.core.circuit_breaker import CIRCUIT, CircuitBreaker, CircuitEvent, CircuitState
from backtestr.core.recovery import CircuitOpen, OfflineQueueFull, Recovery
from backtestr_protocol.errors import (
    BacktestrError,
    Busy,
    DiskUnwritable,
    NetworkError,
    NotFound,
    SystemFault,
    TimedOut,
)

START = 50.0


def fail(breaker: CircuitBreaker, times: int, error: BacktestrError, now: float = START) -> None:
    for number in range(times):
        assert breaker.refusal(now) is None
        breaker.sent(f"r{number}", now)
        breaker.ended(f"r{number}", error, now)


# --- the table ---


@pytest.mark.parametrize(("state", "event"), list(product(get_args(CircuitState), get_args(CircuitEvent))))
def test_every_state_has_a_next_state_for_every_event(state: CircuitState, event: CircuitEvent) -> None:
    after = CIRCUIT[state, event]
    match event:
        case "succeeded":
            assert after == "closed"
        case "failed":
            assert after == ("closed" if state == "closed" else "open")
        case "tripped":
            assert after == "open"
        case "elapsed":
            assert after == ("half_open" if state == "open" else state)


def test_the_table_has_nothing_else() -> None:
    assert CIRCUIT.keys() == set(product(get_args(CircuitState), get_args(CircuitEvent)))


# --- laws ---


class Model:
    """The rules of the circuit breaker, kept beside it in the plainest form."""

    def __init__(self, policy: Recovery) -> None:
        self.policy = policy
        self.failures = 0
        self.opened_at: float | None = None
        self.trial: str | None = None

    def state(self, now: float) -> CircuitState:
        if self.opened_at is None:
            return "closed"
        return "open" if now < self.opened_at + self.policy.breaker_reset else "half_open"

    def ended(self, request_id: str, error: BacktestrError | None, now: float) -> None:
        if request_id == self.trial:
            self.trial = None
        if isinstance(error, OfflineQueueFull):
            return
        if not isinstance(error, TimedOut | NetworkError | SystemFault) or isinstance(error, DiskUnwritable):
            self.failures, self.opened_at = 0, None
            return
        self.failures += 1
        if self.failures >= self.policy.breaker_failures:
            self.opened_at = now


OUTCOMES = st.sampled_from(
    [
        *(None, NotFound("no"), DiskUnwritable("no")),  # a working broker answered; a person has to free space
        *(TimedOut("no"), NetworkError("no"), SystemFault("no")),
        OfflineQueueFull("no"),
    ]
)


@given(st.integers(1, 4), st.floats(0.5, 10.0), st.data())
def test_the_breaker_lets_through_what_the_rules_allow(failures: int, reset: float, data: st.DataObject) -> None:
    policy = Recovery(breaker_failures=failures, breaker_reset=reset)
    breaker, model = CircuitBreaker(policy), Model(policy)
    now, under_way = START, list[str]()
    for number in range(data.draw(st.integers(1, 30))):
        match data.draw(st.sampled_from(["ask", "ask", "end", "end", "wait", "welcome"])):
            case "ask":
                may_send = model.state(now) == "closed" or (model.state(now) == "half_open" and model.trial is None)
                assert (breaker.refusal(now) is None) == may_send
                if may_send:
                    request_id = f"r{number}"
                    if model.state(now) == "half_open":
                        model.trial = request_id
                    breaker.sent(request_id, now)
                    under_way.append(request_id)
            case "end" if under_way:
                request_id = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
                error = data.draw(OUTCOMES)
                breaker.ended(request_id, error, now)
                model.ended(request_id, error, now)
            case "wait":
                now += data.draw(st.floats(0.0, 12.0))
            case "welcome":
                breaker.welcomed()
                model.failures, model.opened_at, model.trial = 0, None, None
        assert breaker.state(now) == model.state(now)


@given(st.integers(1, 6), st.floats(0.5, 10.0), st.lists(st.floats(0.0, 0.999), max_size=10))
def test_an_open_circuit_lets_nothing_through_before_the_reset(
    failures: int, reset: float, shares: list[float]
) -> None:
    breaker = CircuitBreaker(Recovery(breaker_failures=failures, breaker_reset=reset))
    fail(breaker, failures, TimedOut("no"))
    for share in sorted(shares):
        refusal = breaker.refusal(START + reset * share)
        assert isinstance(refusal, CircuitOpen)
        assert refusal.details is not None
        assert refusal.details["retryAfterMs"] >= 1000 * reset * (1 - share) - 1e-6


@given(st.floats(0.0, 100.0), st.integers(1, 10))
def test_exactly_one_request_is_tried_while_half_open(late: float, further: int) -> None:
    breaker = CircuitBreaker(Recovery(breaker_failures=1, breaker_reset=5.0))
    fail(breaker, 1, TimedOut("no"))
    now, let_through = START + 5.0 + late, 0
    for number in range(1 + further):
        if breaker.refusal(now) is None:
            breaker.sent(f"trial {number}", now)
            let_through += 1
    assert let_through == 1


@given(st.integers(2, 6), st.lists(st.booleans(), max_size=40))
def test_only_failures_in_a_row_open_the_circuit(failures: int, outcomes: list[bool]) -> None:
    breaker = CircuitBreaker(Recovery(breaker_failures=failures))
    in_a_row = 0
    for number, is_answered in enumerate(outcomes):
        in_a_row = 0 if is_answered else in_a_row + 1
        if breaker.refusal(START) is not None:
            break
        breaker.sent(f"r{number}", START)
        breaker.ended(f"r{number}", None if is_answered else TimedOut("no"), START)
        assert breaker.state(START) == ("open" if in_a_row >= failures else "closed")


# --- examples ---


@pytest.mark.parametrize("error", [NetworkError("no"), TimedOut("no"), SystemFault("no"), Busy("no")])
def test_the_circuit_opens_half_opens_for_one_and_closes(error: BacktestrError) -> None:
    breaker = CircuitBreaker(Recovery(breaker_failures=3, breaker_reset=10.0))
    fail(breaker, 3, error)
    found = [breaker.state(START)]
    refusal = breaker.refusal(START)
    assert isinstance(refusal, CircuitOpen)
    assert "the last 3 requests" in str(refusal)
    assert "in 10 s" in str(refusal)
    assert refusal.details == {"retryAfterMs": 10_000}
    later = START + 10.0
    found.append(breaker.state(later))
    assert breaker.refusal(later) is None
    breaker.sent("trial", later)
    assert "one is being tried" in str(breaker.refusal(later))
    breaker.ended("trial", None, later)
    assert [*found, breaker.state(later)] == ["open", "half_open", "closed"]
    assert breaker.refusal(later) is None


def test_a_trial_that_fails_opens_the_circuit_for_as_long_again() -> None:
    breaker = CircuitBreaker(Recovery(breaker_failures=2, breaker_reset=10.0))
    fail(breaker, 2, TimedOut("no"))
    later = START + 10.0
    breaker.sent("trial", later)
    breaker.ended("trial", TimedOut("no"), later)
    assert breaker.state(later) == "open"
    assert breaker.refusal(later + 9.9) is not None
    assert breaker.refusal(later + 10.0) is None


def test_an_error_of_a_working_broker_keeps_the_circuit_closed() -> None:
    breaker = CircuitBreaker(Recovery(breaker_failures=2))
    fail(breaker, 1, TimedOut("no"))
    fail(breaker, 5, NotFound("no"))
    fail(breaker, 1, TimedOut("no"))
    assert breaker.state(START) == "closed"


def test_a_request_that_was_never_tried_does_not_count() -> None:
    breaker = CircuitBreaker(Recovery(breaker_failures=2))
    fail(breaker, 5, OfflineQueueFull("no"))
    assert breaker.state(START) == "closed"


def test_a_new_session_closes_the_circuit() -> None:
    breaker = CircuitBreaker(Recovery(breaker_failures=1))
    fail(breaker, 1, TimedOut("no"))
    breaker.welcomed()
    assert breaker.refusal(START) is None
