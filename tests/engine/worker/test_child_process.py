"""A child process sends frames, and every way in which it can end is a reason in words."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from backtestr_engine.worker.child_process import Child, ChildLost
from support.harness import wait_until

FRAMES = """
import os, sys, time
from backtestr_engine.worker.child_process import Frames, take_request
frames = Frames()
request = take_request()
"""


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Child]]:
    """Close the children that a test has started."""
    started: list[Child] = []
    yield started
    for one in started:
        one.close()


def start(monkeypatch: pytest.MonkeyPatch, script: str, request: bytes = b"", *, started: list[Child]) -> Child:
    """Start a child that runs this script instead of the engine."""
    popen = subprocess.Popen
    with monkeypatch.context() as patched:
        patched.setattr(
            subprocess, "Popen", lambda _command, **options: popen([sys.executable, "-c", script], **options)
        )
        started.append(Child("source_inspector", request, 1 << 30))
    return started[-1]


def test_frames_come_one_by_one_and_prints_do_not_disturb_them(
    monkeypatch: pytest.MonkeyPatch, child: list[Child]
) -> None:
    script = FRAMES + (
        "print('text', flush=True); os.write(1, b'more')\n"
        "frames.send(b''); frames.send(request); frames.send(b'x' * 300_000)\n"
    )
    one = start(monkeypatch, script, b"asked" * 100_000, started=child)
    assert one.frame(60) == b""
    assert one.frame(10) == b"asked" * 100_000
    assert one.frame(10) == b"x" * 300_000
    with pytest.raises(ChildLost, match="it ended its process with exit code 0; the last that it printed: more"):
        one.frame(10)


@pytest.mark.parametrize(
    ("script", "seconds", "reason"),
    [
        ("import sys; sys.exit(7)", 60, "it ended its process with exit code 7"),
        ("raise RuntimeError('why')", 60, "exit code 1; the last that it printed: RuntimeError: why"),
        ("import os; os.abort()", 60, "its process was ended by SIGABRT"),
        ("import time; time.sleep(60)", 0.2, "it did not come back within 0.2 s"),
        ("import os; os.close(1); os.close(2); import time; time.sleep(60)", 0.2, "it did not come back within 0.2 s"),
        ("while True: print('x' * 1000, flush=True)", 60, "exit code"),
        ("import sys\nwhile True: sys.stderr.write('x' * 1000)", 60, "it printed more than 1 MiB"),
        (FRAMES + "os.write(frames._handle, b'\\xff' * 8)", 60, "and may answer with 1,048,576"),
        (FRAMES + "os.write(frames._handle, b'\\0\\0')", 60, "it ended its process with exit code 0"),
    ],
    ids=["exit", "raise", "abort", "late", "closed", "flood of frames", "prints", "huge frame", "cut frame"],
)
def test_every_end_is_a_reason(
    script: str, seconds: float, reason: str, monkeypatch: pytest.MonkeyPatch, child: list[Child]
) -> None:
    one = start(monkeypatch, script, started=child)
    with pytest.raises(ChildLost) as caught:
        one.frame(seconds)
    if script.startswith("while"):  # printed where frames are expected
        assert "answered with" in str(caught.value)
    else:
        assert reason in str(caught.value)
    assert not psutil.pid_exists(one.pid)


def test_what_a_child_has_started_ends_with_it(
    monkeypatch: pytest.MonkeyPatch, child: list[Child], tmp_path: Path
) -> None:
    left = tmp_path / "pid"
    script = FRAMES + (
        f"import subprocess; left = subprocess.Popen(['sleep', '60']); open({str(left)!r}, 'w').write(str(left.pid))\n"
        "frames.send(b'done')\n"
    )
    one = start(monkeypatch, script, started=child)
    assert one.frame(60) == b"done"
    with pytest.raises(ChildLost, match="exit code 0"):
        one.frame(10)  # although the other process holds the pipes open
    wait_until(lambda: not is_running(int(left.read_text())), 5)


def is_running(pid: int) -> bool:
    return bool(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie")


def test_a_child_ends_with_its_parent() -> None:
    """Kill a process whose child runs endless code."""
    code = (
        "import sys, msgspec\n"
        "from backtestr_engine.library.source_files import Source\n"
        "from backtestr_engine.worker.child_process import Child\n"
        "from backtestr_engine.worker.source_inspector import InspectSources\n"
        "source = Source('while True: pass', 'a.py', 'a')\n"
        "request = msgspec.msgpack.encode(InspectSources(sources=[source], seconds=60))\n"
        "child = Child('source_inspector', request, 1 << 30)\n"
        "child.frame(60)\n"
        "print(child.pid, flush=True)\n"
        "child.frame(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
        parent.wait()
        wait_until(lambda: not is_running(pid), 5)


def test_a_child_whose_exit_code_somebody_else_has_taken_has_ended(
    monkeypatch: pytest.MonkeyPatch, child: list[Child]
) -> None:
    one = start(monkeypatch, "pass", started=child)
    os.waitpid(one.pid, 0)
    began = time.monotonic()
    with pytest.raises(ChildLost, match="it ended its process"):
        one.frame(60)
    assert time.monotonic() - began < 30
