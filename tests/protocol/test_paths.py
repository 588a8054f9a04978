"""Each environment variable moves the path that it names, and no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest

from backtestr_protocol import paths
from backtestr_protocol.errors import InvalidConfiguration

VARIABLES: dict[str, Callable[[], Path | None]] = {
    "BACKTESTR_RUNTIME_DIR": paths.runtime_dir,
    "BACKTESTR_DATA_DIR": paths.data_dir,
    "BACKTESTR_CONFIG_DIR": paths.config_dir,
    "BACKTESTR_CONNECTION_FILE": paths.connection_file,
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("name", "path_of"), VARIABLES.items(), ids=VARIABLES.keys())
def test_a_variable_moves_its_path_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, path_of: Callable[[], Path | None]
) -> None:
    before = {other: path() for other, path in VARIABLES.items()}
    monkeypatch.setenv(name, str(tmp_path / "here"))
    assert path_of() == tmp_path / "here"
    follows = {"BACKTESTR_RUNTIME_DIR": {"BACKTESTR_CONNECTION_FILE"}}.get(name, set())
    for other, path in VARIABLES.items():
        assert (path() == before[other]) == (other != name and other not in follows)


@pytest.mark.parametrize(("name", "path_of"), VARIABLES.items(), ids=VARIABLES.keys())
def test_an_empty_variable_counts_as_unset(
    monkeypatch: pytest.MonkeyPatch, name: str, path_of: Callable[[], Path | None]
) -> None:
    before = path_of()
    monkeypatch.setenv(name, "")
    assert path_of() == before


def test_paths_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKTESTR_DATA_DIR", "data")
    assert paths.data_dir() == tmp_path / "data"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BACKTESTR_DATA_DIR", "~/bars")
    assert paths.data_dir() == tmp_path / "bars"


def test_the_connection_file_is_in_the_runtime_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert paths.connection_file() == paths.runtime_dir() / "connection.json"
    monkeypatch.setenv("BACKTESTR_RUNTIME_DIR", str(tmp_path))
    assert paths.connection_file() == tmp_path / "connection.json"
    monkeypatch.setenv("BACKTESTR_CONNECTION_FILE", str(tmp_path / "other.json"))
    assert paths.connection_file() == tmp_path / "other.json"


def test_defaults_belong_to_the_user() -> None:
    assert paths.config_dir() is None
    assert paths.runtime_dir().name == "backtestr"
    assert paths.data_dir().name == "backtestr"
    assert paths.runtime_dir() != paths.data_dir()


def test_an_unusable_xdg_runtime_dir_is_replaced_without_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    open_to_all = tmp_path / "open-to-all"
    open_to_all.mkdir(mode=0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(open_to_all))
    assert paths.runtime_dir().name == "backtestr"


def test_a_runtime_directory_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(app: str) -> str:
        raise PermissionError("/tmp/runtime-0 is a symlink")

    monkeypatch.setattr(platformdirs, "user_runtime_dir", refuse)
    with pytest.raises(InvalidConfiguration, match="is a symlink; name one in BACKTESTR_RUNTIME_DIR"):
        paths.runtime_dir()
