"""How a worker's C library keeps memory: what a task has freed is the next task's, not the system's at once.

By default glibc returns large arrays as soon as they are freed, and the next ones are made of fresh pages that the
system has to clear, 2 to 3 µs each: for an answer of 12 MB that took longer than everything that computed it. Other C
libraries are left as they are.
"""

from __future__ import annotations

import ctypes

KEPT_BYTES = 64 << 20
"""Free memory that a worker holds on to at most: some copies of a large answer."""

_LARGEST_ON_HEAP = 32 << 20
"""glibc takes no more for M_MMAP_THRESHOLD on 64 bits. Larger arrays still come from the system and go back to it."""

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> bool:
    """To be called before the large allocations begin. Says whether the C library took it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))
