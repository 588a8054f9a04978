"""Times written as text: the format of some of them, and the instants of all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import msgspec
import polars as pl

from backtestr_engine.data.arrays import Integers
from backtestr_engine.data.zones import UTC, instants_of
from backtestr_protocol.import_messages import DateOrder, TimeUnit

from .epochs import EARLIEST_US, LATEST_US, AmbiguousTimes, count_times, looks_like_row_numbers

_YEAR_FIRST = re.compile(
    r"\d{4}(?P<dash>[-/.]?)\d\d(?P=dash)\d\d"
    r"(?:(?P<gap>[T ])\d\d(?P<colon>:?)\d\d(?P<seconds>(?P=colon)\d\d(?:\.\d+)?)?(?P<zone>Z|[+-]\d\d:?\d\d)?)?"
)
# With dots the day comes first everywhere.
_DAY_FIRST = re.compile(r"\d\d\.\d\d\.\d{4}(?P<clock> \d\d:\d\d(?P<seconds>:\d\d(?:\.\d+)?)?)?(?P<zone> GMT[+-]\d{4})?")
# With slashes and dashes the month may come first.
_DAY_OR_MONTH_FIRST = re.compile(
    r"\d{1,2}(?P<dash>[-/])\d{1,2}(?P=dash)\d{4}"
    r"(?:(?P<gap>,? )\d{1,2}:\d\d(?P<seconds>:\d\d(?P<fraction>\.\d+)?)?(?P<half> ?[AaPp][Mm])?)?"
)
_NAMED_MONTHS = (
    (re.compile(r"\d{1,2}-[A-Za-z]{3}-\d{4}"), "%d-%b-%Y"),
    (re.compile(r"\d{1,2} [A-Za-z]{3} \d{4}"), "%d %b %Y"),
    (re.compile(r"[A-Za-z]{3} \d{1,2}, \d{4}"), "%b %d, %Y"),
)
_COUNT = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")
# Dates and times of digits alone, which as counts would all lie in 1970, or beyond 2029.
_DIGITS = re.compile(
    r"(?:19|20|21)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
    r"(?:(?:[01]\d|2[0-3])(?:[0-5]\d(?:[0-5]\d(?:\d{3})?)?)?)?"
)
_DIGITS_PATTERNS = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S", 17: "%Y%m%d%H%M%S%3f"}

EPOCH = "epoch"
"""The pattern of counts since 1970, in whatever unit."""

KNOWN_FORMS = (
    "year, month, day and perhaps hour, minute, second, offset, as in 2022-01-03 09:30:00+00:00; "
    "day.month.year, or day and month with slashes, with or without a time; or a count since 1970"
)


class TimeFormat(msgspec.Struct, frozen=True):
    """The format of times: `pattern` is strptime's, or `EPOCH`.

    `zoned` times say by themselves which instant they are, by an offset or by counting from the epoch. `either`: the
    pattern begins with day and month, which may be month and day.
    """

    pattern: str
    zoned: bool = False
    either: bool = False


_FRACTION = "%.f"
_DATE_OF_DIGITS = "%Y%m%d"
_LOOKED_AT = 64
"""Texts that tell whether seconds have fractions, before all are read."""


class TimeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The facts about times that a request or a file's format gives; None where the times themselves must tell.

    `zone` is the IANA zone of times without an offset (UTC when None), `unit` the unit of counts, and `named` the one
    that the column's name has. `order` is the order of day and month that was asked for, `usual` the format's own.
    """

    zone: str | None = None
    unit: TimeUnit | None = None
    named: TimeUnit | None = None
    order: DateOrder | None = None
    usual: DateOrder | None = None


class ReadTimes(msgspec.Struct, frozen=True):
    """The times of a column as datetime[us, UTC], null where there is none, the format found, and notes for a user."""

    instants: pl.Series
    written: TimeFormat
    notes: Sequence[str] = ()
    zone: str | None = None
    """The zone that was given, or that the format or the type of the times implies."""
    offsets: Integers | None = None
    """The offset that is written with each time, int64 microseconds; None where there is none or all are zero."""

    def where(self, kept: pl.Series) -> ReadTimes:
        """Return the times for which `kept`, booleans, is true."""
        offsets = None if self.offsets is None else self.offsets[kept.to_numpy()]
        return msgspec.structs.replace(self, instants=self.instants.filter(kept), offsets=offsets)


def time_format(texts: Sequence[str]) -> TimeFormat | None:
    """Return the format that most of `texts` have, the first of equally frequent ones; None when none is a time."""
    forms = [_form(text) for text in texts]
    known = Counter(form for form in forms if form is not None)
    if not known:
        return None
    [(found, _)] = known.most_common(1)
    if found.pattern != EPOCH:
        return found
    counts = [text for text, form in zip(texts, forms, strict=True) if form == found]
    widths = {len(text) for text in counts}
    if len(widths) == 1 and all(map(_DIGITS.fullmatch, counts)):
        return TimeFormat(_DIGITS_PATTERNS[widths.pop()])
    return found


def _form(text: str) -> TimeFormat | None:
    """Return the format of one text, or None when it is no time of a known form."""
    if _COUNT.fullmatch(text) and text.isascii():
        return TimeFormat(EPOCH, zoned=True)
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
    if match := _DAY_OR_MONTH_FIRST.fullmatch(text):
        return TimeFormat(_either_pattern(match), either=True)
    return next((TimeFormat(pattern) for form, pattern in _NAMED_MONTHS if form.fullmatch(text)), None)


def _either_pattern(match: re.Match[str]) -> str:
    date = f"%d{match['dash']}%m{match['dash']}%Y"
    if match["gap"] is None:
        return date
    seconds = "" if match["seconds"] is None else ":%S" + ("%.f" if match["fraction"] else "")
    half = "" if match["half"] is None else match["half"][:-2] + "%p"
    return f"{date}{match['gap']}{'%I' if half else '%H'}:%M{seconds}{half}"


def read_times(text: pl.Series, written: TimeFormat, options: TimeOptions) -> ReadTimes:
    """Return times as datetime[us, UTC], from the year 1900 up to 2200.

    A time is null where the text does not have the format, or where the zone skips or repeats the clock time. Raises
    `AmbiguousTimes` for times that can be read in two ways.
    """
    if written.pattern == EPOCH:
        return msgspec.structs.replace(_read_counts(text, written, options), zone=options.zone)
    notes: Sequence[str] = ()
    if written.either:
        written, notes = _decide_order(text, written, options)
    offsets = written_offsets(text.fill_null("")) if written.pattern.endswith("%z") else None
    return ReadTimes(within_years(_parse(text, written, options.zone)), written, notes, options.zone, offsets)


def count_notes(units: Sequence[TimeUnit]) -> Sequence[str]:
    """Return the note about counts in several units."""
    if len(units) < 2:
        return ()
    return (f"times are counts since 1970 in {' and '.join(units)}: each row was read in its own unit",)


def read_counts(counts: pl.Series, options: TimeOptions) -> ReadTimes:
    """Return the times of numbers that count from 1970. Raises `AmbiguousTimes`."""
    if options.unit is None and looks_like_row_numbers(counts):
        raise AmbiguousTimes(
            f"{counts[0]:.0f}, {counts[1]:.0f}, … are the numbers of rows, or times; say in which unit they count from "
            "1970 (--time-unit, timeUnit), or name another column `time`"
        )
    found = count_times(counts, options.unit, options.named)
    return ReadTimes(found.times, TimeFormat(EPOCH, zoned=True), count_notes(found.units))


def _read_counts(text: pl.Series, written: TimeFormat, options: TimeOptions) -> ReadTimes:
    integers = text.cast(pl.Int64, strict=False)
    if not integers.null_count():
        return read_counts(integers, options)
    floats = text.set(integers.is_not_null() | _is_rounded(text), None).cast(pl.Float64, strict=False)
    if floats.null_count() == len(floats):
        return read_counts(integers, options)
    # Whole nanoseconds that stand beside fractions lose less than half a microsecond as floats.
    return read_counts(integers.cast(pl.Float64).fill_null(floats), options)


def _is_rounded(text: pl.Series) -> pl.Series:
    """Return whether a count is written with a power of ten and fewer digits than it has: 1.70951E+12."""
    parts = text.str.extract_groups(r"^[+-]?\d\.?(?<digits>\d*)[eE]\+?(?<power>\d{1,3})$")
    digits = parts.struct.field("digits").str.len_bytes()
    return (digits < parts.struct.field("power").cast(pl.UInt32, strict=False)).fill_null(value=False)


def _decide_order(text: pl.Series, written: TimeFormat, options: TimeOptions) -> tuple[TimeFormat, Sequence[str]]:
    """Return the format with day and month in the order that all the dates together show."""
    month_first = TimeFormat(written.pattern.replace("%d", "%~").replace("%m", "%d").replace("%~", "%m"))
    day_first = TimeFormat(written.pattern)
    if options.order is not None:
        return (month_first if options.order == "mdy" else day_first), ()
    numbers = text.str.extract_groups(r"^(?<first>\d{1,2})[-/](?<second>\d{1,2})[-/]")
    first, second = (numbers.struct.field(name).cast(pl.Int8) > 12 for name in ("first", "second"))
    days_first, months_first = int(first.sum()), int(second.sum())
    if days_first or months_first:
        return (day_first if days_first >= months_first else month_first), ()
    readings = [_parse(text, one, None) for one in (day_first, month_first)]
    in_order = [_is_in_order(one) for one in readings]
    if in_order[0] != in_order[1]:
        return (day_first if in_order[0] else month_first), ()
    if options.usual is not None:
        return (month_first if options.usual == "mdy" else day_first), ()
    differs = (readings[0] != readings[1]).fill_null(value=False)
    if not differs.any():
        return day_first, ()
    at = int(differs.arg_max() or 0)
    days, months = (f"{one[at]:%Y-%m-%d}" for one in readings)
    raise AmbiguousTimes(
        f"{text[at]!r} may be {days} (day first) or {months} (month first), and no date of the file tells; say which: "
        "--date-order dmy or --date-order mdy (dateOrder)"
    )


def _is_in_order(times: pl.Series) -> bool:
    steps = times.drop_nulls().to_physical().diff()
    return bool((steps >= 0).all() or (steps <= 0).all())


def _parse(text: pl.Series, written: TimeFormat, zone: str | None) -> pl.Series:
    pattern = written.pattern
    if pattern == _DIGITS_PATTERNS[10]:  # strptime takes no hour without a minute
        text, pattern = text.str.replace(r"^(\d{10})$", "${1}00"), _DIGITS_PATTERNS[12]
    if written.zoned:
        return _to_datetime(text, pattern, UTC)
    naive = _to_datetime(text, pattern, None)
    return _localised(naive, zone) if "%H" in pattern or "%I" in pattern else begins_of_dates(naive, zone)


def _to_datetime(text: pl.Series, pattern: str, zone: str | None) -> pl.Series:
    """Return text as polars reads it with the pattern, null where it cannot.

    Whole seconds are tried first: without a fraction, polars reads a time in a sixth of the time, and whatever it reads
    so it reads alike with one. (Not where the pattern has no marks between year, month and day: there it takes a sign.)
    """
    if _FRACTION in pattern and _DATE_OF_DIGITS not in pattern:
        whole = pattern.replace(_FRACTION, "")
        for part in (text.head(_LOOKED_AT), text):
            times = _by_polars(part, whole, zone)
            if times.null_count() > part.null_count():
                break
        else:
            return times
    return _by_polars(text, pattern, zone)


def _by_polars(text: pl.Series, pattern: str, zone: str | None) -> pl.Series:
    # Without polars' cache of texts: the times of bars are all different, and those of ticks take no longer.
    return text.str.to_datetime(pattern, time_unit="us", time_zone=zone, strict=False, cache=False)


def within_years(times: pl.Series) -> pl.Series:
    """Return the times, null where they are outside the years that can be stored."""
    us = times.to_physical()
    least, most = us.min(), us.max()
    if least is None or (least >= EARLIEST_US and most < LATEST_US):  # type: ignore[operator]  # both are integers
        return times
    return times.set((us < EARLIEST_US) | (us >= LATEST_US), None)


def begins_of_dates(naive: pl.Series, time_zone: str | None) -> pl.Series:
    """Return the instants at which dates begin in a zone (UTC when None), which may skip or repeat their midnight."""
    begins = pl.Series(instants_of(naive.drop_nulls().to_physical().to_numpy(), time_zone or UTC), dtype=pl.Int64)
    found = pl.Series([None], dtype=pl.Int64).new_from_index(0, len(naive))
    rows = naive.is_not_null().arg_true()
    return found.scatter(rows, begins).cast(pl.Datetime("us", UTC))


def in_zone(naive: pl.Series, time_zone: str | None) -> pl.Series:
    """Return clock times of a zone (UTC when None) as datetime[us, UTC], from the year 1900 up to 2200.

    A time is null where the zone skips or repeats it.
    """
    return within_years(_localised(naive, time_zone))


def _localised(naive: pl.Series, time_zone: str | None) -> pl.Series:
    local = naive.dt.replace_time_zone(time_zone or "UTC", ambiguous="null", non_existent="null")
    return local.dt.convert_time_zone("UTC")


_OUTSIDE = "is outside the years 1900 to 2200"


def time_reasons(text: pl.Series, written: TimeFormat, options: TimeOptions) -> pl.Series:
    """Return why each text is no time: the zone, the years, or it is not written as the others are."""
    if written.pattern == EPOCH:
        unit = "s, ms, us or ns" if options.unit is None else options.unit
        rounded = _is_rounded(text)
        counts = text.cast(pl.Float64, strict=False).is_finite().fill_null(value=False)
        return pl.select(
            pl.when(rounded)
            .then(pl.lit("is rounded: a count with a power of ten has lost its last digits"))
            .when(counts)
            .then(pl.lit(f"{_OUTSIDE} as a count of {unit} since 1970"))
            .otherwise(pl.lit("is no time like the others (a count since 1970)"))
        ).to_series()
    at_clock = _parse(text, written, None)
    inside = within_years(at_clock).is_not_null()
    return pl.select(
        pl.when(inside)
        .then(pl.lit(f"does not exist, or exists twice, in {options.zone}"))
        .when(at_clock.is_not_null())
        .then(pl.lit(_OUTSIDE))
        .otherwise(pl.lit(f"is no time like the others ({written.pattern})"))
    ).to_series()


def written_offsets(text: pl.Series) -> Integers | None:
    """Return the offset that ends each text, such as `-05:00`, in microseconds; None where all are zero."""
    first = next(iter(text), None) or ""
    ends = text.str.tail(6 if first[-3:-2] == ":" else 5)
    found = {end: _offset_us(end) for end in ends.unique()}
    if any(offset is None for offset in found.values()):  # written in more than one way
        ends = text.str.extract(r"([+-]\d\d:?\d\d)$").fill_null("+0000")
        found = {end: _offset_us(end) for end in ends.unique()}
    if not any(found.values()):
        return None
    offsets: Integers = ends.replace_strict(found, return_dtype=pl.Int64()).to_numpy()
    return offsets


def _offset_us(end: str) -> int | None:
    digits = end[1:].replace(":", "")
    if end[:1] not in ("+", "-") or len(digits) != 4 or not digits.isdigit():
        return None
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    return (minutes if end[0] == "+" else -minutes) * 60_000_000
