"""A request window holds the requests of one pipeline: those that wait to be sent, and those that wait for an answer.

Threads of the program make requests and wait; the I/O thread takes, sends and settles them. Each side hands over as
many as it has: a thread that finds its window full sleeps until half of it is free, and a reply wakes only those who
wait for it. The I/O thread takes no lock that another thread may hold, so Ctrl-C in that thread does not stop it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from backtestr_protocol.errors import TimedOut

from .forks import check_process
from .interrupts import sleeps

# The most requests that one window can have under way, and that all windows of a client have in its session: half of
# what may wait there, so that the other half is left to calls that are no pipeline's.
MAX_WINDOW = 500

T = TypeVar("T")
Success = tuple[Any, list[bytes]]


class PipelinedReply(Generic[T]):
    """The handle of one request of a pipeline. Any number of threads may read it, any number of times."""

    __slots__ = ("_convert", "_error", "_is_settled", "_value", "_window", "data", "made_at", "request_type")

    def __init__(
        self, window: RequestWindow, request_type: str, data: msgspec.Raw, convert: Callable[[Any], T], made_at: float
    ) -> None:
        """Take a request with encoded `data`; `convert` makes the result of the answer's data.

        `made_at` is in monotonic seconds.
        """
        self.request_type = request_type
        self.data = data
        self.made_at = made_at
        self._window = window
        self._convert = convert
        self._is_settled = False
        self._value: Any = None
        self._error: Exception | None = None

    def done(self) -> bool:
        """Return True if the request was answered or has failed."""
        return self._is_settled

    def result(self, timeout: float | None = None) -> T:
        """Return what the call without a pipeline returns, or raise what it raises.

        Waits for the answer, `timeout` seconds at most: then it raises `TimedOut`, and can be called again. Raises
        `RuntimeError` for a request that was never sent, because an exception had ended the `with` block, and in a
        forked child, in which no answer comes.
        """
        if (error := self.exception(timeout)) is not None:
            raise error
        return self._convert(self._value)

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Return the error that `result` raises, None if the request succeeded; waits and times out as `result`."""
        if not self._is_settled and not self._window.wait(self.done, timeout):
            raise TimedOut(f"{self.request_type} was not answered within {timeout:g} s", timeoutSeconds=timeout)
        return self._error

    # --- the I/O thread -----------------------------------------------------------------------------------------------

    def succeed(self, value: Success) -> None:
        """Set the answer of a request that was taken out of its window."""
        self._settle(value[0], None)
        self._window.ended()

    def fail(self, error: Exception) -> None:
        """Set the error of a request that was taken out of its window. It has no effect on one that is settled."""
        if not self._is_settled:
            self._settle(None, error)
            self._window.ended()

    def give_up(self, error: Exception) -> None:
        """Set the error of a request that was never taken out of its window."""
        self._settle(None, error)

    def _settle(self, value: Any, error: Exception | None) -> None:
        self._value, self._error = value, error
        self._is_settled = True


class RequestWindow:
    """The requests of one pipeline that are under way, at most `size`."""

    def __init__(self, size: int, timeout: float, hand_over: Callable[[RequestWindow], None]) -> None:
        """Make an empty window. `timeout` in seconds is that of each request, from when it is made.

        `hand_over` has the I/O thread take requests out of this window.
        """
        self.size = size
        self.timeout = timeout
        self._hand_over = hand_over
        self._unsent: deque[PipelinedReply[Any]] = deque()
        self._taken = 0  # out of the window, and not settled; the I/O thread alone changes it
        self._is_handed_over = False
        self._has_settled = False
        self._closed: str | None = None  # why it takes no further request
        self._waiting: dict[Any, Callable[[], bool]] = {}  # what sleeping threads wait for, by the lock each sleeps on
        self._process = os.getpid()

    # --- called by any thread -----------------------------------------------------------------------------------------

    @property
    def under_way(self) -> int:
        """The number of requests that are not settled. It is never too small."""
        return len(self._unsent) + self._taken

    def ask(self, request_type: str, data: msgspec.Raw, convert: Callable[[Any], T]) -> PipelinedReply[T]:
        """Make a request, and return its reply; in a full window wait first until half of it is free.

        Raises `RuntimeError` for a closed window or client, and in a forked child.
        """
        check_process(self._process)
        if self.under_way >= self.size:
            self.wait(self._is_half_free)
        if self._closed is not None:
            raise RuntimeError(self._closed)
        reply = PipelinedReply(self, request_type, data, convert, time.monotonic())
        self._unsent.append(reply)
        self._offer()
        return reply

    def drain(self) -> None:
        """Wait until every request is settled."""
        self.wait(lambda: not self.under_way)

    def close(self, reason: str) -> None:
        """Take no further requests, and give up those that are not sent yet, both with `reason`."""
        self._closed = reason
        self.abandon(RuntimeError(reason))

    def abandon(self, error: Exception) -> None:
        """Fail the requests that were not taken out of the window."""
        while self._unsent:
            try:
                reply = self._unsent.popleft()
            except IndexError:  # another thread took the last one
                break
            reply.give_up(error)
        self.wake()

    def wait(self, is_over: Callable[[], bool], timeout: float | None = None) -> bool:
        """Sleep until `is_over`, and return True; return False after `timeout` seconds."""
        if is_over():
            return True
        check_process(self._process)
        if self._unsent:
            self._offer()  # in case Ctrl-C came before that
        asleep = threading.Lock()
        asleep.acquire()
        self._waiting[asleep] = is_over
        try:
            # It may have become true before the I/O thread could see this wait.
            return is_over() or any(asleep.acquire(timeout=sleep) or is_over() for sleep in sleeps(timeout))
        finally:
            self._waiting.pop(asleep, None)

    def _is_half_free(self) -> bool:
        return self.under_way <= self.size // 2

    def _offer(self) -> None:
        """Have the I/O thread take requests, unless it was told and has not come yet."""
        if self._is_handed_over:
            return
        try:
            self._is_handed_over = True
            self._hand_over(self)
        except BaseException as error:  # Ctrl-C, or a client that is closed
            self._is_handed_over = False
            if isinstance(error, Exception):
                self.abandon(error)
            raise

    # --- the I/O thread -----------------------------------------------------------------------------------------------

    def come(self) -> None:
        """Note that the I/O thread has come for requests: whoever makes another has to tell it again."""
        self._is_handed_over = False

    @property
    def due(self) -> float | None:
        """The time at which the oldest unsent request is overdue, in monotonic seconds; None without one."""
        try:
            return self._unsent[0].made_at + self.timeout
        except IndexError:
            return None

    def take(self) -> PipelinedReply[Any] | None:
        """Take the oldest unsent request out of the window; None if there is none, or `size` are taken."""
        if not self._unsent or self._taken >= self.size:
            return None
        self._taken += 1  # before it is no longer counted as unsent
        try:
            return self._unsent.popleft()
        except IndexError:  # another thread gave it up
            self.ended()
            return None

    def ended(self) -> None:
        """Note that a request that was taken is settled. `wake_if_settled` follows."""
        self._taken -= 1
        self._has_settled = True

    def wake_if_settled(self) -> None:
        """Wake the threads whose wait is over, if a request was settled since the last call."""
        if self._has_settled:
            self._has_settled = False
            self.wake()

    def wake(self) -> None:
        """Wake the threads whose wait is over."""
        for asleep, is_over in self._waiting.copy().items():
            if is_over() and self._waiting.pop(asleep, None) is not None:
                asleep.release()


class RequestWindows:
    """All windows of one client, as its I/O thread feeds the session from them."""

    def __init__(
        self, ask: Callable[[str, msgspec.Raw, float, PipelinedReply[Any], float], None], room: Callable[[], int]
    ) -> None:
        """Take `ask`, which sends a request (its type, data, timeout, reply, and the seconds that it has waited).

        `room` returns how many requests the session takes now without refusing one.
        """
        self._ask = ask
        self._room = room
        self._open: dict[RequestWindow, None] = {}  # those with requests under way, in the order in which they came

    def add(self, window: RequestWindow) -> None:
        """Take the requests of this window, now as far as there is room, and later in `turn`."""
        window.come()
        self._open[window] = None
        self._give(window, time.monotonic())

    def turn(self, now: float) -> None:
        """Send what there is room for by now, and wake the threads whose requests are settled."""
        for window in list(self._open):
            self._give(window, now)
            window.wake_if_settled()
            if not window.under_way:
                del self._open[window]

    def next_deadline(self) -> float | None:
        """Return when `turn` is due at the latest: an unsent request is overdue. None is never."""
        return min((due for window in self._open if (due := window.due) is not None), default=None)

    def abandon(self, error: Exception) -> None:
        """Fail all requests that wait to be sent, and wake the threads that wait for others, which are settled."""
        for window in self._open:
            window.abandon(error)

    def _give(self, window: RequestWindow, now: float) -> None:
        """Give the session what it has room for. It also gets what is overdue, and then fails that."""
        while (due := window.due) is not None and (due <= now or self._room() > 0):
            if (reply := window.take()) is None:
                return
            try:
                self._ask(reply.request_type, reply.data, window.timeout, reply, max(0.0, now - reply.made_at))
            except BaseException as fault:
                reply.fail(RuntimeError(f"this client's I/O thread ended: {fault!r}"))
                raise
