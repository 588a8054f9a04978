"""The parts that recovery is made of: policy, waits, circuit, the states of a connection, and who is told."""

from __future__ import annotations

import threading
from itertools import product
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr.core.backoff import delays
from backtestr.core.circuit_breaker import Breaker
from backtestr.core.connection_state import CONNECTION, ConnectionState, Happening
from backtestr.core.recovery import BACKOFFS, CircuitOpen, MessagesLost, OfflineQueueFull, Recovery
from backtestr.io.callback_thread import MAX_CALLS, Listeners
from backtestr.io.error_log import MAX_ERRORS, ErrorLog, ErrorReport
from backtestr_protocol.errors import BacktestrError, Busy, NetworkError, NotFound, SystemFault, TimedOut

# --- the policy and its waits ---


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"backoff": "wild"}, "'fixed', 'linear', 'exponential'; 'wild' came"),
        ({"base_delay": 0}, "base_delay: expected a number above 0; 0 came"),
        ({"base_delay": 9.0}, "base_delay: 9 is above max_delay, 5"),
        ({"max_delay": float("nan")}, "max_delay"),
        ({"jitter": -1}, "jitter: expected a number 0 or more; -1 came"),
        ({"resend_after": 0.0}, "resend_after: expected a number above 0, or None"),
        ({"max_attempts": 0}, "max_attempts: expected a number 1 or more"),
        ({"breaker_failures": 0}, "breaker_failures"),
        ({"breaker_reset": True}, "breaker_reset: expected a number above 0; True came"),
        ({"offline_queue": -1}, "offline_queue"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Recovery(**wrong)


@settings(deadline=None)
@given(st.sampled_from(BACKOFFS), st.floats(0.01, 1.0), st.floats(1.0, 10.0), st.floats(0.0, 2.0), st.integers(1, 200))
def test_no_wait_is_shorter_than_the_back_off_or_longer_than_the_longest(
    backoff: Any, base: float, most: float, jitter: float, number: int
) -> None:
    wait = delays(Recovery(backoff=backoff, base_delay=base, max_delay=most, jitter=jitter))(number)
    growth = {"fixed": 1, "linear": number, "exponential": 2.0 ** (number - 1)}[backoff]
    assert min(most, base * growth) <= wait + 1e-9
    assert wait <= min(most, base * growth + jitter) + 1e-9


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [("fixed", [0.5, 0.5, 0.5, 0.5]), ("linear", [0.5, 1.0, 1.5, 1.6]), ("exponential", [0.5, 1.0, 1.6, 1.6])],
)
def test_the_three_back_offs(backoff: Any, waits: list[float]) -> None:
    delay = delays(Recovery(backoff=backoff, base_delay=0.5, max_delay=1.6, jitter=0.0))
    assert [delay(number) for number in (1, 2, 3, 4)] == pytest.approx(waits)


def test_chance_spreads_the_waits() -> None:
    delay = delays(Recovery(backoff="fixed", base_delay=0.5, max_delay=5.0, jitter=1.0))
    assert len({delay(1) for _ in range(20)}) > 10


# --- the circuit ---


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("circuitbreaker.monotonic", clock)
    return clock


def fail(breaker: Breaker, times: int, error: BacktestrError) -> None:
    for number in range(times):
        assert breaker.refusal() is None
        breaker.sent(f"r{number}")
        breaker.ended(f"r{number}", error)


@pytest.mark.parametrize("error", [NetworkError("no"), TimedOut("no"), SystemFault("no"), Busy("no")])
def test_the_circuit_opens_half_opens_for_one_and_closes(clock: Clock, error: BacktestrError) -> None:
    breaker = Breaker(Recovery(breaker_failures=3, breaker_reset=10.0))
    fail(breaker, 3, error)
    found = [breaker.circuit]
    refusal = breaker.refusal()
    assert isinstance(refusal, CircuitOpen)
    assert "the last 3 requests" in str(refusal)
    assert "in 10 s" in str(refusal)
    assert refusal.details == {"retryAfterMs": 10_000}
    clock.now += 10.0
    found.append(breaker.circuit)
    assert breaker.refusal() is None
    breaker.sent("trial")
    assert "one is being tried" in str(breaker.refusal())
    breaker.ended("trial", None)
    assert [*found, breaker.circuit] == ["open", "half_open", "closed"]
    assert breaker.refusal() is None


def test_a_trial_that_fails_opens_the_circuit_for_as_long_again(clock: Clock) -> None:
    breaker = Breaker(Recovery(breaker_failures=2, breaker_reset=10.0))
    fail(breaker, 2, TimedOut("no"))
    clock.now += 10.0
    breaker.sent("trial")
    breaker.ended("trial", TimedOut("no"))
    assert breaker.circuit == "open"
    clock.now += 9.9
    assert breaker.refusal() is not None
    clock.now += 0.1
    assert breaker.refusal() is None


def test_what_a_working_broker_refuses_keeps_the_circuit_closed(clock: Clock) -> None:
    breaker = Breaker(Recovery(breaker_failures=2))
    fail(breaker, 1, TimedOut("no"))
    fail(breaker, 5, NotFound("no"))
    fail(breaker, 1, TimedOut("no"))
    assert breaker.circuit == "closed"


def test_what_was_never_tried_says_nothing_of_the_broker(clock: Clock) -> None:
    breaker = Breaker(Recovery(breaker_failures=2))
    fail(breaker, 5, OfflineQueueFull("no"))
    assert breaker.circuit == "closed"


def test_a_new_session_closes_the_circuit(clock: Clock) -> None:
    breaker = Breaker(Recovery(breaker_failures=1))
    fail(breaker, 1, TimedOut("no"))
    breaker.welcomed()
    assert breaker.refusal() is None


# --- the states of a connection ---


@pytest.mark.parametrize(("state", "what"), list(product(get_args(ConnectionState), get_args(Happening))))
def test_every_state_knows_where_everything_leads(state: ConnectionState, what: Happening) -> None:
    after = CONNECTION[state, what]
    assert (after == "closed") == ("closed" in (state, what))
    assert (after == "ready") == (what == "welcomed" and state != "closed")
    assert after != "connecting" or state == "connecting"


def test_the_table_has_nothing_else() -> None:
    assert CONNECTION.keys() == set(product(get_args(ConnectionState), get_args(Happening)))


# --- who is told ---


def report(error: BacktestrError, timestamp: int = 0) -> ErrorReport:
    return ErrorReport(error, "Ping", timestamp)


def test_the_last_hundred_errors_are_kept() -> None:
    errors = ErrorLog(Listeners())
    for number in range(MAX_ERRORS + 5):
        errors.add(report(NotFound("no"), number))
    assert [one.timestamp for one in errors.kept] == list(range(5, MAX_ERRORS + 5))
    assert errors.count == MAX_ERRORS + 5


def test_callbacks_hear_what_is_severe_enough_until_they_have_enough() -> None:
    listeners = Listeners()
    errors = ErrorLog(listeners)
    heard: list[str] = []
    stop = errors.listen(lambda one: heard.append(f"warning {one.severity}"), "Warning")
    errors.listen(lambda one: heard.append(f"critical {one.severity}"), "Critical")
    errors.add(report(MessagesLost("gone")))
    errors.add(report(SystemFault("no")))
    stop()
    stop()
    errors.add(report(NotFound("no")))
    listeners.close()
    assert heard == ["warning Warning", "warning Critical", "critical Critical"]


def test_a_severity_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="'warning' came; did you mean 'Warning'"):
        ErrorLog(Listeners()).listen(print, "warning")  # type: ignore[arg-type]


def test_a_listener_that_raises_is_logged_and_the_others_hear(caplog: pytest.LogCaptureFixture) -> None:
    listeners = Listeners()
    heard: list[int] = []
    listeners.tell(lambda: 1 // 0)
    listeners.tell(lambda: heard.append(1))
    listeners.close()
    assert heard == [1]
    assert "ZeroDivisionError" in caplog.text


def test_a_listener_that_hangs_costs_calls_that_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    listeners = Listeners()
    began, go_on = threading.Event(), threading.Event()
    heard: list[int] = []

    def hang() -> None:
        began.set()
        assert go_on.wait(30)

    listeners.tell(hang)
    assert began.wait(10)
    for number in range(MAX_CALLS + 2):
        listeners.tell(lambda number=number: heard.append(number))  # type: ignore[misc]
    assert listeners.missed == 2
    go_on.set()
    listeners.close()
    assert heard == list(range(MAX_CALLS))
    assert caplog.text.count("too slow") == 1


def test_a_listener_may_close_what_calls_it() -> None:
    listeners = Listeners()
    closed = threading.Event()

    def close() -> None:
        listeners.close()
        closed.set()

    listeners.tell(close)
    assert closed.wait(10)
    listeners.tell(lambda: pytest.fail("called after the end"))
