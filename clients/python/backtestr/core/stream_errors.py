"""Streams report two kinds of errors: messages that are lost, and the broker's messages on `system.errors`.

No I/O. `system.errors` is read only while the program subscribes to it, and the program gets its messages as well.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from backtestr_protocol import topics
from backtestr_protocol.codec import decode
from backtestr_protocol.errors import BacktestrError, ErrorData, MessageError, from_data

from .counters import StreamCounters
from .effects import DeliveredBatch, Delivery, Gap, StreamMessage
from .recovery import MessagesLost, Recovered

_error_decoder = msgspec.msgpack.Decoder(ErrorData)


class StreamErrors:
    """The errors within the deliveries of all subscriptions of one client."""

    def __init__(self) -> None:
        self._carriers: set[int] = set()  # the subscriptions that carry system.errors
        self._last_seq = 0
        self._lost = 0
        self._repaired = 0

    def subscribed(self, subscription_id: int, prefix: str) -> None:
        """Note that a subscription begins."""
        if prefix == topics.ERRORS or (prefix.endswith(".") and topics.ERRORS.startswith(prefix)):
            self._carriers.add(subscription_id)

    def unsubscribed(self, subscription_id: int) -> None:
        """Note that a subscription has ended."""
        self._carriers.discard(subscription_id)

    def restarted(self) -> None:
        """Note that there is another instance of the broker, whose topics begin at 1."""
        self._last_seq = 0

    def find(
        self, subscription_id: int, deliveries: list[Delivery], counters: StreamCounters
    ) -> Iterator[tuple[BacktestrError, str]]:
        """Yield the errors in `deliveries`, each with its topic, and a recovery where missing messages have come.

        While the messages lost stay the same in `counters`, the deliveries are not searched for gaps.
        """
        if counters.gaps_repaired != self._repaired:
            count, self._repaired = counters.gaps_repaired - self._repaired, counters.gaps_repaired
            topic = next(
                (one.topic for one in deliveries if isinstance(one, StreamMessage | DeliveredBatch)), "streams"
            )
            yield Recovered(f"messages of {topic} that were missing were fetched ({count} gaps)"), topic
        if counters.messages_lost != self._lost:
            self._lost = counters.messages_lost
            for gap in deliveries:
                if isinstance(gap, Gap):
                    yield MessagesLost(f"messages {gap.from_seq} to {gap.to_seq} of {gap.topic} are lost"), gap.topic
        if subscription_id in self._carriers:
            for message in deliveries:
                if isinstance(message, StreamMessage) and message.topic == topics.ERRORS and self._is_new(message):
                    yield _error_in(message), topics.ERRORS

    def _is_new(self, message: StreamMessage) -> bool:
        """Return True unless another subscription has brought this message already."""
        is_new = message.seq > self._last_seq
        self._last_seq = max(self._last_seq, message.seq)
        return is_new


def _error_in(message: StreamMessage) -> BacktestrError:
    try:
        return from_data(decode(_error_decoder, message.data))
    except MessageError as error:
        return error
