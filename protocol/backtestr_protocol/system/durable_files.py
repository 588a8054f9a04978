"""Content and names of files are made durable here, and a file takes the place of another.

A rename is on disk once its folder is. Systems on which a folder cannot be opened, such as Windows, make names durable
by themselves. There, a file that a process has open cannot be replaced or removed, so the reader is waited for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from .open_flags import BINARY, FOLDER

PATIENCE = 2.0
"""Seconds to wait for other processes that have a file open: a virus scanner, or a reader of a large series."""

_INTERVAL = 0.02
CAN_OPEN_FOLDERS = bool(FOLDER)
"""True where a folder has a descriptor, by which it is synced and its files are reached."""

OPEN_FILES_MOVE = CAN_OPEN_FOLDERS
"""True where a file can be renamed, replaced and removed while it is open; the same systems have both."""


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on disk. Raises `OSError`."""
    handle = os.open(path, os.O_RDWR | BINARY)  # some systems sync only what may be written
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on disk. Raises `OSError`."""
    if not CAN_OPEN_FOLDERS:
        return
    handle = os.open(path, os.O_RDONLY | FOLDER)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace(source: Path, target: Path) -> None:
    """Give `source` the name `target`, in place of what had it. Raises `OSError`.

    Where an open file cannot be replaced, this waits up to `PATIENCE` for its readers, and then raises an error that
    says so.
    """
    _when_closed(lambda: source.replace(target), target)


def remove(path: Path) -> None:
    """Remove a file, if there is one. Raises `OSError`, as `replace` does."""
    _when_closed(lambda: path.unlink(missing_ok=True), path)


def _when_closed(change: Callable[[], object], path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            change()
        except PermissionError as error:
            if OPEN_FILES_MOVE:  # so this is a matter of rights
                raise
            if time.monotonic() > deadline:
                reason = f"another program has it open, or its rights forbid it ({error.strerror}); close that program"
                raise PermissionError(error.errno or errno.EACCES, reason, str(path)) from error
            with contextlib.suppress(InterruptedError):
                time.sleep(_INTERVAL)
        else:
            return
