"""A file lock is held by one process at a time, and ends with that process, however it ends.

filelock takes the system's own locks: flock, or LockFileEx on Windows. Where a file system has none, the file names the
process that holds the lock, and a process that has ended holds nothing.
"""

from __future__ import annotations

import logging
from pathlib import Path

import filelock

_INTERVAL = 0.02

logging.getLogger("filelock").setLevel(logging.WARNING)  # at debug it tells of every attempt


class FileLock:
    """A lock that is held from `take` to `release`. The file stays: two processes must lock the same one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Of the process, not of a thread: an embedded broker may be closed by another thread than its starter's.
        self._lock = filelock.FileLock(path, mode=0o600, thread_local=False, poll_interval=_INTERVAL)

    def take(self, patience: float = 0.0) -> bool:
        """Take the lock, and return True; return False if another holds it for longer than `patience` seconds.

        Raises `OSError` for a file that cannot be opened, such as a link.
        """
        try:
            self._lock.acquire(timeout=patience)
        except filelock.Timeout:
            return False
        return True

    @property
    def is_held(self) -> bool:
        return self._lock.is_locked

    def release(self) -> None:
        """Release the lock; one that is not held stays so."""
        self._lock.release()
