"""Connecting to the broker of this machine: `connect` finds its connection file, and makes a client of it."""

from __future__ import annotations

import time
from pathlib import Path

from backtestr.core.recovery import Recovery
from backtestr.io.connection_file import ConnectionFile

from .client import Client
from .requester import REQUEST_TIMEOUT

# How often a connection file that is not there yet is looked for, in seconds.
LOOK_INTERVAL = 0.05


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

    Waits up to `wait` seconds for one to appear and `timeout` seconds for it to answer. `connection_file`: where it
    says how it is reached, if not at the usual place. `key`: the name or file of this client's key, which a broker with
    CURVE asks for (default: what `BACKTESTR_KEY` says, else the only one that `backtestr keys new` has made).
    `client_id`: a stable name for this program (default: one made up). `request_timeout`: seconds that ordinary
    requests may take. `recovery`: what is tried again and how often, if not the usual. Raises `NetworkError` when there
    is no broker or no key, `AuthenticationError` when the broker does not let the key in, or whoever is there does not
    take the one in that file.
    """
    file = ConnectionFile(Path(connection_file) if connection_file else None, key)
    deadline = time.monotonic() + wait
    while file.stamp() is None and time.monotonic() < deadline:
        time.sleep(LOOK_INTERVAL)
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
