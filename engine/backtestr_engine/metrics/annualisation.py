"""Annualisation: figures per bar become figures per year by the number of bars in a year."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from backtestr_engine.data.timeframes import DAY_US, WEEK_US, length_us, months_in
from backtestr_protocol.messages import Timeframe

Calendar = Literal["24/7", "24/5", "252d"]

_DAYS_PER_YEAR: dict[Calendar, float] = {"24/7": 365.0, "24/5": 365.0 * 5 / 7, "252d": 252.0}
_TRADING_DAY_US: dict[Calendar, float] = {"24/7": DAY_US, "24/5": DAY_US, "252d": DAY_US * 6.5 / 24}
"""The trading time of a day: that of an exchange is 9:30 to 16:00."""


class Annualisation(msgspec.Struct, frozen=True):
    """The number of bars in a year, and `risk_free`, a yearly rate as a fraction."""

    bars_per_year: float
    risk_free: float

    @property
    def risk_free_per_bar(self) -> float:
        """The rate per bar that compounds to `risk_free` in a year: (1 + risk_free)^(1 / bars_per_year) − 1."""
        return math.expm1(math.log1p(self.risk_free) / self.bars_per_year)


def annualisation(timeframe: Timeframe, calendar: Calendar, risk_free: float) -> Annualisation:
    """Return the annualisation of a timeframe under a calendar.

    Bars per year are trading days per year (24/7: 365, 24/5: 365 · 5/7, 252d: 252) times bars per trading day (of 24
    hours, 252d: 6.5 hours). A bar of n days has n trading days. Under every calendar there are 365 / 7 / n bars of n
    weeks and 12 / n of n months a year.
    """
    length, months = length_us(timeframe), months_in(timeframe)
    if months:
        bars_per_year = 12.0 / months
    elif length % WEEK_US == 0:
        bars_per_year = 365.0 / 7 * WEEK_US / length
    elif length % DAY_US == 0:
        bars_per_year = _DAYS_PER_YEAR[calendar] * DAY_US / length
    else:
        bars_per_year = _DAYS_PER_YEAR[calendar] * _TRADING_DAY_US[calendar] / length
    return Annualisation(bars_per_year, risk_free)
