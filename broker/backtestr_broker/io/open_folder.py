"""A folder in which files are looked at, renamed and removed: by its descriptor, or by its path where it has none.

What is done by a descriptor is done in that folder, whatever its path means meanwhile: nobody can put a link in its
place. Windows has no such descriptors. There, links and junctions are told from folders before they are entered.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from backtestr_protocol.system.durable_files import CAN_OPEN_FOLDERS, sync_folder
from backtestr_protocol.system.open_flags import FOLDER, NO_LINK


class FolderEntry(NamedTuple):
    """A name in a folder. A link, also one to a folder, is no folder; its size is its own."""

    name: str
    is_folder: bool
    size: int


class OpenFolder(Protocol):
    """A folder that stays open until `close`. Every method raises `OSError`."""

    def names(self) -> list[str]:
        """Return the names in it."""

    def entries(self) -> list[FolderEntry]:
        """Return what is in it."""

    def entry(self, name: str) -> FolderEntry:
        """Return one entry. Raises `FileNotFoundError`."""

    def inner(self, name: str) -> OpenFolder:
        """Open a folder in it, but no link."""

    def rename(self, name: str, to: OpenFolder, new_name: str) -> None:
        """Move an entry to a folder of the same kind, under another name that is free there."""

    def unlink(self, name: str) -> None:
        """Remove a file or link."""

    def rmdir(self, name: str) -> None:
        """Remove an empty folder."""

    def sync(self) -> None:
        """Wait until its names are on disk."""

    def close(self) -> None:
        """Close it."""


class _ByDescriptor:
    def __init__(self, path: str | Path, parent: int | None = None) -> None:
        links = 0 if parent is None else NO_LINK
        self.descriptor = os.open(path, os.O_RDONLY | FOLDER | links, dir_fd=parent)

    def names(self) -> list[str]:
        return os.listdir(self.descriptor)

    def entries(self) -> list[FolderEntry]:
        with os.scandir(self.descriptor) as found:
            return [
                FolderEntry(one.name, one.is_dir(follow_symlinks=False), one.stat(follow_symlinks=False).st_size)
                for one in found
            ]

    def entry(self, name: str) -> FolderEntry:
        found = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        return FolderEntry(name, stat.S_ISDIR(found.st_mode), found.st_size)

    def inner(self, name: str) -> _ByDescriptor:
        return _ByDescriptor(name, self.descriptor)

    def rename(self, name: str, to: OpenFolder, new_name: str) -> None:
        assert isinstance(to, _ByDescriptor)
        os.rename(name, new_name, src_dir_fd=self.descriptor, dst_dir_fd=to.descriptor)

    def unlink(self, name: str) -> None:
        os.unlink(name, dir_fd=self.descriptor)

    def rmdir(self, name: str) -> None:
        os.rmdir(name, dir_fd=self.descriptor)

    def sync(self) -> None:
        os.fsync(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)


class _ByPath:
    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise FileNotFoundError(f"there is no folder {path}")

    def names(self) -> list[str]:
        return os.listdir(self.path)

    def entries(self) -> list[FolderEntry]:
        return [self.entry(name) for name in self.names()]

    def entry(self, name: str) -> FolderEntry:
        found = (self.path / name).lstat()
        is_junction = getattr(found, "st_reparse_tag", 0) != 0
        return FolderEntry(name, stat.S_ISDIR(found.st_mode) and not is_junction, found.st_size)

    def inner(self, name: str) -> _ByPath:
        if not self.entry(name).is_folder:
            raise NotADirectoryError(f"{self.path / name} is no folder")
        return _ByPath(self.path / name)

    def rename(self, name: str, to: OpenFolder, new_name: str) -> None:
        assert isinstance(to, _ByPath)
        (self.path / name).rename(to.path / new_name)

    def unlink(self, name: str) -> None:
        (self.path / name).unlink()

    def rmdir(self, name: str) -> None:
        (self.path / name).rmdir()

    def sync(self) -> None:
        sync_folder(self.path)

    def close(self) -> None:
        pass


@contextlib.contextmanager
def open_folder(path: Path, *, by_descriptor: bool = CAN_OPEN_FOLDERS) -> Iterator[OpenFolder]:
    """Open a folder for the length of the block. Raises `FileNotFoundError` where there is none, and `OSError`."""
    opened: OpenFolder = _ByDescriptor(path) if by_descriptor else _ByPath(path)
    try:
        yield opened
    finally:
        opened.close()
