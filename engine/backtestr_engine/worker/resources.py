"""This module limits the memory and the processor time of a worker process.

The operating system enforces the limits, whatever an algorithm does. Systems other than Linux do not limit memory, and
Windows limits neither. The threads of an embedded broker, which run in the process of another program, are never
limited.
"""

from __future__ import annotations

import ctypes

import psutil

from backtestr_protocol.system import process_limits

KEPT_BYTES = 64 << 20
"""The most free memory that a worker keeps: several copies of a large answer."""

_LARGEST_ON_HEAP = 32 << 20
"""The most that glibc accepts for M_MMAP_THRESHOLD on 64 bits; larger arrays are still returned when they are freed."""

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for the next task, and return True if it accepted.

    By default glibc returns large arrays to the system when they are freed. The next arrays then consist of fresh pages
    that the system has to clear. Measured in three interleaved pairs of processes: a backtest of 1,000,000 bars in a
    warm worker takes 29 ms of processor time instead of 34, with no page fault instead of 275. All threads share one
    heap, so that those which store a result and make its tables use the memory of the simulation again: a worker takes
    131 ms for such a backtest with its tables instead of 173. Other C libraries are left as they are. Call it before
    the large allocations begin.
    """
    try:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    except (TypeError, OSError):  # Windows has no C library without a name
        return False
    if mallopt is None:
        return False
    options = ((_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP), (_M_TRIM_THRESHOLD, KEPT_BYTES), (_M_ARENA_MAX, 1))
    return all(mallopt(option, value) for option, value in options)


def limit_memory(further_bytes: int) -> bool:
    """Have allocations raise `MemoryError` beyond `further_bytes` more than the process has reserved; 0 for no limit.

    The limit counts address space (`RLIMIT_AS`). Libraries reserve a gigabyte and more of it, growing with the number
    of cores, before anything is computed. So the limit is added to what the process has reserved by now. Return False
    where this system cannot limit it.
    """
    # A worker that the system ends must leave no image of its memory: it would hold the signing key.
    process_limits.leave_no_image()
    if not further_bytes:
        return True
    if not process_limits.limits_memory():
        return False
    return process_limits.lower("RLIMIT_AS", psutil.Process().memory_info().vms + further_bytes)


def limit_processor(further_seconds: float) -> None:
    """Have the system kill this process (SIGXCPU) after so much more processor time; `math.inf` for no limit.

    The time, in seconds, is that of all threads together. A calculation that never lets another thread run, such as a
    regular expression with endless backtracking, cannot be ended from inside the process. Where the system does not
    limit that time, the broker ends a worker that has not been heard of for `liveness.worker_silence_ms`.
    """
    process_limits.lower("RLIMIT_CPU", process_limits.used_processor_seconds() + further_seconds)
