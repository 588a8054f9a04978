"""Times written as counts since 1970: the unit of each, told from the file as a whole.

A count belongs to a year from 1900 up to 2200 in one unit, except near zero: 631152000 is 1990 as seconds and a week
after 1970 as milliseconds. The coarsest unit that stays within those years is therefore right for every time that is
not within 84 days of 1970-01-01, also where the unit changes inside a file. For counts near zero, and in a file with
times of the two years around 1970, the order of the rows, the step between them and the name of the column decide;
where these contradict each other the file is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import polars as pl

from backtestr_engine.data.arrays import Booleans, Integers
from backtestr_engine.data.instants import instant
from backtestr_protocol.import_messages import TimeUnit
from backtestr_protocol.ranges import EARLIEST_MS, LATEST_MS

UNITS: Sequence[TimeUnit] = ("s", "ms", "us", "ns")
"""Coarsest first, each a thousandth of the one before."""

EARLIEST_US, LATEST_US = EARLIEST_MS * 1000, LATEST_MS * 1000
"""Times are from the first of these up to, and not including, the second."""

_SECOND_US = 1_000_000
_DAY_US = 86_400 * _SECOND_US
_EARLIEST_S, _LATEST_S = EARLIEST_MS // 1000, LATEST_MS // 1000

# Steps of files of bars, from a second to a year. No two of them differ by a factor of a thousand.
_STEPS_US = frozenset(
    (
        *(seconds * _SECOND_US for seconds in (1, 2, 3, 5, 10, 15, 20, 30)),
        *(minutes * 60 * _SECOND_US for minutes in (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 45, 90)),
        *(hours * 3600 * _SECOND_US for hours in (1, 2, 3, 4, 6, 8, 12)),
        *(days * _DAY_US for days in (1, 7, 14, 28, 29, 30, 31, 90, 91, 92, 365, 366)),
    )
)
# Bars beyond a month are of a quarter or a year.
_LONGEST_STEP_US = 31 * _DAY_US
# Rows whose steps are looked at: enough to see the usual one, and few beside a million.
_ROWS_LOOKED_AT = 10_000
# A file that begins this near to 1970-01-01, or ends after the year 2100, has probably been read in a wrong unit.
_NEAR_1970_US = 366 * _DAY_US
_YEAR_2100_US = (datetime(2100, 1, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


class AmbiguousTimes(Exception):
    """The times of a file can be read in two ways. The text names both, and the option that decides."""


class CountedTimes(msgspec.Struct, frozen=True):
    """The times of counts, datetime[us, UTC], null where a count is no time in any unit, and the units in use."""

    times: pl.Series
    units: Sequence[TimeUnit]


def count_times(counts: pl.Series, unit: TimeUnit | None = None, named: TimeUnit | None = None) -> CountedTimes:
    """Return the times of `counts` (Int64 or Float64, null where there is none) since 1970-01-01 UTC.

    `unit` is the unit of all counts; without it each count has the unit that fits. `named` is the unit that the name of
    the column has. Raises `AmbiguousTimes` where two readings are equally good.
    """
    known = counts.is_not_null() & counts.is_finite() if counts.dtype.is_float() else counts.is_not_null()
    values = counts.set(~known, 0).to_numpy()
    coarsest = _coarsest(values)
    known &= pl.Series(coarsest < len(UNITS))
    present = known.to_numpy()
    if not present.any():
        return CountedTimes(pl.repeat(None, len(counts), dtype=pl.Datetime("us", "UTC"), eager=True), ())
    if unit is not None:
        level = UNITS.index(unit)
        present = present & (coarsest <= level)
        levels = np.full(len(values), level)
    else:
        levels = _levels(values[present], coarsest[present], named)
        levels = _spread(levels, present)
    times = _convert(values, levels)
    in_use = tuple(one for level, one in enumerate(UNITS) if (levels[present] == level).any())
    series = pl.Series(times).set(pl.Series(~present), None).cast(pl.Datetime("us", "UTC"))
    return CountedTimes(series, in_use)


def _spread(levels: Integers, present: Booleans) -> Integers:
    if present.all():
        return levels
    spread = np.zeros(len(present), dtype=levels.dtype)
    spread[present] = levels
    return spread


def _coarsest(values: np.ndarray) -> Integers:
    """Return for each value the first of `UNITS` in which it is a time from 1900 up to 2200; 4 for none."""
    levels = np.zeros(len(values), dtype=np.int64)
    for factor in (1, 1_000, 1_000_000, 1_000_000_000):
        levels += (values >= _LATEST_S * factor) | (values < _EARLIEST_S * factor)
    return levels


def _convert(values: np.ndarray, levels: Integers) -> Integers:
    """Return microseconds; `levels` are indexes of `UNITS`. What is finer than a microsecond is cut off."""
    first = int(levels[0]) if len(levels) else 0
    if (levels == first).all():
        return _in_unit(values, first)
    times = np.zeros(len(values), dtype=np.int64)
    for level in range(len(UNITS)):
        rows = levels == level
        times[rows] = _in_unit(values[rows], level)
    return times


def _in_unit(values: np.ndarray, level: int) -> Integers:
    factor = (1_000_000, 1_000, 1, 1)[level]
    if values.dtype.kind == "f":
        # Rounded: half a microsecond is less than what float64 keeps of a time in seconds or nanoseconds.
        us = np.rint(values * factor if level < 3 else values / 1_000)
        return np.where(np.abs(us) < 2.0**62, us, 0).astype(np.int64)
    return values * factor if level < 3 else values // 1_000


def _levels(values: np.ndarray, coarsest: Integers, named: TimeUnit | None) -> Integers:
    """Return the unit of each value, as an index of `UNITS`."""
    through, wholly = _readings(values, coarsest)
    best = min(through, key=lambda one: _disorder(_convert(values, one))) if len(through) > 1 else through[0]
    if named is not None and UNITS.index(named) >= int(coarsest.max()):
        return _by_name(values, best, named)
    if _is_usual(values, best):
        return best
    finer = [one for one in wholly if _is_usual(values, one)]
    doubtful = bool(wholly) and _is_doubtful(_convert(values, best))
    if finer and (doubtful or (_step(values, best) or 0) > _LONGEST_STEP_US):
        return finer[0]
    if finer or doubtful:
        raise _ambiguous(values, best, (finer or wholly)[0])
    return best


def _readings(values: np.ndarray, coarsest: Integers) -> tuple[list[Integers], list[Integers]]:
    """Return the units in which the values may be, the coarsest first, and those that leave no value in its coarsest.

    A file of milliseconds that passes through 1970 has counts near zero, which alone would be seconds. So each further
    reading has no count in a coarser unit than a bound. One that changes some counts must change them to times beside
    those that it leaves.
    """
    through, wholly = [coarsest], []
    for bound in range(int(coarsest.min()) + 1, len(UNITS)):
        levels = np.maximum(coarsest, bound)
        changed = levels != coarsest
        edges = np.flatnonzero(changed[1:] != changed[:-1])
        if changed.all():
            wholly.append(levels)
        elif (np.abs(_convert(values, levels)[edges + 1] - _convert(values, levels)[edges]) <= _NEAR_1970_US).all():
            through.append(levels)
    return through, wholly


def _by_name(values: np.ndarray, best: Integers, named: TimeUnit) -> Integers:
    """Return the unit that the column's name has, unless the rows contradict it."""
    levels = np.full(len(values), UNITS.index(named))
    if (best == levels).all() or _disorder(_convert(values, levels)) > _disorder(_convert(values, best)):
        return best
    if _is_usual(values, best) and not _is_usual(values, levels):
        raise _ambiguous(values, best, levels, f"; the column's name says {named}")
    return levels


def _disorder(times: Integers) -> int:
    """Return how many steps lead the other way than most: 0 for oldest first, and for newest first."""
    steps = np.diff(times)
    return int(min(np.count_nonzero(steps < 0), np.count_nonzero(steps > 0)))


def _step(values: np.ndarray, levels: Integers) -> int | None:
    """Return the length that at least half of the first steps have, in microseconds; None where there is none."""
    steps = np.abs(np.diff(_convert(values[:_ROWS_LOOKED_AT], levels[:_ROWS_LOOKED_AT])))
    lengths, counts = np.unique(steps[steps > 0], return_counts=True)
    if not len(lengths):
        return None
    most = counts.argmax()
    return int(lengths[most]) if 2 * int(counts[most]) >= int(counts.sum()) else None


def _is_usual(values: np.ndarray, levels: Integers) -> bool:
    """Return whether the step is one of bars."""
    return _step(values, levels) in _STEPS_US


def _is_doubtful(times: Integers) -> bool:
    return bool(abs(int(times.min())) < _NEAR_1970_US or int(times.max()) >= _YEAR_2100_US)


def _ambiguous(values: np.ndarray, levels: Integers, other: Integers, more: str = "") -> AmbiguousTimes:
    """Return the error that names both readings of the first value that they read differently."""
    at = int(np.flatnonzero(levels != other)[0])
    units = (int(levels[at]), int(other[at]))
    first, second = (f"{UNITS[level]} ({instant(int(_in_unit(values[at : at + 1], level)[0]))})" for level in units)
    return AmbiguousTimes(
        f"{values[at]:.15g} may be a count of {first} or of {second} since 1970{more}; say which it is: "
        f"--time-unit {UNITS[units[0]]} or --time-unit {UNITS[units[1]]} (timeUnit)"
    )


def looks_like_row_numbers(counts: pl.Series) -> bool:
    """Return whether the counts are 0, 1, 2 and so on, or begin with 1."""
    if len(counts) < 2 or counts.null_count() or counts[0] not in (0, 1):
        return False
    values = counts.to_numpy()
    return bool((np.diff(values) == 1).all())
