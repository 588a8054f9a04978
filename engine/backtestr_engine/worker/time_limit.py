"""Time limits on code that is anyone's: it runs in a thread of its own, and is interrupted there when it is late.

What loops in Python is interrupted where it is. What sleeps, or computes in C, notices when it is back, if it ever is:
its thread is left behind, and who cannot have that ends the process.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from backtestr_engine.library.source_files import Limit
from backtestr_protocol.errors import AlgorithmError, TimedOut

T = TypeVar("T")

# How often code that goes on is interrupted again, in seconds: `except BaseException` may have swallowed the first.
_AGAIN_SECONDS = 0.1


class Interrupted(BaseException):
    """Raised within code that is late. It is no `Exception`, so that what catches those lets it through."""


class _Work(threading.Thread):
    """Runs `work` and keeps what it returned or raised."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(name="backtestr limited", daemon=True)
        self._work = work
        self.result: Any = None
        self.error: BaseException | None = None
        self._is_back = False

    def came_back(self) -> bool:
        return self._is_back

    def run(self) -> None:
        is_done = False
        try:
            try:
                self.result = self._work()
                is_done = True
            except BaseException as error:  # it is anyone's code, and whoever waits is to hear of it
                self.error = error
        except Interrupted as late:  # it came a moment after the work had ended
            if not is_done:
                self.error = self.error or late
        finally:
            self._is_back = True

    def interrupt(self) -> None:
        if self.ident is not None and not self._is_back:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(Interrupted))

    def where(self) -> str:
        """The lines that it is at, as a traceback shows them, without our own."""
        frame: FrameType | None = sys._current_frames().get(self.ident or 0)
        if frame is None:  # it came back in this moment
            return ""
        stack = [one for one in traceback.extract_stack(frame) if one.filename not in (__file__, threading.__file__)]
        return "".join(["Traceback (most recent call last):\n", *traceback.format_list(stack)])


def time_limit(seconds: float, patience: float) -> Limit:
    """A limit of `seconds`. Whoever waits for code that cannot be interrupted does so for `patience` seconds more.

    Late work raises `TimedOut`, whose `details.traceback` shows where it was. What raises something that is no
    `Exception` has an `AlgorithmError`.
    """

    def limit(what: str, work: Callable[[], T], /) -> T:
        thread = _Work(work)
        thread.start()
        thread.join(seconds)
        if not thread.came_back():
            late = TimedOut(
                f"{what} took longer than {seconds:g} s; look for an endless loop, or raise load_time_limit_ms under "
                "[algorithms] in engine.toml",
                traceback=thread.where(),
            )
            for _ in range(max(1, round(patience / _AGAIN_SECONDS))):
                thread.interrupt()
                thread.join(_AGAIN_SECONDS)
                if thread.came_back():
                    break
            if not thread.came_back() or thread.error is not None:
                raise late
        if thread.error is None:
            result: T = thread.result
            return result
        if isinstance(thread.error, Exception):
            raise thread.error
        raise AlgorithmError(f"{what} raised {type(thread.error).__name__}: {thread.error}") from thread.error

    return limit
