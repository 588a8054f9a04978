"""A backtest publishes every event once, in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.publishing.backtest_streams import BacktestStreams
from backtestr_engine.publishing.column_batches import ColumnBatch
from backtestr_engine.publishing.payloads import Messages
from backtestr_engine.publishing.record_encoding import EncodedMaps
from backtestr_engine.publishing.record_messages import order_messages
from backtestr_engine.simulation.records import ORDER, POSITION, REASONS, TRADE, Events
from backtestr_protocol.messages import StreamOptions
from support.engine.examples import unpacked

ORDERS, POSITIONS = "orders.b", "positions.b"


@pytest.fixture(scope="module")
def bars() -> Bars:
    return synthetic_bars("1m", 100)


def chunk(orders: int, positions: int, *, first_id: int = 1) -> Events:
    """Return filled orders and changes of positions, numbered from `first_id`."""
    made = np.zeros(orders, dtype=ORDER)
    made["order_id"] = np.arange(first_id, first_id + orders)
    made["timestamp"] = 1_700_000_000_000_000
    made["side"] = 1
    made["quantity"] = made["fill_quantity"] = 2.5
    made["price"] = made["fill_price"] = 10.0
    changed = np.zeros(positions, dtype=POSITION)
    changed["position_id"] = np.arange(first_id, first_id + positions)
    changed["timestamp"] = 1_700_000_000_000_000
    return Events(made, changed, np.zeros(0, dtype=TRADE))


def payloads(runs: list[tuple[str, Messages]], topic: str) -> list[Any]:
    return [message for name, run in runs if name == topic for message in unpacked(run)]


@pytest.mark.parametrize("count", [0, 1, 2, 1500])
def test_every_event_is_published_once_and_in_order(bars: Bars, count: int) -> None:
    sent = BacktestStreams("b", Panel.of([bars]), StreamOptions(), {}).chunk(chunk(count, count), 0, 100)
    assert [one["data"]["orderId"] for one in payloads(sent, ORDERS)] == [str(one) for one in range(1, count + 1)]
    assert [one["data"]["positionId"] for one in payloads(sent, POSITIONS)] == [str(one) for one in range(1, count + 1)]


def test_an_order_reads_as_the_protocol_says(bars: Bars) -> None:
    made = chunk(2, 0)
    made.orders["status"][1] = 1
    made.orders["reason"][1] = 1
    sent = BacktestStreams("b", Panel.of([bars]), StreamOptions(), {}).chunk(made, 0, 100)
    common = {"backtestId": "b", "symbol": "SYNTH", "side": "buy", "quantity": 2.5, "price": 10.0}
    common |= {"orderType": "market", "timestamp": 1_700_000_000_000}
    assert payloads(sent, ORDERS) == [
        {
            "type": "OrderUpdate",
            "data": {**common, "orderId": "1", "status": "filled", "fillPrice": 10.0, "fillQuantity": 2.5},
        },
        {"type": "OrderUpdate", "data": {**common, "orderId": "2", "status": "rejected", "reason": REASONS[1]}},
    ]


def test_messages_of_an_earlier_worker_are_left_out(bars: Bars) -> None:
    publisher = BacktestStreams("b", Panel.of([bars]), StreamOptions(), {ORDERS: 3, POSITIONS: 1, "progress.b": 9})
    first = publisher.chunk(chunk(2, 2), 0, 50)
    second = publisher.chunk(chunk(2, 2, first_id=3), 50, 100)
    assert [one["data"]["orderId"] for one in payloads(first + second, ORDERS)] == ["4"]
    assert [one["data"]["positionId"] for one in payloads(first + second, POSITIONS)] == ["2", "3", "4"]


def test_what_an_earlier_worker_has_made_and_not_published_is_made_once(bars: Bars) -> None:
    streams = BacktestStreams(
        "b", Panel.of([bars]), StreamOptions(prices=True), {ORDERS: 3, POSITIONS: 9, "prices.SYNTH.1m": 48}
    )
    streams.set_unheard([POSITIONS, "progress.b"])
    asked = []

    def made(topic: str, first: int, stop: int) -> EncodedMaps:
        asked.append((topic, first, stop))
        return order_messages("b", ("SYNTH",), chunk(5, 0).orders[first:stop])

    first = streams.catch_up(50, {"progress.b": 4, ORDERS: 5, POSITIONS: 7}, made)
    assert asked == [(ORDERS, 3, 5)]
    assert [one["data"]["orderId"] for one in payloads(first, ORDERS)] == ["4", "5"]
    assert [one["data"]["last"] for one in payloads(first, "prices.SYNTH.1m")] == bars.close[48:50].tolist()
    assert streams.take_counts() == {"progress.b": 4}
    assert streams.is_behind, "two changes of positions were published that are not made again yet"
    assert payloads(streams.chunk(chunk(0, 3), 50, 60), POSITIONS) == []
    assert streams.take_counts() == {POSITIONS: 1}


def test_streams_that_are_off_publish_nothing(bars: Bars) -> None:
    off = StreamOptions(orders=False, positions=False)
    assert BacktestStreams("b", Panel.of([bars]), off, {}).chunk(chunk(5, 5), 0, 100) == []


@pytest.mark.parametrize("before", [0, 3, 4, 5, 20])
def test_published_prices_are_not_published_again(bars: Bars, before: int) -> None:
    prices = StreamOptions(prices=True, orders=False, positions=False)
    publisher = BacktestStreams("b", Panel.of([bars]), prices, {"prices.SYNTH.1m": before})
    sent = [one for first in range(0, 12, 4) for one in publisher.chunk(chunk(0, 0), first, first + 4)]
    found = [one["data"]["last"] for one in payloads(sent, "prices.SYNTH.1m")]
    assert found == bars.close[before:12].tolist()


def test_prices_are_the_simulated_bars(bars: Bars) -> None:
    prices = StreamOptions(prices=True, orders=False, positions=False)
    sent = BacktestStreams("b", Panel.of([bars]), prices, {}).chunk(chunk(0, 0), 10, 13)
    found = [one["data"] for one in payloads(sent, "prices.SYNTH.1m")]
    assert [one["last"] for one in found] == bars.close[10:13].tolist()
    assert [one["timestamp"] for one in found] == (bars.timestamp[10:13] // 1000).tolist()
    assert found[0].keys() == {"symbol", "timestamp", "bid", "ask", "last", "volume", "timeframe", "backtestId"}


def test_prices_as_columns_are_the_same_prices(bars: Bars) -> None:
    of = {"prices": True, "orders": False, "positions": False}
    [(topic, maps)] = BacktestStreams("b", Panel.of([bars]), StreamOptions(**of), {}).chunk(chunk(0, 0), 10, 13)
    [(same, columns)] = BacktestStreams("b", Panel.of([bars]), StreamOptions(**of, columns=True), {}).chunk(
        chunk(0, 0), 10, 13
    )
    assert topic == same == "prices.SYNTH.1m"
    assert isinstance(columns, ColumnBatch)
    rows = zip(*(values.tolist() for values in columns.arrays.values()), strict=True)
    found = [{**columns.constants, **dict(zip(columns.arrays, row, strict=True))} for row in rows]
    assert found == [one["data"] for one in unpacked(maps)]
    assert columns.type_name == "PriceUpdate"


def test_all_its_topics_are_known(bars: Bars) -> None:
    publisher = BacktestStreams("b", Panel.of([bars]), StreamOptions(prices=True), {})
    assert sorted(publisher.topics) == [ORDERS, POSITIONS, "prices.SYNTH.1m", "progress.b"]
