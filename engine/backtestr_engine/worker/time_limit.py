"""A time limit runs code of an algorithm in a thread of its own, and interrupts it there when it is late.

A loop in Python is interrupted where it is. Code that sleeps, or computes in C, is interrupted only when it returns to
Python. If it does not, its thread is left behind; a caller that cannot accept that ends the process.
"""

from __future__ import annotations

import contextvars
import ctypes
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from backtestr_engine.algorithms.algorithm import Interrupted
from backtestr_engine.algorithms.tracebacks import authors_stack, authors_traceback
from backtestr_engine.library.source_files import Limit
from backtestr_protocol.errors import AlgorithmError, TimeLimitExceeded
from backtestr_protocol.texts import bounded, described

T = TypeVar("T")

# The seconds after which late code is interrupted again: its `except BaseException` may have caught the first time.
_INTERRUPT_SECONDS = 0.1

LOAD_OPTION = "load_time_limit_ms under [algorithms]"
"""The option in engine.toml that says how long a source may take to load."""


class _Work(threading.Thread):
    """A thread that runs `work` in the context of its caller, whose facts its log lines have, and keeps the result."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(name="backtestr limited", daemon=True)
        self._work = work
        self._context = contextvars.copy_context()
        self.result: Any = None
        self.error: BaseException | None = None
        self._returned = False

    def has_returned(self) -> bool:
        return self._returned

    def run(self) -> None:
        is_done = False
        try:
            try:
                self.result = self._context.run(self._work)
                is_done = True
            except BaseException as error:  # code of an algorithm may raise anything; the caller gets it
                self.error = error
        except Interrupted as late:  # the interruption came a moment after the work had ended
            if not is_done:
                self.error = self.error or late
        finally:
            self._returned = True

    def interrupt(self) -> None:
        if self.ident is not None and not self._returned:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(Interrupted))

    def where(self) -> str:
        """Return the lines at which the work is, as a traceback shows them."""
        frame: FrameType | None = sys._current_frames().get(self.ident or 0)
        if frame is None:  # it returned at this moment
            return ""
        return authors_stack(traceback.extract_stack(frame))


def time_limit(seconds: float, patience: float, option: str = LOAD_OPTION) -> Limit:
    """Return a limit of `seconds`; the caller waits `patience` seconds more for code that is being interrupted.

    `option` is the one in engine.toml that sets it, for the message.

    Late work raises `TimeLimitExceeded`, whose `details.traceback` shows where it was. Work that raises something that
    is no `Exception` raises `AlgorithmError`.
    """

    def limit(what: str, work: Callable[[], T], /) -> T:
        thread = _Work(work)
        thread.start()
        thread.join(seconds)
        if not thread.has_returned():
            late = TimeLimitExceeded(
                f"{what} took longer than {seconds:g} s; look for an endless loop, or raise {option} in engine.toml",
                traceback=bounded(thread.where()),
            )
            for _ in range(max(1, round(patience / _INTERRUPT_SECONDS))):
                thread.interrupt()
                thread.join(_INTERRUPT_SECONDS)
                if thread.has_returned():
                    break
            if not thread.has_returned() or thread.error is not None:
                raise late
        if thread.error is None:
            result: T = thread.result
            return result
        if isinstance(thread.error, Exception):
            raise thread.error
        raise AlgorithmError(
            f"{what} raised {described(thread.error)}", traceback=authors_traceback(thread.error)
        ) from thread.error

    return limit
