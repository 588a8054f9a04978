"""How the functions of the fill loop are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Nothing in the loop allocates, so nothing needs to count references: on a busy backtest counting took a third of its
# time, as every record is written through arrays inside a tuple.
_COMPILED: dict[str, Any] = {"nogil": True, "_nrt": False}


def kernel(function: _Function) -> _Function:
    """Compile a part of the fill loop. It must not allocate: arrays come in, records and numbers go out."""
    compiled: _Function = njit(**_COMPILED)(function)
    return compiled


def inlined_kernel(function: _Function) -> _Function:
    """The same, copied into whoever calls it: arguments that are tuples of arrays cost more to pass than the work."""
    compiled: _Function = njit(forceinline=True, **_COMPILED)(function)
    return compiled


def cached_kernel(function: _Function) -> _Function:
    """The same for the loop itself, kept on disk with all its parts: what is cached apart would outlive a change."""
    compiled: _Function = njit(cache=True, **_COMPILED)(function)
    return compiled
