"""Problems of rows: each is found in the rows that have it, and in no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backtestr_engine.importing.formats import Kind
from backtestr_engine.importing.problems import FIRST_ROWS, Problem, order_problems, problems_of, value_problems

MINUTE = 60_000_000
SOUND: dict[Kind, dict[str, list[float]]] = {
    "bars": {
        "open": [10.0, 11.0, 12.0, 13.0],
        "high": [12.0, 13.0, 14.0, 15.0],
        "low": [9.0, 10.0, 11.0, 12.0],
        "close": [11.0, 12.0, 13.0, 14.0],
        "volume": [1.0, 0.0, 2.0, 3.0],
    },
    "quotes": {"bid": [1.0, 2.0, 3.0, 4.0], "ask": [1.0, 2.5, 3.0, 5.0]},
    "trades": {"price": [1.0, 2.0, 3.0, 4.0], "size": [0.0, 1.0, 2.0, 3.0]},
}


def found(kind: Kind, **changed: list[float]) -> list[tuple[str, list[int]]]:
    """Return the reasons and rows of the problems of four sound rows with some columns `changed`."""
    columns = {"timestamp": [0, MINUTE, 2 * MINUTE, 3 * MINUTE], **SOUND[kind], **changed}
    times = np.array(columns.pop("timestamp"), dtype=np.int64)
    fields = {name: np.array(values, dtype=np.float64) for name, values in columns.items()}
    return [(one.reason, one.first()) for one in problems_of(kind, times, fields)]


@pytest.mark.parametrize(
    ("kind", "changed", "reason", "rows"),
    [
        ("bars", {"timestamp": [0, MINUTE, MINUTE, 3 * MINUTE]}, "the same time as the row before", [2]),
        ("bars", {"timestamp": [0, MINUTE, -MINUTE, 3 * MINUTE]}, "an earlier time than the row before", [2]),
        ("bars", {"open": [10.0, np.nan, 12.0, np.inf]}, "open is not a finite number", [1, 3]),
        ("bars", {"low": [9.0, 10.0, 0.0, -1.0]}, "low is zero or negative", [2, 3]),
        ("bars", {"high": [12.0, 13.0, 12.5, 15.0]}, "high is below open or close", [2]),
        ("bars", {"low": [9.0, 10.0, 11.0, 13.5]}, "low is above open or close", [3]),
        ("bars", {"volume": [1.0, -1.0, np.nan, 0.0]}, "volume is negative or not a finite number", [1, 2]),
        ("quotes", {"timestamp": [0, MINUTE, MINUTE, 0]}, "an earlier time than the row before", [3]),
        ("quotes", {"bid": [1.0, 0.0, -1.0, 4.0]}, "bid is zero or negative", [1, 2]),
        ("quotes", {"ask": [1.0, 2.5, np.nan, 5.0]}, "ask is not a finite number", [2]),
        ("quotes", {"ask": [1.0, 1.5, 3.0, 5.0]}, "ask is below bid", [1]),
        ("trades", {"price": [1.0, np.inf, 3.0, 4.0]}, "price is not a finite number", [1]),
        ("trades", {"size": [0.0, 1.0, -1.0, np.nan]}, "size is negative or not a finite number", [2, 3]),
    ],
)
def test_a_problem_is_found_in_the_rows_that_have_it(
    kind: Kind, changed: dict[str, Any], reason: str, rows: list[int]
) -> None:
    assert found(kind, **changed) == [(reason, rows)]


@pytest.mark.parametrize("kind", SOUND)
def test_sound_rows_have_no_problem(kind: Kind) -> None:
    assert found(kind) == []


@pytest.mark.parametrize(("kind", "optional"), [("bars", "volume"), ("trades", "size")])
def test_an_absent_column_has_no_problem(kind: Kind, optional: str) -> None:
    fields = {name: np.array(values) for name, values in SOUND[kind].items() if name != optional}
    assert not any(one.count for one in value_problems(kind, fields))


def test_no_rows_have_no_problem() -> None:
    times = np.zeros(0, dtype=np.int64)
    assert [one.count for one in order_problems(times, may_repeat=False)] == [0, 0]


def test_a_problem_counts_all_rows_and_names_the_first() -> None:
    problem = Problem("open", "wrong", np.ones(FIRST_ROWS + 3, dtype=np.bool_))
    assert (problem.count, problem.first()) == (FIRST_ROWS + 3, list(range(FIRST_ROWS)))
