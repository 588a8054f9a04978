"""A worker's lifeline: the end of a pipe whose other end its broker holds, and closes when the worker is to end.

A thread of its own reads it, since not every system can wait for a pipe and for sockets at once.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

_STANDARD_INPUT = 0
_READ_BYTES = 4096
# Seconds that the thread may take to end once the pipe is cut.
_PATIENCE = 1.0


class Lifeline:
    """Reads the lifeline until it is cut; the file descriptor belongs to this from then on, which closes it."""

    def __init__(self, descriptor: int, wake: Callable[[], None]) -> None:
        """`wake` is called in another thread when it is cut."""
        self._descriptor = descriptor
        self._wake = wake
        self._is_cut = threading.Event()
        self._thread = threading.Thread(target=self._read, name="backtestr lifeline", daemon=True)
        self._thread.start()

    @property
    def is_cut(self) -> bool:
        return self._is_cut.is_set()

    def join(self) -> None:
        """Wait for the end of the thread, if the lifeline is cut."""
        if self.is_cut:
            self._thread.join(_PATIENCE)

    def _read(self) -> None:
        try:
            with contextlib.suppress(OSError):  # the other end was lost: the broker has ended
                while os.read(self._descriptor, _READ_BYTES):
                    pass
        finally:
            os.close(self._descriptor)
            self._is_cut.set()
            self._wake()


def standard_input_line() -> bytes:
    """Read the first line of standard input without buffering, so that its end-of-file stays readable."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(_STANDARD_INPUT, 1)):
        line += byte
    return line


def take_standard_input() -> int:
    """Return standard input as another descriptor, and let the null device be standard input from now on.

    What an algorithm does to standard input, or what it starts inherits of it, does not touch the lifeline then.
    """
    lifeline = os.dup(_STANDARD_INPUT)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), _STANDARD_INPUT)
    return lifeline
