"""The thread that plays the replays of an interactive worker, beside its questions: a long one holds up no replay."""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Sequence

from structlog.contextvars import bind_contextvars

from backtestr_protocol.errors import SystemFault
from backtestr_protocol.worker_channel import Control, Credit, Finished

from .price_replays import Replays, Sent, Tape

# What waits for the thread: of each of the 32 replays that a broker allows, its tape, 16 pauses, resumes and stops that
# somebody waits for, and a few credits.
_INBOX = 1000
# How often the thread looks whether the worker ends, in seconds.
_LOOK_SECONDS = 0.2

_log = logging.getLogger(__name__)


class ReplayHost:
    def __init__(
        self,
        worker_id: str,
        replays: Callable[[], Replays],
        send: Callable[[Sequence[Sent]], None],
        stopping: threading.Event,
        wall_ms: Callable[[], int],
    ) -> None:
        """`replays` makes an empty machine of them. `send` may wait, which slows them down to what the broker takes."""
        self._inbox: queue.Queue[Tape | Control | Credit] = queue.Queue(_INBOX)
        self._make = replays
        self._replays = replays()
        self._send = send
        self._stopping = stopping
        self._wall_ms = wall_ms
        self._worker_id = worker_id
        self._thread = threading.Thread(target=self._run, name=f"{worker_id}-replays", daemon=True)
        self._thread.start()

    def put(self, item: Tape | Control | Credit) -> None:
        """Host a replay, or do what the broker says of one."""
        self._inbox.put_nowait(item)

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def _run(self) -> None:
        bind_contextvars(workerId=self._worker_id)  # for the log: those of other threads are not this one's
        while not self._stopping.is_set():
            now = time.monotonic()
            due = self._replays.next_deadline(now)
            wait = _LOOK_SECONDS if due is None else min(_LOOK_SECONDS, due - now)
            try:
                item = self._inbox.get(block=wait > 0, timeout=max(0.0, wait))
            except queue.Empty:
                item = None
            self._send(self._guarded(item))

    def _guarded(self, item: Tape | Control | Credit | None) -> list[Sent]:
        """Do what `item` says and play what is due; a defect of ours ends the replays, each with the reason."""
        try:
            now = time.monotonic()
            sent: list[Sent] = []
            if isinstance(item, Tape):
                self._replays.open(item)
            elif item is not None:
                sent = self._replays.take(item, now)
            return sent + self._replays.due(now)
        except Exception as error:
            fault_id = str(uuid.uuid4())
            _log.exception("the replays failed; fault %s", fault_id)
            fault = SystemFault(f"the engine failed: {type(error).__name__}: {error}", id=fault_id)
            data = fault.to_data(component="engine", timestamp=self._wall_ms())
            lost, self._replays = self._replays, self._make()
            return [(Finished(task_id=one, outcome="failed", error=data), ()) for one in lost.replay_ids]
