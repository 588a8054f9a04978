"""Timeframes in the engine: which divides which, and when the bars of each open and close.

A bar opens on an edge of its timeframe. Bars shorter than a day open at instants: at every whole multiple of their
length since the Unix epoch, UTC. Bars of days, weeks and months belong to dates, and open on the date that their
timestamp has in UTC: days are counted from the epoch, weeks begin on Monday (the epoch was a Thursday), and months with
the calendar's.
"""

from __future__ import annotations

import numpy as np

from backtestr_protocol.errors import ValidationError, did_you_mean
from backtestr_protocol.messages import TICK
from backtestr_protocol.timeframes import (
    COMMON_TIMEFRAMES,
    TIMEFRAME_RULE,
    Length,
    Timeframe,
    canonical_timeframe,
    length_of,
    timeframe_of,
)

from .arrays import Integers
from .zones import UTC, clock_times, instants_of

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
WEEK_US = 7 * DAY_US

# The bars that are looked at together: their differences stay in the processor's cache.
_BLOCK = 1 << 14

_FIRST_MONDAY_US = 4 * DAY_US


def parse_timeframe(name: str, *, path: str = "$.timeframe") -> Timeframe:
    """Return the one name of a timeframe: `1h` for `60m`.

    Raises `ValidationError` for `path`, with the near miss and the rule, where there is no such timeframe.
    """
    found = canonical_timeframe(name)
    if found is not None:
        return found
    if name == TICK:
        raise ValidationError(
            f"ticks are no bars: name the timeframe of the bars to make of them ({TIMEFRAME_RULE})",
            path=path,
            expected=TIMEFRAME_RULE,
            got=name,
        )
    raise ValidationError(
        f"unknown timeframe {name!r}{did_you_mean(name, _similar(name))} ({TIMEFRAME_RULE}, up to 52w or 12M)",
        path=path,
        expected=TIMEFRAME_RULE,
        got=name,
    )


def _similar(name: str) -> list[Timeframe]:
    """Return the timeframes among which a near miss is looked for: `1M` for `1mo`, but `1m` for `1mn`."""
    means_months = "mo" in name.casefold()
    return [one for one in COMMON_TIMEFRAMES if one.endswith("M") == means_months]


def length_us(timeframe: Timeframe) -> int:
    """Return the length of a bar in microseconds; of months the mean of the calendar."""
    return _length(timeframe).milliseconds * 1000


def months_in(timeframe: Timeframe) -> int:
    """Return the number of months of a timeframe of months, 0 for every other."""
    return _length(timeframe).months


def _length(timeframe: Timeframe) -> Length:
    length = length_of(timeframe)
    if length is None:
        raise ValueError(f"there is no timeframe {timeframe!r}")
    return length


def is_dated(timeframe: Timeframe) -> bool:
    """Return whether bars of the timeframe belong to dates: those of whole days, weeks and months."""
    return months_in(timeframe) > 0 or length_us(timeframe) % DAY_US == 0


def timeframe_of_us(step_us: int) -> Timeframe | None:
    """Return the timeframe, none of months, whose bars are so many microseconds long; None where there is none."""
    return timeframe_of(step_us // 1000) if step_us % 1000 == 0 else None


def divides(finer: Timeframe, coarser: Timeframe) -> bool:
    """Return whether bars of `coarser` can be made of whole bars of `finer`; true for a timeframe and itself."""
    if months_in(coarser):
        in_finer = months_in(finer)
        return months_in(coarser) % in_finer == 0 if in_finer else DAY_US % length_us(finer) == 0
    if months_in(finer):
        return False
    shift = _origin_us(coarser) - _origin_us(finer)
    return length_us(coarser) % length_us(finer) == 0 and shift % length_us(finer) == 0


def _origin_us(timeframe: Timeframe) -> int:
    return _FIRST_MONDAY_US if length_us(timeframe) % WEEK_US == 0 else 0


def open_times(timestamps_us: Integers, timeframe: Timeframe, zone: str = UTC) -> Integers:
    """Return the open time of the bar of `timeframe` that holds each of `timestamps_us` (int64 microseconds UTC).

    Where the bars belong to dates, `zone` is the zone whose dates the instants have.
    """
    times = clock_times(timestamps_us, zone) if zone != UTC and is_dated(timeframe) else timestamps_us
    if count := months_in(timeframe):
        return _months_to_us(_months_since_1970(times) // count * count)
    origin, length = _origin_us(timeframe), length_us(timeframe)
    found: Integers = (times - origin) // np.int64(length) * length + origin
    return found


def open_time(timestamp_us: int, timeframe: Timeframe) -> int:
    """Return the open time of the bar of `timeframe` that contains `timestamp_us` (microseconds, UTC)."""
    return int(open_times(np.array([timestamp_us], dtype=np.int64), timeframe)[0])


def next_open_time(timestamp_us: int, timeframe: Timeframe) -> int:
    """Return the first open time at or after `timestamp_us`."""
    opened = open_time(timestamp_us, timeframe)
    return opened if opened == timestamp_us else close_time(opened, timeframe)


def close_times(opened_us: Integers, timeframe: Timeframe, zone: str = UTC) -> Integers:
    """Return when each bar is complete: the open time plus the length; of months the first edge after the open time.

    With a `zone`, bars of dates are complete at the instant when the next date begins there; without one the times are
    dates as the open times are.
    """
    if count := months_in(timeframe):
        closed = _months_to_us(_months_since_1970(opened_us) // count * count + count)
    else:
        closed = opened_us + length_us(timeframe)
    return instants_of(closed, zone) if zone != UTC and is_dated(timeframe) else closed


def close_time(opened_us: int, timeframe: Timeframe) -> int:
    """Return when the bar that opens at `opened_us` is complete."""
    return int(close_times(np.array([opened_us], dtype=np.int64), timeframe)[0])


def bars_between(first_us: Integers, last_us: Integers, timeframe: Timeframe) -> Integers:
    """Return how many whole bars lie between each pair of times."""
    if count := months_in(timeframe):
        return (_months_since_1970(last_us) - _months_since_1970(first_us)) // count
    return (last_us - first_us) // np.int64(length_us(timeframe))


def consecutive_open_times(first_us: int, count: int, timeframe: Timeframe) -> Integers:
    """Return the open times of `count` bars without a gap, the first at `first_us`, which is an edge for months."""
    steps = np.arange(count, dtype=np.int64)
    if months := months_in(timeframe):
        return _months_to_us(_months_since_1970(np.array([first_us], dtype=np.int64)) + steps * months)
    return first_us + steps * length_us(timeframe)


def _months_since_1970(times_us: Integers) -> Integers:
    return times_us.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64)


def _months_to_us(months: Integers) -> Integers:
    return months.astype("datetime64[M]").astype("datetime64[us]").astype(np.int64)


def spans(timestamps_us: Integers, timeframe: Timeframe) -> tuple[Integers, Integers]:
    """Return strictly increasing open times as stretches without a gap: the first of each, and its number of bars.

    A year of minutes without weekends is some fifty stretches. Months are stretches of their own.
    """
    length, begins = length_us(timeframe), [np.zeros(min(1, len(timestamps_us)), dtype=np.int64)]
    for at in range(0, len(timestamps_us), _BLOCK):
        block = timestamps_us[at : at + _BLOCK + 1]
        begins.append(np.flatnonzero(np.diff(block) != length) + (at + 1))
    first = np.concatenate(begins)
    return timestamps_us[first], np.diff(first, append=len(timestamps_us))


def open_times_of(starts_us: Integers, bars: Integers, timeframe: Timeframe) -> Integers:
    """Invert `spans`."""
    before = np.cumsum(bars) - bars
    length = length_us(timeframe)
    timestamps: Integers = np.repeat(starts_us - before * length, bars)
    timestamps += np.arange(len(timestamps), dtype=np.int64) * length
    return timestamps
