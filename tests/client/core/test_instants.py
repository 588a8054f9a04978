"""Times of every type that programs have them in are the same two forms on the wire."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr.core.instants import as_iso, as_ms

MONDAY_MS = 1_641_168_000_000


@pytest.mark.parametrize(
    "instant",
    [
        "2022-01-03",
        "2022-01-03T00:00:00Z",
        "2022-01-03T01:00:00+01:00",
        np.str_("2022-01-03"),
        date(2022, 1, 3),
        datetime(2022, 1, 3),  # noqa: DTZ001 - naive on purpose
        datetime(2022, 1, 3, tzinfo=UTC),
        datetime(2022, 1, 2, 19, tzinfo=timezone(timedelta(hours=-5))),
        MONDAY_MS,
        np.int64(MONDAY_MS),
        np.datetime64("2022-01-03"),
        np.datetime64("2022-01-03T00:00:00.000000001", "ns"),
        np.array("2022-01-03", dtype="datetime64[s]"),
        pd.Timestamp("2022-01-03"),
        pd.Timestamp("2022-01-03T00:00:00.000000001"),
        pd.Timestamp("2022-01-03 01:00", tz="Europe/Berlin"),
        pl.Series([datetime(2022, 1, 3)])[0],  # noqa: DTZ001
    ],
    ids=repr,
)
def test_an_instant_may_be_written_in_many_ways(instant: Any) -> None:
    assert as_ms(instant) == MONDAY_MS
    assert as_iso(instant) == "2022-01-03T00:00:00Z"


@given(st.integers(-2_000_000_000_000, 4_000_000_000_000))
def test_instants_survive_being_written(ms: int) -> None:
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    assert as_ms(as_iso(instant)) == as_ms(instant) == as_ms(ms) == as_ms(np.datetime64(ms, "ms")) == ms


@pytest.mark.parametrize("instant", ["yesterday", "", 10**15, pd.NaT], ids=repr)
def test_a_value_that_is_no_time_is_refused(instant: Any) -> None:
    with pytest.raises(ValueError, match="since 1970"):
        as_ms(instant)


@pytest.mark.parametrize(
    "instant",
    [
        1.5,
        np.float64(1.0),
        True,
        None,
        object(),
        np.datetime64("NaT"),
        np.arange(2),
        timedelta(1),
        np.timedelta64(1, "D"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_type_that_is_no_time_is_refused_with_the_types_that_are(instant: Any) -> None:
    with pytest.raises(TypeError, match=r"not a time; give ISO 8601 text .* numpy.datetime64, or whole milliseconds"):
        as_iso(instant)
