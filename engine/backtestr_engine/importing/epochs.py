"""Times written as counts since 1970: the unit of each, told from the file as a whole.

A count belongs to a year from 1900 up to 2200 in one unit, except near zero: 631152000 is 1990 as seconds and a week
after 1970 as milliseconds. The coarsest unit that stays within those years is therefore right for every time that is
not within 84 days of 1970-01-01, also where the unit changes inside a file. For counts near zero the order of the rows,
the step between them and the name of the column decide; where these contradict each other, or the order alone would
have to tell a change of the unit from a long gap beside 1970, the file is refused.
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


class _Readings(msgspec.Struct, frozen=True):
    """The units in which the values may be; the coarsest come first in every list.

    The first of `through` has every value in its coarsest unit. The other ones, and those that are `unsure`, leave some
    values in a coarser unit than their neighbours would have them; `wholly` leave no value in its coarsest.
    """

    through: list[Integers]
    unsure: list[Integers]
    wholly: list[Integers]


def _levels(values: np.ndarray, coarsest: Integers, named: TimeUnit | None) -> Integers:
    """Return the unit of each value, as an index of `UNITS`."""
    readings = _readings(values, coarsest)
    through, wholly = readings.through, readings.wholly
    best = min(through, key=lambda one: _disorder(_convert(values, one))) if len(through) > 1 else through[0]
    if named is not None and UNITS.index(named) >= int(coarsest.max()):
        return _by_name(values, best, named)
    is_usual = _is_usual(values, best)
    if rivals := [one for one in readings.unsure if _rivals(values, best, one)]:
        if not is_usual:
            raise _mixed(values, best, rivals[0])
        if usual := [one for one in rivals if _is_usual(values, one)]:
            raise _mixed(values, best, usual[0])
    if is_usual:
        return best
    finer = [one for one in wholly if _is_usual(values, one)]
    doubtful = bool(wholly) and _is_doubtful(_convert(values, best))
    if finer and (doubtful or (_step(values, best) or 0) > _LONGEST_STEP_US):
        return finer[0]
    if finer or doubtful:
        raise _ambiguous(values, best, (finer or wholly)[0])
    return best


def _readings(values: np.ndarray, coarsest: Integers) -> _Readings:
    """Return the units in which the values may be.

    A file of milliseconds that passes through 1970 has counts near zero, which alone would be seconds. So each further
    reading has no count in a coarser unit than a bound. One that changes some counts must change them to times beside
    those that it leaves. Rows of 1968 in milliseconds have such neighbours, too, where rows in seconds follow: read as
    milliseconds, these are of the end of 1969. More than a month between the two kinds is therefore no evidence unless
    the steps say that it is a gap between bars.
    """
    readings = _Readings([coarsest], [], [])
    for bound in range(int(coarsest.min()) + 1, len(UNITS)):
        levels = np.maximum(coarsest, bound)
        changed = levels != coarsest
        if changed.all():
            readings.wholly.append(levels)
            continue
        steps = np.abs(np.diff(_convert(values, levels)))
        longest = int(steps[changed[1:] != changed[:-1]].max(initial=0))
        among_changed = steps[changed[1:] & changed[:-1]]
        if longest <= _LONGEST_STEP_US or (longest <= _NEAR_1970_US and _are_of_bars(steps, among_changed)):
            readings.through.append(levels)
        elif longest <= _NEAR_1970_US:
            readings.unsure.append(levels)
    return readings


def _are_of_bars(steps: Integers, among_changed: Integers) -> bool:
    """Return whether a reading has the steps of bars, so that its longest ones are gaps or bars of a quarter or year.

    Either the counts that it changes have the usual step of bars among them, which is then none in their coarsest unit;
    or every step is one of bars; or three steps or more are about equally long, as those of years are.
    """
    if len(among_changed) >= 2 and _most(among_changed) in _STEPS_US:
        return True
    if len(steps) >= 3 and 8 * int(steps.max()) <= 9 * int(steps.min()):
        return True
    return bool(np.isin(steps, list(_STEPS_US)).all())


def _rivals(values: np.ndarray, best: Integers, other: Integers) -> bool:
    """Return whether `other`, with a long gap in it, has the rows in a better order than `best`, and may be right.

    Where all times of `best` are a year away from 1970, and no two neighbouring counts are a multiple of a thousand
    apart, as bars in a finer unit would be, `best` is right.
    """
    times = _convert(values, best)
    if _disorder(_convert(values, other)) >= _disorder(times):
        return False
    return int(np.abs(times).min()) < _NEAR_1970_US or bool((np.diff(values) % 1_000 == 0).any())


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
    return _most(np.abs(np.diff(_convert(values[:_ROWS_LOOKED_AT], levels[:_ROWS_LOOKED_AT]))))


def _most(steps: Integers) -> int | None:
    """Return the length that at least half of the first of these steps have, those of length 0 left out."""
    looked_at = steps[:_ROWS_LOOKED_AT]
    lengths, counts = np.unique(looked_at[looked_at > 0], return_counts=True)
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
    first, second = _reading(values, levels, at), _reading(values, other, at)
    return AmbiguousTimes(
        f"{values[at]:.15g} may be a count of {first} or of {second} since 1970{more}; say which it is: "
        f"--time-unit {UNITS[units[0]]} or --time-unit {UNITS[units[1]]} (timeUnit)"
    )


def _mixed(values: np.ndarray, levels: Integers, other: Integers) -> AmbiguousTimes:
    """Return the error that names both readings of the first value that only `levels` have in a unit of its own."""
    at = int(np.flatnonzero(levels != other)[0])
    mixed, common = _reading(values, levels, at), _reading(values, other, at)
    unit = UNITS[int(other[at])]
    return AmbiguousTimes(
        f"{values[at]:.15g} may be a count of {mixed} or of {common} since 1970: other rows are in {unit}, and in the "
        f"order of the rows both are possible; if all are in {unit}, say --time-unit {unit} (timeUnit); if the unit "
        "changes, write all times in one unit"
    )


def _reading(values: np.ndarray, levels: Integers, at: int) -> str:
    level = int(levels[at])
    return f"{UNITS[level]} ({instant(int(_in_unit(values[at : at + 1], level)[0]))})"


def looks_like_row_numbers(counts: pl.Series) -> bool:
    """Return whether the counts are 0, 1, 2 and so on, or begin with 1."""
    if len(counts) < 2 or counts.null_count() or counts[0] not in (0, 1):
        return False
    values = counts.to_numpy()
    return bool((np.diff(values) == 1).all())
