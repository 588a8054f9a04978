"""The calendar of a market, told from its bars: 24/7, 24/5, or the 252 days and 6.5 hours of an exchange.

Crypto trades at weekends; currencies trade around the clock from Sunday evening to Friday; exchanges have sessions.
Daily bars of weekdays show no session: they count as an exchange's, whose 252 days are in use for currencies too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtestr_engine.data.arrays import Integers
from backtestr_engine.data.timeframes import DAY_US, HOUR_US, WEEK_US, is_dated, length_us, months_in
from backtestr_engine.data.zones import clock_times
from backtestr_protocol.timeframes import Timeframe

from .annualisation import Calendar

_LOOKED_AT = 100_000
"""The latest bars that are looked at: ten weeks of minutes."""

_FEWEST_DAYS = 3
_WEEKEND = (5, 6)  # Monday is 0
_TRADES_ON_WEEKENDS = 0.5
"""Weekends trade where more than half of the Saturdays and of the Sundays have bars: currencies open on Sunday
evenings, and close on Saturday mornings in Asia."""

_LONG_SESSION_US = 18 * HOUR_US
"""Currencies trade for 24 hours and futures for 23; extended hours of shares are 16."""


class ToldCalendar(NamedTuple):
    """A calendar, and why it is that one."""

    calendar: Calendar
    reason: str


def told_calendar(timestamp: Integers, timeframe: Timeframe, zone: str) -> ToldCalendar:
    """Return the calendar that bars show; `timestamp` has at least one open time, int64 µs UTC.

    `zone` is the one whose dates bars shorter than a day belong to. Where bars show none it is 24/7.
    """
    if months_in(timeframe) or length_us(timeframe) % WEEK_US == 0:
        return ToldCalendar("24/7", f"a year has as many {timeframe} bars under every calendar")
    latest = timestamp[-_LOOKED_AT:]
    clock = latest if is_dated(timeframe) else clock_times(latest, zone)
    days, first = np.unique(clock // DAY_US, return_index=True)
    weekends = _Weekends.of(days)
    if is_dated(timeframe):
        return _of_dates(days, weekends, length_us(timeframe) // DAY_US)
    if weekends.share > _TRADES_ON_WEEKENDS:
        return ToldCalendar("24/7", weekends.text)
    last = np.append(first[1:], len(clock)) - 1
    spans = clock[last] - clock[first] + length_us(timeframe)
    return _of_sessions(spans, clock[first[1:]] - clock[last[:-1]], days, weekends)


class _Weekends(NamedTuple):
    """The Saturdays and Sundays between the first and the last bar, and those that have bars."""

    saturdays: int
    sundays: int
    traded_saturdays: int
    traded_sundays: int

    @classmethod
    def of(cls, days: Integers) -> _Weekends:
        between = np.arange(int(days[0]), int(days[-1]) + 1)
        counted = (np.count_nonzero(_weekday(some) == day) for some in (between, days) for day in _WEEKEND)
        return cls(*map(int, counted))

    @property
    def days(self) -> int:
        return self.saturdays + self.sundays

    @property
    def share(self) -> float:
        """The share that has bars, of Saturdays or of Sundays, whichever is less; 0 where one of them is not there."""
        if not self.saturdays or not self.sundays:
            return 0.0
        return min(self.traded_saturdays / self.saturdays, self.traded_sundays / self.sundays)

    @property
    def text(self) -> str:
        return f"{self.traded_saturdays + self.traded_sundays:,} of {self.days:,} days of weekends have bars"


def _of_dates(days: Integers, weekends: _Weekends, days_per_bar: int) -> ToldCalendar:
    """Return the calendar of bars of days."""
    if weekends.share * days_per_bar > _TRADES_ON_WEEKENDS:
        return ToldCalendar("24/7", weekends.text)
    if weekends.sundays and weekends.traded_sundays * days_per_bar / weekends.sundays > _TRADES_ON_WEEKENDS:
        return ToldCalendar("24/5", f"{weekends.text}, as those of currencies on Sundays")
    if len(days) < _FEWEST_DAYS:
        return ToldCalendar("24/7", "there are too few bars to tell another")
    return ToldCalendar("252d", weekends.text)


def _of_sessions(spans: Integers, rests: Integers, days: Integers, weekends: _Weekends) -> ToldCalendar:
    """Return the calendar of bars within days that do not trade at weekends.

    `spans` are the times from the first open to the last close of each day, `rests` those between two days' bars.
    """
    whole = spans[1:-1][_weekday(days[1:-1]) < _WEEKEND[0]]  # the first day and the last may be incomplete
    if not len(whole):
        if len(rests) and int(rests.min()) > DAY_US - _LONG_SESSION_US:
            return ToldCalendar("252d", f"bars rest for {int(rests.min()) / HOUR_US:.1f} hours from day to day")
        return ToldCalendar("24/7", "there are too few days to tell another")
    usual = float(np.median(whole))
    described = f"a weekday has bars over {usual / HOUR_US:.1f} hours"
    if usual < _LONG_SESSION_US:
        return ToldCalendar("252d", described)
    if not weekends.saturdays or not weekends.sundays:
        return ToldCalendar("24/7", f"{described}, and no weekend lies within the bars")
    return ToldCalendar("24/5", f"{described}, and {weekends.text}")


def _weekday(days: Integers) -> Integers:
    """Return the weekday of each day, counted from 1970-01-01, a Thursday; Monday is 0."""
    return (days + 3) % 7
