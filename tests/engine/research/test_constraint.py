"""Constraints hold where Python says so, and refuse whatever is no comparison of parameters."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.research.constraint import MAX_CHARACTERS, MAX_DEPTH, Constraint
from backtestr_protocol.errors import ValidationError

KNOWN = ("fast", "slow", "ratio", "long_only")
TRUTHS = ("long_only",)

numbers = st.one_of(
    st.sampled_from(["fast", "slow", "ratio"]), st.integers(0, 50).map(str), st.floats(0.5, 9.5, width=16).map(repr)
)
terms = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*"]), inner),
        st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), inner, inner),
        inner.map("abs({})".format),
        inner.map("-{}".format),
    ),
    max_leaves=6,
)
comparisons = st.one_of(
    st.just("long_only"),
    st.builds("{} {} {}".format, terms, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), terms),
    st.builds("{} < {} <= {}".format, terms, terms, terms),
)
expressions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner), inner.map("(not {})".format)
    ),
    max_leaves=5,
)


@given(expressions, st.lists(st.tuples(st.integers(2, 60), st.integers(2, 60), st.booleans()), min_size=1, max_size=9))
def test_a_constraint_holds_where_python_says_so(text: str, rows: list[tuple[int, int, bool]]) -> None:
    columns = {
        "fast": np.array([row[0] for row in rows]),
        "slow": np.array([row[1] for row in rows]),
        "ratio": np.array([row[0] / row[1] for row in rows]),
        "long_only": np.array([row[2] for row in rows]),
    }
    constraint = Constraint(text, KNOWN, TRUTHS)
    found = np.broadcast_to(constraint.holds(columns), len(rows))
    for at in range(len(rows)):
        names = {name: column[at].item() for name, column in columns.items()}
        assert bool(found[at]) == bool(eval(text, {"abs": abs, "min": min, "max": max}, names))
    assert constraint.names == {name for name in KNOWN if name in text}


def test_a_division_by_zero_holds_nowhere() -> None:
    columns = {"fast": np.array([4, 4]), "slow": np.array([0, 2])}
    for text in ("fast / slow < 3", "fast // slow < 3", "fast % slow == 0"):
        assert Constraint(text, KNOWN).holds(columns).tolist() == [False, True], text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("fast <", "it cannot be read at character"),
        ("fast = slow", "equality is =="),
        ("fats < slow", r"unknown parameter 'fats'; did you mean 'fast'\? \(fast, slow, ratio, long_only\)"),
        ("fast", "fast is a number: compare it, as in 'fast < 20'"),
        ("fast + slow", "is neither true nor false"),
        ("fast in (1, 2)", "'in' is no comparison"),
        ("fast is slow", "'is' is no comparison"),
        ("__import__('os').system('true') == 0", r"is not allowed \(allowed: numbers, parameters"),
        ("fast.real < 3", "is not allowed"),
        ("fast ** 9 < 3", "is not allowed"),
        ("(lambda: 1)() < fast", "is not allowed"),
        ("[fast][0] < 3", "is not allowed"),
        ("'a' < fast", "is not allowed"),
        ("min(fast) < 3", "min takes two or more"),
        ("abs(fast, slow) < 3", "abs takes one value"),
        ("max(fast, slow, key=abs) < 3", "is not allowed"),
        ("fast < 99999999999999999999", "beyond the range of a number"),
        ("-" * (MAX_DEPTH + 2) + "fast < 3", f"nested more than {MAX_DEPTH} deep"),
        ("(" * 400 + "fast" + ")" * 400 + " < 3", "cannot be read"),
        ("fast < " + "9" * MAX_CHARACTERS, "characters, and may have 1,000"),
        ("fast < 3\0", "it cannot be read"),
    ],
)
def test_whatever_is_no_comparison_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        Constraint(text, KNOWN, TRUTHS)
    assert caught.value.details is not None
    assert caught.value.details["path"] == "$.where"


@given(st.text(max_size=40))
def test_any_text_is_a_constraint_or_is_refused(text: str) -> None:
    with contextlib.suppress(ValidationError):
        assert Constraint(text, KNOWN, TRUTHS).names <= set(KNOWN)
