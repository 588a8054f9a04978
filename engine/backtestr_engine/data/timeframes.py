"""Timeframes: their names, their lengths in microseconds, and the open times of their bars.

A bar opens on an edge of its timeframe in UTC: every whole multiple since the Unix epoch, except that weeks start on
Monday (the epoch was a Thursday).
"""

from __future__ import annotations

import numpy as np

from backtestr_protocol.errors import ValidationError, did_you_mean
from backtestr_protocol.messages import TICK, Timeframe
from backtestr_protocol.timeframes import LENGTH_MS

from .arrays import Integers

LENGTH_US: dict[Timeframe, int] = {timeframe: length * 1000 for timeframe, length in LENGTH_MS.items()}
"""Length of a bar of each timeframe, in microseconds, finest first."""

MINUTE_US = LENGTH_US["1m"]
DAY_US = LENGTH_US["1d"]

_FIRST_MONDAY_US = 4 * DAY_US


def parse_timeframe(name: str, *, path: str = "$.timeframe") -> Timeframe:
    """Return `name` if it is a timeframe, else raise a `ValidationError` for `path` with near miss and all names."""
    if name in LENGTH_US:
        return name
    if name == TICK:
        raise ValidationError(
            f"ticks are no bars: name the timeframe of the bars to make of them ({', '.join(LENGTH_US)})",
            path=path,
            expected=list(LENGTH_US),
            got=name,
        )
    raise ValidationError(
        f"unknown timeframe {name!r}{did_you_mean(name, LENGTH_US)} ({', '.join(LENGTH_US)})",
        path=path,
        expected=list(LENGTH_US),
        got=name,
    )


def divides(finer: Timeframe, coarser: Timeframe) -> bool:
    """Return whether bars of `coarser` can be made of whole bars of `finer`; true for a timeframe and itself."""
    return LENGTH_US[coarser] % LENGTH_US[finer] == 0


def _origin_us(timeframe: Timeframe) -> int:
    return _FIRST_MONDAY_US if timeframe == "1w" else 0


def open_time(timestamp_us: int, timeframe: Timeframe) -> int:
    """Return the open time of the bar of `timeframe` that contains `timestamp_us` (microseconds, UTC)."""
    origin, length = _origin_us(timeframe), LENGTH_US[timeframe]
    return (timestamp_us - origin) // length * length + origin


def open_times(timestamps_us: Integers, timeframe: Timeframe) -> Integers:
    """Return the `open_time` of each of `timestamps_us` (int64, microseconds, UTC)."""
    origin, length = _origin_us(timeframe), LENGTH_US[timeframe]
    return (timestamps_us - origin) // np.int64(length) * length + origin


def spans(timestamps_us: Integers, timeframe: Timeframe) -> tuple[Integers, Integers]:
    """Return strictly increasing open times as stretches without a gap: the first of each, and its number of bars.

    A year of minutes without weekends is some fifty stretches.
    """
    begins = np.flatnonzero(np.diff(timestamps_us) != LENGTH_US[timeframe]) + 1
    first = np.concatenate((np.zeros(min(1, len(timestamps_us)), dtype=np.int64), begins))
    return timestamps_us[first], np.diff(first, append=len(timestamps_us))


def open_times_of(starts_us: Integers, bars: Integers, timeframe: Timeframe) -> Integers:
    """Invert `spans`."""
    before = np.cumsum(bars) - bars
    length = LENGTH_US[timeframe]
    timestamps: Integers = np.repeat(starts_us - before * length, bars)
    timestamps += np.arange(len(timestamps), dtype=np.int64) * length
    return timestamps


def next_open_time(timestamp_us: int, timeframe: Timeframe) -> int:
    """Return the first open time at or after `timestamp_us`."""
    opened = open_time(timestamp_us, timeframe)
    return opened if opened == timestamp_us else opened + LENGTH_US[timeframe]
