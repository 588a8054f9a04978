"""What the connection to the broker is, as a value, and every way from one to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

# `connecting`: no session yet. `ready`: a session is open. `reconnecting`: it is lost, and another connection is being
# made. `auth_failed`: whoever answers at the broker's address does not take the key of the connection file; another
# file ends that. `closed`: by the program, for good.
ConnectionState = Literal["connecting", "ready", "reconnecting", "auth_failed", "closed"]

# `welcomed`: a session was opened. `lost`: the connection is gone. `replaced`: another connection file. `distrusted`: a
# key that was never taken is not taken. `closed`: the program has done with it.
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
