"""Files that pages upload to have them imported: in a private folder, which is removed at the end.

A page chooses no path. It gets the path that this server has chosen, which `ImportMarketData` may name then.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from backtestr.ui.core.upload_names import upload_name
from backtestr_protocol import paths
from backtestr_protocol.errors import (
    Busy,
    DiskUnwritable,
    InvalidConfiguration,
    MessageTooLarge,
    NotFound,
    ValidationError,
)
from backtestr_protocol.private_files import private_directory, private_opener
from backtestr_protocol.system.file_lock import FileLock

# Files that are kept or written at once. A page removes each after its import.
MAX_FILES = 64
# Bytes that stay free on the disk: the broker stores the import there as well, and needs room to work.
RESERVE_BYTES = 256 << 20
# Bytes that are collected before a thread writes them.
WRITE_BYTES = 1 << 20
_LOCK = "in-use"


class Uploads:
    """The uploads of one server, as a container of their paths. `limit` is the most bytes of one file."""

    def __init__(self, limit: int, parent: Path | None = None) -> None:
        """`parent` is the folder in which each server has one of its own, if not `uploads` in the data directory."""
        self.limit = limit
        self._parent = parent
        self._folder: Path | None = None
        self._lock: FileLock | None = None
        self._count = 0
        self._sizes: dict[str, int] = {}  # by path; 0 while a file is being written

    def __contains__(self, path: object) -> bool:
        return self._sizes.get(path, 0) > 0 if isinstance(path, str) else False

    async def receive(self, name: str, chunks: AsyncIterator[bytes], length: int | None) -> tuple[str, int]:
        """Write a file, and return its path and size. `length` is the size that was announced.

        Raises `MessageTooLarge`, `DiskUnwritable`, `Busy`, `ValidationError` for an empty file, and
        `InvalidConfiguration` where the data directory cannot be used. Then nothing of the file is left.
        """
        if length is not None:
            self._check_size(name, length)
        if len(self._sizes) >= MAX_FILES:
            raise Busy(f"{MAX_FILES} files were uploaded and not removed; remove some, or start `backtestr ui` again")
        self._count += 1
        file = self._own_folder() / str(self._count) / upload_name(name)
        path = str(file)
        self._sizes[path] = 0
        try:
            self._check_room(file, length or 0)
            size = await self._write(file, name, chunks)
            if size == 0:
                raise ValidationError(f"{name} is empty", path="$")
        except BaseException as error:
            self._discard(path)
            if isinstance(error, OSError):
                raise DiskUnwritable(f"{name} cannot be stored: {error.strerror}") from error
            raise
        self._sizes[path] = size
        return path, size

    def remove(self, path: str) -> None:
        """Remove an uploaded file. Raises `NotFound` for any other path."""
        if path not in self:
            raise NotFound("there is no such upload")
        self._discard(path)

    def close(self) -> None:
        """Remove all of them."""
        self._sizes.clear()
        if self._folder is not None and self._lock is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._lock.release()

    async def _write(self, file: Path, name: str, chunks: AsyncIterator[bytes]) -> int:
        file.parent.mkdir(0o700)
        size = 0
        with open(file, "xb", buffering=0, opener=private_opener) as opened:
            waiting = bytearray()
            async for chunk in chunks:
                size += len(chunk)
                self._check_size(name, size)
                waiting += chunk
                if len(waiting) >= WRITE_BYTES:
                    self._check_room(file, len(waiting))
                    await asyncio.to_thread(_write_all, opened, bytes(waiting))
                    waiting.clear()
            await asyncio.to_thread(_write_all, opened, bytes(waiting))
        return size

    def _check_size(self, name: str, size: int) -> None:
        if size > self.limit:
            raise MessageTooLarge(
                f"{name} is larger than {self.limit >> 20:,} MiB, the most that is taken; start `backtestr ui` with "
                f"--upload-limit, or import it with: backtestr import FILE --symbol SYMBOL",
                limitBytes=self.limit,
            )

    def _check_room(self, file: Path, size: int) -> None:
        free = shutil.disk_usage(file.parent.parent).free
        if free - size < RESERVE_BYTES:
            raise DiskUnwritable(
                f"the disk of {file.parent.parent.parent} has {free >> 20:,} MiB free, which is too little for this "
                f"file and the work of the broker"
            )

    def _own_folder(self) -> Path:
        """Return the folder of this server; make it, and remove those of servers that were killed."""
        if self._folder is None:
            data = paths.data_dir()
            parent = self._parent or data / "uploads"
            try:
                private_directory(data, "BACKTESTR_DATA_DIR")
                private_directory(parent, "BACKTESTR_DATA_DIR")
                _remove_abandoned(parent)
                folder = parent / secrets.token_hex(8)
                folder.mkdir(0o700)
                self._lock = FileLock(folder / _LOCK)
                self._lock.take()
            except OSError as error:
                raise InvalidConfiguration(f"files cannot be kept in {parent}: {error.strerror}") from error
            self._folder = folder
        return self._folder

    def _discard(self, path: str) -> None:
        self._sizes.pop(path, None)
        shutil.rmtree(Path(path).parent, ignore_errors=True)


def _write_all(file: BinaryIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders whose server has ended without removing them: their lock is held by nobody."""
    for folder in parent.iterdir():
        lock = FileLock(folder / _LOCK)
        if (folder / _LOCK).is_file() and lock.take():
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()
