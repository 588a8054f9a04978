"""The streams of a backtest: its events as messages, without those that an earlier worker has published.

Each call returns topics and their messages, in order; a `Batcher` makes batches of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backtestr_engine.data.arrays import Records
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_engine.simulation.records import ORDER_TYPES, REASONS, SIDES, STATUSES, Events
from backtestr_protocol import topics
from backtestr_protocol.codec import encoded_payload
from backtestr_protocol.messages import StreamOptions
from backtestr_protocol.stream_messages import BacktestProgress

from .column_batches import ColumnBatch
from .payloads import Messages
from .record_encoding import EncodedMaps, Field, Ids, Number, Text, encode_payloads


class BacktestStreams:
    """The streams of one backtest.

    `published` is the number of messages of each topic that were published before, without the `marks`.
    """

    def __init__(
        self,
        backtest_id: str,
        panel: Panel,
        streams: StreamOptions,
        published: Mapping[str, int],
        marks: int = 0,
    ) -> None:
        self._backtest_id = backtest_id
        self._panel = panel
        self._streams = streams
        self._orders_topic = topics.orders(backtest_id)
        self._positions_topic = topics.positions(backtest_id)
        self._progress_topic = topics.progress(backtest_id)
        self._prices_topics = [topics.prices(bars.symbol, bars.timeframe) for bars in panel.series]
        numbered = (self._orders_topic, self._positions_topic, *self._prices_topics)
        self._skip = {topic: published.get(topic, 0) for topic in numbered}
        own = (self._orders_topic, self._positions_topic, self._progress_topic)
        self._count = {topic: published.get(topic, 0) for topic in own}
        self.marks_published = marks

    @property
    def numbers(self) -> dict[str, int]:
        """The sequence number of the last message of each topic of its own."""
        marks = {self._positions_topic: self._count[self._positions_topic] + self.marks_published}
        return self._count | marks

    @property
    def topics(self) -> list[str]:
        """All topics on which the backtest may publish."""
        prices = self._prices_topics if self._streams.prices else []
        return [*prices, self._orders_topic, self._positions_topic, self._progress_topic]

    def chunk(self, events: Events, first_bar: int, stop_bar: int) -> list[tuple[str, Messages]]:
        """Return the messages of rows [first_bar, stop_bar) of the panel, on which `events` happened."""
        messages: list[tuple[str, Messages]] = []
        if self._streams.prices:
            for topic, series in zip(self._prices_topics, self._panel.series, strict=True):
                bars = self._within(series, first_bar, stop_bar)
                unpublished = bars[self._published(topic, len(bars)) :]
                encode = price_columns if self._streams.columns else encoded_prices
                messages.append((topic, encode(unpublished, backtestId=self._backtest_id)))
        if self._streams.orders:
            orders = self._unpublished(self._orders_topic, events.orders)
            messages.append((self._orders_topic, self._encoded_orders(orders)))
        if self._streams.positions:
            positions = self._unpublished(self._positions_topic, events.positions)
            messages.append((self._positions_topic, self._encoded_positions(positions)))
        return messages

    def pass_over(self, events: Events) -> None:
        """Count these events as published, by an earlier broker."""
        self._published(self._orders_topic, len(events.orders))
        self._published(self._positions_topic, len(events.positions))

    def marks(self, positions: Records) -> tuple[str, Messages]:
        """Return the topic of positions and the open `positions` at their present prices, one message each.

        There are none while what an earlier worker published is left out: that worker has marked these bars.
        """
        wanted = self._streams.positions and self._streams.marks and not self._skip[self._positions_topic]
        marked = positions if wanted else positions[:0]
        self.marks_published += len(marked)
        return self._positions_topic, self._encoded_positions(marked, mark=True)

    def progress(self, progress: BacktestProgress) -> tuple[str, Messages]:
        """Return the topic of the progress and its one message."""
        payload = encoded_payload("BacktestProgress", progress)
        self._count[self._progress_topic] += 1
        return self._progress_topic, EncodedMaps(payload, np.array([len(payload)]))

    def _within(self, bars: Bars, first_row: int, stop_row: int) -> Bars:
        times = self._panel.timestamp
        end = int(times[stop_row]) if stop_row < len(times) else None
        return bars.between(int(times[first_row]), end) if first_row < stop_row else bars[:0]

    def _symbols(self, records: np.ndarray) -> Text | str:
        symbols = self._panel.symbols
        return symbols[0] if len(symbols) == 1 else Text(symbols, records["symbol"])

    def _unpublished(self, topic: str, records: np.ndarray) -> np.ndarray:
        unpublished = records[self._published(topic, len(records)) :]
        self._count[topic] += len(unpublished)
        return unpublished

    def _published(self, topic: str, count: int) -> int:
        """Return how many of the next `count` messages of a topic were published before."""
        skipped = min(self._skip[topic], count)
        self._skip[topic] -= skipped
        return skipped

    def _encoded_orders(self, orders: np.ndarray) -> EncodedMaps:
        filled = orders["status"] == STATUSES.index("filled")
        return encode_payloads(
            "OrderUpdate",
            {
                "backtestId": self._backtest_id,
                "symbol": self._symbols(orders),
                "side": Text((SIDES[1], SIDES[-1]), orders["side"] < 0),
                "quantity": Number(orders["quantity"]),
                "price": Number(orders["price"]),
                "orderType": Text(ORDER_TYPES, orders["order_type"]),
                "status": Text(STATUSES, orders["status"]),
                "timestamp": Number(orders["timestamp"] // 1000),
                "fillPrice": Number(orders["fill_price"], filled),
                "fillQuantity": Number(orders["fill_quantity"], filled),
                "reason": Text(REASONS, orders["reason"], orders["reason"] > 0),
            },
            len(orders),
            Ids("orderId", orders["order_id"]),
        )

    def _encoded_positions(self, positions: np.ndarray, *, mark: bool = False) -> EncodedMaps:
        marked: dict[str, Field] = {"mark": True} if mark else {}
        return encode_payloads(
            "PositionUpdate",
            {
                "backtestId": self._backtest_id,
                "symbol": self._symbols(positions),
                "quantity": Number(positions["quantity"]),
                "averagePrice": Number(positions["average_price"]),
                "currentPrice": Number(positions["current_price"]),
                "unrealizedPnL": Number(positions["unrealized"]),
                "realizedPnL": Number(positions["realized"]),
                "timestamp": Number(positions["timestamp"] // 1000),
                **marked,
            },
            len(positions),
            Ids("positionId", positions["position_id"]),
        )


def encoded_prices(bars: Bars, **source: str) -> EncodedMaps:
    """Return a PriceUpdate for each bar, with its close as bid, ask and last, as a bar has no quotes.

    `source` is the origin of the prices, under its name on the wire.
    """
    return encode_payloads(
        "PriceUpdate",
        {
            "symbol": bars.symbol,
            "timestamp": Number(bars.timestamp // 1000),
            "bid": Number(bars.close),
            "ask": Number(bars.close),
            "last": Number(bars.close),
            "volume": Number(bars.volume),
            "timeframe": bars.timeframe,
            **source,
        },
        len(bars),
    )


def price_columns(bars: Bars, **source: str) -> ColumnBatch:
    """Return the messages of `encoded_prices` as a column batch."""
    return ColumnBatch(
        "PriceUpdate",
        {"symbol": bars.symbol, "timeframe": bars.timeframe, **source},
        {
            "timestamp": bars.timestamp // 1000,
            "bid": bars.close,
            "ask": bars.close,
            "last": bars.close,
            "volume": bars.volume,
        },
        len(bars),
    )
