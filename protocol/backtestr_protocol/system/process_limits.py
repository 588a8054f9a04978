"""Limits of the operating system on a process; where it has none, nothing is limited, and the caller is told so."""

from __future__ import annotations

import math
from types import ModuleType
from typing import NamedTuple

_resource: ModuleType | None
try:
    import resource as _resource
except ImportError:  # Windows has no such limits
    _resource = None

# Address space is limited by Linux alone, which has `prlimit` too; others take the number and do not heed it.
_LIMITS_ADDRESS_SPACE = hasattr(_resource, "prlimit")


class ProcessLimit(NamedTuple):
    """A limit: what the process may take now, and up to what it may raise that; `math.inf` is no limit."""

    soft: float
    hard: float


def limits_memory() -> bool:
    """Return True where `RLIMIT_AS` has an effect."""
    return _LIMITS_ADDRESS_SPACE


def names() -> list[str]:
    """Return the names of the limits that this system has, such as `RLIMIT_NOFILE`."""
    return [] if _resource is None else [name for name in vars(_resource) if name.startswith("RLIMIT_")]


def read(name: str) -> ProcessLimit | None:
    """Return a limit; None where the system has none of that name."""
    number = getattr(_resource, name, None)
    if _resource is None or number is None:
        return None
    soft, hard = _resource.getrlimit(number)
    return ProcessLimit(_as_float(soft), _as_float(hard))


def put(name: str, limit: ProcessLimit) -> None:
    """Set a limit that `read` has returned. Raises `OSError` and `ValueError`."""
    if _resource is not None:
        _resource.setrlimit(getattr(_resource, name), (_as_number(limit.soft), _as_number(limit.hard)))


def lower(name: str, wanted: float) -> bool:
    """Set what the process may take, as far as the hard limit allows; return False where there is no such limit."""
    limit = read(name)
    if limit is None:
        return False
    put(name, ProcessLimit(min(wanted, limit.hard), limit.hard))
    return True


def leave_no_image() -> bool:
    """Have the system write no image of the memory of this process when it ends it: it would hold the signing key.

    Return False where the system cannot be told.
    """
    return lower("RLIMIT_CORE", 0)


def used_processor_seconds() -> float:
    """Return the processor time that this process has used, of all threads, as its limit counts it."""
    if _resource is None:
        return 0.0
    used = _resource.getrusage(_resource.RUSAGE_SELF)
    return float(used.ru_utime + used.ru_stime)


def _as_float(number: int) -> float:
    return math.inf if _resource is not None and number == _resource.RLIM_INFINITY else float(number)


def _as_number(limit: float) -> int:
    if _resource is not None and math.isinf(limit):
        return int(_resource.RLIM_INFINITY)
    return math.ceil(limit)
