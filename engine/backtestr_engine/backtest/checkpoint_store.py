"""The files of checkpoints: one per backtest, private, to which only is appended.

    <root>/<backtest id>    the records of `checkpoint_format`

A file gets its name when its first content is in it, and one that is taken up is copied: a process of an earlier broker
that still ends writes to a file that has no name any more. Nothing is synced. The system keeps what a killed process
has written; after a loss of power the checksums tell how much of it is there.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from backtestr_protocol.file_names import file_name
from backtestr_protocol.private_files import make_private
from backtestr_protocol.system.durable_files import remove, replace
from backtestr_protocol.system.open_flags import BINARY

CHECKPOINTS = "checkpoints"
"""The folder in the data directory."""


class CheckpointFile:
    """An open file of a checkpoint."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def append(self, content: bytes) -> None:
        """Append to the file. Raises `OSError`, and part of it may be written then."""
        left = memoryview(content)
        while left:
            left = left[os.write(self._descriptor, left) :]

    def close(self) -> None:
        """Close the file; what was appended stays."""
        os.close(self._descriptor)


class CheckpointStore:
    """The checkpoints under `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, backtest_id: str) -> bytes | None:
        """Return the content of a backtest's file, None where there is none. Raises `OSError`."""
        try:
            return self._path(backtest_id).read_bytes()
        except FileNotFoundError:
            return None

    def create(self, backtest_id: str, content: bytes) -> CheckpointFile:
        """Return a new file with this content, in place of an earlier one. Raises `OSError`."""
        make_private(self._root)
        path = self._path(backtest_id)
        descriptor, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=self._root)  # with mode 0600
        try:
            file = CheckpointFile(descriptor)
            try:
                file.append(content)
            finally:
                file.close()  # some systems rename no open file
            replace(Path(name), path)
        except BaseException:  # also an interrupt: the unfinished file must not stay
            remove(Path(name))
            raise
        return CheckpointFile(os.open(path, os.O_WRONLY | os.O_APPEND | BINARY))

    def remove(self, backtest_id: str) -> None:
        """Remove a backtest's file, if there is one. Raises `OSError`."""
        remove(self._path(backtest_id))

    def _path(self, backtest_id: str) -> Path:
        return self._root / file_name(backtest_id)
