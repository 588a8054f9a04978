"""Timeframes: how they are named, and how long their bars are, for all programs that reckon with bars.

A timeframe is a number and a unit: `s`, `m`, `h`, `d`, `w`, or `M` for calendar months. Each has one name: 60 minutes
are `1h`, 24 hours `1d`, and 7 days `1w`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, NamedTuple

import msgspec

SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
WEEK_MS = 7 * DAY_MS
MONTH_MS = 2_629_746_000
"""The mean month of the Gregorian calendar: 365.2425 / 12 days."""

LONGEST_MS = 52 * WEEK_MS
"""No timeframe of days or weeks is longer; a year of bars is `12M`."""

MONTHS = (1, 2, 3, 4, 6, 12)
"""The numbers of months that divide a year."""

TIMEFRAME_RULE = "a number and a unit: s, m, h, d, w, or M for months, such as 30s, 5m, 2h, 1d, 1w or 1M"

_UNITS_MS = {"s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": WEEK_MS}
_NAME = re.compile(r"([1-9][0-9]{0,7})([smhdwM])")

NAME_PATTERN = r"(?:[1-9][0-9]{0,7}[smhdw]|(?:[12346]|12)M)"
"""Every timeframe has such a name. Lengths are not bounded by it."""

# Python's `$` also matches before a final line feed, which the lookahead excludes.
Timeframe = Annotated[
    str, msgspec.Meta(pattern=rf"^{NAME_PATTERN}(?!\n)$", description=f"the length of a bar: {TIMEFRAME_RULE}")
]

COMMON_TIMEFRAMES: tuple[Timeframe, ...] = (
    *("1s", "5s", "10s", "15s", "30s", "1m", "2m", "3m", "5m", "10m", "15m", "20m", "30m", "45m"),
    *("1h", "2h", "3h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "2w", "1M", "3M", "6M", "12M"),
)
"""The timeframes in common use, finest first: near misses are looked for among them."""


class Length(NamedTuple):
    """The length of a timeframe: whole milliseconds, or whole months, whose milliseconds are a mean."""

    milliseconds: int
    months: int


@lru_cache(maxsize=4096)
def length_of(timeframe: str) -> Length | None:
    """Return the length of a timeframe, None where there is no timeframe of that name.

    A name that is not the timeframe's one name, such as `60m`, has the length too.
    """
    match = _NAME.fullmatch(timeframe)
    if match is None:
        return None
    count, unit = int(match[1]), match[2]
    if unit == "M":
        return Length(count * MONTH_MS, count) if count in MONTHS else None
    milliseconds = count * _UNITS_MS[unit]
    return Length(milliseconds, 0) if milliseconds <= LONGEST_MS else None


def length_ms(timeframe: str) -> int:
    """Return the length of a timeframe in milliseconds, of months their mean. Raises `KeyError` for another name."""
    length = length_of(timeframe)
    if length is None:
        raise KeyError(timeframe)
    return length.milliseconds


def canonical_timeframe(timeframe: str) -> Timeframe | None:
    """Return the one name of a timeframe: `1h` for `60m`. Return None where there is no such timeframe."""
    length = length_of(timeframe)
    if length is None:
        return None
    return timeframe_of(length.milliseconds) if not length.months else timeframe


def timeframe_of(milliseconds: int) -> Timeframe | None:
    """Return the timeframe, none of months, whose bars are so long; None where there is none."""
    if not SECOND_MS <= milliseconds <= LONGEST_MS:
        return None
    unit, length = next((one for one in reversed(_UNITS_MS.items()) if milliseconds % one[1] == 0), ("", 1))
    return f"{milliseconds // length}{unit}" if unit else None
