"""A log limit passes a number of each key in an interval, counts the rest, and remembers a bounded number of keys."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_broker.core.clients import log_limits
from backtestr_broker.core.clients.log_limits import MAX_KEYS, LogLimit

KEYS = [b"ann", b"bob"]
INTERVAL = 1.0


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.floats(0.0, 3.0))))
def test_lines_of_one_key_are_an_interval_apart_and_a_quiet_key_passes_at_once(
    steps: list[tuple[bytes, float]],
) -> None:
    limit, now = LogLimit(INTERVAL), 0.0
    passed: dict[bytes, float] = {}
    for key, later in steps:
        now += later
        due = key not in passed or now - passed[key] >= INTERVAL
        assert (limit.check(now, key) is not None) is due
        if due:
            passed[key] = now
        limit.check_invariants()


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.floats(0.0, 0.5))), st.integers(1, 4))
def test_every_suppressed_line_is_counted_once_with_the_next_of_its_key(
    steps: list[tuple[bytes, float]], passes: int
) -> None:
    limit, now = LogLimit(INTERVAL, passes=passes), 0.0
    suppressed: Counter[bytes] = Counter()
    for key, later in steps:
        now += later
        found = limit.check(now, key)
        if found is None:
            suppressed[key] += 1
        else:
            assert found == suppressed.pop(key, 0)
        limit.check_invariants()


@given(st.lists(st.floats(0.0, 0.5)), st.integers(1, 4))
def test_a_bounded_number_passes_in_an_interval(steps: list[float], passes: int) -> None:
    limit, now = LogLimit(INTERVAL, passes=passes), 0.0
    started, passed = -INTERVAL, 0
    for later in steps:
        now += later
        if now - started >= INTERVAL:
            started, passed = now, 0
        found = limit.check(now)
        assert (found is not None) is (passed < passes)
        passed += found is not None


def test_the_key_used_least_recently_is_forgotten() -> None:
    limit = LogLimit(INTERVAL)
    for number in range(MAX_KEYS + 1):
        assert limit.check(0.0, number) == 0
    limit.check_invariants()
    assert limit.check(0.0, 1) is None
    assert limit.check(0.0, 0) == 0


def test_a_key_that_is_suppressed_counts_as_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_limits, "MAX_KEYS", 2)
    limit = LogLimit(INTERVAL)
    assert [limit.check(0.0, key) for key in ("a", "b", "a", "c", "a")] == [0, 0, None, 0, None]
