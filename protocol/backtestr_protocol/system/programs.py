"""Programs are started, in the way of this system."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

_HAS_GROUPS = hasattr(os, "killpg")


def own_group() -> dict[str, Any]:
    """Return the arguments with which `subprocess.Popen` starts a process that leads a group of its own.

    Ctrl-C in a terminal does not reach it.
    """
    if _HAS_GROUPS:
        return {"start_new_session": True}
    return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}


def python() -> dict[str, Any]:
    """Return the arguments with which `subprocess.Popen` starts this Python itself.

    On Windows the Python of a virtual environment is a program that starts another one, whose process id and processor
    time would be those of the wrong process. As `multiprocessing` does, that other one is started.
    """
    base = getattr(sys, "_base_executable", sys.executable)
    if not hasattr(sys, "getwindowsversion") or base == sys.executable:
        return {"executable": sys.executable}
    return {"executable": base, "env": {**os.environ, "__PYVENV_LAUNCHER__": sys.executable}}


def run_in_place(command: list[str]) -> int:
    """Become `command`, where a process can; elsewhere run it, pass on Ctrl-C, and return its exit code."""
    if _HAS_GROUPS:
        os.execv(command[0], command)
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the console has told that process too, and it ends by itself
            continue
