"""Calls of an algorithm that no backtest needs, for the look-ahead check on its bars: they must leave no trace.

They have a time limit in a thread of their own, what they print is dropped, and a process that one of them forks ends.
Where the algorithm has left the worker's process in another state already, they are not made: each would leave it so
once more.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import msgspec

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_protocol.errors import AlgorithmError

from .time_limit import time_limit

T = TypeVar("T")

PATIENCE_SECONDS = 1.0
"""The seconds that code which is being interrupted has to end: half of what a task may exceed its own limit by."""

# An algorithm may have replaced them in their module.
_getpid, _exit = os.getpid, os._exit


class CallsApart:
    """Makes such calls, as `own_bars.MakesCalls` has it.

    `is_clean` says whether the process is as a run must leave it, and prints
    are dropped within `muted`.
    """

    def __init__(
        self,
        is_clean: Callable[[], bool] = lambda: True,
        muted: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._is_clean = is_clean
        self._muted = muted

    def __call__(self, algorithm: Algorithm, work: Callable[[Algorithm], T], seconds: float, /) -> T:
        """Return what `work` returns. Raises `AlgorithmError`, and `TimeLimitExceeded` after `seconds`."""
        if seconds <= 0:
            raise AlgorithmError("there is no time left for further calls")
        if not self._is_clean():
            raise AlgorithmError("the process is not as it was before the backtest")
        one = _ending_forks(algorithm)
        with self._muted():
            limit = time_limit(seconds, PATIENCE_SECONDS)
            return limit(f"the look-ahead check of {algorithm.name}", lambda: work(one))


def _ending_forks(algorithm: Algorithm) -> Algorithm:
    """Return the algorithm with a function that ends a process which was forked within it, before it goes on here."""
    function, own_pid = algorithm.function, _getpid()

    def call(sample: Bars | Panel, **values: Any) -> Any:
        try:
            return function(sample, **values)
        finally:
            if _getpid() != own_pid:
                _exit(1)

    return msgspec.structs.replace(algorithm, function=call)
