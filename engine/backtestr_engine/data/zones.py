"""Time zones: the clock time that an instant has in a zone, and the instant at which a date begins there.

A clock time is microseconds, as an instant is, that would be that date and time in UTC.
"""

from __future__ import annotations

from functools import lru_cache
from zoneinfo import available_timezones

import polars as pl

from .arrays import Integers

UTC = "UTC"
_HOUR_US = 3_600_000_000


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """Return the IANA names of all zones that this machine knows."""
    return frozenset(available_timezones())


def clock_times(instants: Integers, zone: str) -> Integers:
    """Return the clock time in `zone`, an IANA name, of each instant (int64 microseconds UTC)."""
    if zone == UTC or not len(instants):
        return instants
    times = pl.Series(instants).cast(pl.Datetime("us", UTC)).dt.convert_time_zone(zone)
    found: Integers = times.dt.replace_time_zone(None).to_physical().to_numpy()
    return found


def instants_of(clock: Integers, zone: str) -> Integers:
    """Return the instant at which each clock time comes in `zone`: the first of two, or when the clock skips it.

    A day that begins with a skipped hour begins at the instant of the skip.
    """
    if zone == UTC or not len(clock):
        return clock
    naive = pl.Series(clock).cast(pl.Datetime("us"))
    found = _in_zone(naive, zone).to_physical()
    if found.null_count():
        # Midnight is skipped in a few zones only, always by an hour: 1:00 is then the instant of the skip.
        later = _in_zone((naive.to_physical() + _HOUR_US).cast(pl.Datetime("us")), zone).to_physical()
        found = found.fill_null(later)
    instants: Integers = found.to_numpy()
    return instants


def _in_zone(naive: pl.Series, zone: str) -> pl.Series:
    return naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
