"""Mailboxes and pending replies pass deliveries and answers from the I/O thread to the threads that wait for them.

The I/O thread never waits here; callers do.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from backtestr.core.effects import Delivery, weight
from backtestr_protocol.errors import TimedOut

from .forks import check_process
from .interrupts import sleeps

# Deliveries that may be unread in one subscription: 200 MB of them. A backtest's million prices nearly fill that, and
# are published faster than they are read. Messages beyond the bound are fetched again later.
MAX_UNREAD = 400_000

T = TypeVar("T")


class PendingReply(Generic[T]):
    """One value or error, which is set once and read by any number of threads."""

    __slots__ = ("_error", "_is_settled", "_process", "_value", "_waiting")

    def __init__(self) -> None:
        self._waiting = threading.Lock()  # held until there is something to read: half the price of an Event
        self._waiting.acquire()
        self._value: T | None = None
        self._error: Exception | None = None
        self._is_settled = False
        self._process = os.getpid()

    @property
    def is_settled(self) -> bool:
        """True if there is a value or an error."""
        return self._is_settled

    def succeed(self, value: T) -> None:
        """Set the value."""
        self._settle(value, None)

    def fail(self, error: Exception) -> None:
        """Set the error. It has no effect on a reply that has a value or an error."""
        if not self._is_settled:
            self._settle(None, error)

    def _settle(self, value: T | None, error: Exception | None) -> None:
        self._is_settled, self._value, self._error = True, value, error
        self._waiting.release()

    def read(self, timeout: float | None = None) -> T:
        """Return the value or raise the error that was set, or `TimedOut` after `timeout` seconds without either.

        Raises `RuntimeError` in a forked child, in which neither will be set.
        """
        if not self._is_settled:
            check_process(self._process)
        for sleep in sleeps(timeout):
            if self._waiting.acquire(timeout=sleep):
                break
        else:
            raise TimedOut(f"nothing came within {timeout:g} s", timeoutSeconds=timeout)
        self._waiting.release()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # T may itself be None


class Mailbox:
    """The unread deliveries of one subscription, for one reading thread.

    No lock guards them: Ctrl-C may come to the reader between taking a lock and the block that would release it, and
    the I/O thread would then wait for it for ever. Each operation on a deque or dict is whole by itself.
    """

    def __init__(self, when_taken: Callable[[int], None]) -> None:
        """Make an empty mailbox. The reader's thread calls `when_taken` with the number of taken deliveries."""
        self._unread: deque[Delivery] = deque()
        self._asleep: dict[Any, None] = {}  # the locks on which readers sleep
        self._taken = 0
        self._ended = False
        self._error: Exception | None = None
        self._when_taken = when_taken
        self._process = os.getpid()

    def put(self, deliveries: list[Delivery]) -> None:
        """Add deliveries."""
        self._unread.extend(deliveries)
        self._wake()

    def end(self, error: Exception | None) -> None:
        """End the deliveries, with `error` as the reason if there is one. Only the first call has an effect."""
        if not self._ended:
            self._error = error
            self._ended = True  # after the error, and after all deliveries: a reader that sees it has both
        self._wake()

    def take(self, timeout: float | None = None) -> Delivery | None:
        """Take the next delivery; None at the end.

        Raises the error that ended the subscription once all deliveries before it are taken, and `TimedOut` after
        `timeout` seconds without a delivery.
        """
        taken = self.peek(timeout)
        if taken is not None:
            self._unread.popleft()
            self._taken += weight((taken,))
            if self._taken >= MAX_UNREAD // 4:
                self._when_taken(self._taken)
                self._taken = 0
        return taken

    def peek(self, timeout: float | None = None) -> Delivery | None:
        """Return or raise what `take` would, and leave it in the mailbox."""
        if not self._unread:
            check_process(self._process)
            if not self._wait(timeout):
                raise TimedOut(f"nothing came within {timeout:g} s", timeoutSeconds=timeout)
            if not self._unread:
                if self._error is not None:
                    raise self._error
                return None
        return self._unread[0]

    def _wait(self, timeout: float | None) -> bool:
        """Sleep until there is something, and return True; return False after `timeout` seconds."""
        asleep = threading.Lock()
        asleep.acquire()
        self._asleep[asleep] = None
        try:
            if self._has_something():  # it may have come before the I/O thread could see this sleeper
                return True
            for sleep in sleeps(timeout):
                asleep.acquire(timeout=sleep)
                if self._has_something():
                    return True
            return False
        finally:
            self._asleep.pop(asleep, None)

    def _wake(self) -> None:
        for asleep in self._asleep.copy():
            if self._asleep.pop(asleep, asleep) is None:  # this thread alone has taken it out
                asleep.release()

    def _has_something(self) -> bool:
        return bool(self._unread) or self._ended


def time_left(timeout: float | None) -> Callable[[], float | None]:
    """Return a function that says how many of `timeout` seconds are left, 0 at the end; None is no bound."""
    if timeout is None:
        return lambda: None
    deadline = time.monotonic() + timeout
    return lambda: max(0.0, deadline - time.monotonic())
