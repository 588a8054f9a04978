"""The dates of bars of a day and longer, and the zone whose dates shorter bars belong to.

A daily bar belongs to the date that its exchange gives it, however its time is written: `2024-01-08`, midnight of a
zone with its offset, or that instant in UTC, which may be the evening before.
"""

from __future__ import annotations

import numpy as np

from backtestr_engine.data.arrays import Integers
from backtestr_engine.data.timeframes import DAY_US, HOUR_US, months_in
from backtestr_engine.data.zones import UTC, clock_times, zone_names
from backtestr_protocol.timeframes import Timeframe

from .rows import Rows

_LATEST_MORNING_US = 11 * HOUR_US
"""No midnight of a zone is earlier in UTC, so that an evening before can be told from an opening of the day itself."""

_SAMPLED_TIMES = 64
_USUAL_ZONES = (
    *("America/New_York", "Europe/London", "Europe/Berlin", "America/Chicago", "Europe/Athens", "Australia/Sydney"),
    *("America/Toronto", "America/Sao_Paulo", "Asia/Tokyo", "Asia/Hong_Kong", "Asia/Shanghai", "Asia/Singapore"),
    *("Asia/Kolkata", "Asia/Seoul", "Europe/Moscow", "Europe/Istanbul", "Africa/Johannesburg", "Asia/Dubai"),
    "Pacific/Auckland",
)
_AREAS = (
    *(
        "Africa",
        "America",
        "Antarctica",
        "Arctic",
        "Asia",
        "Atlantic",
        "Australia",
        "Europe",
        "Indian",
        "Pacific",
        "Etc",
    ),
)
_THURSDAY, _FRIDAY, _SUNDAY = 3, 4, 6  # 1970-01-01 was a Thursday; Monday is 0


def dates_of(clock: Integers, timeframe: Timeframe) -> tuple[Integers, int]:
    """Return the date of each bar of a day or longer, and the number of those that are the day after their clock's.

    `clock` is the time of each bar as its market's clock shows it. The date is that of the clock, but a bar that opens
    in the evening before its day, as bars of currencies do and midnights east of Greenwich written in UTC, belongs to
    the next: where the bars of one time of the day have Sundays and no Fridays, and where those of months all open on
    the last day of one. Dates are int64 microseconds, midnight in UTC.
    """
    dates = clock // DAY_US * DAY_US
    times = clock - dates
    moved = np.zeros(len(dates), dtype=np.bool_)
    for time in np.unique(times):
        if time >= _LATEST_MORNING_US:
            rows = times == time
            if _are_evenings(dates[rows] // DAY_US, timeframe):
                moved |= rows
    shifted = dates + np.where(moved, DAY_US, 0)
    if (np.diff(shifted) <= 0).any():  # it is not what was thought
        return dates, 0
    return shifted, int(np.count_nonzero(moved))


def _are_evenings(days: Integers, timeframe: Timeframe) -> bool:
    """Return whether bars that open late on these days, counted from 1970, belong to the days after them."""
    if months_in(timeframe):
        next_days = (days + 1).astype("datetime64[D]")
        return bool((next_days == next_days.astype("datetime64[M]").astype("datetime64[D]")).all())
    weekdays = (days + _THURSDAY) % 7
    return bool((weekdays == _SUNDAY).any() and not (weekdays == _FRIDAY).any())


def market_clock(rows: Rows) -> Integers:
    """Return the times of bars as the market's clock shows them: as they are written, or else in the zone of the rows.

    Instants that are all midnights in UTC are dates already.
    """
    timestamps = rows.timestamps
    if rows.offsets is not None:
        return timestamps + rows.offsets
    if rows.zone is None or (rows.zoned and not (timestamps % DAY_US).any()):
        return timestamps
    return clock_times(timestamps, rows.zone)


def market_zone(rows: Rows) -> str | None:
    """Return the zone whose dates bars belong to that are shorter than a day; None where no zone has their offsets."""
    if rows.zone is not None:
        return rows.zone
    return UTC if rows.offsets is None else zone_of_offsets(rows.timestamps, rows.offsets)


def zone_of_offsets(timestamps: Integers, offsets: Integers) -> str | None:
    """Return a zone that has these offsets at these times, UTC where they are zero, None where no zone has them.

    Zones of large exchanges come first: many zones have had the same offsets for years.
    """
    rows = _telling_rows(offsets)
    at, wanted = timestamps[rows], offsets[rows]
    if not wanted.any():
        return UTC
    fixed = wanted[0] // HOUR_US
    names: list[str] = [*_USUAL_ZONES]
    if (wanted == fixed * HOUR_US).all():
        names.append(f"Etc/GMT{'-' if fixed > 0 else '+'}{abs(fixed)}")
    known = {name for name in zone_names() if name.partition("/")[0] in _AREAS}
    others = sorted(known - set(names))
    return next((name for name in (*names, *others) if name in known and _has(name, at, wanted)), None)


def _telling_rows(offsets: Integers) -> Integers:
    """Return the rows on both sides of each change of the offset, the outermost ones, and some between."""
    changes = np.flatnonzero(np.diff(offsets))[:_SAMPLED_TIMES]
    between = np.linspace(0, len(offsets) - 1, _SAMPLED_TIMES).astype(np.int64)
    return np.unique(np.concatenate((changes, changes + 1, between)))


def _has(zone: str, at: Integers, offsets: Integers) -> bool:
    return bool((clock_times(at, zone) - at == offsets).all())
