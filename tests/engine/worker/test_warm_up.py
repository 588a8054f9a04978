"""A warm-up that compiles says so, how far it has come, and when it is done."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from numba import njit

from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.worker import warm_up
from backtestr_engine.worker.warm_up import warm


def test_a_warm_up_that_finds_all_kernels_on_disk_says_nothing(conventions: Conventions) -> None:
    warm(conventions)  # from here on the cache is complete
    said: list[str] = []
    warm(conventions, said.append)
    assert said == []


@pytest.mark.parametrize("complete", [True, False])
def test_no_garbage_is_looked_for_while_kernels_are_loaded(
    conventions: Conventions, monkeypatch: pytest.MonkeyPatch, complete: bool
) -> None:
    """To compile them makes garbage, and may take a minute."""
    looks: list[bool] = []
    monkeypatch.setattr(warm_up, "_run_all", lambda _conventions: looks.append(gc.isenabled()))
    monkeypatch.setattr(warm_up, "warm_sweeps", lambda _conventions: None)
    monkeypatch.setattr(warm_up, "close_kernel_cache", lambda: None)
    monkeypatch.setattr(warm_up, "is_complete", lambda: complete)
    warm(conventions)
    assert looks == [not complete]
    assert gc.isenabled()


def test_a_first_warm_up_says_that_it_compiles_and_for_how_long(
    conventions: Conventions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_up, "is_complete", lambda: False)
    said: list[str] = []
    warm(conventions, said.append)
    assert said[0] == "compiling the kernels, once: about 40 s"
    assert re.fullmatch(r"compiled the kernels in \d+ s", said[-1])


def test_a_warm_up_that_can_keep_nothing_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_up, "KERNEL_CACHE", None)
    said: list[str] = []
    with warm_up._told(said.append):
        pass
    assert "at every start" in said[0]
    assert "XDG_CACHE_HOME or BACKTESTR_DATA_DIR" in said[0]


def test_a_long_warm_up_says_how_many_functions_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_up, "_PROGRESS_SECONDS", 0.0)
    said: list[str] = []
    with warm_up._told(said.append):
        for function in (lambda x: x + 1, lambda x: x + 2):
            njit(function)(1)
    assert [line.partition(" in ")[0] for line in said[1:-1]] == [
        "still compiling the kernels: 1 functions",
        "still compiling the kernels: 2 functions",
    ]


def test_the_first_backtest_after_a_warm_up_imports_and_compiles_nothing() -> None:
    root = Path(__file__).parents[3]
    path = os.pathsep.join([str(root / "tests" / "support" / "without_extras"), str(root / "tests")])
    done = subprocess.run(
        [sys.executable, "-m", "support.engine.first_tasks"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
