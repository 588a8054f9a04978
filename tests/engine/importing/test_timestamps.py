"""Times as text: the format of some, and the instants of all."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.data.instants import instant
from backtestr_engine.importing.epochs import AmbiguousTimes
from backtestr_engine.importing.timestamps import (
    TimeFormat,
    TimeOptions,
    read_times,
    time_format,
    time_reasons,
    within_years,
)

NO_OPTIONS = TimeOptions()


def read(texts: list[str], options: TimeOptions = NO_OPTIONS) -> list[str | None]:
    """Return the instants of texts, as text."""
    written = time_format(texts)
    assert written is not None
    found = read_times(pl.Series(texts), written, options).instants
    return [None if us is None else instant(us) for us in found.to_physical()]


@pytest.mark.parametrize(
    ("text", "pattern", "zoned"),
    [
        ("2022-01-03", "%Y-%m-%d", False),
        ("20220103", "%Y%m%d", False),
        ("20220103 093000", "%Y%m%d %H%M%S%.f", False),
        ("20220103093000", "%Y%m%d%H%M%S", False),
        ("202201030930", "%Y%m%d%H%M", False),
        ("2022.01.03 09:30", "%Y.%m.%d %H:%M", False),
        ("2022-01-03T09:30:00.250Z", "%Y-%m-%dT%H:%M:%S%.fZ", True),
        ("2022/01/03 09:30:00+0200", "%Y/%m/%d %H:%M:%S%.f%z", True),
        ("03.01.2022 09:30:00.000", "%d.%m.%Y %H:%M:%S%.f", False),
        ("03.01.2022 09:30:00 GMT+0100", "%d.%m.%Y %H:%M:%S%.f GMT%z", True),
        ("04-Mar-2024", "%d-%b-%Y", False),
        ("Mar 04, 2024", "%b %d, %Y", False),
        ("1641202200", "epoch", True),
        ("1641202200.0", "epoch", True),
        ("-432000", "epoch", True),
        ("1641202200000000000", "epoch", True),
    ],
)
def test_a_known_form_is_recognised(text: str, pattern: str, zoned: bool) -> None:
    assert time_format([text]) == TimeFormat(pattern, zoned)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("3/1/2022", "%d/%m/%Y"),
        ("03-01-2022 9:30", "%d-%m-%Y %H:%M"),
        ("1/3/2022 4:00:00 PM", "%d/%m/%Y %I:%M:%S %p"),
    ],
)
def test_day_and_month_may_stand_in_either_order(text: str, pattern: str) -> None:
    assert time_format([text]) == TimeFormat(pattern, either=True)


@pytest.mark.parametrize("text", ["", "2022-01.03", "2022-01-03 9:30", "3 January", "1.2.3", "nan", "٣", "0x10"])
def test_other_text_is_no_time(text: str) -> None:
    assert time_format([text]) is None


def test_the_form_of_most_texts_is_taken() -> None:
    assert time_format(["7", "yesterday", "2022-01-03", "2022-01-04"]) == TimeFormat("%Y-%m-%d")
    assert time_format(["20220103", "164120220"]) == TimeFormat("epoch", zoned=True)


@pytest.mark.parametrize("text", ["2022-07-04 09:30:00", "1656927000", "2022-07-04T09:30:00Z"])
def test_only_a_time_without_an_offset_is_read_in_the_zone(text: str) -> None:
    written = time_format([text])
    assert written is not None
    time = read_times(pl.Series([text, "x"]), written, TimeOptions(zone="America/New_York")).instants

    assert [instant(time.to_physical()[0]), time[1]] == [f"2022-07-04T{'09' if written.zoned else '13'}:30:00Z", None]


@pytest.mark.parametrize(
    ("texts", "first"),
    [
        (["03/14/2024", "03/15/2024"], "2024-03-14"),
        (["14/03/2024", "15/03/2024"], "2024-03-14"),
        (["14-03-2024 16:00", "15-03-2024 16:00"], "2024-03-14T16:00:00Z"),
        (["3/14/2024 4:00 PM", "3/15/2024 4:00 PM"], "2024-03-14T16:00:00Z"),
        # One order alone has them in order of time.
        (["01/02/2024", "05/02/2024", "02/03/2024"], "2024-02-01"),
        (["02/01/2024", "02/05/2024", "03/02/2024"], "2024-02-01"),
        # Both orders say the same.
        (["03/03/2024", "04/04/2024"], "2024-03-03"),
    ],
)
def test_the_order_of_day_and_month_is_told_from_all_dates(texts: list[str], first: str) -> None:
    assert read(texts)[0] == first
    assert read(texts[::-1])[-1] == first


def test_dates_that_nothing_decides_are_refused_with_both_readings() -> None:
    texts = ["03/04/2024", "03/05/2024", "03/06/2024"]
    with pytest.raises(AmbiguousTimes, match=r"2024-04-03 .day first. or 2024-03-04 .month first.*--date-order"):
        read(texts)
    assert read(texts, TimeOptions(order="mdy"))[0] == "2024-03-04"
    assert read(texts, TimeOptions(order="dmy"))[0] == "2024-04-03"
    assert read(texts, TimeOptions(usual="mdy"))[0] == "2024-03-04"
    # The dates themselves are stronger than what a format usually has.
    assert read(["13/04/2024", "14/04/2024"], TimeOptions(usual="mdy"))[0] == "2024-04-13"


@given(
    start=st.dates(date(1900, 1, 1), date(2199, 1, 1)),
    days=st.lists(st.integers(1, 40), min_size=1, max_size=40),
    month_first=st.booleans(),
    backwards=st.booleans(),
)
def test_dates_with_slashes_are_read_right_or_refused(
    start: date, days: list[int], month_first: bool, backwards: bool
) -> None:
    dates = [start]
    for step in days:
        dates.append(dates[-1] + timedelta(days=step))
    dates = [one for one in dates if one < date(2200, 1, 1)]
    dates = dates[::-1] if backwards else dates
    texts = [one.strftime("%m/%d/%Y" if month_first else "%d/%m/%Y").rjust(10, "0") for one in dates]
    texts = [text[:-4] + f"{one.year:04}" for text, one in zip(texts, dates, strict=True)]
    try:
        found = read(texts)
    except AmbiguousTimes:
        assert all(one.day <= 12 for one in dates)
        return
    assert found == [one.isoformat() for one in dates]


@pytest.mark.parametrize("text", ["0001-01-01", "1899-12-31", "2200-01-01", "9999-12-31 00:00:00"])
def test_years_that_cannot_be_stored_are_no_times(text: str) -> None:
    written = time_format([text])
    assert written is not None
    assert read([text]) == [None]
    assert time_reasons(pl.Series([text]), written, NO_OPTIONS).to_list() == ["is outside the years 1900 to 2200"]


def test_the_years_at_the_bounds_can_be_stored() -> None:
    assert read(["1900-01-01", "2199-12-31"]) == ["1900-01-01", "2199-12-31"]


def test_rounded_counts_are_refused_with_the_reason() -> None:
    texts = ["1.70951E+12", "1.709510400000000000e+09", "99999999999999999999", "soon"]
    written = TimeFormat("epoch", zoned=True)
    found = read_times(pl.Series(texts), written, NO_OPTIONS).instants

    assert found.to_list() == [None, datetime(2024, 3, 4, tzinfo=UTC), None, None]
    assert time_reasons(pl.Series(texts).gather([0, 2, 3]), written, NO_OPTIONS).to_list() == [
        "is rounded: a count with a power of ten has lost its last digits",
        "is outside the years 1900 to 2200 as a count of s, ms, us or ns since 1970",
        "is no time like the others (a count since 1970)",
    ]


PATTERNS_WITH_FRACTIONS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y.%m.%dT%H:%M:%S%.f",
    "%Y/%m/%d %H%M%S%.f",
    "%Y%m%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.fZ",
    "%Y-%m-%d %H:%M:%S%.f%z",
    "%d.%m.%Y %H:%M:%S%.f",
    "%d.%m.%Y %H:%M:%S%.f GMT%z",
    "%d-%m-%Y, %H:%M:%S%.f",
    "%d/%m/%Y %I:%M:%S%.f %p",
)


@given(
    pattern=st.sampled_from(PATTERNS_WITH_FRACTIONS),
    times=st.lists(st.datetimes(), min_size=1, max_size=80),
    fraction=st.sampled_from(["", "", ".", ".5", ".123456789"]),
    damage=st.lists(st.tuples(st.integers(0, 79), st.integers(0, 25), st.sampled_from("0139-+:. TZpm")), max_size=3),
)
def test_whole_seconds_are_read_as_any(
    pattern: str, times: list[datetime], fraction: str, damage: list[tuple[int, int, str]]
) -> None:
    python = pattern.replace("%Y", "YYYY").replace("%.f", "FFFF").replace("%z", "+01:30")
    texts = []
    for time in times:
        year = f"{time.year:04d}"
        written = time.replace(year=2000).strftime(python)
        texts.append(written.replace("YYYY", year).replace("FFFF", fraction))
    for row, at, character in damage:
        if row < len(texts):
            texts[row] = texts[row][:at] + character + texts[row][at + 1 :]
    zone = "UTC" if pattern.endswith(("Z", "%z")) else None
    text = pl.Series(texts)
    expected = text.str.to_datetime(pattern, time_unit="us", time_zone=zone, strict=False)
    found = read_times(text, TimeFormat(pattern, zoned=zone is not None), TimeOptions()).instants
    assert found.equals(within_years(expected.dt.replace_time_zone("UTC")), null_equal=True)
