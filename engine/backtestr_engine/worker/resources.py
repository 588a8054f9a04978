"""This module limits the memory and the processor time of a worker process, and ties the ends of processes together.

The operating system enforces the limits, whatever an algorithm does. Systems other than Linux do not limit memory. The
threads of an embedded broker, which run in the process of another program, are never limited.

A worker ends with its broker, and what an algorithm has started ends with its worker, on Linux also when one of them
is killed: the system kills a worker whose broker has ended (parent-death signal), and gives the processes that a worker
leaves behind to the broker, which kills them.
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import sys

import psutil

KEPT_BYTES = 64 << 20
"""The most free memory that a worker keeps: several copies of a large answer."""

_LARGEST_ON_HEAP = 32 << 20
"""The most that glibc accepts for M_MMAP_THRESHOLD on 64 bits; larger arrays are still returned when they are freed."""

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


# From Linux's prctl.h.
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def end_with_parent(parent: int | None = None) -> None:
    """Have the system kill this process when the thread that started it ends; Linux only.

    `parent` is the id of that process: one that has ended by now ends this one at once.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Make the descendants of this process whose parent ends its children; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for the next task, and return True if it accepted.

    By default glibc returns large arrays to the system when they are freed. The next arrays then consist of fresh pages
    that the system has to clear. Measured in three interleaved pairs of processes: a backtest of 1,000,000 bars in a
    warm worker takes 29 ms of processor time instead of 34, with no page fault instead of 275. Other C libraries are
    left as they are. Call it before the large allocations begin.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))


def limit_memory(further_bytes: int) -> None:
    """Have allocations raise `MemoryError` beyond `further_bytes` more than the process has reserved; 0 for no limit.

    The limit counts address space (`RLIMIT_AS`). Libraries reserve a gigabyte and more of it, growing with the number
    of cores, before anything is computed. So the limit is added to what the process has reserved by now.
    """
    if further_bytes and sys.platform == "linux":
        wanted = psutil.Process().memory_info().vms + further_bytes
        _set(resource.RLIMIT_AS, wanted)
    # A worker that the system ends must leave no image of its memory: it would hold the signing key.
    _set(resource.RLIMIT_CORE, 0)


def limit_processor(further_seconds: float) -> None:
    """Have the system kill this process (SIGXCPU) after so much more processor time; `math.inf` for no limit.

    The time, in seconds, is that of all threads together. A calculation that never lets another thread run, such as a
    regular expression with endless backtracking, cannot be ended from inside the process.
    """
    if math.isinf(further_seconds):
        _set(resource.RLIMIT_CPU, resource.RLIM_INFINITY)
    else:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _set(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + further_seconds))


def _set(limit: int, wanted: int) -> None:
    """Set the soft limit, up to the hard limit, which a worker must not raise."""
    _, hard = resource.getrlimit(limit)
    unlimited = resource.RLIM_INFINITY
    allowed = wanted if hard == unlimited else hard if wanted == unlimited else min(wanted, hard)
    resource.setrlimit(limit, (allowed, hard))
