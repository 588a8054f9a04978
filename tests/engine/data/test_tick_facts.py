"""The facts of ticks: their extremes, their volume, and the minutes without any."""

from __future__ import annotations

import numpy as np
import pytest

from backtestr_engine.data import tick_file
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.series_facts import describe, store_resampled
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.data.tick_bars import bars_of_ticks
from backtestr_engine.data.ticks import Ticks
from backtestr_protocol.errors import DataError, InvalidConfiguration
from backtestr_protocol.messages import DescribeMarketData, ResampleMarketData, SeriesGap
from support.engine.random_ticks import START, random_quotes
from support.engine.tick_bars import rows_of

MINUTE_MS = 60_000


def test_the_facts_of_ticks(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tick_file, "PART_TICKS", 2)
    minutes = np.array([0, 0, 1, 5, 6])
    bid = np.array([1.0, 2.0, 0.5, 3.0, 2.5])
    last = np.array([np.nan, 9.0, np.nan, np.nan, 0.25])
    volume = np.array([np.nan, 2.0, np.nan, np.nan, 3.5])
    catalog.write_ticks(Ticks("X", START + minutes * 60_000_000, bid, bid + 1, last, volume))

    found = describe(catalog, DescribeMarketData(symbol="X", timeframe="tick"))
    start = START // 1000
    assert (found.timeframe, found.made_from, found.bars, found.start_time) == ("tick", "tick", 5, start)
    assert (found.low, found.high, found.volume) == (0.25, 9.0, 5.5)
    assert found.columns == ["bid", "ask", "last", "volume"]
    assert (found.gaps, found.missing_bars) == (1, 3)
    assert found.longest_gaps == [
        SeriesGap(start_time=start + 2 * MINUTE_MS, end_time=start + 5 * MINUTE_MS, missing_bars=3)
    ]


def test_the_facts_of_bars_made_of_ticks(catalog: Catalog) -> None:
    ticks = random_quotes(500)
    catalog.write_ticks(ticks)
    asks = bars_of_ticks("X", "5m", "ask", [ticks])
    found = describe(catalog, DescribeMarketData(symbol="X", timeframe="5m", price="ask"))
    assert (found.made_from, found.bars, found.high) == ("tick", len(asks), asks.high.max())
    with pytest.raises(InvalidConfiguration, match="ticks keep every price"):
        describe(catalog, DescribeMarketData(symbol="X", timeframe="tick", price="ask"))


def test_bars_of_ticks_are_stored_as_a_series(catalog: Catalog) -> None:
    ticks = random_quotes(500)
    catalog.write_ticks(ticks)
    catalog.write(synthetic_bars("1m", 3, symbol="X"))
    request = ResampleMarketData(symbol="X", from_timeframe="tick", to_timeframe="1m", price="bid")
    stored = store_resampled(catalog, request)

    made = bars_of_ticks("X", "1m", "bid", [ticks])
    assert (stored.timeframe, stored.bars) == ("1m", len(made))
    assert stored.warnings[0].startswith("replaced 3 bars")
    assert rows_of(catalog.load("X", "1m")) == rows_of(made)


def test_a_price_is_for_ticks_and_ticks_have_to_be_there(catalog: Catalog) -> None:
    catalog.write(synthetic_bars("1m", 3, symbol="X"))
    with pytest.raises(InvalidConfiguration, match="1m are bars"):
        store_resampled(catalog, ResampleMarketData(symbol="X", from_timeframe="1m", to_timeframe="5m", price="bid"))
    with pytest.raises(DataError, match="X has no stored ticks"):
        store_resampled(catalog, ResampleMarketData(symbol="X", from_timeframe="tick", to_timeframe="5m"))
