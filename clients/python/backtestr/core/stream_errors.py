"""What streams tell of errors: messages that are lost for good, and what the broker says on `system.errors`.

No I/O. The latter is looked at where the program has subscribed to it, beside what the program makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from backtestr_protocol import topics
from backtestr_protocol.codec import decode
from backtestr_protocol.errors import BacktestrError, ErrorData, MessageError, from_data

from .effects import Delivery, Gap, StreamMessage
from .recovery import MessagesLost

_error_decoder = msgspec.msgpack.Decoder(ErrorData)


class StreamErrors:
    def __init__(self) -> None:
        self._feeds: set[int] = set()  # the subscriptions that carry system.errors
        self._last_seq = 0
        self._lost = 0

    def subscribed(self, subscription_id: int, prefix: str) -> None:
        if prefix == topics.ERRORS or (prefix.endswith(".") and topics.ERRORS.startswith(prefix)):
            self._feeds.add(subscription_id)

    def unsubscribed(self, subscription_id: int) -> None:
        self._feeds.discard(subscription_id)

    def restarted(self) -> None:
        """Another start of the broker, whose topics begin at 1."""
        self._last_seq = 0

    def within(
        self, subscription_id: int, deliveries: list[Delivery], lost: int
    ) -> Iterator[tuple[BacktestrError, str]]:
        """The errors in `deliveries`, each with the topic that it is of. `lost` counts all messages lost so far: while
        it stands still, deliveries need not be searched."""
        if lost != self._lost:
            self._lost = lost
            for gap in deliveries:
                if isinstance(gap, Gap):
                    yield MessagesLost(f"messages {gap.from_seq} to {gap.to_seq} of {gap.topic} are lost"), gap.topic
        if subscription_id in self._feeds:
            for message in deliveries:
                if isinstance(message, StreamMessage) and message.topic == topics.ERRORS and self._is_new(message):
                    yield _error_in(message), topics.ERRORS

    def _is_new(self, message: StreamMessage) -> bool:
        """Not what another subscription has brought already."""
        is_new = message.seq > self._last_seq
        self._last_seq = max(self._last_seq, message.seq)
        return is_new


def _error_in(message: StreamMessage) -> BacktestrError:
    try:
        return from_data(decode(_error_decoder, message.data))
    except MessageError as complaint:
        return complaint
