"""What passes between the callers' threads and the I/O thread: one answer, or a stream of deliveries.

The I/O thread never waits here; callers do.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from backtestr.core.effects import Delivery, weight
from backtestr_protocol.errors import TimedOut

# Deliveries that may lie unread in one subscription: 200 MB of them, which a backtest's million prices fill nearly, and
# publishing them takes less time than reading. What passes beyond is fetched again later.
MAX_UNREAD = 400_000

# Where the system gives Ctrl-C to another thread, a main thread that sleeps notices it when it wakes: seconds.
_NAP = 0.25

T = TypeVar("T")


class Reply(Generic[T]):
    """A place for one value or error, set once, read by any number of threads."""

    __slots__ = ("_error", "_value", "_waiting")

    def __init__(self) -> None:
        self._waiting = threading.Lock()  # held until there is something to read: half the price of an Event
        self._waiting.acquire()
        self._value: T | None = None
        self._error: Exception | None = None

    def succeed(self, value: T) -> None:
        self._value = value
        self._waiting.release()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._waiting.release()

    def read(self, timeout: float | None = None) -> T:
        """The value, or raises the error that came instead; `TimedOut` after `timeout` seconds without either."""
        for nap in _naps(timeout):
            if self._waiting.acquire(timeout=nap):
                break
        else:
            raise TimedOut(f"nothing came within {timeout:g} s", timeoutSeconds=timeout)
        self._waiting.release()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # T may itself be None


class Mailbox:
    """The unread deliveries of one subscription, for one reading thread."""

    def __init__(self, when_taken: Callable[[int], None]) -> None:
        """`when_taken` is told, by the reader's thread, how many deliveries were taken and leave room for others."""
        self._changed = threading.Condition()
        self._arrived: deque[Delivery] = deque()
        self._reading: deque[Delivery] = deque()
        self._taken = 0
        self._ended = False
        self._error: Exception | None = None
        self._when_taken = when_taken

    def put(self, deliveries: list[Delivery]) -> None:
        with self._changed:
            self._arrived.extend(deliveries)
            self._changed.notify()

    def end(self, error: Exception | None) -> None:
        """Nothing more comes. The first call counts."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            self._changed.notify_all()

    def take(self, timeout: float | None = None) -> Delivery | None:
        """The next delivery; None at the end. Raises the error that ended the subscription, once all before it was
        taken, and `TimedOut` after `timeout` seconds without anything."""
        taken = self.peek(timeout)
        if taken is not None:
            self._reading.popleft()
            self._taken += weight((taken,))
            if self._taken >= MAX_UNREAD // 4:
                self._when_taken(self._taken)
                self._taken = 0
        return taken

    def peek(self, timeout: float | None = None) -> Delivery | None:
        """What `take` would return or raise; it stays there."""
        if not self._reading:
            with self._changed:
                if not any(self._changed.wait_for(self._has_news, nap) for nap in _naps(timeout)):
                    raise TimedOut(f"nothing came within {timeout:g} s", timeoutSeconds=timeout)
                self._reading, self._arrived = self._arrived, self._reading
                if not self._reading:
                    if self._error is not None:
                        raise self._error
                    return None
        return self._reading[0]

    def _has_news(self) -> bool:
        return bool(self._arrived) or self._ended


def _naps(timeout: float | None) -> Iterator[float]:
    """Sleeps of at most `_NAP` seconds that make up `timeout`; for ever when that is None."""
    left = math.inf if timeout is None else max(0.0, timeout)
    while True:
        nap = min(left, _NAP)
        yield nap
        left -= nap
        if left <= 0:
            return
