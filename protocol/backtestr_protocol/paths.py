"""This module finds the directories and files that broker, engine and clients share.

No other module reads environment variables.
"""

from __future__ import annotations

import os
import warnings
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
    """Return the data directory: `$BACKTESTR_DATA_DIR`, else that of the user."""
    return _from_environment("BACKTESTR_DATA_DIR") or Path(platformdirs.user_data_dir(_APP))


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
            return Path(platformdirs.user_runtime_dir(_APP))
    except PermissionError as error:
        raise InvalidConfiguration(f"no safe runtime directory: {error}; name one in BACKTESTR_RUNTIME_DIR") from error


def _from_environment(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value).expanduser().absolute() if value else None
