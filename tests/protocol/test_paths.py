"""Each environment variable moves the path that it names, and no other."""

from __future__ import annotations

import os
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


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the home directory from this user, as a container does that runs as a user with a number and no name."""
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)


@pytest.mark.usefixtures("homeless")
def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidConfiguration, match=r"no home directory to keep data in; name .* in BACKTESTR_DATA_DIR"):
        paths.data_dir()
    assert paths.cache_dir() is None
    monkeypatch.setenv("BACKTESTR_DATA_DIR", "~/bars")
    with pytest.raises(InvalidConfiguration, match="BACKTESTR_DATA_DIR begins with ~"):
        paths.data_dir()


@pytest.mark.usefixtures("homeless")
def test_a_named_directory_needs_no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BACKTESTR_DATA_DIR", str(tmp_path))
    assert paths.keys_dir() == tmp_path / "keys"


@pytest.mark.parametrize("function", ["user_data_dir", "user_runtime_dir"])
def test_a_tilde_that_platformdirs_leaves_is_no_home(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """Older releases of it leave one, and a folder of that name would be made in the working directory."""
    monkeypatch.setattr(platformdirs, function, lambda app: f"~/.local/{app}")
    with pytest.raises(InvalidConfiguration, match="no home directory"):
        paths.data_dir() if function == "user_data_dir" else paths.runtime_dir()


def test_a_relative_path_in_a_removed_directory_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("BACKTESTR_DATA_DIR", "data")
    with pytest.raises(InvalidConfiguration, match=r"working directory .* has been removed"):
        paths.data_dir()
    monkeypatch.chdir(tmp_path)
