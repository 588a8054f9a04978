"""The state of a worker's process that a run of an algorithm must leave as it was, so that the next run finds it so.

    state = ProcessState()      # when the worker is ready
    reason = state.changes()    # after a run: what cannot be put back, or None; what can be is put back

Put back: numpy's error state, warnings filters, working directory, umask, environment, locale, limits of the system,
timers, hooks and switches of the interpreter. They are settings that algorithms make in good faith.

A reason to replace the worker: threads of Python that go on running, processes that it has started and not ended, more
than `MAX_LEFT_DESCRIPTORS` descriptors left open, its standard streams closed or exchanged, handlers of signals, and
functions of Python, numpy, polars, msgspec or backtestr that were replaced.

Tolerated, since libraries keep them from run to run on purpose: threads of executors and of the libraries in
`_POOLS`, up to `MAX_POOL_THREADS`; threads without Python (numba, polars, BLAS) up to `MAX_NATIVE_THREADS`; the
processes of joblib's loky and the helpers of multiprocessing.

Where the system does not say (no /proc), threads without Python and descriptors are not counted.

A check without a finding takes 0.1 ms; only a finding is looked at twice, for a thread or process may be about to
end.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # it has no stubs; `signal` makes an enum of every handler
import _thread
import builtins
import gc
import locale
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import is_
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from backtestr_protocol.system import process_ends, process_limits

MAX_POOL_THREADS = 64
"""More than the 32 threads that an executor has by default on any machine."""

MAX_NATIVE_THREADS = 64 + 8 * (os.cpu_count() or 1)
"""Each of the libraries with threads of its own keeps about one for each processor."""

MAX_LEFT_DESCRIPTORS = 64
"""A connection and a few files that an algorithm keeps open are no leak; thousands are."""

MAX_ZOMBIES = 64

# Modules whose threads are kept on purpose: by the class of the thread, or by the function that it runs.
_POOLS = (
    *("asyncio", "concurrent.futures", "distributed", "joblib", "loky", "multiprocessing", "numba", "polars", "tqdm"),
    "zmq",  # its first message without a copy starts one
)
# Parts of the command lines of processes that are kept on purpose.
_KEPT_PROCESSES = ("resource_tracker", "loky", "multiprocessing.forkserver")
# Modules whose functions and classes the engine calls, besides its own.
_WATCHED = (
    *("builtins", "logging", "math", "os", "queue", "struct", "threading", "time"),
    *("msgspec", "msgspec.json", "msgspec.msgpack", "numpy", "polars"),
)
_OWN = ("backtestr_engine", "backtestr_protocol")
# How often, and with how many seconds between, a finding is looked at again: it may be about to end by itself.
_LOOKS, _LOOK_SECONDS = 25, 0.01
# An algorithm may have replaced it.
_sleep = time.sleep
_SIGNALS = tuple(map(int, signal.valid_signals()))
_TASKS = Path("/proc/self/task")
_DESCRIPTORS = Path("/proc/self/fd")
_LIMITS = tuple(name for name in process_limits.names() if name != "RLIMIT_CPU")  # that one is set around every task
# Systems without timers have none to put back.
_TIMERS = {
    name: getattr(signal, name) for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF") if hasattr(signal, name)
}
_get_timer, _set_timer = getattr(signal, "getitimer", None), getattr(signal, "setitimer", None)


class _Watched(NamedTuple):
    """The functions and classes in a module or class, by name, and those that were there before."""

    owner: str
    names: tuple[str, ...]
    values: Mapping[str, Any]
    before: tuple[Any, ...]


class _Setting(NamedTuple):
    """A setting that can be put back, with its name for people."""

    name: str
    value: Any
    get: Callable[[], Any]
    put: Callable[[Any], object]


class ProcessState:
    """The state of this process when the object was made; belongs to the thread that runs the algorithms."""

    def __init__(self) -> None:
        self._threads = frozenset(sys._current_frames())
        self._started = _thread._count()
        self._native = _count(_TASKS)
        self._descriptors = _count(_DESCRIPTORS)
        self._streams = _streams()
        self._handlers = _handlers()
        self._children = frozenset(process_ends.child_ids())
        self._watched = list(_watched())
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        self._settings: list[_Setting] = []
        self.accept()

    def accept(self) -> None:
        """Take the settings as they are now for those that are put back: a source that was loaded has made them."""
        self._settings = [_Setting(name, get(), get, put) for name, get, put in _settings()]

    def changes(self) -> str | None:
        """Put back what can be, and return the reason why this process should not do another task; None for none."""
        failed = [name for name in self.put_back() if name.startswith("!")]
        if failed:
            return f"{failed[0].removeprefix('!')} could not be put back"
        for _ in range(_LOOKS):
            if (reason := self._finding()) is None:
                return None
            _sleep(_LOOK_SECONDS)
        return reason

    def put_back(self) -> list[str]:
        """Put back every setting that was changed, and return their names, with `!` in front of those that failed."""
        changed = []
        for name, value, get, put in self._settings:
            try:
                if get() != value:
                    changed.append(name)
                    put(value)
            except (OSError, ValueError, TypeError):
                changed.append(f"!{name}")
        self._warnings.__exit__(None, None, None)
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        return changed

    def close(self) -> None:
        """Put the warnings filters back for good."""
        self._warnings.__exit__(None, None, None)

    def _finding(self) -> str | None:
        for find in (self._patched, self._left_threads, self._left_children, self._left_descriptors, self._signals):
            if (reason := find()) is not None:
                return reason
        return None

    def _patched(self) -> str | None:
        for owner, names, values, before in self._watched:
            if not all(map(is_, map(values.get, names), before)):
                name = next(name for name, one in zip(names, before, strict=True) if values.get(name) is not one)
                return f"{owner}.{name} was replaced"
        return None

    def _left_threads(self) -> str | None:
        left = sys._current_frames().keys() - self._threads
        if left:
            known = {thread.ident: thread for thread in threading.enumerate()}
            strangers = [ident for ident in left if not _is_of_a_pool(known.get(ident))]
            if strangers:
                named = known.get(strangers[0])
                name = "" if named is None else f" ({named.name[:60]!r} of {_module_of(named)})"
                return f"{len(strangers)} threads were left running{name}"
            if len(left) > MAX_POOL_THREADS:
                return f"{len(left)} threads of pools were left"
        # A thread that is in a function of C, and was not in one of Python before, has no frame.
        if (frameless := _thread._count() - self._started - len(left)) > 0:
            return f"{frameless} threads were left running"
        native = _count(_TASKS) - self._native
        return f"{native} threads were left running" if native > MAX_NATIVE_THREADS else None

    def _left_children(self) -> str | None:
        children = [pid for pid in process_ends.child_ids() if pid not in self._children]
        strangers = [pid for pid in children if not _is_kept(pid)]
        if strangers:
            return f"{len(strangers)} processes were left running"
        zombies = len(children) - sum(map(process_ends.is_alive, children))
        return f"{zombies} processes were never waited for" if zombies > MAX_ZOMBIES else None

    def _left_descriptors(self) -> str | None:
        if _streams() != self._streams:
            return "a standard stream of the process was closed or exchanged"
        left = _count(_DESCRIPTORS) - self._descriptors
        return f"{left} descriptors were left open" if left > MAX_LEFT_DESCRIPTORS else None

    def _signals(self) -> str | None:
        return "a handler of a signal was replaced" if _handlers() != self._handlers else None


def _is_kept(pid: int) -> bool:
    """Return whether a child process may stay: one that has ended, or the helper of a library."""
    if not process_ends.is_alive(pid):
        return True
    command = process_ends.command_line(pid)
    return not command or any(part in command for part in _KEPT_PROCESSES)


def _is_of_a_pool(thread: threading.Thread | None) -> bool:
    if thread is None:
        return False
    modules = (type(thread).__module__, _module_of(thread))
    return any(module == pool or module.startswith(f"{pool}.") for module in modules for pool in _POOLS)


def _module_of(thread: threading.Thread) -> str:
    """Return the module of the function that a thread runs, else that of its class."""
    target = getattr(thread, "_target", None)
    return str(getattr(target, "__module__", None) or type(thread).__module__)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # a system without /proc
        return []


def _count(folder: Path) -> int:
    return len(_names(folder))


def _streams() -> tuple[object, ...]:
    """Return which files the three standard streams are."""
    found: list[object] = []
    for handle in (0, 1, 2):
        try:
            facts = os.fstat(handle)
            found.append((facts.st_dev, facts.st_ino))
        except OSError:
            found.append(None)
    return tuple(found)


def _handlers() -> tuple[object, ...]:
    return tuple(map(_signal.getsignal, _SIGNALS))


def _watched() -> Iterator[_Watched]:
    """Yield what the engine relies on: functions and classes of modules, and what the engine's own classes define."""
    for name, module in list(sys.modules.items()):
        is_own = name.partition(".")[0] in _OWN
        if not isinstance(module, ModuleType) or not (is_own or name in _WATCHED):
            continue
        yield _watch(name, vars(module))
        for value in list(vars(module).values()) if is_own else ():
            if isinstance(value, type) and value.__module__ == name:
                yield _watch(f"{name}.{value.__qualname__}", vars(value))


def _watch(owner: str, values: Mapping[str, Any]) -> _Watched:
    """Watch what `owner` itself defines, or a module of others offers."""
    is_own = owner.partition(".")[0] in _OWN
    names = tuple(
        name
        for name, value in values.items()
        if (callable(value) or isinstance(value, property | classmethod))
        and (not is_own or owner.startswith(getattr(value, "__module__", None) or owner))
    )
    return _Watched(owner, names, values, tuple(values[name] for name in names))


def _settings() -> Iterator[tuple[str, Callable[[], Any], Callable[[Any], object]]]:
    """Yield the settings that can be put back: name, function that returns it, function that sets it."""
    yield "numpy's error state", np.geterr, lambda value: np.seterr(**value)
    yield "the working directory", os.getcwd, os.chdir
    yield "the umask", _umask, os.umask
    yield "the environment", lambda: dict(os.environ), _put_environment
    yield "the locale", lambda: locale.setlocale(locale.LC_ALL), lambda value: locale.setlocale(locale.LC_ALL, value)
    yield "the garbage collection", gc.isenabled, lambda value: gc.enable() if value else gc.disable()
    yield "the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit
    yield "the switch interval", sys.getswitchinterval, sys.setswitchinterval
    yield "the trace function", sys.gettrace, sys.settrace
    yield "the profile function", sys.getprofile, sys.setprofile
    for owner, name in (
        *((sys, name) for name in ("stdin", "stdout", "stderr", "excepthook", "displayhook", "unraisablehook")),
        *((threading, "excepthook"), (builtins, "__import__")),
    ):
        yield f"{owner.__name__}.{name}", _getter(owner, name), _setter(owner, name)
    for name in _LIMITS:
        yield f"the limit {name}", partial(process_limits.read, name), partial(process_limits.put, name)
    for name, number in _TIMERS.items():
        yield f"the timer {name}", _timer_getter(number), _timer_setter(number)


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current


def _put_environment(value: Mapping[str, str]) -> None:
    for name in os.environ.keys() - value.keys():
        del os.environ[name]
    os.environ.update(value)


def _getter(owner: ModuleType, name: str) -> Callable[[], Any]:
    return lambda: getattr(owner, name, None)


def _setter(owner: ModuleType, name: str) -> Callable[[Any], object]:
    return lambda value: setattr(owner, name, value)


def _timer_getter(timer: int) -> Callable[[], Any]:
    return lambda: _get_timer is not None and _get_timer(timer) != (0.0, 0.0)


def _timer_setter(timer: int) -> Callable[[Any], object]:
    return lambda _value: _set_timer and _set_timer(timer, 0)
