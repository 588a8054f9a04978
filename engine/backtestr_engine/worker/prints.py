"""Each task has a budget for what its algorithm prints or logs; the excess is counted and left out of the log."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

from backtestr_protocol.log_writer import text_stream

# The bytes of one line that is passed on; a longer one is passed on in parts of this size.
_PART_BYTES = 1 << 16
_STANDARD_OUTPUT = 1


class PrintBudget:
    """Passes prints on, up to a number of bytes for each task; `write` may be called from any thread.

    What is printed without a task, such as at a worker's start, has a budget as well.
    """

    def __init__(self, budget: int, write: Callable[[bytes], object]) -> None:
        """Take the bytes that each task may print, and the function that the prints are passed on to."""
        self._budget = budget
        self._write = write
        self._left: dict[str | None, int] = {}  # negative by what was left out
        self._current: str | None = None
        self._is_muted = False

    def renew_streams(self) -> None:
        """Make `sys.stdout` and `sys.stderr` streams with this budget, also where an algorithm has closed them."""
        sys.stdout = text_stream(self.write, 1)
        sys.stderr = text_stream(self.write, 2)

    def at(self, task_id: str | None) -> None:
        """Make prints those of that task from now on; None for no task."""
        self._current = task_id

    def end(self, task_id: str | None) -> int:
        """End the budget of a task, and return the bytes that it printed beyond it."""
        return max(0, -self._left.pop(task_id, 0))

    @contextlib.contextmanager
    def muted(self) -> Iterator[None]:
        """Drop within the block what is printed, uncounted, also by C code and processes on standard output.

        What was printed before is passed on, however late it is read from there.
        """
        _flush()
        null, kept = os.open(os.devnull, os.O_WRONLY), os.dup(_STANDARD_OUTPUT)
        try:
            os.dup2(null, _STANDARD_OUTPUT)
            self._is_muted = True
            yield
        finally:
            _flush()
            self._is_muted = False
            os.dup2(kept, _STANDARD_OUTPUT)
            os.close(kept)
            os.close(null)

    def write(self, prints: bytes) -> None:
        """Pass on what the budget allows. The print that exceeds it is cut there, and ends with a newline."""
        if not self._is_muted:
            self.write_read(prints)

    def write_read(self, prints: bytes) -> None:
        """Pass on, as `write` does, what was read from standard output, which has a place of its own while muted."""
        left = self._left.get(self._current, self._budget)
        self._left[self._current] = left - len(prints)
        kept = prints if len(prints) <= left else prints[: max(0, left)] + (b"\n" if left > 0 else b"")
        for start in range(0, len(kept), _PART_BYTES):
            self._write(kept[start : start + _PART_BYTES])


def _flush() -> None:
    """Have the streams pass on what waits in them; an algorithm may have closed or replaced them."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
