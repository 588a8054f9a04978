"""The spacing of bars: the timeframe that it shows, and whether it contradicts the one that was given."""

from __future__ import annotations

import numpy as np

from backtestr_engine.data.arrays import Integers
from backtestr_engine.data.timeframes import DAY_US, length_us, months_in, timeframe_of_us
from backtestr_protocol.errors import UnknownTimeframe
from backtestr_protocol.timeframes import COMMON_TIMEFRAMES, MONTHS, TIMEFRAME_RULE, Timeframe

_SHORTEST_MONTH_US, _LONGEST_MONTH_US = 28 * DAY_US, 31 * DAY_US
_FEW_STEPS = 2
"""So many steps can contradict a timeframe; fewer may be a weekend and a holiday."""

_MOST = 0.5
_ALIKE = 0.8


def usual_step(timestamps: Integers) -> int | None:
    """Return the most frequent step in microseconds, the shortest of equally frequent ones; None without any."""
    lengths, counts = np.unique(np.diff(timestamps), return_counts=True)
    return int(lengths[counts.argmax()]) if len(lengths) else None


def detected_timeframe(timestamps: Integers, file: str) -> Timeframe:
    """Return the timeframe that the steps between bars show: the most frequent step, or months.

    Raises `UnknownTimeframe` for bars that show none.
    """
    found = _shown(timestamps)
    if found is not None:
        return found
    usual = usual_step(timestamps)
    step = "there is only one bar" if usual is None else f"its most frequent step is {step_name(usual)}"
    raise UnknownTimeframe(
        f"the timeframe of {file} cannot be detected: {step}; name it ({TIMEFRAME_RULE})",
        path="$.timeframe",
        expected=TIMEFRAME_RULE,
    )


def check_timeframe(given: Timeframe, timestamps: Integers, file: str, *, incomplete: bool = False) -> None:
    """Raise `UnknownTimeframe` for bars that lie closer than `given`, or all of them further apart.

    Bars that are missing are no contradiction as long as some follow each other as `given` says, or there are few, or
    rows were dropped and the bars are `incomplete`.
    """
    usual, months = usual_step(timestamps), months_in(given)
    if usual is None:
        return
    if usual < (months * _SHORTEST_MONTH_US if months else length_us(given)):
        raise _contradicted(given, "finer bars", timestamps, usual, file)
    if not incomplete:
        check_not_longer(given, timestamps, file)


def check_not_longer(given: Timeframe, timestamps: Integers, file: str) -> None:
    """Raise `UnknownTimeframe` for bars that all lie further apart than `given`, at steps of another timeframe."""
    usual, shown, steps = usual_step(timestamps), _shown(timestamps), np.diff(timestamps)
    if usual is None or shown is None or shown == given or len(steps) < _FEW_STEPS:
        return
    if int(steps.min()) > length_us(given) or (months_in(shown) and not months_in(given)):
        raise _contradicted(given, "longer bars", timestamps, usual, file)


def _contradicted(given: Timeframe, relation: str, timestamps: Integers, usual: int, file: str) -> UnknownTimeframe:
    shown = _shown(timestamps)
    name = f"; name {shown}" if shown is not None else ""
    return UnknownTimeframe(
        f"{file} holds {relation} than {given}: its most frequent step is {_with_name(usual, shown)}{name}",
        path="$.timeframe",
        got=given,
        mostFrequentStepMs=usual // 1000,
    )


def step_name(step_us: int) -> str:
    """Return the timeframe of that length, or the length in the largest unit that suits it."""
    found = timeframe_of_us(step_us)
    if found in COMMON_TIMEFRAMES:
        return str(found)
    for name, length in (("days", DAY_US), ("hours", DAY_US // 24), ("minutes", DAY_US // 1440), ("seconds", 10**6)):
        if step_us % length == 0:
            return f"{step_us // length} {name}"
    return f"{step_us / 10**6:g} seconds"


def _with_name(usual: int, shown: Timeframe | None) -> str:
    """Return the most frequent step, and the months that it belongs to."""
    return f"{step_name(usual)}, those of {shown} bars" if shown is not None and months_in(shown) else step_name(usual)


def _shown(timestamps: Integers) -> Timeframe | None:
    """Return the timeframe that the steps show without doubt, None where they show none."""
    usual = usual_step(timestamps)
    if usual is None:
        return None
    if (months := _months_shown(timestamps, usual)) is not None:
        return months
    found = timeframe_of_us(usual)
    if found is None or found in COMMON_TIMEFRAMES:
        return found
    # A length that is rarely used may be an accident of bars that are missing.
    steps = np.diff(timestamps)
    is_regular = len(steps) >= _FEW_STEPS and float(np.mean(steps == usual)) > _MOST and not (steps % usual).any()
    return found if is_regular else None


def _months_shown(timestamps: Integers, usual: int) -> Timeframe | None:
    """Return the timeframe of months of bars whose steps are so many calendar months, though days differ."""
    if usual < _SHORTEST_MONTH_US:
        return None
    days = timestamps.astype("datetime64[us]").astype("datetime64[D]")
    months = days.astype("datetime64[M]")
    between, counts = np.unique(np.diff(months.astype(np.int64)), return_counts=True)
    count = int(between[counts.argmax()])
    fits = count in MONTHS and count * _SHORTEST_MONTH_US <= usual <= count * _LONGEST_MONTH_US + 2 * DAY_US
    day_of_month = (days - months.astype("datetime64[D]")).astype(np.int64)
    same_day = bool((day_of_month == day_of_month[0]).all())
    alike = float(np.mean(np.diff(timestamps) == usual))
    is_months = same_day or (alike < _ALIKE and counts.max() / counts.sum() > _MOST)
    return f"{count}M" if fits and is_months else None
