"""Processes that belong together end together, with process groups and without them, and every end is noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import psutil
import pytest

from backtestr_protocol.system import process_ends
from support.harness import wait_until

SLEEPS = [sys.executable, "-c", "import sys; print('started', flush=True); sys.stdin.readline()"]
# It starts a process that waits for it, prints its id, and waits.
STARTS = [
    sys.executable,
    "-c",
    "import subprocess, sys\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'], stdin=subprocess.PIPE)\n"
    "print(child.pid, flush=True)\n"
    "sys.stdin.readline()\n",
]
# It ends with its parent, whose id it gets; without a signal for that, a thread watches.
TIED = """
import sys
from backtestr_protocol.system import process_ends
process_ends._prctl = lambda *_: False
process_ends.end_with_parent({parent})
print("tied", flush=True)
import threading
threading.Event().wait()
"""
PARENT = """
import subprocess, sys, os
child = subprocess.Popen([sys.executable, "-c", {tied!r}.replace("{{parent}}", str(os.getpid()))])
print(child.pid, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def _no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this be a system without process groups, `waitid` and the signal of an ended child."""
    for name in ("_killpg", "_waitid", "_child_ended", "_no_hang"):
        monkeypatch.setattr(process_ends, name, None)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with started(STARTS, start_new_session=True) as one:
        yield one
        one.kill()


def started(command: list[str], *, start_new_session: bool = False) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=start_new_session)


def first_number(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def is_running(pid: int) -> bool:
    return bool(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def check_kills_with_descendants(process: subprocess.Popen[bytes]) -> None:
    child = first_number(process)
    assert not process_ends.has_ended(process)
    process_ends.kill_with_descendants(process)
    wait_until(lambda: process_ends.has_ended(process), 10)
    wait_until(lambda: not is_running(child), 10)


def test_a_process_is_killed_with_its_group(process: subprocess.Popen[bytes]) -> None:
    check_kills_with_descendants(process)


@pytest.mark.usefixtures("_no_groups")
def test_without_groups_it_is_killed_with_what_it_has_started(process: subprocess.Popen[bytes]) -> None:
    check_kills_with_descendants(process)


@pytest.mark.usefixtures("_no_groups")
def test_without_a_signal_a_thread_notices_the_end() -> None:
    assert not process_ends.wake_at_ends(lambda: None)
    woken = threading.Event()
    with started(SLEEPS) as one:
        process_ends.wake_at_end(one, woken.set)
        assert not woken.is_set()
        one.kill()
        assert woken.wait(10)
        assert process_ends.has_ended(one)


def test_with_a_signal_that_notices_the_end() -> None:
    woken = threading.Event()
    before = signal.getsignal(signal.SIGCHLD)
    try:
        assert process_ends.wake_at_ends(woken.set)
        with started(SLEEPS) as one:
            one.kill()
            wait_until(woken.is_set, 10)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_the_signals_that_end_a_program_are_those_of_the_system() -> None:
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} == set(process_ends.END_SIGNALS)


def test_a_child_ends_with_its_parent_where_only_a_thread_can_watch() -> None:
    with started([sys.executable, "-c", PARENT.format(tied=TIED)]) as parent:
        child = first_number(parent)
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"tied\n"
        assert is_running(child)
        parent.kill()
        parent.wait()
        wait_until(lambda: not is_running(child), 10)


def test_a_child_whose_parent_has_gone_ends_at_once() -> None:
    with started(SLEEPS) as gone:
        gone.kill()
        gone.wait()
    code = TIED.replace("{parent}", str(gone.pid))
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=60).returncode == 1


@pytest.mark.parametrize("has_proc", [True, False])
def test_children_are_found_with_and_without_proc(has_proc: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_proc:
        monkeypatch.setattr(process_ends, "_TASKS", process_ends._TASKS / "absent")
    with started(SLEEPS) as one:
        assert one.pid in process_ends.child_ids()
        assert process_ends.is_alive(one.pid)
        assert "sys.stdin.readline" in process_ends.command_line(one.pid)
        one.kill()
        wait_until(lambda: not process_ends.is_alive(one.pid), 10)
        assert process_ends.reap(one.pid)
    assert one.pid not in process_ends.child_ids()


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="this system cannot say at once whether there are children")
def test_a_child_is_found_though_the_list_was_empty_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux makes the list while it is read, and may leave a process out."""
    one = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    lists = iter([[], [], [one.pid]])
    monkeypatch.setattr(process_ends, "_listed_children", lambda: next(lists))
    try:
        assert process_ends.child_ids() == [one.pid]
    finally:
        one.kill()
        one.communicate()
    assert process_ends.command_line(one.pid) == ""
    assert process_ends.descendants(one.pid) == []


# It has a child, and no file can be opened: it asks all questions, and kills the child.
WITHOUT_FILES = """
import os, resource, subprocess, sys
from backtestr_protocol.system import process_ends
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
known = [process_ends.child_ids(), process_ends.descendants(os.getpid()), process_ends.command_line(child.pid)]
assert known == [[], [], ""], known
assert process_ends.is_alive(child.pid)
process_ends.kill_child(child.pid)
print(child.wait(10))
process_ends.kill_child(child.pid)
process_ends.end_children()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, which is read by opening files")
def test_nothing_fails_where_no_file_can_be_opened_and_a_child_can_be_killed() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_FILES], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"{-signal.SIGKILL}\n"), done.stderr
