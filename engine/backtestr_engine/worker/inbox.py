"""The messages of the broker that wait for the compute thread of a worker.

There are few: a task at a time, the actions on it, and a bounded number of fetches. Only listeners of a backtest's
topics may come and go as often as they like while an algorithm is computed. So of those messages the latest one of each
backtest waits. A request for results that waits for the end of a backtest is no message to handle now: it is kept until
the end asks for it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import OrderedDict

from backtestr_protocol.worker_channel import Task, Unheard, Wanted

# The most messages that wait.
BOUND = 1000
# The most requests for results that are kept: one that came after the end is never asked for. The oldest makes room,
# and is answered from the stored result.
KEPT_WANTED = 64


class Inbox:
    """A queue between the I/O thread, which puts messages, and the compute thread, which takes them."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[Task, list[bytes]]] = queue.Queue(BOUND)
        self._lock = threading.Lock()
        self._unheard: dict[str, Unheard] = {}  # the latest of each backtest, whose first one is in the queue
        self._wanted: OrderedDict[str, bytes] = OrderedDict()  # the requests for results, by backtest

    def put(self, message: Task | Wanted, payload: list[bytes]) -> None:
        """Put a message at the end, or in place of an `Unheard` of the same backtest, or keep what is `Wanted`."""
        if isinstance(message, Wanted):
            with self._lock:
                self._wanted[message.task_id] = payload[0]
                while len(self._wanted) > KEPT_WANTED:
                    self._wanted.popitem(last=False)
            return
        if isinstance(message, Unheard):
            with self._lock:
                is_waiting = message.task_id in self._unheard
                self._unheard[message.task_id] = message
            if is_waiting:
                return
        self._queue.put_nowait((message, payload))

    def take(self, wait: float) -> tuple[Task, list[bytes]] | None:
        """Return the next message, or None if none comes within `wait` seconds."""
        with contextlib.suppress(queue.Empty):
            message, payload = self._queue.get(block=wait > 0, timeout=wait)
            if isinstance(message, Unheard):
                with self._lock:
                    message = self._unheard.pop(message.task_id)
            return message, payload
        return None

    def wanted(self, task_id: str) -> bytes | None:
        """Return the request for results that waits for the end of a backtest, once; None where there is none."""
        with self._lock:
            return self._wanted.pop(task_id, None)
