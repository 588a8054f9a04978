"""Where things are: the environment variables and directories that broker, engine and clients agree on.

The only module that reads the environment.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import platformdirs

from .errors import InvalidConfiguration

_APP = "backtestr"


def runtime_dir() -> Path:
    """Sockets, the connection file and the lock: `$BACKTESTR_RUNTIME_DIR`, else the user's runtime directory.

    Raises `InvalidConfiguration` where that directory could be somebody else's.
    """
    return _from_environment("BACKTESTR_RUNTIME_DIR") or _user_runtime_dir()


def data_dir() -> Path:
    """Catalogue and results: `$BACKTESTR_DATA_DIR`, else the user's data directory."""
    return _from_environment("BACKTESTR_DATA_DIR") or Path(platformdirs.user_data_dir(_APP))


def config_dir() -> Path | None:
    """Where the user has own `broker.toml` and `engine.toml`: `$BACKTESTR_CONFIG_DIR`; None when only defaults hold."""
    return _from_environment("BACKTESTR_CONFIG_DIR")


def keys_dir() -> Path:
    """CURVE keys: `keys` in the data directory."""
    return data_dir() / "keys"


def client_key() -> str | None:
    """Which key this user's clients connect with, as a name or a path: `$BACKTESTR_KEY`; None when it does not say."""
    return os.environ.get("BACKTESTR_KEY") or None


def connection_file() -> Path:
    """`$BACKTESTR_CONNECTION_FILE`, else `connection.json` in the runtime directory."""
    return _from_environment("BACKTESTR_CONNECTION_FILE") or runtime_dir() / "connection.json"


def _user_runtime_dir() -> Path:
    try:
        # That XDG_RUNTIME_DIR is missing and the temporary directory used instead is usual in containers, and no news.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return Path(platformdirs.user_runtime_dir(_APP))
    except PermissionError as error:
        raise InvalidConfiguration(f"no safe runtime directory: {error}; name one in BACKTESTR_RUNTIME_DIR") from error


def _from_environment(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value).expanduser().absolute() if value else None
