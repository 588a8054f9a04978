"""The streams of a backtest: its events as messages, without those that an earlier worker has published.

Each call returns topics and their messages, in order; a `Batcher` makes batches of them. On a topic that no subscriber
holds messages are counted, and not made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from backtestr_engine.data.arrays import Records
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_engine.simulation.records import Events
from backtestr_protocol import topics
from backtestr_protocol.messages import StreamOptions
from backtestr_protocol.stream_messages import BacktestProgress

from .column_batches import ColumnBatch
from .payloads import Messages
from .record_encoding import EncodedMaps, Number, encode_payloads
from .record_messages import order_messages, position_messages, progress_messages

R = TypeVar("R", Records, tuple[BacktestProgress, ...], range)

Made = list[tuple[str, Messages]]
"""Messages, by topic and in order."""


class BacktestStreams:
    """The streams of one backtest. `published` is the number of messages of each topic that were published before."""

    def __init__(self, backtest_id: str, panel: Panel, streams: StreamOptions, published: Mapping[str, int]) -> None:
        self._backtest_id = backtest_id
        self._panel = panel
        self._streams = streams
        self._orders_topic = topics.orders(backtest_id)
        self._positions_topic = topics.positions(backtest_id)
        self._progress_topic = topics.progress(backtest_id)
        self._prices_topics = [topics.prices(bars.symbol, bars.timeframe) for bars in panel.series]
        numbered = (self._orders_topic, self._positions_topic, self._progress_topic, *self._prices_topics)
        self._skip = {topic: published.get(topic, 0) for topic in numbered}
        self._unheard: frozenset[str] = frozenset()
        self._counts: dict[str, int] = {}

    @property
    def topics(self) -> list[str]:
        """All topics on which the backtest may publish."""
        prices = self._prices_topics if self._streams.prices else []
        return [*prices, self._orders_topic, self._positions_topic, self._progress_topic]

    @property
    def has_marks(self) -> bool:
        """True if progress comes with marks of the open positions."""
        return self._streams.positions and self._streams.marks

    @property
    def is_behind(self) -> bool:
        """True while orders, positions or progress that an earlier worker has published are not made again."""
        return any(self._skip[topic] for topic in (self._orders_topic, self._positions_topic, self._progress_topic))

    def set_unheard(self, unheard: Iterable[str]) -> list[str]:
        """Count the messages of these topics from now on instead of making them; return those that are new to it."""
        before, self._unheard = self._unheard, frozenset(unheard)
        return sorted(self._unheard - before)

    def take_counts(self) -> dict[str, int]:
        """Return how many messages of each topic were counted since the last call."""
        counts, self._counts = self._counts, {}
        return counts

    def chunk(self, events: Events, first_bar: int, stop_bar: int) -> Made:
        """Return the messages of rows [first_bar, stop_bar) of the panel, on which `events` happened."""
        messages = self._prices(first_bar, stop_bar)
        if self._streams.orders and len(orders := self._to_make(self._orders_topic, events.orders)):
            messages.append((self._orders_topic, order_messages(self._backtest_id, self._panel.symbols, orders)))
        if self._streams.positions and len(changes := self._to_make(self._positions_topic, events.positions)):
            messages.append((self._positions_topic, position_messages(self._backtest_id, self._panel.symbols, changes)))
        return messages

    def progress(self, progress: BacktestProgress, marks: Records) -> Made:
        """Return the messages of open positions at their present prices, then that of the progress."""
        messages: Made = []
        if len(made := self._to_make(self._positions_topic, marks)):
            of_marks = position_messages(self._backtest_id, self._panel.symbols, made, mark=True)
            messages.append((self._positions_topic, of_marks))
        if self._to_make(self._progress_topic, (progress,)):
            messages.append((self._progress_topic, progress_messages([progress])))
        return messages

    def catch_up(self, bars: int, numbers: Mapping[str, int], messages: Callable[[str, int, int], EncodedMaps]) -> Made:
        """Return what an earlier worker has made with the first `bars` rows of the panel, and has not published.

        `numbers` has how many messages of each topic of its own it has made, and `messages` returns those of a topic
        from one up to, but not including, another, counted from 0.
        """
        found = self._prices(0, bars)
        for topic, count in numbers.items():
            if left := self._to_make(topic, range(count)):
                found.append((topic, messages(topic, left.start, left.stop)))
        return found

    def _prices(self, first_bar: int, stop_bar: int) -> Made:
        if not self._streams.prices:
            return []
        found: Made = []
        for topic, series in zip(self._prices_topics, self._panel.series, strict=True):
            bars = self._within(series, first_bar, stop_bar)
            unpublished = bars[self._published(topic, len(bars)) :]
            encode = price_columns if self._streams.columns else encoded_prices
            found.append((topic, encode(unpublished, backtestId=self._backtest_id)))
        return found

    def _within(self, bars: Bars, first_row: int, stop_row: int) -> Bars:
        times = self._panel.timestamp
        end = int(times[stop_row]) if stop_row < len(times) else None
        return bars.between(int(times[first_row]), end) if first_row < stop_row else bars[:0]

    def _to_make(self, topic: str, records: R) -> R:
        """Return the records whose messages are to be made now: unpublished ones of a topic that has a listener."""
        unpublished: R = records[self._published(topic, len(records)) :]
        if topic not in self._unheard or not len(unpublished):
            return unpublished
        self._counts[topic] = self._counts.get(topic, 0) + len(unpublished)
        return records[:0]

    def _published(self, topic: str, count: int) -> int:
        """Return how many of the next `count` messages of a topic were published before."""
        skipped = min(self._skip[topic], count)
        self._skip[topic] -= skipped
        return skipped


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
