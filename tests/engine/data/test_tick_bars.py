"""Bars made of ticks are those of a loop over single ticks, and the same wherever parts of the ticks begin and end."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.data.tick_bars import bars_of_ticks
from backtestr_engine.data.ticks import Ticks
from backtestr_engine.data.timeframes import length_us
from backtestr_protocol.messages import TickPrice, Timeframe
from support.engine.tick_bars import EPOCH, one_by_one, rows_of

START = 1_577_836_800_000_000
TIMEFRAMES = ("1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w")


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
@pytest.mark.parametrize("sized", [False, True])
def test_random_ticks_agree_with_a_loop(timeframe: Timeframe, sized: bool, generator: np.random.Generator) -> None:
    length = length_us(timeframe)
    steps = generator.exponential(length / 5, 2_000).astype(np.int64) * (generator.random(2_000) < 0.8)
    steps[::97] += 3 * length
    timestamp = START + np.cumsum(steps)
    timestamp[:3] = START  # ticks on an edge belong to the bar that opens there
    price = np.round(100 + np.cumsum(generator.normal(0, 0.1, 2_000)), 2)
    size = generator.random(2_000) * 5
    ticks = [
        (EPOCH + timedelta(microseconds=int(at)), float(paid), float(lot) if sized else 1.0)
        for at, paid, lot in zip(timestamp, price, size, strict=True)
    ]
    trades = Ticks("X", timestamp, last=price, volume=size if sized else None)

    assert rows_of(bars_of_ticks("X", timeframe, "last", [trades])) == one_by_one(ticks, timeframe)


@st.composite
def ticks_in_parts(draw: st.DrawFn) -> tuple[Ticks, list[Ticks]]:
    """Return ticks of every kind, some at one time, some without a trade, and the same ticks cut into parts."""
    count = draw(st.integers(1, 60))
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    timestamp = START + np.cumsum(chance.integers(0, 3, count) * chance.integers(0, 40_000_000, count))
    bid = np.round(1 + chance.random(count), 3)
    quoted, traded = draw(st.sampled_from([(True, False), (False, True), (True, True)]))
    last = np.where(chance.random(count) < 0.5, np.nan, bid) if quoted else bid
    volume = np.where(np.isnan(last), np.nan, chance.random(count))
    ticks = Ticks(
        "X",
        timestamp,
        bid if quoted else None,
        bid + 0.001 if quoted else None,
        last if traded else None,
        volume if traded and draw(st.booleans()) else None,
    )
    cuts = sorted(draw(st.lists(st.integers(0, count), max_size=8)))
    edges = [0, *cuts, count]
    return ticks, [ticks[first:stop] for first, stop in itertools.pairwise(edges)]


@settings(max_examples=300, deadline=None)
@given(ticks_in_parts(), st.sampled_from(["1m", "5m", "1h"]), st.data())
def test_bars_do_not_depend_on_where_parts_begin(
    cut: tuple[Ticks, list[Ticks]], timeframe: Timeframe, data: st.DataObject
) -> None:
    ticks, parts = cut
    quoted = ["bid", "ask", "mid"] if "bid" in ticks.columns else []
    price: TickPrice = data.draw(st.sampled_from([*quoted, *(["last"] if "last" in ticks.columns else [])]))
    whole = bars_of_ticks("X", timeframe, price, [ticks])
    in_parts = bars_of_ticks("X", timeframe, price, parts)

    assert rows_of(in_parts) == rows_of(whole)  # bit for bit: sums as well
    counted = int(np.isfinite(ticks.last).sum()) if price == "last" and ticks.last is not None else len(ticks)
    if price != "last" or ticks.volume is None:
        assert whole.volume.sum() == counted
    else:
        assert whole.volume.sum() == pytest.approx(np.nansum(ticks.volume), abs=1e-12)


def test_ticks_without_a_trade_make_no_bar_of_the_last_price() -> None:
    at = START + np.array([0, 60, 120]) * 1_000_000
    quotes = np.array([1.0, 2.0, 3.0])
    ticks = Ticks("X", at, quotes, quotes, np.array([np.nan, 5.0, np.nan]), np.array([np.nan, 7.0, np.nan]))

    assert rows_of(bars_of_ticks("X", "1m", "last", [ticks])) == [(START + 60_000_000, 5.0, 5.0, 5.0, 5.0, 7.0)]
    assert [row[4] for row in rows_of(bars_of_ticks("X", "1m", "mid", [ticks]))] == [1.0, 2.0, 3.0]
    assert len(bars_of_ticks("X", "1m", "last", [ticks[:1]])) == 0


def test_the_time_of_a_bar_is_that_of_the_calendar() -> None:
    at = datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)
    tick = np.array([(at - EPOCH) // timedelta(microseconds=1)])
    opened = {
        timeframe: bars_of_ticks("X", timeframe, "last", [Ticks("X", tick, last=np.ones(1))])
        for timeframe in TIMEFRAMES
    }
    found = {timeframe: EPOCH + timedelta(microseconds=int(bars.timestamp[0])) for timeframe, bars in opened.items()}
    assert found["1w"] == datetime(2024, 2, 26, tzinfo=UTC)
    assert found["1d"] == datetime(2024, 2, 29, tzinfo=UTC)
    assert found["4h"] == datetime(2024, 2, 29, 20, tzinfo=UTC)
    assert found["5m"] == datetime(2024, 2, 29, 23, 55, tzinfo=UTC)
