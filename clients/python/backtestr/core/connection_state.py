"""The connection state is a value, and a table holds every transition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

# `connecting`: no session yet. `ready`: a session is open. `reconnecting`: the session is lost, and another connection
# is being made. `auth_failed`: the program at the broker's address does not accept the key of the connection file;
# another file ends that. `closed`: the program has closed the client.
ConnectionState = Literal["connecting", "ready", "reconnecting", "auth_failed", "closed"]

# `welcomed`: a session was opened. `lost`: the connection is gone. `replaced`: there is another connection file.
# `key_refused`: a key that was never accepted was refused. `closed`: the program has closed the client.
ConnectionEvent = Literal["welcomed", "lost", "replaced", "key_refused", "closed"]

CONNECTION: Mapping[tuple[ConnectionState, ConnectionEvent], ConnectionState] = {
    ("connecting", "welcomed"): "ready",
    ("connecting", "lost"): "connecting",
    ("connecting", "replaced"): "connecting",
    ("connecting", "key_refused"): "auth_failed",
    ("connecting", "closed"): "closed",
    ("ready", "welcomed"): "ready",
    ("ready", "lost"): "reconnecting",
    ("ready", "replaced"): "reconnecting",
    ("ready", "key_refused"): "auth_failed",
    ("ready", "closed"): "closed",
    ("reconnecting", "welcomed"): "ready",
    ("reconnecting", "lost"): "reconnecting",
    ("reconnecting", "replaced"): "reconnecting",
    ("reconnecting", "key_refused"): "auth_failed",
    ("reconnecting", "closed"): "closed",
    ("auth_failed", "welcomed"): "ready",
    ("auth_failed", "lost"): "auth_failed",
    ("auth_failed", "replaced"): "reconnecting",
    ("auth_failed", "key_refused"): "auth_failed",
    ("auth_failed", "closed"): "closed",
    ("closed", "welcomed"): "closed",
    ("closed", "lost"): "closed",
    ("closed", "replaced"): "closed",
    ("closed", "key_refused"): "closed",
    ("closed", "closed"): "closed",
}
