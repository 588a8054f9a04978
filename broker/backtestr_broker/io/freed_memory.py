"""Memory that the broker has freed goes back to the system, at most once a minute.

glibc keeps what a program has freed for its next allocations, and returns by itself only what lies at the end of its
heap. Connections and answers that came and went leave free pages between others. Other C libraries return memory by
themselves, or have no call for it, and are left as they are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import psutil

# Seconds between two looks: a burst of clients may come back for the memory, and the loop waits some 10 ms for a trim.
INTERVAL = 60.0
# Bytes above those at the start that are not worth it.
TOLERATED_BYTES = 8 << 20


def _trim() -> Callable[[], object] | None:
    """Return the call by which the C library returns free pages; None where it has none."""
    try:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (TypeError, OSError):  # Windows has no C library without a name
        return None
    return None if trim is None else lambda: trim(ctypes.c_size_t(0))


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


class FreedMemory:
    """Returns what this process has freed, where it uses more than at its start."""

    def __init__(
        self,
        now: float,
        resident: Callable[[], int] = _resident,
        trim: Callable[[], object] | None = _trim(),  # noqa: B008 - found once
    ) -> None:
        """Take how many bytes are `resident`, and what returns the free ones."""
        self._resident = resident
        self._trim = trim
        self._due = now + INTERVAL
        try:
            self._least = resident()
        except (psutil.Error, OSError):
            self._least = 0

    def return_some(self, now: float) -> bool:
        """Return freed memory if that is due and worth it, and return True if it was."""
        if self._trim is None or now < self._due:
            return False
        self._due = now + INTERVAL
        try:
            if self._resident() < self._least + TOLERATED_BYTES:
                return False
            self._trim()
        except (psutil.Error, OSError):  # no file can be opened now
            return False
        return True
