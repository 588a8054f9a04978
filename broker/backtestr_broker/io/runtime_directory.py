"""The runtime directory is private to its user, and owned by one broker at a time.

It holds the sockets, the lock and the connection file, whose existence means that the broker serves. Other programs may
have sockets and files of their own there: it may be the user's XDG_RUNTIME_DIR itself.
"""

from __future__ import annotations

import contextlib
import os
import socket as sockets_of_the_system
from pathlib import Path

from backtestr_protocol.connection import Connection, decode_connection, encode_connection
from backtestr_protocol.errors import InvalidConfiguration, MessageError
from backtestr_protocol.private_files import (
    check_directory,
    make_private,
    private_directory,
    private_opener,
    read_trusted,
)
from backtestr_protocol.system.durable_files import remove, replace
from backtestr_protocol.system.file_lock import FileLock
from backtestr_protocol.system.unix_sockets import is_dead_socket_of_this_user, is_listened_to

from .sockets import NAMES, hidden

# sun_path has 108 bytes on Linux and the terminating zero takes one (macOS has 104; bind says so there).
MAX_SOCKET_PATH = 107
_LOCK = "lock"
# Seconds in which a socket answers whether it is listened to; the system answers, not the program behind it.
_ANSWER_SECONDS = 1.0


class AlreadyRunning(Exception):
    """Another broker owns the runtime directory."""


class RuntimeDirectory:
    """The directory is owned from `acquire` to `release`. The lock ends with the process in any case."""

    def __init__(self, path: Path, connection_file: Path) -> None:
        self.path = path
        self.connection_file = connection_file
        self._lock = FileLock(path / _LOCK)
        self._published: tuple[int, int, int] | None = None  # the identity of the connection file that is ours

    def acquire(self) -> None:
        """Create and lock the directory, and remove what a killed broker left.

        Raises `AlreadyRunning`, and `InvalidConfiguration` where others may write to it or to the connection file's
        directory, where this user may not, or where something else has the name of a socket.
        """
        private_directory(self.path, "BACKTESTR_RUNTIME_DIR")
        if self.connection_file.parent.is_dir():
            check_directory(self.connection_file.parent, "BACKTESTR_CONNECTION_FILE")
        if not self._lock.take():
            raise AlreadyRunning(f"a broker is already running in {self.path}")
        if not self._is_connection_file_inside and (pid := _pid_of_live_broker(self.connection_file)) is not None:
            self._lock.release()
            raise AlreadyRunning(
                f"{self.connection_file} is the connection file of another broker (process {pid}); name another file "
                "in BACKTESTR_CONNECTION_FILE"
            )
        try:
            self._make_room_for_connection_file()
        except InvalidConfiguration:
            self._lock.release()
            raise
        self.remove_leftovers()

    def _make_room_for_connection_file(self) -> None:
        """Remove the connection file of an earlier broker. Raises `InvalidConfiguration` if no new one could be made.

        A broker that cannot write it would start its workers, and then could not be reached.
        """
        try:
            make_private(self.connection_file.parent)
            remove(self.connection_file)
            self._unfinished.unlink(missing_ok=True)
            open(self._unfinished, "xb", opener=private_opener).close()
            self._unfinished.unlink()
        except OSError as error:
            variable = "BACKTESTR_RUNTIME_DIR" if self._is_connection_file_inside else "BACKTESTR_CONNECTION_FILE"
            raise InvalidConfiguration(
                f"the connection file {self.connection_file} cannot be written: {error.strerror}; name another place "
                f"in {variable}"
            ) from error

    def socket_address(self, name: str) -> str:
        """Return the address `ipc://…` of a socket that is to be bound, where nothing else has its name.

        ZeroMQ would delete whatever has it. Raises `InvalidConfiguration` where something has it, and where the path is
        too long for a socket.
        """
        path = self.path / name
        length = len(os.fsencode(path))
        if length > MAX_SOCKET_PATH:
            raise InvalidConfiguration(
                f"the socket path {path} has {length} bytes and may have {MAX_SOCKET_PATH}; "
                "name a shorter directory in BACKTESTR_RUNTIME_DIR"
            )
        if os.path.lexists(path):
            raise InvalidConfiguration(
                f"{path} belongs to another program, and a socket of the broker has to have that name; name a "
                "directory of its own in BACKTESTR_RUNTIME_DIR"
            )
        return f"ipc://{path}"

    def publish(self, connection: Connection) -> None:
        """Write the connection file, as a whole and readable by this user only."""
        make_private(self.connection_file.parent)
        self._unfinished.unlink(missing_ok=True)
        with open(self._unfinished, "xb", opener=private_opener) as file:
            file.write(encode_connection(connection))
            file.flush()
            self._published = _identity(os.fstat(file.fileno()))
        replace(self._unfinished, self.connection_file)

    def withdraw(self) -> None:
        """Remove the connection file: the broker no longer serves. A file of another broker in its place stays."""
        with contextlib.suppress(FileNotFoundError):
            if self._is_connection_file_inside or _identity(self.connection_file.lstat()) == self._published:
                remove(self.connection_file)

    def release(self) -> None:
        """Remove sockets and connection file, and release the lock.

        The lock's file stays: without it two brokers could lock two files of the same name.
        """
        if not self._lock.is_held:
            return
        self.remove_leftovers()
        self._lock.release()

    @property
    def _is_connection_file_inside(self) -> bool:
        """True if the lock of this directory keeps every other broker from the connection file."""
        return self.connection_file.parent == self.path

    @property
    def _unfinished(self) -> Path:
        """Path of the connection file before it is renamed: beside it, since a rename needs one file system."""
        return self.connection_file.with_name(f"{self.connection_file.name}.new")

    def remove_leftovers(self) -> None:
        """Remove the connection file, and the sockets of this broker that nobody listens to any more."""
        self.withdraw()
        self._unfinished.unlink(missing_ok=True)
        for name in NAMES:
            for path in (self.path / name, hidden(self.path / name)):
                if is_dead_socket_of_this_user(path):
                    path.unlink(missing_ok=True)


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    """Return what tells a file from one that took its place; a new file may get the inode of a removed one."""
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _pid_of_live_broker(connection_file: Path) -> int | None:
    """Return the process id of the broker that wrote a connection file, if something answers at its endpoint."""
    try:
        connection = decode_connection(read_trusted(connection_file))
    except (OSError, MessageError, InvalidConfiguration):
        return None
    kind, _, address = connection.endpoints.requests.partition("://")
    try:
        if kind == "ipc":
            return connection.pid if is_listened_to(address) else None
        host, _, port = address.rpartition(":")
        sockets_of_the_system.create_connection((host, int(port)), _ANSWER_SECONDS).close()
    except (OSError, ValueError):
        return None
    return connection.pid
