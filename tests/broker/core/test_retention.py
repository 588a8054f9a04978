"""Retention deletes the oldest, no more than a bound asks for, and nothing that is kept or among the newest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_broker.core.retention import DueItem, RetentionRules, StoredItem, due

DAY = 86_400_000
NOW = 1000 * DAY

ITEMS = st.lists(
    st.builds(
        StoredItem,
        name=st.text("abcdefgh", min_size=1, max_size=3),
        size=st.integers(0, 50),
        stored_ms=st.integers(NOW - 30 * DAY, NOW + DAY),
        is_kept=st.booleans(),
    ),
    max_size=20,
    unique_by=lambda one: one.name,
)
RULES = st.builds(
    RetentionRules,
    max_age_ms=st.integers(0, 20).map(lambda days: days * DAY),
    max_count=st.integers(0, 10),
    max_bytes=st.integers(0, 200),
    keep_newest=st.integers(0, 8),
)


def newest(items: list[StoredItem], count: int) -> set[str]:
    ordered = sorted(items, key=lambda one: (one.stored_ms, one.name), reverse=True)
    return {one.name for one in ordered[:count]}


@given(ITEMS, RULES)
def test_what_is_kept_or_newest_never_goes(items: list[StoredItem], rules: RetentionRules) -> None:
    gone = {one.name for one in due(items, rules, NOW)}
    assert not gone & newest(items, rules.keep_newest)
    assert not gone & {one.name for one in items if one.is_kept}


@given(ITEMS, RULES)
def test_afterwards_the_bounds_hold_or_nothing_more_may_go(items: list[StoredItem], rules: RetentionRules) -> None:
    gone = {one.name for one in due(items, rules, NOW)}
    left = [one for one in items if one.name not in gone]
    may_go = [one for one in left if not one.is_kept and one.name not in newest(items, rules.keep_newest)]
    if may_go:
        assert not rules.max_count or len(left) <= rules.max_count
        assert not rules.max_bytes or sum(one.size for one in left) <= rules.max_bytes
        assert not rules.max_age_ms or all(NOW - one.stored_ms <= rules.max_age_ms for one in may_go)
    assert due(left, rules, NOW) == [], "once more deletes nothing more"


@given(ITEMS, RULES)
def test_the_oldest_go_first_and_no_more_than_a_bound_asks_for(items: list[StoredItem], rules: RetentionRules) -> None:
    found = due(items, rules, NOW)
    candidates = [one for one in items if not one.is_kept and one.name not in newest(items, rules.keep_newest)]
    candidates.sort(key=lambda one: (one.stored_ms, one.name))
    assert [one.name for one in found] == [one.name for one in candidates[: len(found)]]
    if found:
        without_the_last = {one.name for one in found[:-1]}
        left = [one for one in items if one.name not in without_the_last]
        assert (
            (rules.max_count and len(left) > rules.max_count)
            or (rules.max_bytes and sum(one.size for one in left) > rules.max_bytes)
            or (rules.max_age_ms and NOW - candidates[len(found) - 1].stored_ms > rules.max_age_ms)
        ), "the last one did not have to go"


@given(ITEMS, RULES, st.integers(0, 40))
def test_what_goes_now_goes_later_too(items: list[StoredItem], rules: RetentionRules, days: int) -> None:
    now = {one.name for one in due(items, rules, NOW)}
    assert now <= {one.name for one in due(items, rules, NOW + days * DAY)}


@given(ITEMS)
def test_without_bounds_nothing_goes(items: list[StoredItem]) -> None:
    assert due(items, RetentionRules(), NOW) == []


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (RetentionRules(max_age_ms=DAY), DueItem("a", 5, "older than 1 day")),
        (RetentionRules(max_count=1), DueItem("a", 5, "more than 1 are stored")),
        (RetentionRules(max_bytes=7), DueItem("a", 5, "more than 7 bytes are stored")),
    ],
)
def test_the_reason_names_the_rule(rules: RetentionRules, expected: DueItem) -> None:
    items = [StoredItem("a", 5, NOW - 2 * DAY), StoredItem("b", 5, NOW)]
    assert due(items, rules, NOW) == [expected]
