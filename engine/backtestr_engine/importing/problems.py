"""Problems of rows: values and times that no bar, quote or trade can have, each with the rows that have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backtestr_engine.data.arrays import Booleans, Floats, Integers

from .formats import Kind

FIRST_ROWS = 5
"""Number of rows that a message shows for each problem: enough to find it, few enough to read."""


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A reason why the rows where `wrong` is true cannot be used, and the column that it concerns."""

    column: str
    reason: str
    wrong: Booleans

    @property
    def count(self) -> int:
        """The number of rows that have the problem."""
        return int(np.count_nonzero(self.wrong))

    def first(self) -> list[int]:
        """Return the first `FIRST_ROWS` of those rows, counted from 0."""
        return [int(row) for row in np.flatnonzero(self.wrong)[:FIRST_ROWS]]


def problems_of(kind: Kind, timestamps: Integers, fields: Mapping[str, Floats]) -> list[Problem]:
    """Return the problems that at least one row has: those of order, then those of values."""
    problems = (*order_problems(timestamps, may_repeat=kind != "bars"), *value_problems(kind, fields))
    return [problem for problem in problems if problem.count]


def order_problems(timestamps: Integers, *, may_repeat: bool) -> list[Problem]:
    """Return the problems of rows that are not later than the row before (ticks, which `may_repeat`: earlier)."""
    steps = np.diff(timestamps)
    first = np.zeros(min(1, len(timestamps)), dtype=np.bool_)
    backward = Problem("timestamp", "an earlier time than the row before", np.concatenate((first, steps < 0)))
    if may_repeat:
        return [backward]
    return [Problem("timestamp", "the same time as the row before", np.concatenate((first, steps == 0))), backward]


def value_problems(kind: Kind, fields: Mapping[str, Floats]) -> list[Problem]:
    """Return the problems that values of this kind can have, in the order in which a reader would look.

    Problems that no row has are among them.
    """
    if kind == "bars":
        return _bar_problems(fields)
    return _quote_problems(fields) if kind == "quotes" else _trade_problems(fields)


def _bar_problems(fields: Mapping[str, Floats]) -> list[Problem]:
    problems, all_finite = _price_problems(fields, ("open", "high", "low", "close"))
    high_is_low = fields["high"] < np.maximum(fields["open"], fields["close"])
    low_is_high = fields["low"] > np.minimum(fields["open"], fields["close"])
    problems.append(Problem("high", "high is below open or close", all_finite & high_is_low))
    problems.append(Problem("low", "low is above open or close", all_finite & low_is_high))
    return problems + _amount_problems(fields, "volume")


def _quote_problems(fields: Mapping[str, Floats]) -> list[Problem]:
    """Return the problems of quotes. A bid may equal the ask."""
    problems, both_finite = _price_problems(fields, ("bid", "ask"))
    problems.append(Problem("ask", "ask is below bid", both_finite & (fields["ask"] < fields["bid"])))
    for name in ("last", "volume"):  # NaN where the quote is no trade
        if name in fields:
            wrong = np.isinf(fields[name]) | (fields[name] < 0)
            problems.append(Problem(name, f"{name} is negative or not a finite number", wrong))
    return problems


def _trade_problems(fields: Mapping[str, Floats]) -> list[Problem]:
    problems, _ = _price_problems(fields, ("price",))
    return problems + _amount_problems(fields, "size")


def _price_problems(fields: Mapping[str, Floats], names: tuple[str, ...]) -> tuple[list[Problem], Booleans]:
    """Return the problems of each price by itself, and the rows in which all prices are finite."""
    problems: list[Problem] = []
    all_finite = np.ones(len(fields[names[0]]), dtype=np.bool_)
    for name in names:
        finite = np.isfinite(fields[name])
        all_finite &= finite
        problems.append(Problem(name, f"{name} is not a finite number", ~finite))
        problems.append(Problem(name, f"{name} is zero or negative", finite & (fields[name] <= 0)))
    return problems, all_finite


def _amount_problems(fields: Mapping[str, Floats], name: str) -> list[Problem]:
    """Return the problem of a volume or size, where the file has that column."""
    if name not in fields:
        return []
    sound = np.isfinite(fields[name]) & (fields[name] >= 0)
    return [Problem(name, f"{name} is negative or not a finite number", ~sound)]
