"""The calendar is told from bars as markets make them, and is 24/7 where they tell none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from backtestr_engine.data.arrays import Integers
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.data.timeframes import DAY_US, HOUR_US, MINUTE_US
from backtestr_engine.metrics.calendars import told_calendar
from support.engine.reading import read_bars

HOLIDAYS = {(1, 1), (1, 15), (2, 19), (3, 29), (5, 27), (6, 19), (7, 4), (9, 2), (11, 28), (12, 25)}
DATES = [date(2023, 3, 6) + timedelta(number) for number in range(500)]


def midnights(rule: Callable[[date], bool], dates: list[date] = DATES) -> Integers:
    return np.array([int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 10**6
                     for day in dates if rule(day)])  # fmt: skip


def is_weekday(day: date) -> bool:
    return day.weekday() < 5


def is_session(day: date) -> bool:
    return is_weekday(day) and (day.month, day.day) not in HOLIDAYS


def within_days(days: Integers, start_us: int, end_us: int, step_us: int) -> Integers:
    return (days[:, None] + np.arange(start_us, end_us, step_us)).ravel()


@pytest.mark.parametrize(
    ("timestamp", "timeframe", "calendar", "reason"),
    [
        (midnights(lambda day: True), "1d", "24/7", "142 of 142 days of weekends have bars"),
        (midnights(is_session), "1d", "252d", "0 of 142 days of weekends have bars"),
        (midnights(is_session)[:40], "1d", "252d", "0 of 16 days of weekends"),
        (midnights(is_weekday), "1d", "252d", "0 of 142 days of weekends have bars"),
        (midnights(lambda day: day.weekday() != 5)[:60], "1d", "24/5", "as those of currencies on Sundays"),
        (midnights(is_session)[:2], "1d", "24/7", "too few bars"),
        (midnights(lambda day: True)[::3], "3d", "24/7", "days of weekends have bars"),
        (midnights(is_session)[::5], "1w", "24/7", "as many 1w bars under every calendar"),
        (midnights(lambda day: day.day == 1), "1M", "24/7", "as many 1M bars under every calendar"),
        (within_days(midnights(is_session), 13 * HOUR_US + 30 * MINUTE_US, 20 * HOUR_US, 30 * MINUTE_US), "30m", "252d",
         "a weekday has bars over 6.5 hours"),
        (within_days(midnights(is_session)[:2], 13 * HOUR_US, 20 * HOUR_US, HOUR_US), "1h", "252d", "for 18.0 hours"),
        (within_days(midnights(is_session)[:1], 13 * HOUR_US, 20 * HOUR_US, HOUR_US), "1h", "24/7", "too few days"),
        (within_days(midnights(is_weekday), 0, DAY_US, HOUR_US), "1h", "24/5", "24.0 hours, and 0 of"),
        (within_days(midnights(lambda day: True), 0, DAY_US, HOUR_US), "1h", "24/7", "days of weekends have bars"),
        (within_days(midnights(is_weekday)[:4], 0, DAY_US, HOUR_US), "1h", "24/7", "no weekend lies within the bars"),
    ],
)  # fmt: skip
def test_a_market_is_told_from_its_bars(timestamp: Integers, timeframe: str, calendar: str, reason: str) -> None:
    told = told_calendar(timestamp, timeframe, "UTC")
    assert told.calendar == calendar
    assert reason in told.reason


def test_a_week_of_currencies_is_told_from_any_part_of_it() -> None:
    opened = datetime(2024, 1, 7, 17, tzinfo=ZoneInfo("America/New_York"))
    hours = [int((opened + timedelta(weeks=week, hours=hour)).timestamp()) for week in range(30) for hour in range(120)]
    times = np.array(hours) * 10**6
    for zone in ("UTC", "America/New_York", "Etc/GMT+5", "Europe/Athens", "Australia/Sydney", "Asia/Tokyo"):
        assert told_calendar(times, "1h", zone).calendar == "24/5"


def test_sessions_that_cross_midnight_in_utc_are_told_by_the_zone() -> None:
    sessions = within_days(midnights(is_weekday), -2 * HOUR_US, 6 * HOUR_US, HOUR_US)  # 10:00 to 18:00 in Sydney
    assert told_calendar(sessions, "1h", "Etc/GMT-12").calendar == "252d"


def test_a_series_that_never_rests_keeps_24_7_however_short_it_is() -> None:
    for count in (1, 2, 100, 1_000, 5_000, 20_000):
        assert told_calendar(synthetic_bars("1m", count).timestamp, "1m", "UTC").calendar == "24/7"


@pytest.mark.parametrize(
    ("file", "calendar"),
    [
        ("btc_perp_1m_2022-01.csv", "24/7"),
        ("gbpusd_1m_bid_2012-02.csv", "24/5"),
        ("index_5m_split_date_time_2006.csv", "252d"),
        ("yhoo_daily_yahoo_1996-2015.csv", "252d"),
    ],
)
def test_real_markets(file: str, calendar: str, real_data: Path) -> None:
    bars = read_bars(real_data / file, "X").bars
    assert told_calendar(bars.timestamp, bars.timeframe, bars.zone).calendar == calendar
