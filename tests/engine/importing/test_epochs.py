"""Counts since 1970: the unit of each is told from the whole column, or the column is refused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate, cycle, pairwise

import polars as pl
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from backtestr_engine.data.instants import instant
from backtestr_engine.importing.epochs import (
    EARLIEST_US,
    LATEST_US,
    UNITS,
    AmbiguousTimes,
    count_times,
)
from backtestr_protocol.import_messages import TimeUnit

PER_UNIT_US = {"s": 1_000_000, "ms": 1_000, "us": 1}
# Within this of 1970-01-01 a count in a fine unit is a time in a coarser one, too.
NEAR_1970_US = 85 * 86_400_000_000
STEPS_S = (60, 300, 3600, 86_400, 604_800)


def count(us: int, unit: TimeUnit) -> int:
    return us * 1_000 if unit == "ns" else us // PER_UNIT_US[unit]


def times(counts: Sequence[float], unit: TimeUnit | None = None, named: TimeUnit | None = None) -> list[int | None]:
    return count_times(pl.Series(counts), unit, named).times.to_physical().to_list()


def first(counts: Sequence[float], unit: TimeUnit | None = None, named: TimeUnit | None = None) -> str:
    us = times(counts, unit, named)[0]
    assert us is not None
    return instant(us)


YEAR_S = 366 * 86_400
seconds = st.integers(EARLIEST_US // 1_000_000, -YEAR_S) | st.integers(YEAR_S, 129 * YEAR_S)


@given(st.lists(st.tuples(seconds.map(lambda one: one * 1_000_000), st.sampled_from(UNITS)), min_size=1))
@example([(1_735_689_540_000_000, "ms"), (1_735_689_600_000_000, "us")])
@example([(-YEAR_S * 1_000_000, "ms"), (-YEAR_S * 1_000_000 + 3_600_000_000, "ms"), (-YEAR_S * 1_000_000, "s")])
@example([(-YEAR_S * 1_000_000, "ms"), (-YEAR_S * 1_000_000 - 1_000_000, "s"), (YEAR_S * 1_000_000, "ms")])
def test_any_mix_of_units_is_read_row_by_row(rows: list[tuple[int, TimeUnit]]) -> None:
    """No order and no step is needed where no count is near zero."""
    counts = [count(us, unit) for us, unit in rows]
    try:
        assert times(counts) == [us for us, _ in rows]
    except AmbiguousTimes:
        # At least half of the steps are such as bars have in a finer unit.
        assert any(abs(two - one) % 1_000 == 0 for one, two in pairwise(counts))


@given(
    start=st.integers(-70 * 365, 120 * 365),
    step=st.sampled_from(STEPS_S),
    rows=st.integers(3, 300),
    units=st.lists(st.tuples(st.sampled_from(UNITS), st.integers(1, 50)), min_size=1, max_size=4),
    backwards=st.booleans(),
)
@example(start=-40, step=86_400, rows=300, units=[("ms", 50)], backwards=False)  # milliseconds, through 1970
@example(start=0, step=60, rows=300, units=[("ms", 50)], backwards=False)  # milliseconds that begin with 0
def test_bars_with_a_usual_step_are_read_right_or_refused(
    start: int, step: int, rows: int, units: list[tuple[TimeUnit, int]], backwards: bool
) -> None:
    """Runs of rows in one unit each, as an archive has that changed it, also where counts pass through zero."""
    expected = [(start * 86_400 + row * step) * 1_000_000 for row in range(rows)]
    ends = list(accumulate(length for _, length in units))
    unit_of = [
        next((unit for (unit, _), end in zip(units, ends, strict=True) if row % ends[-1] < end)) for row in range(rows)
    ]
    counts = [count(us, unit) for us, unit in zip(expected, unit_of, strict=True)]
    if backwards:
        counts, expected = counts[::-1], expected[::-1]
    assume(expected[0] != expected[-1])
    near = [us for us in expected if abs(us) <= NEAR_1970_US]
    try:
        found = times(counts)
    except AmbiguousTimes:
        assert near
        return
    if len(set(unit_of)) == 1 or not near:
        assert found == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([631152000, 631238400, 631324800], "1990-01-01"),
        ([631152000], "1990-01-01"),
        ([631152000000, 631238400000], "1990-01-01"),
        ([-432000, -345600, -259200], "1969-12-27"),
        ([-432000000, -345600000, -259200000], "1969-12-27"),  # milliseconds
        ([0, 60_000, 120_000, 180_000], "1970-01-01"),
        ([1709510400.0, 1709596800.0], "2024-03-04"),
        ([1709510400.25, 1709596800.5], "2024-03-04T00:00:00.250000Z"),
        ([1709510400000.0, 1709596800000.0], "2024-03-04"),
        ([1709510400123456789, 1709510401123456789], "2024-03-04T00:00:00.123456Z"),
        ([1315922016, 1315922020, 1315922095], "2011-09-13T13:53:36Z"),  # trades, at no usual step
    ],
)
def test_counts_of_the_field(counts: list[float], expected: str) -> None:
    assert first(counts) == expected


def test_a_file_of_milliseconds_that_passes_through_1970_is_in_milliseconds() -> None:
    days = [day * 86_400_000_000 for day in range(-3_000, 20_000)]
    in_ms = [us // 1_000 for us in days]
    assert times(in_ms) == days
    # From 2020 on in microseconds, as an archive that changed its unit has it.
    changed = [us if us > 1_577_836_800_000_000 else us // 1_000 for us in days]
    found = count_times(pl.Series(changed))
    assert (found.times.to_physical().to_list(), list(found.units)) == (days, ["ms", "us"])


@given(
    gaps=st.lists(st.integers(1, 31 * 86_400_000).map(lambda ms: ms * 1_000), min_size=1, max_size=20),
    usual=st.sampled_from((86_400, 604_800)),
    start=st.integers(-YEAR_S, -26 * 86_400),
    backwards=st.booleans(),
)
def test_milliseconds_with_gaps_up_to_a_month_are_read_right_through_1970(
    gaps: list[int], usual: int, start: int, backwards: bool
) -> None:
    """Every third step is a gap, until no count is near zero."""
    expected = [start * 1_000_000]
    for gap in cycle(gaps):
        if expected[-1] > NEAR_1970_US:
            break
        expected += accumulate((usual * 1_000_000, usual * 1_000_000, gap), initial=expected.pop())
    if backwards:
        expected = expected[::-1]
    assert times([us // 1_000 for us in expected]) == expected


def days_of(*dates: str) -> list[int]:
    """Return milliseconds since 1970."""
    return [round(datetime.fromisoformat(f"{date}+00:00").timestamp() * 1_000) for date in dates]


@pytest.mark.parametrize(
    "dates",
    [
        ["1968-12-31", "1969-12-31", "1970-12-31"],
        ["1967-12-29", "1968-12-31", "1969-12-30", "1970-12-30"],  # last days of trading
        ["1969-07-01", "1969-10-01", "1970-01-01", "1970-04-01", "1970-07-01"],
        ["1969-08-29", "1969-08-30", "1970-01-05", "1970-01-06", "1970-01-07", "1970-08-01"],  # gaps in days
    ],
)
def test_gaps_and_long_bars_of_milliseconds_around_1970_are_read_as_such(dates: list[str]) -> None:
    for counts in (days_of(*dates), days_of(*dates)[::-1]):
        assert times(counts) == [one * 1_000 for one in counts]


MIXED = [-31_622_400_000, -31_618_800_000, -31_622_400]
"""Three rows of 1968-12-31, in ms, ms, s; or all in ms, the last of them of the next year."""


@pytest.mark.parametrize(
    "counts",
    [
        MIXED,
        MIXED[::-1],
        [-31_622_400_123, -31_618_800_456, -31_622_400],  # no usual step
        [one * 1_000 for one in MIXED],  # microseconds and milliseconds
        [17_366_400_000, 17_280_000_000, 17_323_200],  # 200 days after 1970
    ],
)
def test_a_change_of_the_unit_that_may_be_a_gap_beside_1970_is_refused_with_both_readings(counts: list[int]) -> None:
    with pytest.raises(AmbiguousTimes, match=r"since 1970: other rows are in .*--time-unit .*write all times in one"):
        count_times(pl.Series(counts))


def test_the_refusal_of_a_change_of_the_unit_names_both_readings_and_the_way_out() -> None:
    said = (
        r"-31622400 may be a count of s .1968-12-31. or of ms .1969-12-31T15:12:57\.600000Z. since 1970: other rows "
        "are in ms, and in the order of the rows both are possible; if all are in ms, say --time-unit ms"
    )
    with pytest.raises(AmbiguousTimes, match=said):
        count_times(pl.Series(MIXED))
    in_ms = [one * 1_000 for one in MIXED]
    assert times(MIXED, "ms") == in_ms
    assert times(MIXED, named="ms") == in_ms


def test_rows_in_order_tell_that_the_unit_changes_beside_1970() -> None:
    counts = [-31_622_400_000, -31_618_800_000, -31_615_200]
    assert times(counts) == [-31_622_400_000_000, -31_618_800_000_000, -31_615_200_000_000]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([60], "60 may be a count of s .1970-01-01T00:01:00Z. or of ms .1970-01-01T00:00:00.060000Z. since 1970"),
        ([86_400, 90_001, 99_999], "--time-unit s or --time-unit ms"),
        # Bars of a minute a fortnight after 1970, or of 16 hours 40 minutes from 2009 on.
        ([1_250_000_000, 1_250_060_000, 1_250_120_000], "s .2009-08-11T14:13:20Z. or of ms .1970-01-15T11:13:20Z."),
        ([6_000_000_000, 6_000_000_777], "s .2160-02-18T10:40:00Z. or of ms"),
    ],
)
def test_counts_that_nothing_decides_are_refused_with_both_readings(counts: list[int], message: str) -> None:
    with pytest.raises(AmbiguousTimes, match=message):
        count_times(pl.Series(counts))
    for unit in UNITS:
        us = counts[0] // 1_000 if unit == "ns" else counts[0] * PER_UNIT_US[unit]
        assert times(counts, unit)[0] == us


def test_the_name_of_a_column_decides_where_the_counts_do_not() -> None:
    assert first([1_250_000_000, 1_250_060_000], named="ms") == "1970-01-15T11:13:20Z"
    assert first([60], named="s") == "1970-01-01T00:01:00Z"
    # A name that the counts cannot have is none; one that the step contradicts is a question.
    assert first([1709510400000000000, 1709510460000000000], named="ms") == "2024-03-04"
    with pytest.raises(AmbiguousTimes, match="the column's name says ms; say which it is"):
        count_times(pl.Series([631152000, 631238400, 631324800]), None, "ms")


def test_counts_that_are_no_time_in_any_unit_or_not_in_the_named_one_are_null() -> None:
    assert times([1709510400, 2**63 - 1, -(2**63)]) == [1709510400_000_000, None, None]
    assert times([1709510400.0, float("nan"), float("inf"), 1e30]) == [1709510400_000_000, None, None, None]
    assert times([1709510400, 1709510400000], "s") == [1709510400_000_000, None]
    assert times([2**63 - 1]) == [None]


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.none(), min_size=1), st.sampled_from([None, *UNITS]))
def test_no_count_becomes_a_time_outside_the_years_that_can_be_stored(
    counts: list[int | None], unit: TimeUnit | None
) -> None:
    try:
        found = count_times(pl.Series(counts, dtype=pl.Int64), unit).times.to_physical()
    except AmbiguousTimes:
        return
    assert all(EARLIEST_US <= us < LATEST_US for us in found.drop_nulls())
