"""The spacing of bars: the timeframe that it shows, and the one that it refuses."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.data.arrays import Integers
from backtestr_engine.data.timeframes import DAY_US, HOUR_US, MINUTE_US, consecutive_open_times, length_us, open_time
from backtestr_engine.importing.spacing import check_timeframe, detected_timeframe, step_name
from backtestr_protocol.errors import UnknownTimeframe
from backtestr_protocol.timeframes import COMMON_TIMEFRAMES

MONDAY = 1_704_067_200_000_000  # 2024-01-01


def dates(*texts: str) -> Integers:
    return np.array([int(datetime.fromisoformat(one).replace(tzinfo=UTC).timestamp()) * 10**6 for one in texts])


def month_ends(first: str, last: str) -> Integers:
    months = np.arange(first, last, dtype="datetime64[M]") + 1
    return (months.astype("datetime64[D]") - 1).astype("datetime64[us]").astype(np.int64)


@given(timeframe=st.sampled_from(COMMON_TIMEFRAMES), count=st.integers(3, 400), start=st.integers(0, 2 * 10**15))
def test_bars_without_a_gap_show_their_timeframe_and_no_other_common_one(
    timeframe: str, count: int, start: int
) -> None:
    times = consecutive_open_times(open_time(start, timeframe), count, timeframe)
    assert detected_timeframe(times, "file") == timeframe
    check_timeframe(timeframe, times, "file")
    for other in COMMON_TIMEFRAMES:
        if other != timeframe:
            with pytest.raises(UnknownTimeframe, match=rf"holds (finer|longer) bars than {other}: .*name {timeframe}"):
                check_timeframe(other, times, "file")


@pytest.mark.parametrize(
    ("timeframe", "times"),
    [
        ("1M", month_ends("2019-01", "2024-06")),
        ("3M", month_ends("2010-01", "2024-06")[2::3]),
        ("1M", dates("2024-01-02", "2024-02-01", "2024-03-01", "2024-04-02", "2024-05-01", "2024-06-03")),
        ("12M", dates("2019-12-31", "2020-12-31", "2021-12-31", "2022-12-30", "2023-12-29")),
        ("1M", dates("2024-01-01", "2024-02-01")),
        ("1d", dates("2024-01-05", "2024-01-08", "2024-01-09", "2024-01-10")),
        ("1w", dates("2024-01-05", "2024-01-12", "2024-01-19", "2024-02-02")),
        ("7m", MONDAY + 7 * MINUTE_US * np.array([0, 1, 2, 3, 5, 6])),
        ("90m", MONDAY + 90 * MINUTE_US * np.arange(5)),
    ],
)
def test_gaps_and_months_of_different_lengths_show_it_too(timeframe: str, times: Integers) -> None:
    assert detected_timeframe(times, "file") == timeframe
    check_timeframe(timeframe, times, "file")


@pytest.mark.parametrize(
    ("times", "step"),
    [
        (dates("2024-01-01"), "there is only one bar"),
        (MONDAY + MINUTE_US * np.array([0, 7]), "its most frequent step is 7 minutes"),
        (MONDAY + MINUTE_US * np.array([0, 37, 74, 80, 96]), "its most frequent step is 37 minutes"),
        (MONDAY + np.array([0, 1500, 3000, 4500]), "its most frequent step is 0.0015 seconds"),
    ],
)
def test_bars_that_show_none_are_refused(times: Integers, step: str) -> None:
    with pytest.raises(UnknownTimeframe, match=rf"the timeframe of bars\.csv cannot be detected: {step}; name it"):
        detected_timeframe(times, "bars.csv")


@pytest.mark.parametrize(
    ("given_one", "times"),
    [
        ("1d", dates("2024-01-05", "2024-01-08")),  # a weekend
        ("1m", MONDAY + MINUTE_US * np.array([0, 5, 10, 11, 20])),  # minutes without a trade
        ("1m", MONDAY + MINUTE_US * np.array([0, 5])),
        ("1d", dates("2024-01-02", "2024-01-06", "2024-01-15", "2024-01-28")),
    ],
)
def test_missing_bars_are_no_contradiction(given_one: str, times: Integers) -> None:
    check_timeframe(given_one, times, "file")


@pytest.mark.parametrize(
    ("given_one", "times", "message"),
    [
        ("1d", month_ends("2023-01", "2024-01"), "holds longer bars than 1d: .* 31 days, those of 1M bars; name 1M"),
        ("4w", consecutive_open_times(MONDAY, 12, "1M"), "holds longer bars than 4w: .*those of 1M bars; name 1M"),
        ("1h", MONDAY + 2 * HOUR_US * np.arange(3), "holds longer bars than 1h: its most frequent step is 2h; name 2h"),
        ("1m", MONDAY + 10**6 * np.arange(4), "holds finer bars than 1m: its most frequent step is 1s; name 1s"),
        ("1M", MONDAY + DAY_US * np.arange(90), "holds finer bars than 1M: its most frequent step is 1d; name 1d"),
    ],
)
def test_a_wrong_timeframe_is_refused_and_the_right_one_named(given_one: str, times: Integers, message: str) -> None:
    with pytest.raises(UnknownTimeframe, match=message) as caught:
        check_timeframe(given_one, times, "file")
    assert caught.value.details is not None
    assert caught.value.details["got"] == given_one


def test_steps_have_names_that_people_use() -> None:
    assert [step_name(one) for one in (length_us("4h"), 5 * DAY_US, 90 * MINUTE_US, 61 * 10**6, 1500)] == [
        *("4h", "5 days", "90 minutes", "61 seconds", "0.0015 seconds")
    ]
