"""Timeframes: names, what divides what, and the open and close times of bars at instants and of dates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.data.timeframes import (
    _BLOCK,
    DAY_US,
    HOUR_US,
    MINUTE_US,
    WEEK_US,
    bars_between,
    close_time,
    close_times,
    consecutive_open_times,
    divides,
    is_dated,
    length_us,
    next_open_time,
    open_time,
    open_times,
    open_times_of,
    parse_timeframe,
    spans,
)
from backtestr_protocol.errors import ValidationError
from backtestr_protocol.timeframes import COMMON_TIMEFRAMES

TIMES = st.integers(-2 * 10**15, 5 * 10**15)
MANY = ("7s", *COMMON_TIMEFRAMES, "90m", "36h", "5d", "3w")


def at(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return round(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * 10**6


def test_weeks_open_on_monday() -> None:
    sunday, monday = 1_704_067_200_000_000 - DAY_US, 1_704_067_200_000_000

    assert open_time(sunday, "1w") == monday - WEEK_US
    assert open_time(monday, "1w") == next_open_time(monday, "1w") == monday
    assert next_open_time(sunday, "1w") == monday


def test_stretches_without_a_gap_and_back(generator: np.random.Generator) -> None:
    whole = synthetic_bars("1h", 1_000).timestamp
    for share in (0.0, 0.5, 0.99, 1.0):
        times = whole[generator.random(1_000) < share]
        starts, bars = spans(times, "1h")
        assert np.array_equal(open_times_of(starts, bars, "1h"), times)
        assert len(starts) == int((np.diff(times) != HOUR_US).sum()) + min(1, len(times))


def test_months_are_stretches_of_their_own_and_come_back() -> None:
    times = consecutive_open_times(at("2019-11-01"), 30, "1M")
    assert np.array_equal(open_times_of(*spans(times, "1M"), "1M"), times)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1hr", "unknown timeframe '1hr'; did you mean '1h'? (a number and a unit: s, m, h, d, w, or M for months, "
                "such as 30s, 5m, 2h, 1d, 1w or 1M, up to 52w or 12M)"),
        ("15M", "unknown timeframe '15M'; did you mean '15m'? (a number"),
        ("1mo", "unknown timeframe '1mo'; did you mean '1M'? (a number"),
        ("1D", "unknown timeframe '1D'; did you mean '1d'? (a number"),
    ],
)  # fmt: skip
def test_an_unknown_timeframe_names_the_near_miss_and_the_rule(name: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_timeframe(name)
    assert caught.value.message.startswith(message)
    assert caught.value.details is not None
    assert caught.value.details["path"] == "$.timeframe"


def test_a_timeframe_has_one_name() -> None:
    assert [parse_timeframe(name) for name in ("60m", "24h", "7d", "2h", "1M")] == ["1h", "1d", "1w", "2h", "1M"]


def test_open_times_are_the_open_time_of_each(generator: np.random.Generator) -> None:
    times = generator.integers(0, 2 * 10**15, 200)
    for timeframe in MANY:
        assert open_times(times, timeframe).tolist() == [open_time(int(one), timeframe) for one in times]


@given(time=TIMES, timeframe=st.sampled_from(MANY))
def test_a_time_lies_in_its_bar_and_bars_follow_each_other(time: int, timeframe: str) -> None:
    opened = open_time(time, timeframe)
    closed = close_time(opened, timeframe)
    assert opened <= time < closed
    assert open_time(closed, timeframe) == next_open_time(closed, timeframe) == closed
    assert open_time(closed - 1, timeframe) == opened
    assert next_open_time(opened, timeframe) == opened
    if time > opened:
        assert next_open_time(time, timeframe) == closed


@given(time=TIMES, count=st.integers(1, 50), timeframe=st.sampled_from(MANY))
def test_consecutive_bars_have_none_between_them(time: int, count: int, timeframe: str) -> None:
    times = consecutive_open_times(open_time(time, timeframe), count, timeframe)
    closed = close_times(times, timeframe)
    assert np.array_equal(closed[:-1], times[1:])
    assert not bars_between(closed[:-1], times[1:], timeframe).any()
    assert int(bars_between(times[:1], closed[-1:], timeframe)[0]) == count


@pytest.mark.parametrize(
    ("timeframe", "time", "opened", "closed"),
    [
        ("1M", "2024-02-29T23:59", "2024-02-01", "2024-03-01"),
        ("3M", "2024-03-31", "2024-01-01", "2024-04-01"),
        ("12M", "1969-12-31", "1969-01-01", "1970-01-01"),
        ("2h", "2024-01-01T03:59", "2024-01-01T02:00", "2024-01-01T04:00"),
        ("1s", "2024-01-01T00:00:01", "2024-01-01T00:00:01", "2024-01-01T00:00:02"),
        ("2w", "2024-01-15", "2024-01-08", "2024-01-22"),
    ],
)
def test_edges(timeframe: str, time: str, opened: str, closed: str) -> None:
    assert open_time(at(time), timeframe) == at(opened)
    assert close_time(at(opened), timeframe) == at(closed)


def test_a_date_has_the_instants_of_its_zone() -> None:
    new_york = ZoneInfo("America/New_York")
    start = datetime(2024, 3, 8, tzinfo=UTC)  # clocks change on the 10th
    instants = np.array([round((start + timedelta(hours=hour)).timestamp()) * 10**6 for hour in range(120)])
    dates = open_times(instants, "1d", "America/New_York")
    expected = [datetime.fromtimestamp(one / 10**6, new_york).date().isoformat() for one in instants.tolist()]
    assert [datetime.fromtimestamp(one / 10**6, UTC).date().isoformat() for one in dates.tolist()] == expected
    ends = close_times(dates, "1d", "America/New_York")
    assert [instants[dates == date][-1] + HOUR_US for date in np.unique(dates)[1:-1]] == np.unique(ends)[1:-1].tolist()
    assert open_times(instants, "1h", "America/New_York").tolist() == instants.tolist()


def test_bars_of_whole_days_weeks_and_months_belong_to_dates() -> None:
    assert [one for one in MANY if is_dated(one)] == ["1d", "3d", "1w", "2w", "1M", "3M", "6M", "12M", "5d", "3w"]


def test_a_timeframe_divides_itself_and_longer_ones() -> None:
    assert [one for one in COMMON_TIMEFRAMES if divides("30m", one)] == [
        *("30m", "1h", "2h", "3h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "2w", "1M", "3M", "6M", "12M")
    ]
    assert [one for one in MANY if divides("1M", one)] == ["1M", "3M", "6M", "12M"]
    assert not divides("1w", "1M")
    assert not divides("7m", "1d")
    assert not divides("3d", "3w")  # weeks begin on Monday, days are counted from a Thursday


@given(time=TIMES, finer=st.sampled_from(MANY), coarser=st.sampled_from(MANY))
def test_what_divides_has_an_edge_on_every_edge(time: int, finer: str, coarser: str) -> None:
    if divides(finer, coarser):
        edge = open_time(time, coarser)
        assert open_time(edge, finer) == edge
        assert length_us(finer) <= length_us(coarser)


@pytest.mark.parametrize("gap", [_BLOCK - 1, _BLOCK, _BLOCK + 1])
def test_a_gap_is_found_wherever_it_is(gap: int) -> None:
    times = np.arange(2 * _BLOCK + 5, dtype=np.int64) * MINUTE_US
    times[gap:] += MINUTE_US
    starts, bars = spans(times, "1m")
    assert (starts.tolist(), bars.tolist()) == ([0, times[gap]], [gap, len(times) - gap])
    assert np.array_equal(open_times_of(starts, bars, "1m"), times)
