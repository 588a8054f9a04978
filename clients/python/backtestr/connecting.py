"""Connecting to the broker of this machine, as its connection file says."""

from __future__ import annotations

import time
from pathlib import Path

from backtestr.core.recovery import Recovery
from backtestr.io.connection_file import ConnectionFile

from .client import Client
from .requester import REQUEST_TIMEOUT

# Seconds between two checks whether the connection file is there yet.
CHECK_INTERVAL = 0.05


def connect(
    timeout: float = 5.0,
    *,
    wait: float = 1.0,
    connection_file: str | Path | None = None,
    key: str | Path | None = None,
    client_id: str | None = None,
    request_timeout: float = REQUEST_TIMEOUT,
    recovery: Recovery | None = None,
) -> Client:
    """Connect to the broker that runs on this machine.

    Wait up to `wait` seconds for its connection file to appear and `timeout` seconds for its answer.
    `connection_file`: the path of that file, if not the usual one. `key`: the name or file of this client's key, which
    a broker on another machine requires (default: the value of `BACKTESTR_KEY`, else the key in the connection file, or
    the only key that `backtestr keys new` has made). `client_id`: a stable name for this program (default: a random
    one). `request_timeout`: seconds that ordinary requests may take. `recovery`: what is retried and how often, if not
    the defaults. Raises `NetworkError` when there is no broker or no key, or when others could have written or read the
    connection file, and `AuthenticationError` when the broker refuses this client's key or the signing key of that
    file.
    """
    file = ConnectionFile(Path(connection_file) if connection_file else None, key)
    deadline = time.monotonic() + wait
    while file.stamp() is None and time.monotonic() < deadline:
        time.sleep(CHECK_INTERVAL)
    connection = file.read()
    return Client(
        connection,
        file=file,
        keys=file.own_keys,
        client_id=client_id,
        timeout=timeout,
        request_timeout=request_timeout,
        recovery=recovery,
    )
