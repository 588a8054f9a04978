"""The replay thread publishes the price replays of an interactive worker, so that its tasks do not delay them."""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Sequence

from structlog.contextvars import bind_contextvars

from backtestr_protocol.errors import SystemFault
from backtestr_protocol.texts import described
from backtestr_protocol.worker_channel import Control, Credit, Finished

from .price_replays import PriceReplays, ReplayBars, Sent

# The most items that wait for the thread: for each of the 32 price replays that a broker allows, its bars, 16 pauses,
# resumes and stops that a client waits for, and a few credits.
_INBOX = 1000
# The seconds between two checks if the worker ends.
_CHECK_SECONDS = 0.2

_log = logging.getLogger(__name__)


class ReplayThread:
    """The thread with the price replays of one worker."""

    def __init__(
        self,
        worker_id: str,
        replays: Callable[[], PriceReplays],
        send: Callable[[Sequence[Sent]], None],
        stopping: threading.Event,
        wall_ms: Callable[[], int],
    ) -> None:
        """Start the thread.

        `replays` makes a machine without price replays. `send` may wait, which slows them down to the speed at which
        the broker accepts messages.
        """
        self._inbox: queue.Queue[ReplayBars | Control | Credit] = queue.Queue(_INBOX)
        self._make = replays
        self._replays = replays()
        self._send = send
        self._stopping = stopping
        self._wall_ms = wall_ms
        self._worker_id = worker_id
        self._thread = threading.Thread(target=self._run, name=f"{worker_id}-replays", daemon=True)
        self._thread.start()

    def put(self, item: ReplayBars | Control | Credit) -> None:
        """Host a price replay, or pass it a message of the broker."""
        self._inbox.put_nowait(item)

    def join(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the end of the thread."""
        self._thread.join(timeout)

    def _run(self) -> None:
        bind_contextvars(workerId=self._worker_id)  # for the log; each thread has its own context
        while not self._stopping.is_set():
            now = time.monotonic()
            due = self._replays.next_deadline(now)
            wait = _CHECK_SECONDS if due is None else min(_CHECK_SECONDS, due - now)
            try:
                item = self._inbox.get(block=wait > 0, timeout=max(0.0, wait))
            except queue.Empty:
                item = None
            self._send(self._guarded(item))

    def _guarded(self, item: ReplayBars | Control | Credit | None) -> list[Sent]:
        """Handle `item`, then publish the bars that are due; a defect ends all price replays with the reason."""
        try:
            now = time.monotonic()
            sent: list[Sent] = []
            if isinstance(item, ReplayBars):
                self._replays.open(item)
            elif item is not None:
                sent = self._replays.take(item, now)
            return sent + self._replays.due(now)
        except Exception as error:
            fault_id = str(uuid.uuid4())
            _log.exception("the replays failed; fault %s", fault_id)
            fault = SystemFault(f"the engine failed: {described(error)}", id=fault_id)
            data = fault.to_data(component="engine", timestamp=self._wall_ms())
            lost, self._replays = self._replays, self._make()
            return [(Finished(task_id=one, outcome="failed", error=data), ()) for one in lost.replay_ids]
