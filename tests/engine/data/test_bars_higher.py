"""Higher timeframes: a lower bar sees the last higher bar that has closed, and none that closes later."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.algorithms.algorithm import algorithm
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.data.bars import Bars, resample
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.data.timeframes import close_times, open_times
from backtestr_engine.indicators import sma
from backtestr_engine.library.look_ahead import check_algorithm
from backtestr_protocol.errors import ValidationError
from backtestr_protocol.messages import Timeframe

MINUTES = synthetic_bars("1m", 3_000)


def with_gaps(rows: list[int]) -> Bars:
    return Bars(
        MINUTES.symbol,
        MINUTES.timeframe,
        *(getattr(MINUTES, name)[rows] for name in ("timestamp", "open", "high", "low", "close", "volume")),
    )


def test_a_higher_bar_is_seen_when_it_has_closed() -> None:
    bars = MINUTES[:130]

    hourly = bars.at("1h")

    assert len(hourly.bars) == 2
    assert np.isnan(hourly.close[:59]).all()
    assert (hourly.close[59:119] == bars.close[59]).all()
    assert (hourly.close[119:] == bars.close[119]).all()
    assert (hourly.open[59:119] == bars.open[0]).all()
    assert (hourly.high[119:] == bars.high[60:120].max()).all()
    assert (hourly.low[119:] == bars.low[60:120].min()).all()
    assert hourly.volume[119] == pytest.approx(bars.volume[60:120].sum())


@given(
    st.lists(st.integers(0, 2_999), min_size=1, max_size=80, unique=True).map(sorted),
    st.sampled_from(["1m", "5m", "15m", "1h", "4h", "1d", "1w"]),
)
def test_each_bar_sees_the_last_that_closed_no_later_than_itself(rows: list[int], timeframe: Timeframe) -> None:
    bars = with_gaps(rows)
    made = resample(bars, timeframe)
    ends = close_times(made.timestamp, timeframe)

    seen = bars.at(timeframe)

    for row in range(len(bars)):
        closed = [index for index, end in enumerate(ends) if end <= bars.closed_at(row)]
        assert seen.close[row] == made.close[closed[-1]] if closed else np.isnan(seen.close[row])
    assert seen.align(np.ones(len(seen.bars), dtype=np.bool_)).tolist() == (~np.isnan(seen.close)).tolist()


@given(st.lists(st.integers(0, 2_999), min_size=2, max_size=80, unique=True).map(sorted), st.data())
def test_later_bars_change_nothing_on_earlier_bars(rows: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(rows) - 1))

    part, whole = with_gaps(rows[:cut]).at("1h"), with_gaps(rows).at("1h")

    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[:cut])


def test_an_algorithm_of_two_timeframes_does_not_look_ahead() -> None:
    @algorithm("two_timeframes")
    def two_timeframes(bars: Bars) -> Signals:
        hourly = bars.at("1h")
        trend = hourly.align(sma(hourly.bars.close, 5))
        return Signals.of(entries=(bars.close > trend) & (hourly.close > hourly.open), exits=bars.close < trend)

    @algorithm("sees_the_open_hour")
    def sees_the_open_hour(bars: Bars) -> Signals:
        hour = resample(bars, "1h")
        index = np.searchsorted(hour.timestamp, bars.timestamp, side="right") - 1
        return Signals.of(entries=bars.close < hour.close[index], exits=bars.close > hour.close[index])

    for seed in range(5):
        generator = np.random.default_rng(seed)
        assert check_algorithm(two_timeframes, MINUTES, {}, generator).passed
        assert not check_algorithm(sees_the_open_hour, MINUTES, {}, generator).passed


def test_an_impossible_higher_timeframe_is_refused() -> None:
    with pytest.raises(ValidationError, match="unknown timeframe '2hr'"):
        MINUTES.at("2hr")
    with pytest.raises(ValueError, match="1m bars cannot be made from 1h bars"):
        synthetic_bars("1h", 10).at("1m")
    with pytest.raises(ValueError, match=r"there are 50 closed 1h bars, not \(3,\) values"):
        MINUTES.at("1h").align(np.ones(3))
    assert len(MINUTES[:0].at("1h").close) == 0


def test_a_day_of_a_zone_is_seen_when_it_ends_there() -> None:
    hours = replace(synthetic_bars("1h", 24 * 60), zone="America/New_York")  # with the change of March
    days = hours.at("1d")
    ends = {
        date: int(close_times(np.array([date]), "1d", "America/New_York")[0]) for date in days.bars.timestamp.tolist()
    }
    for row in range(30, len(hours)):
        closed = [date for date, end in ends.items() if end <= hours.closed_at(row)]
        of_day = open_times(hours.timestamp[: row + 1], "1d", "America/New_York") == closed[-1]
        assert days.close[row] == hours.close[: row + 1][of_day][-1]
