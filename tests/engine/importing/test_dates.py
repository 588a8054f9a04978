"""The dates of daily bars do not depend on how their times are written, and shorter bars keep their instants."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.data.bars import Bars, resample
from backtestr_engine.data.instants import instant
from backtestr_engine.importing.dates import zone_of_offsets
from backtestr_protocol.errors import DataError
from support.engine.reading import read_bars

ZONES = (
    *("America/New_York", "America/Los_Angeles", "America/Sao_Paulo", "Europe/London", "Europe/Berlin", "Asia/Kolkata"),
    *("Asia/Tokyo", "Asia/Hong_Kong", "Australia/Sydney", "Pacific/Auckland", "UTC", "Africa/Cairo"),
)
DAYS = [day for day in (date(2023, 9, 4) + timedelta(number) for number in range(300)) if day.weekday() < 5]


def midnight(day: date, zone: str) -> datetime:
    """Return the instant at which the day begins in a zone; where it has no midnight, that of the skip."""
    begin = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    return begin.astimezone(ZoneInfo("UTC")).astimezone(ZoneInfo(zone))


def rows(texts: list[str]) -> str:
    lines = [f"{text},{10 + number},{12 + number},{9 + number},{11 + number},100" for number, text in enumerate(texts)]
    return "time,open,high,low,close,volume\n" + "\n".join(lines) + "\n"


def importing(folder: Path, texts: list[str], timeframe: str | None = None, **options: Any) -> Bars:
    path = folder / "bars.csv"
    path.write_text(rows(texts))
    return read_bars(path, "X", timeframe, **options).bars


def dates(bars: Bars) -> list[str]:
    return [instant(int(one)) for one in bars.timestamp]


def naive(days: list[date]) -> list[str]:
    return [day.isoformat() for day in days]


WRITTEN: dict[str, Callable[[datetime], str]] = {
    "with its offset": lambda moment: moment.isoformat(sep=" "),
    "in UTC": lambda moment: moment.astimezone(ZoneInfo("UTC")).isoformat(),
    "with Z": lambda moment: moment.astimezone(ZoneInfo("UTC")).strftime("%Y-%m-%dT%H:%M:%SZ"),
    "as a count": lambda moment: str(int(moment.timestamp())),
}


@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("given_zone", [True, False])
def test_midnights_of_a_zone_are_the_dates_that_they_begin(
    form: str, zone: str, given_zone: bool, tmp_path: Path
) -> None:
    texts = [WRITTEN[form](midnight(day, zone)) for day in DAYS]
    bars = importing(tmp_path, texts, **({"time_zone": zone} if given_zone else {}))
    assert bars.timeframe == "1d"
    assert dates(bars) == naive(DAYS)
    plain = importing(tmp_path, naive(DAYS))
    for longer in ("1w", "1M"):
        assert resample(bars, longer).to_frame().equals(resample(plain, longer).to_frame())


@pytest.mark.parametrize("zone", ZONES)
def test_naive_dates_with_a_zone_stay_dates(zone: str, tmp_path: Path) -> None:
    assert dates(importing(tmp_path, naive(DAYS), time_zone=zone)) == naive(DAYS)


def test_a_date_whose_midnight_the_zone_skips_is_a_date(tmp_path: Path) -> None:
    days = [day for day in (date(2024, 4, 20) + timedelta(number) for number in range(12)) if day.weekday() != 5]
    assert date(2024, 4, 26) in days  # Cairo goes from 23:59 to 1:00
    assert dates(importing(tmp_path, naive(days), time_zone="Africa/Cairo")) == naive(days)
    prices = {name: [1.0] * len(days) for name in ("open", "high", "low", "close")}
    pl.DataFrame({"date": days, **prices}).write_parquet(tmp_path / "bars.parquet")
    assert dates(read_bars(tmp_path / "bars.parquet", "X", time_zone="Africa/Cairo").bars) == naive(days)


def test_midnights_in_utc_are_dates_whatever_zone_is_named(tmp_path: Path) -> None:
    texts = [f"{day}T00:00:00Z" for day in naive(DAYS)]
    assert dates(importing(tmp_path, texts, time_zone="America/New_York")) == naive(DAYS)


@pytest.mark.parametrize("clock", ["17:00:00-05:00", "22:00:00+00:00", "21:00:00"])
def test_days_of_currencies_begin_on_the_evening_before(clock: str, tmp_path: Path) -> None:
    texts = [f"{day - timedelta(1)} {clock}" for day in DAYS]
    read = read_with_warnings(tmp_path, texts)
    assert dates(read[0]) == naive(DAYS)
    assert any("open in the evening before their date" in warning for warning in read[1])


def read_with_warnings(folder: Path, texts: list[str]) -> tuple[Bars, list[str]]:
    (folder / "bars.csv").write_text(rows(texts))
    read = read_bars(folder / "bars.csv", "X")
    return read.bars, read.warnings


@pytest.mark.parametrize("clock", ["14:30:00Z", "09:30:00-05:00", "16:00:00", "23:59:59"])
def test_times_within_the_day_are_of_that_day(clock: str, tmp_path: Path) -> None:
    assert dates(importing(tmp_path, [f"{day}T{clock}" for day in DAYS])) == naive(DAYS)


def test_a_market_that_never_rests_keeps_the_dates_of_its_clock(tmp_path: Path) -> None:
    days = [date(2024, 1, 1) + timedelta(number) for number in range(30)]
    assert dates(importing(tmp_path, [f"{day}T23:00:00Z" for day in days])) == naive(days)


def test_weeks_from_sunday_to_thursday_stay_so(tmp_path: Path) -> None:
    days = [
        day for day in (date(2024, 1, 7) + timedelta(number) for number in range(30)) if day.weekday() in (6, *range(4))
    ]
    for clock in ("", "T00:00:00Z", "T10:00:00+03:00"):
        assert dates(importing(tmp_path, [f"{day}{clock}" for day in days])) == naive(days)


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "Asia/Tokyo"])
def test_months_have_the_date_on_which_they_begin(zone: str, tmp_path: Path) -> None:
    months = [date(2023 + number // 12, number % 12 + 1, 1) for number in range(18)]
    texts = [midnight(day, zone).astimezone(ZoneInfo("UTC")).isoformat() for day in months]
    bars = importing(tmp_path, texts)
    assert (bars.timeframe, dates(bars)) == ("1M", naive(months))


def test_two_bars_of_one_date_are_refused(tmp_path: Path) -> None:
    texts = ["2024-01-01 00:00", "2024-01-02 00:00", "2024-01-03 00:00", "2024-01-03 23:30", "2024-01-05 00:00"]
    with pytest.raises(DataError, match="has two bars of one date, 2024-01-03: 1d bars have a date each"):
        importing(tmp_path, texts, "1d")


def test_a_typed_column_has_the_dates_of_its_zone(tmp_path: Path) -> None:
    times = pl.Series("time", [midnight(day, "Europe/Berlin") for day in DAYS]).dt.convert_time_zone("Europe/Berlin")
    prices = {name: [1.0] * len(DAYS) for name in ("open", "high", "low", "close")}
    pl.DataFrame({"time": times, **prices}).write_parquet(tmp_path / "bars.parquet")
    assert dates(read_bars(tmp_path / "bars.parquet", "X").bars) == naive(DAYS)


# --- shorter bars ---


def hours(zone: str, count: int) -> list[datetime]:
    begin = datetime(2024, 3, 1, tzinfo=ZoneInfo("UTC"))
    return [(begin + timedelta(hours=number)).astimezone(ZoneInfo(zone)) for number in range(count)]


@pytest.mark.parametrize(
    "zone", ["America/New_York", "Europe/Berlin", "Asia/Tokyo", "Asia/Kolkata", "Australia/Sydney"]
)
def test_hours_keep_their_instants_and_their_days_are_those_of_the_zone_found(zone: str, tmp_path: Path) -> None:
    moments = hours(zone, 24 * 90)  # with a change of the clock where the zone has one
    bars = importing(tmp_path, [moment.isoformat() for moment in moments])
    assert bars.timestamp.tolist() == [int(moment.timestamp()) * 10**6 for moment in moments]
    days = [moment.date() for moment in moments]
    assert dates(resample(bars, "1d")) == naive(sorted(set(days)))
    expected = [max(bars.high[row] for row in range(len(days)) if days[row] == day) for day in sorted(set(days))[:3]]
    assert resample(bars, "1d").high[:3].tolist() == expected


def test_hours_have_the_days_of_the_zone_given(tmp_path: Path) -> None:
    moments = hours("UTC", 200)
    bars = importing(tmp_path, [str(int(moment.timestamp())) for moment in moments], time_zone="America/New_York")
    days = sorted({moment.astimezone(ZoneInfo("America/New_York")).date() for moment in moments})
    assert (bars.zone, dates(resample(bars, "1d"))) == ("America/New_York", naive(days))


@settings(max_examples=40)
@given(zone=st.sampled_from(ZONES), start=st.integers(1_500_000_000, 1_700_000_000), days=st.integers(1, 700))
def test_a_zone_that_is_found_has_the_offsets(zone: str, start: int, days: int) -> None:
    moments = [datetime.fromtimestamp(start + 86_400 * number, ZoneInfo(zone)) for number in range(days)]
    offset_of = [int((moment.utcoffset() or timedelta()).total_seconds()) * 10**6 for moment in moments]
    found = zone_of_offsets(np.array([int(one.timestamp()) * 10**6 for one in moments]), np.array(offset_of))
    assert found is not None
    again = [datetime.fromtimestamp(moment.timestamp(), ZoneInfo(found)).utcoffset() for moment in moments]
    assert again == [moment.utcoffset() for moment in moments]


def test_offsets_of_no_zone_leave_days_in_utc_and_say_so(tmp_path: Path) -> None:
    texts = [f"2024-01-01T{hour:02}:00:00{'+01:00' if hour % 2 else '+09:00'}" for hour in range(10, 20)]
    sooner = sorted(texts, key=datetime.fromisoformat)
    (tmp_path / "bars.csv").write_text(rows(sooner))
    read = read_bars(tmp_path / "bars.csv", "X", "1h")
    assert read.bars.zone == "UTC"
    assert "the offsets of the times are those of no zone" in " ".join(read.warnings)
