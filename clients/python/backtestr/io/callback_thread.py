"""The thread that calls the program's listeners, one call after the other, in the order of what happened.

The I/O thread must never wait for a listener, and a listener may ask the client things: so neither calls the other. A
listener that raises is logged and harms nobody; one that is slow delays those after it, and what passes the bound is
dropped, counted and logged.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

# Calls that may wait: a burst of changes fits, and a listener that hangs does not fill the memory.
MAX_CALLS = 10_000
# Seconds that `close` waits for listeners to return.
CLOSING_SECONDS = 5.0

log = logging.getLogger("backtestr")


class Listeners:
    """Starts its thread with the first call, so that a client without listeners has none."""

    def __init__(self) -> None:
        self.missed = 0
        self._changed = threading.Condition()
        self._calls: deque[Callable[[], object]] = deque()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def tell(self, call: Callable[[], object]) -> None:
        """Have `call` made, after those before it. Never waits; after `close` nothing is called any more."""
        with self._changed:
            if self._is_closed:
                return
            if len(self._calls) >= MAX_CALLS:
                self.missed += 1
                if self.missed == 1:
                    log.error("a listener is too slow: %d calls wait, further ones are dropped", MAX_CALLS)
                return
            self._calls.append(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="backtestr listeners", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Make the calls that wait, then end. Called by a listener, it does not wait for itself."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSING_SECONDS)
            if self._thread.is_alive():
                log.error("a listener did not return within %g s of closing", CLOSING_SECONDS)

    def _run(self) -> None:
        while (call := self._next()) is not None:
            try:
                call()
            except Exception:  # whatever a listener does wrong must not keep the others from hearing; the log has it
                log.exception("a listener failed")

    def _next(self) -> Callable[[], object] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._calls or self._is_closed)
            return self._calls.popleft() if self._calls else None
