"""A process says what its results depend on: the same in all of one installation, and another for other code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import backtestr_engine
from backtestr_engine.cluster.fingerprint import FEATURES, digest
from backtestr_engine.cluster.io import process_facts as module
from backtestr_engine.cluster.io.process_facts import process_facts


def test_the_facts_name_versions_code_and_processor() -> None:
    facts = process_facts()
    assert {"backtestr", "numpy", "numba", "llvmlite", "TA-Lib", "polars", "engine code", "python", FEATURES} <= set(
        facts
    )
    assert all(facts.values()), facts
    assert "not installed" not in facts.values()


def test_another_process_has_the_same_facts() -> None:
    program = (
        "from backtestr_engine.cluster.io.process_facts import process_facts as f\n"
        "from backtestr_engine.cluster.fingerprint import digest\nprint(digest(f()))"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    module.process_facts.cache_clear()  # a file may have been edited since another test asked
    assert other.stdout.strip() == digest(process_facts())


def test_a_change_of_any_file_of_the_engine_is_another_fact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "research").mkdir()
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "research" / "sweeps.py").write_text("a = 1")
    monkeypatch.setattr(backtestr_engine, "__file__", str(tmp_path / "__init__.py"))
    before = module._hash_of_code()
    assert module._hash_of_code() == before
    (tmp_path / "research" / "sweeps.py").write_text("a = 2")
    assert module._hash_of_code() != before


def test_variables_that_change_what_numpy_takes_are_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    module.process_facts.cache_clear()
    plain = process_facts()["variables"]
    module.process_facts.cache_clear()
    monkeypatch.setenv("NPY_DISABLE_CPU_FEATURES", "AVX2")
    assert process_facts()["variables"] != plain
    module.process_facts.cache_clear()
