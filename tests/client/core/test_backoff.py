"""The back-off grows as its kind says, adds its share of jitter, and never passes the longest wait."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr.core.backoff import MAX_DOUBLINGS, backoff
from backtestr.core.recovery import BACKOFFS, Recovery

CHANCES = st.floats(0.0, 1.0)
ATTEMPTS = st.integers(1, 200)
POLICIES = st.builds(
    Recovery,
    backoff=st.sampled_from(BACKOFFS),
    base_delay=st.floats(0.01, 1.0),
    max_delay=st.floats(1.0, 10.0),
    jitter=st.floats(0.0, 2.0),
)


def growth(policy: Recovery, attempt: int) -> float:
    return policy.base_delay * {"fixed": 1, "linear": attempt, "exponential": 2.0 ** (attempt - 1)}[policy.backoff]


@given(POLICIES, ATTEMPTS, CHANCES)
def test_no_wait_is_shorter_than_the_back_off_or_longer_than_the_longest(
    policy: Recovery, attempt: int, chance: float
) -> None:
    wait = backoff(policy, attempt, chance)
    assert min(policy.max_delay, growth(policy, attempt)) <= wait + 1e-9
    assert wait <= min(policy.max_delay, growth(policy, attempt) + policy.jitter) + 1e-9


@given(POLICIES, ATTEMPTS)
def test_without_jitter_the_wait_is_the_growth_up_to_the_longest_wait(policy: Recovery, attempt: int) -> None:
    assert backoff(policy, attempt, 0.0) == pytest.approx(min(policy.max_delay, growth(policy, attempt)))


@given(POLICIES, ATTEMPTS)
def test_a_later_attempt_never_waits_for_less(policy: Recovery, attempt: int) -> None:
    assert backoff(policy, attempt, 0.0) <= backoff(policy, attempt + 1, 0.0)


@given(POLICIES, ATTEMPTS, CHANCES, CHANCES)
def test_jitter_is_added_in_proportion_to_chance(policy: Recovery, attempt: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    added = backoff(policy, attempt, high) - backoff(policy, attempt, low)
    assert -1e-9 <= added <= policy.jitter * (high - low) + 1e-9


@given(POLICIES, st.integers(MAX_DOUBLINGS, 10**9), CHANCES)
def test_any_number_of_attempts_has_a_finite_wait(policy: Recovery, attempt: int, chance: float) -> None:
    assert math.isfinite(backoff(policy, attempt, chance))


@pytest.mark.parametrize(
    ("kind", "waits"),
    [("fixed", [0.5, 0.5, 0.5, 0.5]), ("linear", [0.5, 1.0, 1.5, 1.6]), ("exponential", [0.5, 1.0, 1.6, 1.6])],
)
def test_the_three_back_offs(kind: Any, waits: list[float]) -> None:
    policy = Recovery(backoff=kind, base_delay=0.5, max_delay=1.6, jitter=0.0)
    assert [backoff(policy, attempt, 0.7) for attempt in (1, 2, 3, 4)] == pytest.approx(waits)


def test_chance_spreads_the_waits() -> None:
    policy = Recovery(backoff="fixed", base_delay=0.5, max_delay=5.0, jitter=1.0)
    assert [backoff(policy, 1, chance) for chance in (0.0, 0.25, 1.0)] == pytest.approx([0.5, 0.75, 1.5])
