"""The runtime directory is private to its user, and owned by one broker at a time.

It holds the sockets, the lock and the connection file, whose existence means that the broker serves.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from backtestr_protocol.connection import Connection, encode_connection
from backtestr_protocol.errors import InvalidConfiguration

# sun_path has 108 bytes on Linux and the terminating zero takes one (macOS has 104; bind says so there).
MAX_SOCKET_PATH = 107
_LOCK = "lock"


class AlreadyRunning(Exception):
    """Another broker owns the runtime directory."""


class RuntimeDirectory:
    """The directory is owned from `acquire` to `release`. The kernel's lock ends with the process in any case."""

    def __init__(self, path: Path, connection_file: Path) -> None:
        self.path = path
        self.connection_file = connection_file
        self._lock: int | None = None

    def acquire(self) -> None:
        """Create and lock the directory, and remove what a killed broker left.

        Raises `AlreadyRunning`, and `InvalidConfiguration` where others may write to it or to the connection file's
        directory.
        """
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_own(self.path, "BACKTESTR_RUNTIME_DIR")
        if self.connection_file.parent.is_dir():
            _check_own(self.connection_file.parent, "BACKTESTR_CONNECTION_FILE")
        self.path.chmod(0o700)
        self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = None
            raise AlreadyRunning(f"a broker is already running in {self.path}") from None
        self._remove_leftovers()

    def socket_address(self, name: str) -> str:
        """Return the address `ipc://…`. Raises `InvalidConfiguration` where the path is too long for a socket."""
        path = str(self.path / name)
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise InvalidConfiguration(
                f"the socket path {path} has {len(os.fsencode(path))} bytes and may have {MAX_SOCKET_PATH}; "
                "name a shorter directory in BACKTESTR_RUNTIME_DIR"
            )
        return f"ipc://{path}"

    def publish(self, connection: Connection) -> None:
        """Write the connection file, as a whole and readable by this user only."""
        self.connection_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._unfinished.unlink(missing_ok=True)
        descriptor = os.open(self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(encode_connection(connection))
        self._unfinished.replace(self.connection_file)

    def withdraw(self) -> None:
        """Remove the connection file: the broker no longer serves."""
        self.connection_file.unlink(missing_ok=True)

    def release(self) -> None:
        """Remove sockets and connection file, and release the lock.

        The lock's file stays: without it two brokers could lock two files of the same name.
        """
        if self._lock is None:
            return
        self._remove_leftovers()
        os.close(self._lock)
        self._lock = None

    @property
    def _unfinished(self) -> Path:
        """Path of the connection file before it is renamed: beside it, since a rename needs one file system."""
        return self.connection_file.with_name(f"{self.connection_file.name}.new")

    def _remove_leftovers(self) -> None:
        self.withdraw()
        self._unfinished.unlink(missing_ok=True)
        for entry in self.path.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISSOCK(entry.lstat().st_mode):
                    entry.unlink()


def _check_own(directory: Path, variable: str) -> None:
    """Refuse a directory in which others could replace our sockets or our connection file."""
    found = directory.stat()
    if found.st_uid != os.getuid() or found.st_mode & stat.S_IWOTH:
        raise InvalidConfiguration(
            f"{directory} belongs to someone else or may be written to by everyone; name a directory of your own "
            f"in {variable}"
        )
