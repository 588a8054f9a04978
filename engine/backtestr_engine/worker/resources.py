"""What a worker process may take from its machine: so much memory, and so much processor time for one task.

The system holds both, whatever an algorithm does. Where it has no such limits (memory: other systems than Linux), there
are none. Threads of somebody else's process (an embedded broker) are never limited.
"""

from __future__ import annotations

import math
import resource
import sys

import psutil


def limit_memory(further_bytes: int) -> None:
    """Have allocations fail (`MemoryError`) beyond `further_bytes` more than this process has reserved by now; 0 for no
    limit.

    What counts is address space (`RLIMIT_AS`), of which libraries reserve a gigabyte and more, the more cores there
    are, before anything is computed: that is why the limit begins where the process stands.
    """
    if further_bytes and sys.platform == "linux":
        wanted = psutil.Process().memory_info().vms + further_bytes
        _set(resource.RLIMIT_AS, wanted)
    # A worker that the system ends leaves no image of its memory behind: that would hold the signing key.
    _set(resource.RLIMIT_CORE, 0)


def limit_processor(further_seconds: float) -> None:
    """Have the system kill this process (SIGXCPU) when all its threads together have used so many more seconds of
    processor time; `math.inf` for no limit.

    A calculation that never lets another thread run, such as a regular expression that backtracks for ever, cannot be
    ended from inside.
    """
    if math.isinf(further_seconds):
        _set(resource.RLIMIT_CPU, resource.RLIM_INFINITY)
    else:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _set(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + further_seconds))


def _set(limit: int, wanted: int) -> None:
    """The soft limit, as far as the hard one, which is not ours to raise, allows."""
    _, hard = resource.getrlimit(limit)
    no_end = resource.RLIM_INFINITY
    allowed = wanted if hard == no_end else hard if wanted == no_end else min(wanted, hard)
    resource.setrlimit(limit, (allowed, hard))
