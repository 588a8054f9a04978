"""`backtestr keys`: what each command does to the files and prints, and its errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from backtestr.cli.app import app
from backtestr_protocol.keys import KeyFolder

Type = Callable[..., Result]


@pytest.fixture
def type_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Type:
    monkeypatch.setenv("BACKTESTR_DATA_DIR", str(tmp_path))
    return lambda *words: CliRunner().invoke(app, ["keys", *words])


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


def read(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_new_prints_the_secret_file_and_the_command_for_other_machines(type_in: Type, folder: KeyFolder) -> None:
    said = type_in("new", "ann").stdout
    public = folder.client_pair("ann").public
    assert str(folder.clients_folder / "ann.secret") in said
    assert f"backtestr keys allow ann '{public}'" in said
    assert list(folder.allowed().names.values()) == ["ann"]


def test_a_key_made_elsewhere_is_allowed_by_the_printed_public_key(
    type_in: Type, folder: KeyFolder, tmp_path: Path
) -> None:
    pair, _ = KeyFolder(tmp_path / "another machine").new("laptop")
    assert type_in("allow", "laptop", pair.public).exit_code == 0
    assert read(type_in("list", "--json")) == {
        "keys": [{"name": "laptop", "rights": "all", "publicKey": pair.public}],
        "problems": [],
    }
    assert type_in("revoke", "laptop").exit_code == 0
    assert read(type_in("list", "--json"))["keys"] == []


def test_json_has_every_fact(type_in: Type, folder: KeyFolder) -> None:
    made = read(type_in("new", "ann", "--json"))
    assert made == {
        "name": "ann",
        "publicKey": folder.client_pair("ann").public,
        "rights": "all",
        "secretFile": str(folder.clients_folder / "ann.secret"),
        "allowedFile": str(folder.allowed_folder / "ann.pub"),
    }
    assert read(type_in("revoke", "ann", "--json")) == {"name": "ann"}
    assert read(type_in("allow", "ann", made["publicKey"], "--json"))["allowedFile"] == made["allowedFile"]


def test_rights_are_given_with_a_new_key_and_changed_later(type_in: Type, folder: KeyFolder) -> None:
    assert "read: queries and subscriptions" in type_in("new", "ann", "--rights", "read").stdout
    assert folder.allowed().rights == {"ann": "read"}
    assert read(type_in("allow", "ann", "--rights", "run", "--json"))["rights"] == "run"
    assert (
        "with the rights run: queries, subscriptions, backtests, sweeps, evaluations and price replays"
        in type_in("allow", "ann").stdout
    )
    assert "run" in type_in("list").stdout
    assert type_in("allow", "ann", "--rights", "write").exit_code == 2


def test_an_empty_list_states_how_to_make_a_key(type_in: Type) -> None:
    type_in("new", "ann")
    type_in("revoke", "ann")
    assert "backtestr keys new NAME" in type_in("list").stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("revoke", "eve"), "'eve' has no key here; allowed: ann"),
        (("new", "ann"), "there is a key ann already"),
        (("allow", "bob", "short"), "expected 40 characters of Z85"),
        (("new", "../ann"), "is no name for a key"),
    ],
)
def test_a_mistake_is_a_line_and_an_exit_code(type_in: Type, words: tuple[str, ...], says: str) -> None:
    type_in("new", "ann")
    result = type_in(*words)
    assert result.exit_code == 1
    assert says in result.output.replace("\n", "")


def test_a_list_with_a_problem_is_an_error(type_in: Type, folder: KeyFolder) -> None:
    type_in("new", "ann")
    (folder.allowed_folder / "bob.pub").write_text("no key")
    result = type_in("list")
    assert result.exit_code == 1
    assert "ann" in result.output
    assert "bob.pub is no CURVE key" in result.output.replace("\n", "")
