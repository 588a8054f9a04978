"""Wake the event loop from its sleep: other threads and signals do so."""

from __future__ import annotations

import contextlib
import signal
import socket as sockets_of_the_system
from collections.abc import Iterator


class Wake:
    """Lets other threads and signal handlers end the sleep of the event loop."""

    def __init__(self) -> None:
        self.read_end, self._write_end = sockets_of_the_system.socketpair()
        self.read_end.setblocking(False)
        self._write_end.setblocking(False)
        self._woken_before: int | None = None  # what signals woke before `at_signals`

    def __call__(self) -> None:
        """Wake the loop; may be called from any thread."""
        with contextlib.suppress(OSError):  # it is being woken already, or has ended
            self._write_end.send(b"\0")

    @contextlib.contextmanager
    def at_signals(self) -> Iterator[None]:
        """Wake the loop at every signal within the block, in the main thread.

        Python calls a signal's handler once its thread runs again, and not every system ends a sleep for a signal.
        """
        self._woken_before = signal.set_wakeup_fd(self._write_end.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            self._leave_signals()

    def _leave_signals(self) -> None:
        if self._woken_before is not None:
            signal.set_wakeup_fd(self._woken_before)
            self._woken_before = None

    def drain(self) -> None:
        """Take back every wake so far."""
        with contextlib.suppress(BlockingIOError):
            while self.read_end.recv(4096):
                pass

    def close(self) -> None:
        """Close both ends; a later wake does nothing. A signal must not write to a descriptor that is free again."""
        self._leave_signals()
        self.read_end.close()
        self._write_end.close()
