"""Times written as text: the format of one of them, and the instants of all."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
import polars as pl

_YEAR_FIRST = re.compile(
    r"\d{4}(?P<dash>[-/.]?)\d\d(?P=dash)\d\d"
    r"(?:(?P<gap>[T ])\d\d(?P<colon>:?)\d\d(?P<seconds>(?P=colon)\d\d(?:\.\d+)?)?(?P<zone>Z|[+-]\d\d:?\d\d)?)?"
)
# With dots the day comes first everywhere; with slashes the month may come first, so such times are refused.
_DAY_FIRST = re.compile(r"\d\d\.\d\d\.\d{4}(?P<clock> \d\d:\d\d(?P<seconds>:\d\d(?:\.\d+)?)?)?(?P<zone> GMT[+-]\d{4})?")
_EPOCH_UNITS: Mapping[int, str] = {10: "s", 13: "ms", 16: "us", 19: "ns"}
"""The number of digits of an integer time since the epoch, from 2001 to 2286, and its unit."""

KNOWN_FORMS = (
    "year, month, day and perhaps hour, minute, second, offset, as in 2022-01-03 09:30:00+00:00; "
    "day.month.year with or without a time; or a count since 1970"
)


class TimeFormat(msgspec.Struct, frozen=True):
    """The format of times: `pattern` is strptime's, or `epoch:ms` and the like.

    `zoned` times say by themselves which instant they are, by an offset or by counting from the epoch.
    """

    pattern: str
    zoned: bool = False


def time_format(text: str) -> TimeFormat | None:
    """Return the format of `text`, or None when it is no time of a known form."""
    if text.isascii() and text.isdigit() and len(text) in _EPOCH_UNITS:
        return TimeFormat(f"epoch:{_EPOCH_UNITS[len(text)]}", zoned=True)
    if match := _YEAR_FIRST.fullmatch(text):
        dash, colon = match["dash"], match["colon"]
        date = f"%Y{dash}%m{dash}%d"
        if match["gap"] is None:
            return TimeFormat(date)
        clock = f"%H{colon}%M" + (f"{colon}%S%.f" if match["seconds"] else "")
        zone = "" if match["zone"] is None else ("Z" if match["zone"] == "Z" else "%z")
        return TimeFormat(f"{date}{match['gap']}{clock}{zone}", zoned=bool(zone))
    if match := _DAY_FIRST.fullmatch(text):
        clock = "" if match["clock"] is None else (" %H:%M:%S%.f" if match["seconds"] else " %H:%M")
        return TimeFormat(f"%d.%m.%Y{clock}" + (" GMT%z" if match["zone"] else ""), zoned=bool(match["zone"]))
    return None


def parse_times(text: pl.Series, written: TimeFormat, time_zone: str | None) -> pl.Series:
    """Return times as datetime[us, UTC]; `time_zone` (UTC when None) is that of times that are not zoned.

    A time is null where the text does not have the format, or where the zone skips or repeats the clock time.
    """
    if written.pattern.startswith("epoch:"):
        return from_epoch(text.cast(pl.Int64, strict=False), written.pattern.removeprefix("epoch:"))
    if written.zoned:
        return text.str.to_datetime(written.pattern, time_unit="us", time_zone="UTC", strict=False)
    return in_zone(text.str.to_datetime(written.pattern, time_unit="us", strict=False), time_zone)


def from_epoch(numbers: pl.Series, unit: str) -> pl.Series:
    """Return whole numbers of `s`, `ms`, `us` or `ns` since the epoch as datetime[us, UTC]."""
    us = numbers // 1_000 if unit == "ns" else numbers * {"s": 1_000_000, "ms": 1_000}.get(unit, 1)
    return us.cast(pl.Datetime("us", "UTC"))


def in_zone(naive: pl.Series, time_zone: str | None) -> pl.Series:
    """Return clock times of a zone (UTC when None) as datetime[us, UTC], null where the zone skips or repeats them."""
    local = naive.dt.replace_time_zone(time_zone or "UTC", ambiguous="null", non_existent="null")
    return local.dt.convert_time_zone("UTC")
