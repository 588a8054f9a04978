"""Ctrl-C reaches the main thread anywhere; what is here puts it off until what must not be cut in two is done."""

from __future__ import annotations

import ctypes
import importlib
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from types import FrameType
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

# What Python's `signal` wraps: its conversions to enumerations cost ten times as much (measured: 9 and 1 µs a pair).
_signal = importlib.import_module("_signal" if find_spec("_signal") else "signal")
_set_handler: Callable[[int, Any], Any] = _signal.signal
_handler_of: Callable[[int], Any] = _signal.getsignal
_SIGINT = int(signal.SIGINT)
# Room for the `struct sigaction` of any system (that of Linux has 152 bytes).
_Sigaction = ctypes.c_char * 512


def _find_sigaction() -> Callable[[int, Any, Any], int] | None:
    try:
        call = ctypes.PyDLL(None).sigaction
    except (AttributeError, OSError, TypeError):  # there is none, or no C library without a name
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    return call


_sigaction = _find_sigaction()


class InterruptGuard:
    """Ctrl-C is put off while a guard holds, and reaches its handler at once where the guard lets it through.

    It holds from the start of `run` to its end, except in `let_through`. A guard is used once, by one thread.
    """

    def __init__(self) -> None:
        self._former: Any = None
        self._holds = True
        self._is_pressed = False

    @staticmethod
    def is_needed() -> bool:
        """Return True in the main thread, the only one that Ctrl-C can interrupt."""
        return threading.get_ident() == threading.main_thread().ident

    @staticmethod
    def is_possible() -> bool:
        """Return False if the handler of SIGINT is not one that can be put back."""
        return _sigaction is not None and _handler_of(_SIGINT) is not None

    def run(self, call: Callable[[InterruptGuard], T]) -> T:
        """Return or raise what `call` does; Ctrl-C that was put off meanwhile is passed on afterwards.

        Other libraries put a handler of theirs before Python's (polars does), so the system's is put back as well.
        """
        self._former = former = _handler_of(_SIGINT)
        if not callable(former) or _sigaction is None:  # then Ctrl-C ends the process or does nothing
            return call(self)
        of_system = _Sigaction()
        _sigaction(_SIGINT, None, of_system)
        own = self._take
        try:
            _set_handler(_SIGINT, own)
            return call(self)
        finally:
            try:
                if _handler_of(_SIGINT) is own:  # otherwise the former one has set another
                    try:
                        _set_handler(_SIGINT, former)
                    finally:
                        _sigaction(_SIGINT, of_system, None)
            finally:
                self._holds = False  # in case another exception left it installed: then it passes everything on
                if self._is_pressed:
                    former(_SIGINT, sys._getframe())

    def let_through(self, wait: Callable[[int], object], milliseconds: int) -> None:
        """Call `wait`, which Ctrl-C may interrupt."""
        self._holds = False
        try:
            if self._is_pressed:
                self._is_pressed = False
                self._former(_SIGINT, sys._getframe())
            wait(milliseconds)
        finally:
            self._holds = True

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._holds:
            self._is_pressed = True
            return
        try:
            self._former(number, frame)
        except BaseException:  # whatever the handler raises; what it interrupts is tidied up first
            self._holds = True
            raise


# Seconds of one sleep of a caller that waits.
_SLEEP = 0.25


def sleeps(timeout: float | None) -> Iterator[float]:
    """Yield sleeps of at most `_SLEEP` seconds that make up `timeout`, without end if that is None.

    Where the system gives Ctrl-C to another thread, or just before a sleep, it does not end the sleep: Python raises it
    before its next instruction in the main thread. Callers are compiled and run none, so this module must not be.
    """
    left = math.inf if timeout is None else max(0.0, timeout)
    while True:
        sleep = min(left, _SLEEP)
        yield sleep
        left -= sleep
        if left <= 0:
            return


# The seconds after which a wait looks whether the thread has ended, should its word have been lost to an interrupt.
_CHECK_SECONDS = 0.1


class JoinableThread(threading.Thread):
    """A thread that says itself when its work has ended.

    `Thread.join` of Python before 3.13, cut short by an exception, may take a thread for ended that runs.
    """

    def __init__(self, target: Callable[[], None], name: str, *, daemon: bool = False) -> None:
        super().__init__(target=target, name=name, daemon=daemon)
        self.has_ended = False
        self._end = threading.Lock()
        self._end.acquire()

    def run(self) -> None:
        """Work, and say that it has ended."""
        try:
            super().run()
        finally:
            self.has_ended = True
            self._end.release()

    def wait(self) -> None:
        """Wait for the end of the work, or for some time."""
        self._end.acquire(timeout=_CHECK_SECONDS)


def uninterrupted(call: Callable[[], T]) -> T:
    """Return or raise what `call` does, in a thread of its own; Ctrl-C meanwhile is raised afterwards."""
    outcome: list[Callable[[], T]] = []

    def run() -> None:
        try:
            found = call()
        except Exception as raised:
            error = raised
            outcome.append(lambda: _raise(error))
        else:
            outcome.append(lambda: found)

    thread = JoinableThread(run, "backtestr call")
    thread.start()
    join_uninterrupted(thread)
    return outcome[0]()


def _raise(error: Exception) -> NoReturn:
    raise error


def join_uninterrupted(thread: JoinableThread) -> None:
    """Wait for the end of a thread that ends by itself; Ctrl-C meanwhile is raised afterwards."""
    interrupt: KeyboardInterrupt | None = None
    while not thread.has_ended or thread.is_alive():
        try:
            if thread.has_ended:
                thread.join()
            else:
                thread.wait()
        except KeyboardInterrupt as pressed:
            interrupt = pressed
    if interrupt is not None:
        raise interrupt
