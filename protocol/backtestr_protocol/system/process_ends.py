"""Processes end together, and their ends are noticed.

A program that starts others wants three things: to be woken when one ends, to end what that one has started, and to
leave none behind when it is killed itself. Linux has all three (signals, process groups, parent-death signal). Where
one is missing, threads wait for processes, their descendants are looked up, and a child watches its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # from Linux's prctl.h
_WATCH_SECONDS = 0.25
_TASKS = Path("/proc/self/task")
# How often the list of children is read while it is empty, though there are some.
_READS = 20

_kill: int | None = getattr(signal, "SIGKILL", None)
_child_ended: int | None = getattr(signal, "SIGCHLD", None)
_too_much_processor_time: int | None = getattr(signal, "SIGXCPU", None)
_waitid: Callable[..., object] | None = getattr(os, "waitid", None)
_killpg: Callable[[int, int], None] | None = getattr(os, "killpg", None)
_no_hang: int | None = getattr(os, "WNOHANG", None)
# The errors of psutil, and those of the system that it passes on, as where no file can be opened.
_UNKNOWN = (psutil.Error, OSError)
# Code of others that runs here may replace it in its module.
_sleep = time.sleep

END_SIGNALS: tuple[int, ...] = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)
"""The signals by which users and systems ask a program to end. SIGBREAK is Ctrl-Break, and the closing of a console."""


def _prctl(option: int, value: int) -> bool:
    """Tell Linux about this process; return False on other systems, whose C library has no such function."""
    try:
        call = getattr(ctypes.CDLL(None), "prctl", None)
    except (TypeError, OSError):  # there is no C library without a name
        return False
    return call is not None and call(option, value, 0, 0, 0) == 0


# --- to notice an end ---


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a child process has ended; where that can be, its number stays its own until `wait` is called."""
    if _waitid is None:
        return process.poll() is not None
    try:
        return _waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # somebody else has taken its exit code
        return True


def wake_at_ends(wake: Callable[[], None]) -> bool:
    """Call `wake` whenever a child process ends; return False where the system does not say, see `wake_at_end`."""
    if _child_ended is None:
        return False
    signal.signal(_child_ended, lambda _number, _frame: wake())
    return True


def wake_at_end(process: subprocess.Popen[bytes], wake: Callable[[], None]) -> None:
    """Have a thread call `wake` when this process ends, where `wake_at_ends` cannot."""

    def wait() -> None:
        process.wait()
        wake()

    threading.Thread(target=wait, name=f"backtestr end of {process.pid}", daemon=True).start()


def used_too_much_processor_time(code: int) -> bool:
    """Return True for the exit code of a process that the system has ended for its use of the processor."""
    return _too_much_processor_time is not None and code == -_too_much_processor_time


# --- to end together ---


def adopt_orphans() -> bool:
    """Make the descendants of this process whose parent ends its children; return False where that cannot be."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(parent: int | None = None) -> None:
    """End this process when the one that started it ends.

    Linux ends it when the thread ends that started it. Elsewhere a thread here watches the process `parent`, if it is
    given. A parent that has ended by now ends this one at once.
    """
    is_tied = _kill is not None and _prctl(_PR_SET_PDEATHSIG, _kill)
    if parent is None:
        return
    if not is_tied:
        _watch(parent)
    elif os.getppid() != parent:
        os._exit(1)


def _watch(parent: int) -> None:
    try:
        watched = psutil.Process(parent)
    except psutil.Error:
        os._exit(1)

    def watch() -> None:
        while watched.is_running():  # which tells it from a later process of the same number
            _sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="backtestr parent", daemon=True).start()


def descendants(pid: int) -> list[psutil.Process]:
    """Return the processes that a process has started, and those that they have started; none for one that is gone.

    None either where no file can be opened to look.
    """
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except _UNKNOWN:
        return []


def kill_all(processes: Iterable[psutil.Process]) -> None:
    """Kill processes; those that have ended, also if their numbers belong to others by now, are left alone."""
    for one in processes:
        with contextlib.suppress(*_UNKNOWN):
            one.kill()


def kill_child(pid: int) -> None:
    """Kill a child that nobody has waited for: its number is its own until then. It needs no file to make sure."""
    if _kill is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, _kill)


def kill_group(pid: int) -> bool:
    """Kill the group that a process leads, if any is left of it; return False where there are no groups."""
    if _killpg is None or _kill is None:
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        _killpg(pid, _kill)
    return True


def kill_with_descendants(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads a group, with its group; where there are no groups, with what it has started."""
    if kill_group(process.pid):
        return
    left = descendants(process.pid)
    process.kill()
    kill_all(left)


def child_ids() -> list[int]:
    """Return the ids of the processes that this one has started or adopted, ended ones too until they are waited for.

    On Linux without looking at other processes, and after one system call if there are none. Those are missing of which
    nothing can be known, because no file can be opened.
    """
    if _waitid is not None:
        try:
            _waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return []
    # There are some, if the system could tell; but Linux may leave a process out of a list that is read as it is made.
    for _ in range(_READS if _waitid is not None else 1):
        if found := _listed_children():
            return found
    return []


def _listed_children() -> list[int]:
    found: list[int] = []
    try:
        tasks = os.listdir(_TASKS)
    except OSError:  # a system without /proc
        with contextlib.suppress(*_UNKNOWN):
            found += [one.pid for one in psutil.Process().children()]
        return found
    for task in tasks:
        with contextlib.suppress(OSError):
            found += map(int, (_TASKS / task / "children").read_bytes().split())
    return found


def is_alive(pid: int) -> bool:
    """Return False for a process that has ended, also if nobody has waited for it."""
    try:
        return bool(psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD))
    except psutil.Error:
        return False
    except OSError:  # no file can be opened to look
        return True


def command_line(pid: int) -> str:
    """Return the command line of a process; an empty text where it cannot be read."""
    try:
        return "\0".join(psutil.Process(pid).cmdline())
    except _UNKNOWN:
        return ""


def reap(pid: int) -> bool:
    """Return True for a child that has ended, and free its number; False for one that runs."""
    if _no_hang is None:
        return not is_alive(pid)
    try:
        gone, _ = os.waitpid(pid, _no_hang)
    except ChildProcessError:
        return True
    return gone != 0


def end_children() -> None:
    """Kill the processes that were started here, and those that they have left behind."""
    for _ in range(8):  # those of a killed process become children of this one, where orphans are adopted
        left = [pid for pid in child_ids() if is_alive(pid)]
        if not left:
            return
        for pid in left:
            kill_all(descendants(pid))
            with contextlib.suppress(*_UNKNOWN):
                psutil.Process(pid).kill()
        _sleep(0.01)
