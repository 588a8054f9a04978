"""Starting a broker that stays when the server ends, as `backtestr ui --start` and a button of the page do."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

from backtestr.io.connection_file import ConnectionFile
from backtestr_protocol import paths
from backtestr_protocol.connection import Connection
from backtestr_protocol.errors import InvalidConfiguration, NetworkError, SystemFault
from backtestr_protocol.private_files import private_directory, private_opener
from backtestr_protocol.system.programs import own_group, python
from backtestr_protocol.system.unix_sockets import is_listened_to

# The packages that broker and engine need, by the names they are imported by.
_NEEDED = ("filelock", "structlog", "psutil", "prometheus_client", "numba", "talib")
# Seconds until it serves. The first start on a machine compiles the kernels.
START_SECONDS = 120.0
_INTERVAL = 0.05
_REASON_CHARACTERS = 500


def missing_packages() -> list[str]:
    """Return the packages without which no broker can be started here."""
    return [name for name in _NEEDED if importlib.util.find_spec(name) is None]


def running_broker() -> Connection | None:
    """Return how to reach the broker that runs, None if there is none."""
    try:
        connection = ConnectionFile().read()
    except NetworkError:
        return None
    kind, _, address = connection.endpoints.requests.partition("://")
    if kind == "ipc" and not is_listened_to(address):
        return None  # a broker that was killed has left its file
    return connection


class BrokerStart:
    """Starts at most one broker at a time."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> bool:
        """Start a broker, and wait until it serves; return False if one runs already.

        Raises `InvalidConfiguration` if packages are missing or its log cannot be written, and `SystemFault` with the
        broker's own reason if it does not start.
        """
        async with self._lock:
            if running_broker() is not None:
                return False
            if missing := missing_packages():
                raise InvalidConfiguration(
                    f"the broker needs {', '.join(missing)}; install it with: pip install 'backtestr[broker,engine]'"
                )
            log = _log_file()
            self._process = process = _launch(log)
            deadline = time.monotonic() + START_SECONDS
            while (found := running_broker()) is None or found.pid != process.pid:
                if process.poll() is not None:
                    raise SystemFault(f"the broker did not start: {_last_line(log)} (its log is {log})")
                if time.monotonic() > deadline:
                    raise SystemFault(f"the broker has not come to serve in {START_SECONDS:g} s; its log is {log}")
                await asyncio.sleep(_INTERVAL)
            return True


def _log_file() -> Path:
    folder = paths.data_dir()
    private_directory(folder, "BACKTESTR_DATA_DIR")
    return folder / "broker.log"


def _launch(log: Path) -> subprocess.Popen[bytes]:
    """Start the broker in a process group of its own, which Ctrl-C of this terminal does not reach."""
    command = [sys.executable, "-m", "backtestr_broker"]
    try:
        with open(log, "wb", opener=private_opener) as output:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **python(), **own_group()
            )
    except OSError as error:
        raise InvalidConfiguration(f"the broker's log {log} cannot be written: {error.strerror}") from error


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text("utf-8", "replace").split("\n")
    except OSError:
        return "its log cannot be read"
    said = [one.strip() for one in lines if one.strip()]
    return said[-1].removeprefix("backtestr: ")[:_REASON_CHARACTERS] if said else "it has said nothing"
