"""The messages of the broker that wait for the compute thread of a worker.

There are few: a task at a time, the actions on it, and a bounded number of fetches. Only listeners of a backtest's
topics may come and go as often as they like while an algorithm is computed. So of those messages the latest one of each
backtest waits.
"""

from __future__ import annotations

import contextlib
import queue
import threading

from backtestr_protocol.worker_channel import Task, Unheard

# The most messages that wait.
BOUND = 1000


class Inbox:
    """A queue between the I/O thread, which puts messages, and the compute thread, which takes them."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[Task, list[bytes]]] = queue.Queue(BOUND)
        self._lock = threading.Lock()
        self._unheard: dict[str, Unheard] = {}  # the latest of each backtest, whose first one is in the queue

    def put(self, message: Task, payload: list[bytes]) -> None:
        """Put a message at the end, or in place of an `Unheard` of the same backtest."""
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
