"""The window of one page: the stream messages that were sent to it and that it has not taken yet.

A page that is slow does not make the server grow. Beyond the bounds messages are dropped and counted; the page finds
them missing by their sequence numbers, and fetches them.
"""

from __future__ import annotations

from collections import deque

from .tunnel_format import MalformedMessage

MAX_UNTAKEN = 2_000
MAX_UNTAKEN_BYTES = 64 << 20


class StreamWindow:
    """`dropped` is the number of messages that were not let in."""

    def __init__(self) -> None:
        self.dropped = 0
        self.untaken_bytes = 0
        self._sizes: deque[int] = deque()

    @property
    def untaken(self) -> int:
        """The number of messages that the page has still to take."""
        return len(self._sizes)

    def lets_in(self, size: int) -> bool:
        """Take note of a message of `size` bytes that is sent, and return True; return False if it is dropped."""
        if len(self._sizes) >= MAX_UNTAKEN or self.untaken_bytes + size > MAX_UNTAKEN_BYTES:
            self.dropped += 1
            return False
        self._sizes.append(size)
        self.untaken_bytes += size
        return True

    def taken(self, count: int) -> None:
        """Take note that the page has read `count` messages more. Raises `MalformedMessage` if it was sent fewer."""
        if count > len(self._sizes):
            raise MalformedMessage(f"{count:,} messages that were taken, of {len(self._sizes):,} that were sent")
        for _ in range(count):
            self.untaken_bytes -= self._sizes.popleft()
