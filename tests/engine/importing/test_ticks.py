"""Ticks to bars: real files and random ticks, compared with a loop over single ticks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from backtestr_engine.data.bars import Bars
from backtestr_engine.data.instants import instant
from backtestr_engine.data.timeframes import LENGTH_US
from backtestr_engine.importing.ticks import bars_of
from backtestr_protocol.errors import DataError, InvalidConfiguration
from backtestr_protocol.messages import QuotePrice, Timeframe
from support.engine.reading import ReadBars, read_bars

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Tick = tuple[datetime, float, float]


def opens_at(time: datetime, timeframe: Timeframe) -> datetime:
    """Return the open time of the bar of `timeframe`, by the calendar rather than by division."""
    midnight = time.replace(hour=0, minute=0, second=0, microsecond=0)
    if timeframe == "1w":
        return midnight - timedelta(days=time.weekday())
    if timeframe == "1d":
        return midnight
    if timeframe in ("1h", "4h"):
        return midnight.replace(hour=time.hour - time.hour % int(timeframe[0]))
    minutes = int(timeframe[:-1])
    return midnight.replace(hour=time.hour, minute=time.minute - time.minute % minutes)


def one_by_one(ticks: list[Tick], timeframe: Timeframe) -> list[tuple[int, float, float, float, float, float]]:
    """Make bars of (time, price, size) in a loop over the ticks."""
    bars: dict[datetime, list[float]] = {}
    for time, price, size in ticks:
        bar = bars.setdefault(opens_at(time, timeframe), [price, price, price, price, 0.0])
        bar[1], bar[2], bar[3] = max(bar[1], price), min(bar[2], price), price
        bar[4] += size
    return [
        ((at - EPOCH) // timedelta(microseconds=1), open, high, low, close, volume)
        for at, (open, high, low, close, volume) in bars.items()
    ]


def rows(bars: Bars) -> list[tuple[Any, ...]]:
    columns = (bars.timestamp, bars.open, bars.high, bars.low, bars.close, bars.volume)
    return list(zip(*(column.tolist() for column in columns), strict=True))


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
        ticks.append((est + timedelta(hours=5), sides(float(bid), float(ask))[price], 1.0))
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


@pytest.mark.parametrize("timeframe", LENGTH_US)
@pytest.mark.parametrize("sized", [False, True])
def test_random_ticks_agree_with_a_loop(timeframe: Timeframe, sized: bool, generator: np.random.Generator) -> None:
    length = LENGTH_US[timeframe]
    steps = generator.exponential(length / 5, 2_000).astype(np.int64) * (generator.random(2_000) < 0.8)
    steps[::97] += 3 * length
    timestamp = 1_577_836_800_000_000 + np.cumsum(steps)
    timestamp[:3] = 1_577_836_800_000_000  # ticks on an edge belong to the bar that opens there
    price = np.round(100 + np.cumsum(generator.normal(0, 0.1, 2_000)), 2)
    size = generator.integers(0, 5, 2_000).astype(np.float64)
    ticks = [
        (EPOCH + timedelta(microseconds=int(at)), float(paid), float(lot) if sized else 1.0)
        for at, paid, lot in zip(timestamp, price, size, strict=True)
    ]

    assert rows(bars_of("X", timeframe, timestamp, price, size if sized else None)) == one_by_one(ticks, timeframe)


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


def test_ticks_need_a_timeframe(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds quotes, which have no timeframe: name the one .* \(1m, 5m") as caught:
        reading(tmp_path, QUOTES, None)
    assert caught.value.details is not None
    assert caught.value.details["path"] == "$.timeframe"


@pytest.mark.parametrize("content", [TRADES, "time,open,high,low,close\n2022-01-03,1,1,1,1\n"])
def test_a_price_chooses_a_side_of_quotes_only(content: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="price 'bid' chooses a side of quotes"):
        reading(tmp_path, content, price="bid")


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
