"""This module finds the directories and files that broker, engine and clients share.

No other module reads environment variables.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import platformdirs

from .errors import InvalidConfiguration

_APP = "backtestr"


def runtime_dir() -> Path:
    """Return the runtime directory: `$BACKTESTR_RUNTIME_DIR`, else that of the user.

    Raises `InvalidConfiguration` if that directory could belong to another user.
    """
    return _from_environment("BACKTESTR_RUNTIME_DIR") or _user_runtime_dir()


def data_dir() -> Path:
    """Return the data directory: `$BACKTESTR_DATA_DIR`, else that of the user.

    Raises `InvalidConfiguration` if that variable is not set, and this user has no home directory.
    """
    if (named := _from_environment("BACKTESTR_DATA_DIR")) is not None:
        return named
    directory = _in_home(platformdirs.user_data_dir)
    if directory is None:
        raise InvalidConfiguration(
            "this user has no home directory to keep data in; name a directory in BACKTESTR_DATA_DIR"
        )
    return directory


def cache_dir() -> Path | None:
    """Return the user's cache directory, which `$XDG_CACHE_HOME` moves; None for a user without a home directory."""
    return _in_home(platformdirs.user_cache_dir)


def config_dir() -> Path | None:
    """Return `$BACKTESTR_CONFIG_DIR`, the user's folder of `broker.toml` and `engine.toml`; None if it is not set."""
    return _from_environment("BACKTESTR_CONFIG_DIR")


def keys_dir() -> Path:
    """Return the folder of CURVE keys: `keys` in the data directory."""
    return data_dir() / "keys"


def client_key() -> str | None:
    """Return `$BACKTESTR_KEY`, the name or path of the CURVE key of this user's clients; None if it is not set."""
    return os.environ.get("BACKTESTR_KEY") or None


def connection_file() -> Path:
    """Return `$BACKTESTR_CONNECTION_FILE`, else `connection.json` in the runtime directory."""
    return _from_environment("BACKTESTR_CONNECTION_FILE") or runtime_dir() / "connection.json"


def _user_runtime_dir() -> Path:
    try:
        # Containers usually have no XDG_RUNTIME_DIR. platformdirs then warns, and uses the temporary directory.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            directory = _in_home(platformdirs.user_runtime_dir)
    except OSError as error:  # the usual one is another user's, or there is no temporary directory
        raise InvalidConfiguration(f"no safe runtime directory: {error}; name one in BACKTESTR_RUNTIME_DIR") from error
    if directory is None:
        raise InvalidConfiguration("this user has no home directory; name a runtime directory in BACKTESTR_RUNTIME_DIR")
    return directory


def _in_home(directory_of: Callable[[str], str]) -> Path | None:
    """Return a directory of the user; None if it would be in a home directory that nothing names."""
    try:
        directory = Path(directory_of(_APP))
    except RuntimeError:  # platformdirs found neither HOME nor an entry for this user; older ones leave the ~
        return None
    return None if directory.parts[0] == "~" else directory


def _from_environment(name: str) -> Path | None:
    value = os.environ.get(name)
    if not value:
        return None
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:
        raise InvalidConfiguration(
            f"{name} begins with ~, and nothing names the home directory; give the path from / on"
        ) from error
    except FileNotFoundError as error:
        raise InvalidConfiguration(
            f"{name} is {value}, and the working directory that this starts from has been removed; give the path from "
            "/ on"
        ) from error
