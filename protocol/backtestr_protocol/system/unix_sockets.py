"""Unix sockets, where system and ZeroMQ have them: files by which processes of one machine are reached."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import zmq

from backtestr_protocol.private_files import is_of_this_user

_SECONDS = 1.0
"""Seconds in which a socket answers whether it is listened to; the system answers, not the program behind it."""

_FAMILY: int | None = getattr(socket, "AF_UNIX", None)


def has_unix_sockets() -> bool:
    """Return True where ZeroMQ connects by `ipc://`. Its packages for Windows do not."""
    return _FAMILY is not None and zmq.has("ipc")


def is_listened_to(path: str) -> bool:
    """Return True if a program listens to the Unix socket at `path`."""
    try:
        _connect(path)
    except OSError:
        return False
    return True


def is_dead_socket_of_this_user(path: Path) -> bool:
    """Return True for a socket that this user's program has left: it is there, and nobody listens to it."""
    try:
        found = path.lstat()
        if _FAMILY is None or not stat.S_ISSOCK(found.st_mode) or not is_of_this_user(found):
            return False
        _connect(str(path))
    except OSError as error:  # also: its path is too long for a socket, or it takes connections of another kind
        return error.errno == errno.ECONNREFUSED
    return False


def _connect(path: str) -> None:
    if _FAMILY is None:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    with socket.socket(_FAMILY) as peer:
        peer.settimeout(_SECONDS)
        peer.connect(path)
