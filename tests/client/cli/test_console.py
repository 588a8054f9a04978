"""The parts that all commands share: NAME=VALUE, JSON, and errors as lines with an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from backtestr.cli.console import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_NO_BROKER, assignments, broker, print_json
from backtestr_protocol.errors import BacktestrError, NetworkError, NotFound, ValidationError
from support.client.peer import WALL_MS, Peer


@pytest.fixture
def peer(home: Path, monkeypatch: pytest.MonkeyPatch) -> Peer:
    """Return a scripted broker that a command finds; it is not started."""
    peer = Peer(home)
    monkeypatch.setenv("BACKTESTR_CONNECTION_FILE", str(peer.file))
    return peer


def test_values_are_json_and_otherwise_text() -> None:
    assert assignments(None, "--param") == {}
    assert assignments(["fast=10", "on=true", "name=a=b", "empty="], "--param") == {
        "fast": 10,
        "on": True,
        "name": "a=b",
        "empty": "",
    }


@pytest.mark.parametrize("wrong", ["fast", "=10", ""])
def test_an_assignment_without_a_name_or_a_sign_is_refused(wrong: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not NAME=VALUE") as refused:
        assignments([wrong], "--param")
    assert refused.value.param_hint == "--param"


def test_json_is_indented_and_ends_with_a_newline(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [1, 2]})
    assert capsys.readouterr().out == '{\n  "a": [\n    1,\n    2\n  ]\n}\n'


def test_a_command_gets_a_client_that_is_closed_after_it(peer: Peer) -> None:
    with peer:
        with broker(False) as client:
            assert client.ping() == WALL_MS
        assert client.state == "closed"


@pytest.mark.parametrize(
    ("error", "code"),
    [(NotFound("no such [thing]"), EXIT_ERROR), (NetworkError("no broker"), EXIT_NO_BROKER)],
    ids=["refused", "no broker"],
)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_an_error_is_printed_and_becomes_an_exit_code(
    peer: Peer, capsys: pytest.CaptureFixture[str], error: BacktestrError, code: int, as_json: bool
) -> None:
    with peer, pytest.raises(typer.Exit) as ended, broker(as_json):
        raise error
    assert ended.value.exit_code == code
    printed = capsys.readouterr()
    assert error.message in printed.err
    if as_json:
        assert json.loads(printed.out)["error"]["code"] == error.code
    else:
        assert printed.out == ""


def test_the_advice_for_a_person_stands_below_the_error(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    error = ValidationError("$.x: no")
    with peer, pytest.raises(typer.Exit), broker(False):
        raise error
    advice = [action.description for action in error.recovery_actions if action.user_required]
    assert capsys.readouterr().err.splitlines() == ["$.x: no", *advice]
    assert advice


def test_a_mistake_of_the_caller_is_wrong_usage_and_ctrl_c_an_interruption(peer: Peer) -> None:
    with peer:
        with pytest.raises(typer.BadParameter, match="yesterday"), broker(False):
            raise ValueError("'yesterday' is not a time")
        with pytest.raises(typer.Exit) as ended, broker(False):
            raise KeyboardInterrupt
    assert ended.value.exit_code == EXIT_INTERRUPTED
