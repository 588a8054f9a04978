"""The values that a program was given are remembered by version within bounds, and by thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr.state import handed_out
from backtestr.state.handed_out import UNCONFIRMED, HandedOut
from backtestr.state.replica import ABSENT, VersionedValue

KEYS = st.sampled_from(["a", "b", "c"])


@given(st.lists(st.tuples(KEYS, st.integers(0, 5), st.integers(0, 40)), max_size=60))
def test_the_latest_values_within_the_bounds_are_remembered(given: list[tuple[str, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handed_out, "MAX_BYTES", 100)
        patch.setattr(handed_out, "MAX_VALUES", 4)
        one = HandedOut()
        for key, version, size in given:
            one.note(key, VersionedValue(version, bytes(size)))
            one.check_invariants()
            assert one.at(key, version) == VersionedValue(version, bytes(size))
        latest = {(key, version): size for key, version, size in given}
        kept = {place: len(one.at(*place).value or b"") for place in latest if one.at(*place).value is not None}
        assert kept.items() <= latest.items()
        assert len(kept) <= 4
        assert sum(kept.values()) <= 100


def test_an_unconfirmed_value_has_no_version_to_be_found_by() -> None:
    one = HandedOut()
    one.give("a", VersionedValue(UNCONFIRMED, b"mine"))
    assert one.base("a") == VersionedValue(UNCONFIRMED, b"mine")
    assert one.at("a", UNCONFIRMED).value is None


def test_a_thread_has_the_last_that_it_was_given_and_else_the_last_of_all() -> None:
    one, first, second = HandedOut(), VersionedValue(1, b"1"), VersionedValue(2, b"2")
    assert one.base("a") is None
    one.give("a", first)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(one.base, "a").result() == first
        other.submit(one.give, "a", second).result()
        assert other.submit(one.base, "a").result() == second
    assert one.base("a") == first
    one.taken("a", ABSENT)
    assert one.base("a") == ABSENT
