"""A worker is refused for what changes bits, and is told what that is."""

from __future__ import annotations

from backtestr_engine.cluster.fingerprint import FEATURES, arithmetic_features, differences, digest

HERE = {"numpy": "2.3.1", "engine code": "abc", FEATURES: "avx avx2 fma sse2"}


def test_equal_facts_have_no_difference_and_one_digest() -> None:
    again = dict(reversed(HERE.items()))
    assert differences(HERE, again) == []
    assert digest(HERE) == digest(again)


def test_each_fact_that_differs_is_named_with_both_values() -> None:
    there = {**HERE, "numpy": "1.26.4"}
    assert differences(HERE, there) == ["numpy: 1.26.4 there, 2.3.1 here"]
    assert digest(HERE) != digest(there)


def test_a_fact_that_only_one_has_is_a_difference() -> None:
    assert differences({**HERE, "polars": "1.30"}, HERE) == ["polars: none there, 1.30 here"]
    assert differences(HERE, {**HERE, "polars": "1.30"}) == ["polars: 1.30 there, none here"]


def test_features_are_told_as_what_is_missing_and_what_is_more() -> None:
    there = {**HERE, FEATURES: "avx sse2 avx512f"}
    assert differences(HERE, there) == [f"{FEATURES}: without avx2 fma, also avx512f"]
    many = " ".join(f"avx512x{number}" for number in range(20))
    [told] = differences({**HERE, FEATURES: many}, {**HERE, FEATURES: ""})
    assert told.endswith("and 12 more")


def test_features_that_leave_results_as_they_are_do_not_count() -> None:
    features = {"avx2": True, "fma": True, "avx512f": False, "aes": True, "sse4.1": True, "clflushopt": True}
    assert arithmetic_features(features) == "avx2 fma sse4.1"
    assert arithmetic_features({**features, "sha": True}) == arithmetic_features(features)
    assert arithmetic_features({"neon": True, "crc": True, "fullfp16": True}) == "fullfp16 neon"
