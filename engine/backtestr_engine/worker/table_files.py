"""Table files: tables of answers as Arrow files, which clients of this machine map instead of receiving them.

    <tables directory>/<process id>-<random>.arrow      an Arrow IPC file, uncompressed inside, mode 0400

A file has a name of its own, is never changed, and is removed when it is old or when others need its room: whoever has
mapped it keeps what it had. A table of a result is written once, and named again as long as its file is there. Files
are not synced: none is named after a restart, and those of ended workers are removed at the start of a worker.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import polars as pl
import psutil

from backtestr_engine.backtest.tables import Table, attach
from backtestr_engine.config import TableOptions
from backtestr_protocol.column_types import column_type
from backtestr_protocol.messages import TableColumn, TableFile, TableRef
from backtestr_protocol.private_files import make_private, private_opener

_log = logging.getLogger(__name__)


class _Written(msgspec.Struct, frozen=True):
    """A table file of this worker, and the time at which it was last named."""

    ref: TableRef
    file: TableFile
    named: float
    key: str | None


class TableFiles:
    """The table files of one worker, in a directory that the workers of a broker share."""

    def __init__(self, directory: Path, options: TableOptions, clock: Callable[[], float]) -> None:
        """Make the directory, and remove what ended workers and other starts of the machine have left there."""
        self._directory = directory
        self._options = options
        self._clock = clock
        self._written: dict[str, _Written] = {}  # by the names of files, the one that was named last at the end
        self._names: dict[str, str] = {}  # by the keys of tables
        self._bytes = 0
        self._is_failing = False
        with contextlib.suppress(OSError):  # every writing fails then, says why, and its tables are attached
            make_private(directory)
            self._sweep()

    def hand_over(self, tables: Sequence[Table]) -> tuple[list[TableRef], list[bytes]]:
        """Return the references to tables: to files, and to attachments for those that are small or find no room."""
        self.remove_old(now := self._clock())
        references: list[TableRef] = []
        attachments: list[bytes] = []
        named: set[str] = set()
        for table in tables:
            written = self._kept(table.key)
            if written is None:
                frame = table.make()
                written = self._write(table, frame, named)
            if written is None:
                [reference], attached = attach([(table.name, frame)])
                references.append(msgspec.structs.replace(reference, frame=len(attachments)))
                attachments += attached
            else:
                name = written.file.name
                self._written.pop(name, None)
                self._written[name] = msgspec.structs.replace(written, named=now)
                named.add(name)
                references.append(written.ref)
        return references, attachments

    def remove_old(self, now: float) -> None:
        """Remove the files that were last named too long ago."""
        while self._written:
            name, written = next(iter(self._written.items()))
            if now - written.named < self._options.max_age_ms / 1000:
                return
            self._remove(name)

    def _kept(self, key: str | None) -> _Written | None:
        """Return the file of that table, if it is still there."""
        name = None if key is None else self._names.get(key)
        if name is None:
            return None
        written = self._written[name]
        try:
            if (self._directory / name).stat().st_size == written.file.size:
                return written
        except OSError:
            pass
        self._remove(name)
        return None

    def _write(self, table: Table, frame: pl.DataFrame, named: set[str]) -> _Written | None:
        """Write a table of some size to a file of its own; return None where it is to be attached."""
        size = int(frame.estimated_size())
        if size < self._options.file_from_bytes or not self._make_room(size, named):
            return None
        name = f"{os.getpid()}-{uuid.uuid4().hex}.arrow"
        path = self._directory / name
        try:
            make_private(self._directory)
            with open(path, "xb", buffering=0, opener=private_opener) as file:
                frame.write_ipc(file, compression="uncompressed", compat_level=pl.CompatLevel.oldest())
                size = os.fstat(file.fileno()).st_size
                path.chmod(0o400)
        except (OSError, pl.exceptions.PolarsError) as error:  # a full disk as a rule
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            if not self._is_failing:
                _log.warning("table files cannot be written, so tables are attached: %s", error)
            self._is_failing = True
            return None
        self._is_failing = False
        columns = [TableColumn(name=column, type=column_type(kind)) for column, kind in frame.schema.items()]
        described = TableFile(name=name, size=size, columns=columns)
        ref = TableRef(name=table.name, format="arrow-ipc-file", rows=frame.height, file=described)
        self._bytes += size
        self._written[name] = written = _Written(ref, described, self._clock(), table.key)
        if table.key is not None:
            self._names[table.key] = name
        return written

    def _make_room(self, size: int, named: set[str]) -> bool:
        """Remove files, those that were named longest ago first, but for those that the same answer names.

        Return False where that does not make room for a file of that size.
        """
        others = iter([name for name in self._written if name not in named])
        while self._bytes + size > self._options.max_bytes:
            if (name := next(others, None)) is None:
                return False
            self._remove(name)
        return True

    def _remove(self, name: str) -> None:
        written = self._written.pop(name)
        self._bytes -= written.file.size
        if written.key is not None:
            del self._names[written.key]
        with contextlib.suppress(OSError):
            (self._directory / name).unlink(missing_ok=True)

    def _sweep(self) -> None:
        oldest = time.time() - self._options.max_age_ms / 1000
        for path in self._directory.glob("*.arrow"):
            writer = path.name.partition("-")[0]
            is_left = not (writer.isdecimal() and psutil.pid_exists(int(writer)))
            with contextlib.suppress(OSError):
                if is_left or path.stat().st_mtime < oldest:
                    path.unlink(missing_ok=True)
