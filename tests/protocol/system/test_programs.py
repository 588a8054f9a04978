"""A program starts others in groups of their own, itself with the same Python, and one in its place."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from backtestr_protocol.system import programs

ENDS = [sys.executable, "-c", "raise SystemExit(7)"]


def test_the_program_starts_itself_with_the_same_python() -> None:
    code = "import sys; print(sys.prefix)"
    done = subprocess.run([sys.executable, "-c", code], **programs.python(), stdout=subprocess.PIPE, text=True)
    assert done.stdout.strip() == sys.prefix


def test_windows_starts_the_python_behind_that_of_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "getwindowsversion", lambda: None, raising=False)
    monkeypatch.setattr(sys, "_base_executable", "C:\\Python\\python.exe", raising=False)
    arguments = programs.python()
    assert arguments["executable"] == "C:\\Python\\python.exe"
    assert arguments["env"]["__PYVENV_LAUNCHER__"] == sys.executable
    assert arguments["env"]["PATH"] == os.environ["PATH"]


def test_a_process_leads_a_group_of_its_own() -> None:
    code = "import os; print(os.getpgid(0) == os.getpid())"
    started = subprocess.run([sys.executable, "-c", code], **programs.own_group(), stdout=subprocess.PIPE)
    assert started.stdout == b"True\n"


@pytest.mark.parametrize("has_groups", [True, False])
def test_a_program_takes_the_place_of_this_one_or_its_exit_code_is_returned(has_groups: bool) -> None:
    code = (
        "from backtestr_protocol.system import programs\n"
        f"programs._HAS_GROUPS = {has_groups}\n"
        f"raise SystemExit(programs.run_in_place({ENDS!r}))\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 7


def test_without_groups_windows_is_asked_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_HAS_GROUPS", False)
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200, raising=False)
    assert programs.own_group() == {"creationflags": 0x200}
