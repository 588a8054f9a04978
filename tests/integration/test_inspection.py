"""`backtestr check` and `backtestr indicators` start an engine in a process of its own and need no broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from backtestr.cli.app import app
from backtestr.cli.console import EXIT_ERROR, EXIT_USAGE

HONEST = '''
from backtestr_engine.authoring import algorithm
from backtestr_engine.authoring import Signals

print("loading")  # goes to standard error

@algorithm("honest")
def honest(bars):
    """Buys what rises."""
    return Signals.of(entries=bars.close > bars.open)
'''
PEEKING = (
    HONEST
    + """
@algorithm("peeking")
def peeking(bars):
    return Signals.of(entries=bars.close > bars.close.mean())

@algorithm("broken")
def broken(bars):
    return 1 / 0
"""
)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("COLUMNS", "160")
    return CliRunner()


def checked(ask: CliRunner, path: Path, text: str, *arguments: str) -> Result:
    path.write_text(text)
    return ask.invoke(app, ["check", str(path), *arguments])


def test_an_honest_file_passes(ask: CliRunner, tmp_path: Path) -> None:
    done = checked(ask, tmp_path / "mine.py", HONEST)

    assert done.exit_code == 0
    assert "honest@" in done.stdout
    assert "none found (" in done.stdout


def test_one_that_peeks_and_one_that_fails(ask: CliRunner, tmp_path: Path) -> None:
    done = checked(ask, tmp_path / "mine.py", PEEKING, "--json")

    assert done.exit_code == EXIT_ERROR
    answer = json.loads(done.stdout)
    assert [verdict["algorithmId"].partition("@")[0] for verdict in answer["verdicts"]] == ["honest", "peeking"]
    assert [verdict["finding"] is None for verdict in answer["verdicts"]] == [True, False]
    assert answer["problems"][0].startswith("broken raised ZeroDivisionError: division by zero\nTraceback")
    assert "return 1 / 0" in answer["problems"][0]


def test_a_file_that_is_no_python_names_the_line(ask: CliRunner, tmp_path: Path) -> None:
    done = checked(ask, tmp_path / "mine.py", "x = 1\ndef (\n")

    assert done.exit_code == EXIT_ERROR
    assert "mine.py:2: SyntaxError: invalid syntax" in done.stdout.replace("\n", "")
    assert ask.invoke(app, ["check", str(tmp_path / "absent.py")]).exit_code == EXIT_USAGE


def test_the_indicators_are_listed_with_parameters_and_outputs(ask: CliRunner) -> None:
    listed = {one["name"]: one for one in json.loads(ask.invoke(app, ["indicators", "--json"]).stdout)}

    assert listed["SMA"]["parameters"] == {"timeperiod": 30}
    assert listed["MACD"]["outputs"] == ["macd", "macdsignal", "macdhist"]
    assert listed["BBANDS"]["group"] == "Overlap Studies"
    shown = ask.invoke(app, ["indicators"]).stdout
    assert "fastperiod=12, slowperiod=26, signalperiod=9" in shown
