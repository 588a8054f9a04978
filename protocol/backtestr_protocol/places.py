"""Where things are: the environment variables and directories that broker, engine and clients agree on.

The only module that reads the environment.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

_APP = "backtestr"


def runtime_dir() -> Path:
    """Sockets, the connection file and the lock: `$BACKTESTR_RUNTIME_DIR`, else the user's runtime directory."""
    return _from_environment("BACKTESTR_RUNTIME_DIR") or Path(platformdirs.user_runtime_dir(_APP))


def data_dir() -> Path:
    """Catalogue and results: `$BACKTESTR_DATA_DIR`, else the user's data directory."""
    return _from_environment("BACKTESTR_DATA_DIR") or Path(platformdirs.user_data_dir(_APP))


def config_dir() -> Path | None:
    """Where the user has own `broker.toml` and `engine.toml`: `$BACKTESTR_CONFIG_DIR`; None when only defaults hold."""
    return _from_environment("BACKTESTR_CONFIG_DIR")


def connection_file() -> Path:
    """`$BACKTESTR_CONNECTION_FILE`, else `connection.json` in the runtime directory."""
    return _from_environment("BACKTESTR_CONNECTION_FILE") or runtime_dir() / "connection.json"


def _from_environment(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value).expanduser().absolute() if value else None
