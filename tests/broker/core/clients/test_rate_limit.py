"""A token bucket allows at most burst + rate · t requests in any t seconds, and states the exact wait."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_broker.core.clients import rate_limit as rate_limit_module
from backtestr_broker.core.clients.rate_limit import Rate, RateLimits
from backtestr_protocol.errors import RateLimitExceeded
from backtestr_protocol.message_types import PRIORITIES

# The error of rounding to nanoseconds, in seconds.
ROUNDING = 2e-6

rates = st.builds(Rate, st.integers(1, 1000), st.integers(1, 20))
# Seconds between one request and the next.
gaps = st.lists(st.floats(0.0, 0.5) | st.sampled_from([0.0, 0.0, 0.001]), max_size=80)
starts = st.floats(0.0, 3e7)


def wait_ms(throttle: RateLimits, now: float, client_id: str = "ann") -> int | None:
    """Return how long the client has to wait; None when the request was let through."""
    refused: RateLimitExceeded | None = None
    try:
        throttle.admit(client_id, "B", now)
    except RateLimitExceeded as error:
        refused = error
    if refused is None:
        return None
    assert refused.details is not None
    assert refused.details["priority"] == "B"
    found: int = refused.details["retryAfterMs"]
    assert found >= 1
    return found


@settings(deadline=None, max_examples=300)
@given(rate=rates, start=starts, gaps=gaps)
def test_at_most_the_burst_and_the_new_tokens_pass_in_any_time(rate: Rate, start: float, gaps: list[float]) -> None:
    throttle = RateLimits({"B": rate})
    now = start
    admitted: list[float] = []
    for gap in gaps:
        now += gap
        if wait_ms(throttle, now) is None:
            admitted.append(now)
    for first, since in enumerate(admitted):
        for last in range(first, len(admitted)):
            most = rate.burst + rate.per_second * (admitted[last] - since + ROUNDING)
            assert last - first + 1 <= most
    throttle.check_invariants()


@settings(deadline=None, max_examples=300)
@given(rate=rates, start=starts, gaps=gaps)
def test_a_request_passes_after_the_stated_wait_and_not_a_millisecond_before(
    rate: Rate, start: float, gaps: list[float]
) -> None:
    throttle = RateLimits({"B": rate})
    now = start
    for gap in gaps:
        now += gap
        wait = wait_ms(throttle, now)
        if wait is None:
            continue
        if wait > 1:
            early = wait_ms(throttle, now + (wait - 1) / 1000 - ROUNDING)
            assert early is not None, "there was a token before the stated time"
        now += wait / 1000
        assert wait_ms(throttle, now) is None, "there was no token at the stated time"


@settings(deadline=None)
@given(rate=rates, start=starts)
def test_all_of_the_burst_at_once_then_one_at_a_time(rate: Rate, start: float) -> None:
    throttle = RateLimits({"B": rate})
    assert [wait_ms(throttle, start) for _ in range(rate.burst)] == [None] * rate.burst
    wait = wait_ms(throttle, start)
    assert wait is not None
    assert (wait - 1) / 1000 <= 1 / rate.per_second + ROUNDING <= wait / 1000 + 2 * ROUNDING
    assert throttle.hits == {"R": 0, "I": 0, "B": 1, "K": 0}


def test_clients_and_classes_have_buckets_of_their_own() -> None:
    throttle = RateLimits({"B": Rate(1, 1), "K": Rate(1, 1)})
    throttle.admit("ann", "B", 5.0)
    throttle.admit("ann", "K", 5.0)
    throttle.admit("bob", "B", 5.0)
    assert wait_ms(throttle, 5.0) == 1000
    assert wait_ms(throttle, 5.25) == 750, "a refused request takes no token"


def test_a_rate_of_zero_or_none_is_no_limit() -> None:
    throttle = RateLimits({"B": Rate(0, 1)})
    for priority in PRIORITIES:
        for _ in range(10_000):
            throttle.admit("ann", priority, 1.0)
    assert set(throttle.hits.values()) == {0}


def test_a_clock_that_goes_back_adds_no_token() -> None:
    throttle = RateLimits({"B": Rate(10, 1)})
    assert wait_ms(throttle, 5.0) is None
    assert wait_ms(throttle, 4.0) == 1100
    assert wait_ms(throttle, 5.1) is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0.0, 0.01, 0.3])), max_size=80), rates)
def test_forgetting_a_bucket_makes_no_tokens(asked: list[tuple[int, float]], rate: Rate) -> None:
    """A client under changing names gets at most the tokens of the bounded number of buckets."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(rate_limit_module, "MAX_BUCKETS", 2)
        throttle = RateLimits({"B": rate})
        now, admitted = 0.0, 0
        for name, gap in asked:
            now += gap
            admitted += wait_ms(throttle, now, f"name-{name}") is None
            throttle.check_invariants()
        assert admitted <= 2 * (rate.burst + rate.per_second * (now + ROUNDING))


def test_a_new_bucket_lacks_the_tokens_that_the_forgotten_bucket_lacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limit_module, "MAX_BUCKETS", 1)
    throttle = RateLimits({"B": Rate(1, 2)})
    assert [wait_ms(throttle, 0.0, "ann") for _ in range(3)] == [None, None, 1000]
    assert wait_ms(throttle, 0.0, "bob") == 1000
    assert [wait_ms(throttle, 2.0, "carl") for _ in range(3)] == [None, None, 1000], "bob's bucket was full again"
