"""A pace makes every bar due at its time, loses none, and does not drift, however late the caller is."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.worker.pace import Pace

rates = st.floats(1e-6, 1e6)
starts = st.floats(0.0, 1e6)
steps = st.lists(st.floats(0.0, 100.0), max_size=30)


@given(rates, starts, steps)
def test_the_time_since_the_start_sets_how_many_bars_are_due(rate: float, start: float, waits: list[float]) -> None:
    pace, now, taken = Pace(rate), start, 0
    for wait in [0.0, *waits]:
        now += wait
        due = pace.due(now)
        assert due >= 0
        pace.take(due)
        taken += due
        assert taken == pytest.approx((now - start) * rate + 1, rel=1e-6, abs=1 + 1e-9 * rate * now)
        assert pace.due(now) == 0, "taken bars are not due again"
        assert pace.deadline(now) > now


@given(rates, starts, st.integers(1, 50))
def test_a_caller_that_sleeps_until_the_deadline_finds_the_next_bar(rate: float, start: float, bars: int) -> None:
    pace, now = Pace(rate), start
    pace.take(pace.due(now))
    for _ in range(bars):
        now = pace.deadline(now)
        due = pace.due(now)
        assert due >= 1
        pace.take(due)


@given(rates, starts, st.floats(0.0, 1e4))
def test_after_a_halt_the_wait_for_the_next_bar_continues(rate: float, start: float, halted: float) -> None:
    pace = Pace(rate)
    pace.take(pace.due(start))
    before = pace.deadline(start) - start
    pace.halt(start)
    resumed = start + halted
    due = pace.due(resumed)
    assert due == 0 or math.isclose(before, 0.0, abs_tol=1e-9)
    assert pace.deadline(resumed) - resumed == pytest.approx(before, abs=1e-6)


def test_after_a_halt_without_a_time_the_next_bar_is_due_at_once() -> None:
    pace = Pace(1.0)
    pace.take(pace.due(10.0))
    pace.halt()
    assert pace.due(10.1) == 1


def test_the_smallest_pace_has_one_bar() -> None:
    pace = Pace(5e-324)
    assert pace.due(1.0) == 1
    pace.take(1)
    assert pace.deadline(1.0) == math.inf
    assert pace.due(1e9) == 0
