"""Ticks in the catalogue: listed, deleted, and made into bars where no stored bars are nearer."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.series_file import SeriesFile
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.data.tick_bars import bars_of_ticks
from backtestr_protocol.errors import DataError, InvalidConfiguration, ValidationError
from support.engine.random_ticks import START, random_quotes, random_trades
from support.engine.tick_bars import rows_of

QUOTES = random_quotes(2_000)
MINUTE = 60_000_000


@pytest.fixture
def stocked(catalog: Catalog) -> Catalog:
    catalog.write_ticks(QUOTES)
    return catalog


def test_ticks_are_listed_before_the_bars_of_their_symbol(stocked: Catalog) -> None:
    for symbol, timeframe in (("X", "1m"), ("A", "1d"), ("X", "1d")):
        stocked.write(synthetic_bars(timeframe, 3, symbol=symbol))
    listed = [(info.symbol, info.timeframe, info.bars) for info in stocked.series()]
    assert listed == [("A", "1d", 3), ("X", "tick", 2_000), ("X", "1m", 3), ("X", "1d", 3)]


def test_bars_are_made_of_ticks_where_no_bars_are_stored(stocked: Catalog) -> None:
    for timeframe in ("1m", "1h"):
        made = bars_of_ticks("X", timeframe, "mid", [QUOTES])
        assert rows_of(stocked.load("X", timeframe)) == rows_of(made)
    assert stocked.source_of("X", "1m") == "tick"


def test_stored_bars_come_before_ticks_unless_a_price_is_named(stocked: Catalog) -> None:
    stocked.write(synthetic_bars("5m", 3, symbol="X"))
    assert [stocked.source_of("X", one) for one in ("1m", "5m", "1h")] == ["tick", "5m", "5m"]
    assert len(stocked.load("X", "5m")) == 3
    asks = stocked.load("X", "5m", price="ask")
    assert rows_of(asks) == rows_of(bars_of_ticks("X", "5m", "ask", [QUOTES]))
    assert (stocked.tick_price("X", "5m", None), stocked.tick_price("X", "1m", None)) == (None, "mid")
    assert stocked.tick_price("X", "5m", "bid") == "bid"


@pytest.fixture(scope="module")
def uncached(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    catalog = Catalog(tmp_path_factory.mktemp("catalog"), cache_bytes=0)
    catalog.write_ticks(QUOTES)
    return catalog


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 19_000), st.integers(1, 19_000), st.sampled_from(["1m", "5m", "1d"]))
def test_bars_of_a_range_are_those_of_the_whole(uncached: Catalog, first: int, length: int, timeframe: str) -> None:
    start, end = START + first * 1_000_000, START + (first + length) * 1_000_000
    whole = uncached.load("X", timeframe).between(start, end)
    if len(whole):
        assert rows_of(uncached.load("X", timeframe, start, end)) == rows_of(whole)
    else:
        with pytest.raises(DataError, match=rf"no {timeframe} bars of X .*; there are ticks from"):
            uncached.load("X", timeframe, start, end)


def test_bars_that_were_made_are_kept_until_the_ticks_change(stocked: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stocked.load("X", "1m")
    read: list[range] = []
    read_rows = SeriesFile.read_rows

    def noted(file: SeriesFile, rows: range) -> pl.DataFrame:
        read.append(rows)
        return read_rows(file, rows)

    monkeypatch.setattr(SeriesFile, "read_rows", noted)
    assert stocked.load("X", "1m") is first
    assert all(len(rows) <= 1 for rows in read)
    assert rows_of(stocked.load("X", "1m", price="bid")) != rows_of(first)
    stocked.write_ticks(QUOTES[:100])
    assert rows_of(stocked.load("X", "1m")) == rows_of(bars_of_ticks("X", "1m", "mid", [QUOTES[:100]]))


def test_ticks_are_deleted_by_their_name_or_with_their_symbol(stocked: Catalog) -> None:
    stocked.write(synthetic_bars("1m", 3, symbol="X"))
    assert stocked.delete("X", "tick") == ["tick"]
    with pytest.raises(DataError, match=r"X has no stored ticks \(there are: 1m\)"):
        stocked.delete("X", "tick")
    stocked.write_ticks(QUOTES)
    assert stocked.delete("X") == ["tick", "1m"]
    assert stocked.series() == []


def test_what_there_is_not_is_said(stocked: Catalog) -> None:
    stocked.write(synthetic_bars("1d", 3, symbol="B"))
    stocked.write_ticks(random_trades(10, symbol="T"))
    with pytest.raises(InvalidConfiguration, match=r"price 'mid' chooses the price of ticks, and B has none .*1d"):
        stocked.load("B", "1d", price="mid")
    with pytest.raises(InvalidConfiguration, match="price must be last, not bid"):
        stocked.load("T", "1m", price="bid")
    with pytest.raises(DataError, match=r"B has no stored ticks \(there are: 1d\)"), stocked.open_ticks("B"):
        pass
    with pytest.raises(DataError, match=r"unknown symbol 'Y' \(B, T, X\)"), stocked.open_ticks("Y"):
        pass
    with pytest.raises(ValidationError, match="ticks are no bars: name the timeframe"):
        stocked.load("X", "tick")
    with pytest.raises(DataError, match="X has no ticks to store"):
        stocked.write_ticks(QUOTES[:0])


def test_a_damaged_file_is_named_with_what_helps(stocked: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "catalog" / "X" / "tick.parquet"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"X/tick\.parquet cannot be read: .*backtestr data delete X tick"):
        stocked.load("X", "1m")
