"""The commands of `backtestr` against a scripted broker: requests, output and exit codes."""

from __future__ import annotations

from importlib import util
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import backtestr
from backtestr.cli.app import app
from backtestr.cli.console import EXIT_ERROR, EXIT_NO_BROKER, EXIT_USAGE
from backtestr_protocol.build import BUILD
from backtestr_protocol.errors import StateConflict
from support.client.answers import STARTING, status
from support.client.command_line import asked, read_json, type_in
from support.client.peer import Peer

FINISHED = {
    "backtestId": "b1",
    "status": "completed",
    "config": {"algorithmId": "a@1", "symbol": "S", "timeframe": "1m"},
    "metrics": {"totalReturn": 0.25, "winRate": None, "undefined": {"winRate": "there is no closed trade"}},
    "tables": [],
}


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"backtestr {backtestr.__version__} ({BUILD})\n"


def test_without_a_broker_the_exit_code_says_so(home: Path) -> None:
    with Peer(home, write_file=False) as peer:
        result = type_in(peer, "backtests")
    assert result.exit_code == EXIT_NO_BROKER
    assert "backtestr run" in result.output


def test_a_detached_backtest_prints_its_id_and_sends_what_was_typed(home: Path) -> None:
    with Peer(home, STARTING) as peer:
        words = ("backtest", "a", "S", "T", "--timeframe", "1m", "--param", "fast=10", "--option", "fillAt=close")
        more = ("--preset", "vectorbt", "--pace", "5", "--start", "2022-01-03", "--capital", "1000")
        printed = read_json(type_in(peer, *words, *more, "--detach", "--json"))
        [config] = asked(peer, "StartBacktest")
    assert config == {
        "backtestId": printed["backtestId"],
        "algorithmId": "a",
        "symbol": "S",
        "symbols": ["S", "T"],
        "startDate": "2022-01-03T00:00:00Z",
        "initialCapital": 1000.0,
        "timeframe": "1m",
        "commission": 0.0,
        "slippage": 0.0,
        "parameters": {"fast": 10},
        "options": {"fillAt": "close", "preset": "vectorbt", "pace": 5.0},
    }


def test_results_are_a_table_or_the_protocol_s_struct(home: Path) -> None:
    with Peer(home, {"GetBacktestResults": lambda _: FINISHED}) as peer:
        printed = read_json(type_in(peer, "results", "b1", "--json"))
        assert printed == {key: value for key, value in FINISHED.items() if key != "tables"}
        shown = type_in(peer, "results", "b1").stdout
        assert asked(peer, "GetBacktestResults") == [{"backtestId": "b1", "tables": []}] * 2
    assert "25.00 %" in shown
    assert "undefined: there is no closed trade" in shown


def test_backtests_are_listed_up_to_a_limit(home: Path) -> None:
    with Peer(home, {"ListBacktests": lambda _: {"backtests": [status("running", progressPercent=42.0)]}}) as peer:
        assert "42 %" in type_in(peer, "backtests", "--limit", "5").stdout
        assert asked(peer, "ListBacktests") == [{"limit": 5}]


def test_a_refused_backtest_is_an_error_with_an_exit_code(home: Path) -> None:
    with Peer(home, {"StartBacktest": lambda _: StateConflict("there is a backtest 'b1'")}) as peer:
        result = type_in(peer, "backtest", "a", "S", "--timeframe", "1m", "--detach")
    assert result.exit_code == EXIT_ERROR
    assert "there is a backtest 'b1'" in result.output


@pytest.mark.parametrize("command", [("import", "--symbol", "S"), ("register",), ("check",)], ids=lambda one: one[0])
def test_a_file_that_is_missing_is_wrong_usage(home: Path, command: tuple[str, ...]) -> None:
    with Peer(home) as peer:
        result = type_in(peer, *command, str(home / "absent"))
        assert result.exit_code == EXIT_USAGE
        assert "there is no file" in result.output
        assert [kind for kind, *_ in peer.asked] == []


@pytest.mark.parametrize(
    "subjects", [("--job", "b1", "--session", "s1"), ("--topic", "t", "--all")], ids=lambda one: one[0]
)
def test_a_recording_is_asked_for_one_subject(tmp_path: Path, subjects: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["replay-log", str(tmp_path), *subjects])
    assert result.exit_code == EXIT_USAGE
    assert "name one of --job" in result.output


def test_a_part_that_is_not_installed_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_numba(name: str) -> Any:
        return None if name == "numba" else real(name)

    real = util.find_spec
    monkeypatch.setattr(util, "find_spec", without_numba)
    result = CliRunner().invoke(app, ["indicators"])
    assert result.exit_code == EXIT_ERROR
    assert "the engine needs numba; install it with: pip install" in result.output.replace("\n", " ")
