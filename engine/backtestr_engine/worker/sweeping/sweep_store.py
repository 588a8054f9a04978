"""The rows of sweeps on disk: files that only grow, one for each process that has computed blocks of a sweep.

    <root>/<sweep id>/<process id>-<random>.rows      blocks, one after the other, mode 0600

A block is a head (magic, lengths, CRC-32), its facts as MessagePack, and its rows as an Arrow IPC stream. It is synced
before the worker says that it is done. A process that is killed may leave a part of a block at the end of its file: it
fails its checksum, and is computed again. So no file is ever changed, and no block that was finished is lost.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import shutil
import struct
import uuid
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import polars as pl

from backtestr_engine.backtest.tables import arrow_stream
from backtestr_protocol.errors import DataError, NotFound
from backtestr_protocol.file_names import file_name
from backtestr_protocol.messages import BacktestId
from backtestr_protocol.private_files import make_private, private_opener
from backtestr_protocol.sweep_messages import SweepBest
from backtestr_protocol.system.durable_files import sync_folder

SWEEPS = "sweeps"
"""The folder of sweeps in the data directory."""

_MAGIC = b"btrows1\n"
_HEAD = struct.Struct("<8sIIQ")  # magic, CRC-32 of what follows, bytes of the facts, bytes of the rows


class BlockFacts(msgspec.Struct, frozen=True, rename="camel"):
    """The facts of a stored block: its units, its rows, and the seconds that were spent on them."""

    first: int
    count: int
    rows: int
    failed: int
    seconds: float
    best: SweepBest | None = None


class StoredBlock(msgspec.Struct, frozen=True):
    """A block in a file: its facts, and where its rows are."""

    path: Path
    offset: int
    size: int
    facts: BlockFacts


_facts_decoder = msgspec.msgpack.Decoder(BlockFacts)


class SweepStore:
    """The rows under `root`. What was read once and has not changed is not checked again."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[str, Path] = {}  # of this process, by sweep
        self._known: dict[
            Path, tuple[int, list[StoredBlock]]
        ] = {}  # by file: the bytes that were checked, their blocks

    def append(self, sweep_id: str, facts: BlockFacts, frame: pl.DataFrame) -> None:
        """Store a block. When this returns it is on disk. Raises `OSError`."""
        folder = self.folder(sweep_id)
        path = self._files.get(sweep_id)
        if path is None or not path.exists():
            make_private(self._root)
            make_private(folder)
            sync_folder(self._root)
            path = self._files[sweep_id] = folder / f"{os.getpid()}-{uuid.uuid4().hex}.rows"
        told, rows = msgspec.msgpack.encode(facts), arrow_stream(frame)
        head = _HEAD.pack(_MAGIC, zlib.crc32(rows, zlib.crc32(told)), len(told), len(rows))
        is_new = not path.exists()
        with open(path, "ab", opener=private_opener) as file:
            at = file.seek(0, os.SEEK_END)
            try:
                file.write(head + told)
                file.write(rows)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(at)  # what is behind a damaged block could not be found
                raise
        if is_new:
            sync_folder(folder)

    def blocks(self, sweep_id: str) -> list[StoredBlock]:
        """Return the stored blocks in the order of their units, without those that others have all units of."""
        folder = self.folder(sweep_id)
        files = sorted(folder.glob("*.rows")) if folder.is_dir() else []
        found = [block for path in files for block in self._checked(path)]
        kept: list[StoredBlock] = []
        end = 0
        for block in sorted(found, key=lambda one: (one.facts.first, -one.facts.count)):
            stop = block.facts.first + block.facts.count
            if stop > end:
                kept.append(block)
                end = stop
        return kept

    def delete(self, sweep_id: str) -> int:
        """Remove all of a sweep, and return the bytes that it took."""
        folder = self.folder(sweep_id)
        freed = sum(path.stat().st_size for path in folder.glob("*")) if folder.is_dir() else 0
        self._known = {path: one for path, one in self._known.items() if path.parent != folder}
        self._files.pop(sweep_id, None)
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            raise DataError(f"the rows of sweep {sweep_id} cannot be removed: look at the mode of {folder}")
        return freed

    def folder(self, sweep_id: str) -> Path:
        """Return the folder of a sweep. Raises `NotFound` for an invalid id, so that none leads out of `root`."""
        try:
            return self._root / file_name(msgspec.convert(sweep_id, BacktestId))
        except msgspec.ValidationError:
            raise NotFound(f"there is no sweep {sweep_id[:200]!r}", kind="sweep") from None

    def _checked(self, path: Path) -> list[StoredBlock]:
        """Return the blocks of a file up to the first that is damaged or not whole."""
        checked, blocks = self._known.get(path, (0, []))
        size = path.stat().st_size
        if size > checked:
            blocks = [*blocks, *_read_blocks(path, checked)]
            checked = blocks[-1].offset + blocks[-1].size if blocks else 0
            self._known[path] = checked, blocks
        return blocks


def rows_of(blocks: Sequence[StoredBlock], columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
    """Iterate over the rows of stored blocks, all columns or those in `columns`, one table for each block."""
    opened: dict[Path, mmap.mmap] = {}
    try:
        for block in blocks:
            if block.path not in opened:
                with open(block.path, "rb") as file:
                    opened[block.path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            content = opened[block.path][block.offset : block.offset + block.size]
            yield pl.read_ipc_stream(io.BytesIO(content), columns=None if columns is None else list(columns))
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise DataError(f"the rows of a sweep cannot be read: {error}; run the sweep again") from error
    finally:
        for one in opened.values():
            one.close()


def _read_blocks(path: Path, start: int) -> Iterator[StoredBlock]:
    with open(path, "rb") as file:
        file.seek(start)
        at = start
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            magic, checksum, told_size, rows_size = _HEAD.unpack(head)
            if magic != _MAGIC or told_size + rows_size > os.fstat(file.fileno()).st_size - at:
                return
            told, rows = file.read(told_size), file.read(rows_size)
            if len(rows) < rows_size or zlib.crc32(rows, zlib.crc32(told)) != checksum:
                return
            try:
                facts = _facts_decoder.decode(told)
            except msgspec.MsgspecError:
                return
            at += _HEAD.size + told_size
            yield StoredBlock(path, at, rows_size, facts)
            at += rows_size
