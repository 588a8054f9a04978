"""Clock times of a zone are those of zoneinfo, and the begin of a date is an instant even where it is skipped."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.data.timeframes import DAY_US, HOUR_US
from backtestr_engine.data.zones import clock_times, instants_of, zone_names

ZONES = ("UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Africa/Cairo", "America/Sao_Paulo")
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # a clock time has no zone
TIMES = st.integers(0, 2 * 10**9).map(lambda second: second * 10**6)


@given(instant=TIMES, zone=st.sampled_from(ZONES))
def test_clock_times_are_those_of_zoneinfo(instant: int, zone: str) -> None:
    at = datetime.fromtimestamp(instant / 10**6, UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    expected = (at - EPOCH) // timedelta(microseconds=1)
    assert clock_times(np.array([instant]), zone).tolist() == [expected]


@given(day=st.integers(0, 23_000), zone=st.sampled_from(ZONES))
def test_a_date_begins_at_the_first_instant_that_has_it(day: int, zone: str) -> None:
    begin = int(instants_of(np.array([day * DAY_US]), zone)[0])
    before, at = clock_times(np.array([begin - 1, begin]), zone).tolist()
    assert at // DAY_US == day
    assert before // DAY_US == day - 1


def test_a_skipped_midnight_is_the_instant_of_the_skip() -> None:
    skipped = np.array([(datetime(2024, 4, 26) - EPOCH) // timedelta(microseconds=1)])  # noqa: DTZ001
    begin = instants_of(skipped, "Africa/Cairo")
    assert (clock_times(begin, "Africa/Cairo") - skipped).tolist() == [HOUR_US]


@pytest.mark.parametrize("zone", ZONES)
def test_nothing_has_no_times(zone: str) -> None:
    nothing = np.zeros(0, np.int64)
    assert len(clock_times(nothing, zone)) == len(instants_of(nothing, zone)) == 0
    assert zone in zone_names()
