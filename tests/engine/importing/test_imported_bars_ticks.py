"""Ticks of files, kept or made into bars: real files and random ticks, compared with a loop over single ticks."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.instants import instant
from backtestr_engine.data.tick_bars import bars_of_ticks
from backtestr_engine.importing.importer import import_market_data
from backtestr_protocol.errors import DataError, InvalidConfiguration
from backtestr_protocol.import_messages import ImportMarketData
from backtestr_protocol.messages import QuotePrice, TickPrice, Timeframe
from support.engine.reading import ReadBars, read_bars, read_ticks
from support.engine.tick_bars import Tick, one_by_one, rows_of
from support.engine.tick_bars import rows_of as rows


def sides(bid: float, ask: float) -> dict[str, float]:
    return {"bid": bid, "ask": ask, "mid": (bid + ask) / 2}


@pytest.mark.parametrize("price", get_args(QuotePrice))
@pytest.mark.parametrize("timeframe", ["1m", "5m", "1h", "1d"])
def test_histdata_ticks(timeframe: Timeframe, price: QuotePrice, real_data: Path) -> None:
    path = real_data / "histdata_ticks_2020-01.csv"
    ticks: list[Tick] = []
    for line in path.read_text().splitlines():
        time, bid, ask, _ = line.split(",")
        est = datetime.strptime(time[:15], "%Y%m%d %H%M%S").replace(tzinfo=UTC, microsecond=1000 * int(time[15:]))
        shown = est if timeframe == "1d" else est + timedelta(hours=5)  # days are those of the file's clock
        ticks.append((shown, sides(float(bid), float(ask))[price], 1.0))
    read = read_bars(path, "EURUSD", timeframe, price=price)

    assert read.format == "histdata"
    assert rows(read.bars) == one_by_one(ticks, timeframe)
    assert instant(int(read.bars.timestamp[0])) == ("2020-01-01" if timeframe == "1d" else "2020-01-01T22:00:00Z")


@pytest.mark.parametrize("price", get_args(QuotePrice))
def test_quotes_with_a_header(price: QuotePrice, real_data: Path) -> None:
    path = real_data / "usdjpy_quote_ticks_2013-01.csv"
    ticks: list[Tick] = []
    for line in path.read_text().splitlines()[1:]:
        time, bid, ask = line.split(",")
        ticks.append((datetime.fromisoformat(time), sides(float(bid), float(ask))[price], 1.0))

    assert rows(read_bars(path, "USDJPY", "1m", price=price).bars) == one_by_one(ticks, "1m")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["quotes", "trades", "trades without a size"]))
def test_bars_of_stored_ticks_are_those_of_an_import_with_a_timeframe(seed: int, kind: str) -> None:
    chance = np.random.default_rng(seed)
    count = int(chance.integers(1, 400))
    at = 1_577_836_800_000_000 + np.cumsum(chance.integers(0, 2, count) * chance.integers(0, 30_000_000, count))
    price, size = np.round(100 + chance.normal(0, 1, count), 3), chance.random(count)
    columns = {
        "quotes": {"bid": price, "ask": price + 0.01},
        "trades": {"price": price, "size": size},
        "trades without a size": {"price": price},
    }[kind]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ticks.csv"
        pl.DataFrame({"time": at, **columns}).write_csv(file)
        catalog = Catalog(Path(folder) / "catalog", cache_bytes=0)
        import_market_data(catalog, ImportMarketData(path=str(file), symbol="X"))
        prices: tuple[TickPrice, ...] = get_args(QuotePrice) if kind == "quotes" else ("last",)
        for timeframe in ("1m", "1h"):
            for side in (None, *prices):
                imported = read_bars(file, "X", timeframe, price=side).bars
                assert rows(catalog.load("X", timeframe, price=side)) == rows(imported)


def test_ticks_without_a_timeframe_are_kept(tmp_path: Path, catalog: Catalog) -> None:
    quotes, trades = tmp_path / "quotes.csv", tmp_path / "trades.csv"
    quotes.write_text(QUOTES)
    trades.write_text(TRADES)

    stored = import_market_data(catalog, ImportMarketData(path=str(quotes), symbol="X"))
    assert (stored.timeframe, stored.bars, stored.warnings) == ("tick", 3, [])
    assert (stored.start_time, stored.end_time) == (1641202200100, 1641202260000)
    again = import_market_data(catalog, ImportMarketData(path=str(trades), symbol="X", timeframe="tick"))
    assert again.warnings == ["replaced 3 ticks from 2022-01-03T09:30:00.100000Z to 2022-01-03T09:31:00Z"]
    with catalog.open_ticks("X") as file:
        ticks = file.read(range(3))
    assert ticks.bid is ticks.ask is None
    assert ticks.last is not None
    assert ticks.volume is not None
    assert (ticks.last.tolist(), ticks.volume.tolist()) == ([10, 11, 12], [2, 3, 4])


@pytest.mark.parametrize("file", ["histdata_ticks_2020-01.csv", "usdjpy_quote_ticks_2013-01.csv"])
def test_real_ticks_are_kept_with_their_times_in_order(file: str, real_data: Path) -> None:
    lines = (real_data / file).read_text().splitlines()
    ticks = read_ticks(real_data / file, "X")
    bids = [float(line.split(",")[1]) for line in lines if line[0].isdigit()]

    assert ticks.bid is not None
    assert ticks.bid.tolist() == bids
    assert (np.diff(ticks.timestamp) >= 0).all()
    for timeframe in ("1m", "1h"):
        made = bars_of_ticks("X", timeframe, "mid", [ticks[:700], ticks[700:]])
        assert rows(made) == rows(read_bars(real_data / file, "X", timeframe).bars)


# --- refusals and notes ---

QUOTES = "time,bid,ask\n2022-01-03T09:30:00.1Z,10,12\n2022-01-03T09:30:00.1Z,11,13\n2022-01-03T09:31:00Z,12,14\n"
TRADES = "time,price,qty\n2022-01-03T09:30:00.1Z,10,2\n2022-01-03T09:30:59.9Z,11,3\n2022-01-03T09:31:00Z,12,4\n"


def reading(tmp_path: Path, content: str, timeframe: str | None = "1m", **options: Any) -> ReadBars:
    path = tmp_path / "ticks.csv"
    path.write_text(content)
    return read_bars(path, "X", timeframe, **options)


def test_the_middle_is_the_default_and_the_count_the_volume(tmp_path: Path) -> None:
    read = reading(tmp_path, QUOTES)

    assert (read.bars.open.tolist(), read.bars.close.tolist(), read.bars.volume.tolist()) == (
        [11, 13],
        [12, 13],
        [2, 1],
    )
    assert read.warnings == ["1m bars made of 3 quotes at the middle of bid and ask; volume is the number of quotes"]


def test_trades_sum_their_sizes(tmp_path: Path) -> None:
    read = reading(tmp_path, TRADES)

    assert (read.bars.close.tolist(), read.bars.volume.tolist()) == ([11, 12], [5, 4])
    assert read.warnings == ["1m bars made of 3 trades; volume is their summed size"]
    counted = reading(tmp_path, TRADES.replace(",qty", ",maker"))
    assert counted.bars.volume.tolist() == [2, 1]
    assert counted.warnings[0] == "columns not used: maker"


@pytest.mark.parametrize(
    "content",
    [
        "Gmt time,Ask,Bid,AskVolume,BidVolume\n"
        "03.01.2022 09:30:00.100,12,10,1.5,1\n03.01.2022 09:30:00.100,13,11,1.5,1\n03.01.2022 09:31:00.000,14,12,1,1\n",
        "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\n"
        "2022.01.03\t09:30:00.100\t10\t12\t\t\t6\n2022.01.03\t09:30:00.100\t11\t13\t\t\t6\n"
        "2022.01.03\t09:31:00.000\t12\t14\t\t\t6\n",
        "timestamp,askPrice,bidPrice\n1641202200100,12,10\n1641202200100,13,11\n1641202260000,14,12\n",
    ],
)
def test_variants_of_quotes(content: str, tmp_path: Path) -> None:
    assert rows(reading(tmp_path, content).bars) == rows(reading(tmp_path, QUOTES).bars)


def test_metatrader_5_leaves_out_an_unchanged_price(tmp_path: Path) -> None:
    header = "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\n"
    quotes = (
        "2022.01.03\t09:30:00\t10\t12\t\t\t6\n2022.01.03\t09:30:01\t11\t\t\t\t2\n2022.01.03\t09:30:02\t\t15\t\t\t4\n"
    )
    fast = reading(tmp_path, header + quotes)
    by_line = reading(tmp_path, header + quotes + "2022.01.03\tnever\t1\t1\t\t\t6\n", repair="drop")

    assert fast.bars.high.tolist() == by_line.bars.high.tolist() == [13]
    assert fast.bars.open.tolist() == [11]
    with pytest.raises(DataError, match="line 2, column '<ASK>': '' is not a number"):
        reading(tmp_path, header + quotes.split("\n", 1)[1])


def test_a_price_of_ticks_that_are_kept_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="ticks are kept with every price: name the timeframe") as caught:
        reading(tmp_path, QUOTES, None, price="bid")
    assert caught.value.details == {"paths": ["$.price", "$.timeframe"]}


def test_bars_are_no_ticks(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"holds bars, no ticks: leave the timeframe out, or name theirs \(a number and a unit"
    ):
        reading(tmp_path, "time,open,high,low,close\n2022-01-03,1,1,1,1\n", "tick")


@pytest.mark.parametrize("content", [QUOTES, TRADES])
def test_a_price_that_ticks_do_not_have_is_refused(content: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="price must be"):
        reading(tmp_path, content, price="last" if content == QUOTES else "bid")


def test_a_price_chooses_among_ticks_only(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"price 'bid' chooses the price of ticks, and .* holds bars"):
        reading(tmp_path, "time,open,high,low,close\n2022-01-03,1,1,1,1\n", price="bid")


@pytest.mark.parametrize(
    ("content", "column", "reason"),
    [
        (QUOTES.replace("11,13", "14,13"), "ask", "ask is below bid"),
        (QUOTES.replace("11,13", "0,13"), "bid", "bid is zero or negative"),
        (QUOTES.replace("11,13", "11,inf"), "ask", "ask is not a finite number"),
        (QUOTES.replace("00.1Z,11", "00.0Z,11"), "time", "an earlier time than the row before"),
        (TRADES.replace("11,3", "11,-3"), "qty", "size is negative or not a finite number"),
        (TRADES.replace("11,3", "-11,3"), "price", "price is zero or negative"),
        (TRADES.replace("11,3", "nan,3"), "price", "price is not a finite number"),
    ],
)
def test_impossible_ticks_are_refused(content: str, column: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        reading(tmp_path, content)
    assert caught.value.details == {
        "line": 3,
        "column": column,
        "reason": reason,
        "faults": [{"reason": reason, "count": 1, "lines": [3]}],
        "kept": 2,
        "rows": 3,
    }


BOTH = (
    "time,bid,ask,last,volume\n"
    "2022-01-03T09:30:00Z,10,12,,\n2022-01-03T09:30:01Z,10,12,11,3\n"
    "2022-01-03T09:30:02Z,11,12,0,0\n2022-01-03T09:30:03Z,11,12,11.5,2\n"
)
METATRADER = (
    "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\n"
    "2022.01.03\t09:30:00\t10\t12\t\t\t6\n2022.01.03\t09:30:01\t\t\t11\t3\t24\n"
    "2022.01.03\t09:30:02\t11\t\t\t\t2\n2022.01.03\t09:30:03\t\t\t11.5\t2\t24\n"
)


@pytest.mark.parametrize("content", [BOTH, METATRADER])
@pytest.mark.parametrize("way", ["fast", "by line", "parquet"])
def test_quotes_keep_the_trades_among_them(content: str, way: str, tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text(content)
    expected = read_ticks(path, "X")
    if way == "by line":
        damaged = content.splitlines()[1].replace("10", "never", 1)
        path.write_text(content + damaged + "\n")
        expected = read_ticks(path, "X", repair="drop")
    elif way == "parquet":
        expected.to_frame().write_parquet(path := tmp_path / "ticks.parquet")
        expected = read_ticks(path, "X")
    rows = expected.to_frame().select("bid", "ask", "last", "volume").rows()
    assert rows == [(10, 12, None, None), (10, 12, 11, 3), (11, 12, None, None), (11, 12, 11.5, 2)]
    [bar] = rows_of_price(path, "last", repair="drop" if way == "by line" else None)
    assert bar[1:] == (11, 11.5, 11, 11.5, 5)


def rows_of_price(path: Path, price: TickPrice, **options: Any) -> list[tuple[Any, ...]]:
    return rows_of(read_bars(path, "X", "1m", price=price, **options).bars)


def test_a_last_price_that_no_quote_has_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text("time,bid,ask,last,volume\n2022-01-03,1,2,,\n2022-01-03,1,2,0,0\n")
    assert read_ticks(path, "X").columns == ["bid", "ask"]


@pytest.mark.parametrize(("cell", "reason"), [("-1", "negative"), ("inf", "not a finite"), ("x", "is not a number")])
def test_an_impossible_trade_among_quotes_is_refused(cell: str, reason: str, tmp_path: Path) -> None:
    for row in (f"1,2,{cell},1", f"1,2,1,{cell}"):
        with pytest.raises(DataError, match=reason):
            reading(tmp_path, f"time,bid,ask,last,volume\n2022-01-03,{row}\n")
