"""A module is hidden from imports of the block alone, and one that is there already stays."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from backtestr_protocol.system.hidden_modules import hidden


def test_it_is_found_again_after_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)

    with hidden("colorsys"), pytest.raises(ModuleNotFoundError, match="colorsys"):
        importlib.import_module("colorsys")

    assert importlib.import_module("colorsys").hls_to_rgb(0, 0, 0) == (0, 0, 0)


def test_one_that_is_imported_already_stays() -> None:
    with hidden("subprocess"):
        assert importlib.import_module("subprocess") is subprocess


@pytest.mark.parametrize("program", ["backtestr_broker", "backtestr_engine"])
def test_no_program_of_ours_imports_rich_for_its_log(program: str) -> None:
    code = f"import sys, {program}.__main__; assert 'structlog' in sys.modules; print([*sys.modules].count('rich'))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=True)
    assert ended.stdout == "0\n"
