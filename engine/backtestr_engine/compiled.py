"""A decorator that compiles a function, and keeps it on disk where there is a cache of kernels (`kernel_cache`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit
from numba.core import config as numba_config

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Asked to keep a kernel where nothing can be written, numba raises while the module is imported.
_IS_KEPT = bool(numba_config.CACHE_DIR)  # type: ignore[attr-defined]  # numba makes its options at run time


def compiled(**options: Any) -> Callable[[_Function], _Function]:
    """Return a decorator that compiles without the interpreter's lock; `options` are further ones of `numba.njit`."""

    def compile_lazily(function: _Function) -> _Function:
        kernel: _Function = njit(cache=_IS_KEPT, nogil=True, **options)(function)
        return kernel

    return compile_lazily
