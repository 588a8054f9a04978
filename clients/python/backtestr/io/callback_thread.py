"""The callback thread calls the program's callbacks one after the other, in the order of their events.

The I/O thread must never wait for a callback, and a callback may send requests, so neither calls the other. A callback
that raises is logged and does not affect others. A slow one delays those after it; calls beyond the bound are dropped,
counted and logged.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

# Calls that may wait: a burst of changes fits, and a callback that hangs does not fill the memory.
MAX_CALLS = 10_000
# Seconds that `close` waits for callbacks to return.
CLOSING_SECONDS = 5.0

log = logging.getLogger("backtestr")


class CallbackThread:
    """The callback thread of one client, started with the first call: a client without callbacks has none."""

    def __init__(self) -> None:
        self.missed = 0
        # Neither can be left taken by Ctrl-C, as a Condition can: its `with` runs instructions of Python.
        self._lock = threading.Lock()  # no call is added behind the end
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()  # None is the end
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def call(self, call: Callable[[], object]) -> None:
        """Have the thread make `call` after those before it. Never waits; after `close` nothing is called any more."""
        with self._lock:
            if self._is_closed:
                return
            if self._calls.qsize() >= MAX_CALLS:
                self.missed += 1
                if self.missed == 1:
                    log.error("a callback is too slow: %d calls wait, further ones are dropped", MAX_CALLS)
                return
            self._calls.put(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="backtestr callbacks", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Make the calls that wait, then end. If a callback calls this, it does not wait for itself."""
        with self._lock:
            self._is_closed = True
            self._calls.put(None)  # at each call: Ctrl-C may have come before that in the one before
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSING_SECONDS)
            if self._thread.is_alive():
                log.error("a callback did not return within %g s of closing", CLOSING_SECONDS)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception:  # a fault of one callback must not stop the others; the log has it
                log.exception("a callback failed")
