"""The user's file of options is laid over the shipped one, and every mistake in it is named."""

from __future__ import annotations

import socket
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_protocol import options
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.options import default_text, load_options, overlaid
from support.harness import short_directory
from support.protocol.strategies import laws

FILE = "broker.toml"
DEFAULTS = """
name = "main"
[limits]
queue = 64
wait_ms = 2.5
"""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    queue: Annotated[int, msgspec.Meta(ge=1)]
    wait_ms: float


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    limits: Limits


@pytest.fixture(autouse=True)
def _defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "default_text", lambda file_name: {FILE: DEFAULTS}[file_name])


def refusal(own: Path, text: str) -> InvalidConfiguration:
    (own / FILE).write_text(text, "utf-8")
    with pytest.raises(InvalidConfiguration) as caught:
        load_options(FILE, Options, own)
    assert str(own / FILE) in str(caught.value)
    return caught.value


def test_defaults_alone(tmp_path: Path) -> None:
    expected = Options("main", Limits(64, 2.5))
    assert load_options(FILE, Options, None) == expected
    assert load_options(FILE, Options, tmp_path) == expected


def test_the_user_s_file_lies_over_the_defaults(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("[limits]\nqueue = 8\n", "utf-8")
    assert load_options(FILE, Options, tmp_path) == Options("main", Limits(8, 2.5))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nmae = 'x'", ["unknown option 'nmae'", "did you mean 'name'?", "(limits, name)"]),
        ("[limits]\nqeue = 1", ["[limits]", "unknown option 'qeue'", "did you mean 'queue'?", "(queue, wait_ms)"]),
        ("[other]\nx = 1", ["unknown option 'other'", "(limits, name)"]),
        ("limits = 1", ["limits is a section, [limits], not a value"]),
        ("[limits]\nqueue = 'many'", ["Expected `int`, got `str`", "$.limits.queue"]),
        ("[limits]\nqueue = 0", ["Expected `int` >= 1", "$.limits.queue"]),
        ("[limits]\nqueue = {a = 1}", ["Expected `int`, got `object`", "$.limits.queue"]),
        ("name = ", ["not TOML"]),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: list[str]) -> None:
    message = str(refusal(tmp_path, text))
    for word in words:
        assert word in message


def test_text_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"name = '\xff'")
    with pytest.raises(InvalidConfiguration, match="not TOML"):
        load_options(FILE, Options, tmp_path)


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(InvalidConfiguration, match="is no regular file"):
        load_options(FILE, Options, tmp_path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one, short_directory() as folder:
        one.bind(str(folder / FILE))
        with pytest.raises(InvalidConfiguration, match="cannot be read"):
            load_options(FILE, Options, folder)


def test_options_that_others_may_write_are_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("")
    (tmp_path / FILE).chmod(0o666)
    with pytest.raises(InvalidConfiguration, match=f"chmod go-w '{tmp_path / FILE}'"):
        load_options(FILE, Options, tmp_path)
    (tmp_path / FILE).chmod(0o644)
    tmp_path.chmod(0o777)
    with pytest.raises(InvalidConfiguration, match=f"chmod -R go-w '{tmp_path}'.*BACKTESTR_CONFIG_DIR"):
        load_options(FILE, Options, tmp_path)


def test_a_section_that_is_no_more_is_refused_with_what_to_write(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("[gone]\nx = 1\n")
    with pytest.raises(InvalidConfiguration, match=r"\[gone\] is no section any more: write this"):
        load_options(FILE, Options, tmp_path, {"gone": "write this"})


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="not a directory"):
        load_options(FILE, Options, tmp_path / "missing")


values = st.integers() | st.text(max_size=5)
tables = st.dictionaries(st.sampled_from("abc"), values | st.dictionaries(st.sampled_from("de"), values))


@laws
@given(defaults=tables, own=tables)
def test_an_overlay_has_the_defaults_keys_and_the_user_s_values(defaults: dict[str, Any], own: dict[str, Any]) -> None:
    before = {name: dict(value) if isinstance(value, dict) else value for name, value in defaults.items()}
    try:
        merged = overlaid(defaults, own, "here")
    except InvalidConfiguration as error:
        wrong = set(own) - set(defaults) or {
            name
            for name, value in own.items()
            if isinstance(defaults[name], dict) and (not isinstance(value, dict) or set(value) - set(defaults[name]))
        }
        assert wrong, error  # noqa: PT017 (either outcome is right)
    else:
        assert merged == {
            name: {**default, **own.get(name, {})} if isinstance(default, dict) else own.get(name, default)
            for name, default in defaults.items()
        }
    assert defaults == before


@pytest.mark.parametrize("file_name", ["broker.toml", "engine.toml"])
def test_the_shipped_files_are_found(monkeypatch: pytest.MonkeyPatch, file_name: str) -> None:
    monkeypatch.undo()
    assert tomllib.loads(default_text(file_name))


def test_an_installed_package_has_its_own_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    (tmp_path / "defaults").mkdir()
    (tmp_path / "defaults" / FILE).write_text(DEFAULTS, "utf-8")
    monkeypatch.setattr("importlib.resources.files", lambda _package: tmp_path)
    assert default_text(FILE) == DEFAULTS
