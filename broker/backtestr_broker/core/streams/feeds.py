"""Check the live prices that a feed publishes, as a whole, and put them together by topic.

All or nothing: the first price that is wrong refuses the request; the error names its index. The decoder has checked
the numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from backtestr_protocol import topics
from backtestr_protocol.codec import encode, encoded_payload
from backtestr_protocol.errors import ValidationError
from backtestr_protocol.messages import is_symbol
from backtestr_protocol.price_messages import FeedPrice
from backtestr_protocol.ranges import SYMBOL_RULE
from backtestr_protocol.stream_messages import Batch, PriceUpdate

# Topics that feeds have begun. They last as long as the broker, for a sequence must not begin again, and each that
# advances stands in the watermarks; so many are a stock exchange's.
MAX_TOPICS = 4096


class FeedBatch(msgspec.Struct, frozen=True):
    """One payload for one topic: a PriceUpdate, or a Batch of several."""

    topic: str
    count: int
    payload: bytes


class Feeds:
    """The topics that feeds have begun."""

    def __init__(self) -> None:
        self._topics: set[str] = set()

    def take(self, prices: Iterable[FeedPrice]) -> list[FeedBatch]:
        """Return what to publish, the prices of a topic in order. Raises `ValidationError` and then changes nothing."""
        by_topic: dict[str, list[bytes]] = {}
        for index, price in enumerate(prices):
            topic = topics.prices(price.symbol, price.timeframe)
            if topic not in by_topic:
                if topic not in self._topics:
                    self._check_new(price.symbol, index, len(by_topic.keys() - self._topics))
                by_topic[topic] = []
            by_topic[topic].append(encoded_payload("PriceUpdate", _update(price)))
        self._topics |= by_topic.keys()
        return [_published(topic, payloads) for topic, payloads in by_topic.items()]

    def _check_new(self, symbol: str, index: int, beside: int) -> None:
        path = f"$.prices[{index}].symbol"
        if not is_symbol(symbol):
            raise ValidationError(
                f"{path}: {SYMBOL_RULE}, not {symbol[:200]!r}",
                path=path,
            )
        if len(self._topics) + beside >= MAX_TOPICS:
            raise ValidationError(
                f"{path}: feeds have begun {MAX_TOPICS} topics, the most there can be until the broker is restarted",
                path=path,
            )

    def check_invariants(self) -> None:
        assert len(self._topics) <= MAX_TOPICS


def _update(price: FeedPrice) -> PriceUpdate:
    return PriceUpdate(
        symbol=price.symbol,
        timestamp=int(price.timestamp),
        bid=price.bid,
        ask=price.ask,
        last=price.last,
        volume=price.volume,
        timeframe=price.timeframe,
    )


def _published(topic: str, payloads: list[bytes]) -> FeedBatch:
    if len(payloads) == 1:
        return FeedBatch(topic, 1, payloads[0])
    messages = [msgspec.Raw(one) for one in payloads]
    batch = Batch(count=len(messages), compression="none", raw_bytes=len(encode(messages)), messages=messages)
    return FeedBatch(topic, len(messages), encoded_payload("Batch", batch))
