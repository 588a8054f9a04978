"""Processes that a worker has started end with it, however they try to get away, and with a broker that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from support.harness import wait_until

# A process that makes a family with one worker, which starts processes and then waits; it prints their ids.
PARENT = """
import os, subprocess, sys, time
from backtestr_broker.io.process_family import ProcessFamily
family = ProcessFamily()
worker = subprocess.Popen(["/bin/sh", "-c", {script!r}], start_new_session=True)
family.started(worker.pid)
print(worker.pid, flush=True)
sys.stdin.readline()
worker.kill()
os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
family.ended(worker.pid)
worker.wait()
family.kill_orphans()
print("ended", flush=True)
sys.stdin.readline()
family.close()
"""
# In the group of the worker, and in a session of its own behind a parent that ends.
IN_GROUP = "sleep 61 & wait"
ESCAPED = "setsid sleep 62 & sleep 63 & wait"


def is_running(pid: int) -> bool:
    return bool(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie")


def descendants(parent: subprocess.Popen[str], name: str) -> list[int]:
    return [one.pid for one in psutil.Process(parent.pid).children(recursive=True) if one.name() == name]


def started(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PARENT.format(script=script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def say(parent: subprocess.Popen[str]) -> None:
    assert parent.stdin is not None
    parent.stdin.write("\n")
    parent.stdin.flush()


@pytest.mark.parametrize(("script", "count"), [(IN_GROUP, 1), (ESCAPED, 2)], ids=["group", "session"])
def test_what_a_worker_has_started_ends_with_it(script: str, count: int) -> None:
    with started(script) as parent:
        assert parent.stdout is not None
        int(parent.stdout.readline())
        wait_until(lambda: len(descendants(parent, "sleep")) == count, 10)
        sleepers = descendants(parent, "sleep")
        say(parent)
        assert parent.stdout.readline() == "ended\n"
        wait_until(lambda: not any(map(is_running, sleepers)), 5)
        guardians = descendants(parent, "sh")
        assert len(guardians) == 1
        say(parent)
        assert parent.wait(10) == 0
        assert not any(map(is_running, guardians))


def test_a_killed_broker_takes_its_workers_and_what_they_started_with_it() -> None:
    with started(IN_GROUP) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        wait_until(lambda: len(descendants(parent, "sleep")) == 1, 10)
        everything = [one.pid for one in psutil.Process(parent.pid).children(recursive=True)]
        assert worker in everything
        parent.kill()
        wait_until(lambda: not any(map(is_running, everything)), 5)


def ignored_by(pid: int) -> set[int]:
    """Return the signals that a process ignores."""
    (mask,) = [
        int(line.split()[1], 16)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("SigIgn:")
    ]
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def test_signals_of_a_terminal_do_not_end_the_guardian() -> None:
    with started("sleep 60") as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())

        def guardians() -> list[int]:
            return [pid for pid in descendants(parent, "sh") if pid != worker]

        wait_until(lambda: len(guardians()) == 1, 5)  # a shell that starts a program is two for a moment
        (guardian,) = guardians()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        wait_until(lambda: all(number in ignored_by(guardian) for number in numbers), 5)
        for number in numbers:
            os.kill(guardian, number)
        parent.kill()
        wait_until(lambda: not is_running(worker), 5)
        wait_until(lambda: not is_running(guardian), 5)


def test_a_machine_without_a_shell_has_no_guardian(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = (
        "import subprocess\n"
        "def absent(*_, **__): raise FileNotFoundError(2, 'No such file')\n"
        "subprocess.Popen = absent\n"
        "from backtestr_broker.io.process_family import ProcessFamily\n"
        "family = ProcessFamily()\n"
        "family.started(999_999_999); family.ended(999_999_999); family.kill_orphans(); family.close()\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60).returncode == 0
