"""Each task has a budget for what its algorithm prints or logs; the excess is counted and left out of the log."""

from __future__ import annotations

import sys
from collections.abc import Callable

from backtestr_protocol.log_writer import text_stream

# The bytes of one line that is passed on; a longer one is passed on in parts of this size.
_PART_BYTES = 1 << 16


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

    def write(self, prints: bytes) -> None:
        """Pass on what the budget allows. The print that exceeds it is cut there, and ends with a newline."""
        left = self._left.get(self._current, self._budget)
        self._left[self._current] = left - len(prints)
        kept = prints if len(prints) <= left else prints[: max(0, left)] + (b"\n" if left > 0 else b"")
        for start in range(0, len(kept), _PART_BYTES):
            self._write(kept[start : start + _PART_BYTES])
