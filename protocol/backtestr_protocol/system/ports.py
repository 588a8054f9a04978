"""Ports on which this process alone listens."""

from __future__ import annotations

import socket

_EXCLUSIVE: int | None = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)


def own_port(listener: socket.socket) -> None:
    """Let a socket be bound to a port that connections have just left, and to none that is listened to.

    On Windows SO_REUSEADDR would let it take a port from another program, or another from it.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR if _EXCLUSIVE is None else _EXCLUSIVE, 1)
