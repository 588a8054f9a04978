"""The queue of one page holds what waits to be sent to it, in order.

The window of stream messages bounds those. Answers are never dropped: a page that leaves too many of them unread is
disconnected, and a new link asks again.
"""

from __future__ import annotations

from collections import deque

MAX_ANSWERS = 4_000
# One answer always fits: a million bars with indicators take some 100 MB.
MAX_ANSWER_BYTES = 256 << 20


class PageQueue:
    """Messages to a page, each with whether it is an answer."""

    def __init__(self) -> None:
        self.answers = 0
        self.answer_bytes = 0
        self._waiting: deque[tuple[bytes, bool]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: bytes, *, is_answer: bool) -> bool:
        """Append a message; return False if the page leaves too many answers unread, and is to be disconnected."""
        if is_answer:
            if self.answers and (self.answers >= MAX_ANSWERS or self.answer_bytes + len(message) > MAX_ANSWER_BYTES):
                return False
            self.answers += 1
            self.answer_bytes += len(message)
        self._waiting.append((message, is_answer))
        return True

    def next(self) -> bytes | None:
        """Return the message that is sent next, None if none waits."""
        if not self._waiting:
            return None
        message, is_answer = self._waiting.popleft()
        if is_answer:
            self.answers -= 1
            self.answer_bytes -= len(message)
        return message
