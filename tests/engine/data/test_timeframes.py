"""Timeframes: open times in UTC, stretches without a gap, and names."""

from __future__ import annotations

import numpy as np
import pytest

from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.data.timeframes import (
    LENGTH_US,
    divides,
    next_open_time,
    open_time,
    open_times,
    open_times_of,
    parse_timeframe,
    spans,
)
from backtestr_protocol.errors import ValidationError


def test_weeks_open_on_monday() -> None:
    sunday, monday = 1_704_067_200_000_000 - LENGTH_US["1d"], 1_704_067_200_000_000

    assert open_time(sunday, "1w") == monday - LENGTH_US["1w"]
    assert open_time(monday, "1w") == next_open_time(monday, "1w") == monday
    assert next_open_time(sunday, "1w") == monday


def test_stretches_without_a_gap_and_back(generator: np.random.Generator) -> None:
    whole = synthetic_bars("1h", 1_000).timestamp
    for share in (0.0, 0.5, 0.99, 1.0):
        times = whole[generator.random(1_000) < share]
        starts, bars = spans(times, "1h")
        assert np.array_equal(open_times_of(starts, bars, "1h"), times)
        assert len(starts) == int((np.diff(times) != LENGTH_US["1h"]).sum()) + min(1, len(times))


def test_an_unknown_timeframe_names_what_there_is() -> None:
    with pytest.raises(ValidationError) as caught:
        parse_timeframe("1hr")
    assert caught.value.message == "unknown timeframe '1hr'; did you mean '1h'? (1m, 5m, 15m, 30m, 1h, 4h, 1d, 1w)"
    assert caught.value.details is not None
    assert caught.value.details["path"] == "$.timeframe"


def test_open_times_are_the_open_time_of_each(generator: np.random.Generator) -> None:
    times = generator.integers(0, 2 * 10**15, 200)
    for timeframe in LENGTH_US:
        assert open_times(times, timeframe).tolist() == [open_time(int(one), timeframe) for one in times]


def test_a_timeframe_divides_itself_and_longer_ones() -> None:
    assert [one for one in LENGTH_US if divides("30m", one)] == ["30m", "1h", "4h", "1d", "1w"]
