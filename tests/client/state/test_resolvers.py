"""The built-in resolvers, and how the resolver of a key is found."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr.state.resolvers import (
    DEFAULTS,
    last_writer,
    later_update,
    merge_fields,
    resolver_for,
)
from backtestr_protocol.errors import StateConflict

SCALARS = st.integers(-3, 3) | st.booleans() | st.text(max_size=2) | st.none()
NAMES = st.sampled_from(["a", "b", "c", "d", "e", "f"])
MAPS = st.dictionaries(NAMES, SCALARS | st.dictionaries(NAMES, SCALARS, max_size=3), max_size=6)


@pytest.mark.parametrize(
    ("key", "resolver"),
    [
        ("backtest.b1", later_update),
        ("algorithm.a.parameters", merge_fields),
        ("ui.theme", last_writer),
        ("backtests.b1", last_writer),
    ],
)
def test_the_built_in_resolvers_are_found_by_prefix(key: str, resolver: Any) -> None:
    assert resolver_for(key, DEFAULTS) is resolver


def test_the_longest_prefix_counts() -> None:
    def mine(*_: Any) -> Any:
        return 1

    assert resolver_for("backtest.special.x", {**DEFAULTS, "backtest.special.": mine}) is mine
    assert resolver_for("backtest.other", {**DEFAULTS, "backtest.special.": mine}) is later_update
    assert resolver_for("anything", {**DEFAULTS, "": mine}) is mine


# --- the later lastUpdate ---


def at(time: Any, writer: str) -> dict[str, Any]:
    return {"lastUpdate": time, "writer": writer}


@pytest.mark.parametrize(
    ("mine", "theirs", "winner"),
    [
        (at(2, "mine"), at(1, "theirs"), "mine"),
        (at(1, "mine"), at(2, "theirs"), "theirs"),
        (at(2, "mine"), at(2.0, "theirs"), "theirs"),  # there already
        (at(2.5, "mine"), at(2, "theirs"), "mine"),
        ({"writer": "mine"}, at(1, "theirs"), "theirs"),
        (at(1, "mine"), {"writer": "theirs"}, "mine"),
        (at("2030", "mine"), at(1, "theirs"), "theirs"),
        (at(float("nan"), "mine"), at(1, "theirs"), "theirs"),
        (at(True, "mine"), at(0, "theirs"), "theirs"),
        (at(None, "mine"), at("x", "theirs"), "mine"),  # neither has a number: the last writer
    ],
)
def test_the_later_update_wins(mine: Any, theirs: Any, winner: str) -> None:
    assert later_update(mine, theirs, None)["writer"] == winner


@pytest.mark.parametrize("theirs", [None, 7, [1]])
def test_a_value_that_is_no_map_is_not_later(theirs: Any) -> None:
    assert later_update(at(1, "mine"), theirs, None) == at(1, "mine")
    assert later_update(theirs, at(1, "theirs"), None) == at(1, "theirs")
    assert later_update("mine", theirs, None) == "mine"


# --- the merge of fields ---


@settings(deadline=None)
@given(MAPS, st.data())
def test_changes_of_different_fields_are_merged_in_either_order(base: dict[str, Any], data: st.DataObject) -> None:
    changed_by_me = data.draw(st.sets(NAMES))
    changed_by_them = data.draw(st.sets(NAMES)) - changed_by_me

    def changed(names: set[str]) -> dict[str, Any]:
        result = dict(base)
        for name in names:
            if data.draw(st.booleans()):
                result[name] = data.draw(SCALARS)
            else:
                result.pop(name, None)
        return result

    mine, theirs = changed(changed_by_me), changed(changed_by_them)
    merged = merge_fields(mine, theirs, base)
    assert merged == merge_fields(theirs, mine, base)
    missing = object()
    for name in {*base, *mine, *theirs}:
        source = mine if name in changed_by_me else theirs
        assert merged.get(name, missing) == source.get(name, missing)


@settings(deadline=None)
@given(MAPS, MAPS)
def test_one_sided_changes_are_taken_whole(base: dict[str, Any], changed: dict[str, Any]) -> None:
    assert merge_fields(changed, base, base) == changed
    assert merge_fields(base, changed, base) == changed
    assert merge_fields(changed, changed, base) == changed


def test_fields_of_fields_are_merged_too() -> None:
    base = {"parameters": {"fast": 10, "slow": 30}, "name": "x"}
    mine = {"parameters": {"fast": 12, "slow": 30}, "name": "x"}
    theirs = {"parameters": {"fast": 10, "slow": 40}, "name": "y"}
    assert merge_fields(mine, theirs, base) == {"parameters": {"fast": 12, "slow": 40}, "name": "y"}


def test_maps_made_by_both_are_merged() -> None:
    assert merge_fields({"a": 1}, {"b": 2}, None) == {"a": 1, "b": 2}


EARLY, LATE = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (1, 2),
        (1, 2.5),
        (float("nan"), 2),
        ("2026-01-02T09:00:00Z", "2026-01-02T10:00:00Z"),
        (EARLY, LATE),
    ],
)
@pytest.mark.parametrize("before", [0, None, "2025"])
def test_the_time_of_the_last_change_is_the_later_one(earlier: Any, later: Any, before: Any) -> None:
    base = {"lastModified": before, "parameters": {"fast": 10, "slow": 30}}
    mine = {"lastModified": earlier, "parameters": {"fast": 12, "slow": 30, "lastModified": later}}
    theirs = {"lastModified": later, "parameters": {"fast": 10, "slow": 40, "lastModified": earlier}}
    merged = {"lastModified": later, "parameters": {"fast": 12, "slow": 40, "lastModified": later}}
    assert merge_fields(mine, theirs, base) == merge_fields(theirs, mine, base) == merged


def test_a_time_that_one_of_them_made_or_removed_is_kept() -> None:
    assert merge_fields({"lastModified": 1, "a": 1}, {"b": 2}, None) == {"lastModified": 1, "a": 1, "b": 2}
    assert merge_fields({"lastModified": 2}, {}, {"lastModified": 1}) == {"lastModified": 2}


@pytest.mark.parametrize(("one", "other"), [(1, "2026"), (True, 2), ({"a": 1}, 3), ([1], [2])])
def test_times_of_two_kinds_are_a_conflict(one: Any, other: Any) -> None:
    for mine, theirs in ((one, other), (other, one)):
        with pytest.raises(StateConflict, match="lastModified"):
            merge_fields({"lastModified": mine}, {"lastModified": theirs}, {"lastModified": 0})


@pytest.mark.parametrize(
    ("mine", "theirs", "base", "fields"),
    [
        ({"a": 1, "b": 1}, {"a": 2, "b": 0}, {"a": 0, "b": 0}, ["a"]),
        ({"p": {"a": 1}}, {"p": {"a": 2}}, {"p": {"a": 0}}, ["p.a"]),
        ({"a": 1}, {}, {"a": 0}, ["a"]),
        ({}, {"a": 1}, {"a": 0}, ["a"]),
        ({"a": 1}, None, {"a": 0}, ["the whole value"]),
        ([1], [2], [], ["the whole value"]),
        ({"a": True}, {"a": 1}, {"a": 0}, ["a"]),
    ],
)
def test_a_field_that_both_changed_differently_is_raised(mine: Any, theirs: Any, base: Any, fields: list[str]) -> None:
    for one, other in ((mine, theirs), (theirs, mine)):
        with pytest.raises(StateConflict, match="changed by both, differently") as conflict:
            merge_fields(one, other, base)
        assert conflict.value.details == {"fields": fields}
