"""The files of the ledger of trials: blocks of keys of one group each, one after the other.

    <root>/<process id>-<random>.log      what one worker has entered; it only grows, mode 0600
    <root>/<process id>-<random>.lock     held by that worker as long as it may write to its file
    <root>/<random>.merged                several files as one, each group in order and each key once

A block is a head (magic, checksums, group, numbers), the facts of the group where the file has not told them yet, and
8 bytes a key. A file that was merged begins with the names of those that it stands for: they do not count any more,
though a crash may have left them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from backtestr_engine.research.trials import Keys, TrialData
from backtestr_protocol.private_files import make_private, private_opener
from backtestr_protocol.system.durable_files import sync_folder
from backtestr_protocol.system.file_lock import FileLock

TRIALS = "trials"
"""The folder of the ledger in the data directory."""

LOG, LOCK, MERGED, PARTIAL = ".log", ".lock", ".merged", ".partial"
KEY_BYTES = 8
# The bytes from which a worker begins another file, so that this one can be merged while the worker lives.
MAX_LOG_BYTES = 4 << 20

_KEYS, _SOURCES = b"btkeys1\n", b"btfrom1\n"
# Magic; CRC-32 of the rest of the head and the facts; CRC-32 of the keys; group; keys; runs; when the first and the
# latest of them were entered; bytes of the facts; whether the keys are in order, each once.
_HEAD = struct.Struct("<8sII16sQQqqII")
_CHECKED_FROM = 12


class KeyBlock(msgspec.Struct):
    """A block in a file: where its keys are, and what is said of them."""

    group: str
    path: Path
    offset: int
    count: int
    runs: int
    first_ms: int
    last_ms: int
    is_ordered: bool
    check: int
    is_sound: bool | None = None
    """True if the keys have their checksum; None until they were read."""


class FileContent(msgspec.Struct):
    """A file as far as it is read: up to byte `end`."""

    path: Path
    end: int = 0
    blocks: list[KeyBlock] = []
    data: dict[str, TrialData] = {}
    sources: list[str] = []


_log = logging.getLogger(__name__)
_data_decoder = msgspec.msgpack.Decoder(TrialData)
_sources_decoder = msgspec.msgpack.Decoder(list[str])


class TrialLog:
    """The file that one worker writes. It has a lock until it is closed, by which others know that it still grows."""

    def __init__(self, root: Path) -> None:
        """Begin a file. Raises `OSError`."""
        make_private(root)
        stem = f"{os.getpid()}-{uuid.uuid4().hex}"
        self._lock = FileLock(root / (stem + LOCK))
        self._lock.take()
        self._told: set[str] = set()  # groups whose facts are in the file
        self._end = 0
        self.path = root / (stem + LOG)
        open(self.path, "xb", opener=private_opener).close()
        sync_folder(root)

    @property
    def is_full(self) -> bool:
        return self._end >= MAX_LOG_BYTES

    def append(self, data: TrialData, keys: Keys, wall_ms: int, *, synced: bool = True) -> None:
        """Enter the trials of a run or a block; if `synced`, they are on disk when this returns. Raises `OSError`."""
        group = data.group
        told = b"" if group in self._told else msgspec.msgpack.encode(data)
        content = keys.astype("<u8").tobytes()
        head = _head(group, told, content, len(keys), (wall_ms, wall_ms), ordered=False)
        with open(self.path, "ab") as file:
            try:
                file.write(head + _padded(told) + content)
                file.flush()
                if synced:
                    os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(self._end)  # what is behind a damaged block could not be found
                raise
            self._end = file.tell()
        self._told.add(group)

    def close(self) -> None:
        """Let others merge the file."""
        self._lock.release()


class MergedFile:
    """A file that stands for others, written group by group; it is there as a whole once it is `finished`."""

    def __init__(self, root: Path, sources: list[str]) -> None:
        self._root = root
        self._stem = uuid.uuid4().hex
        self._partial = root / (self._stem + PARTIAL)
        self._file = open(self._partial, "xb", opener=private_opener)  # noqa: SIM115 - `finish` and `abandon` do
        told = msgspec.msgpack.encode(sources)
        self._file.write(_head("0" * 32, told, b"", 0, (0, 0), ordered=True, magic=_SOURCES) + _padded(told))

    def add(self, data: TrialData, runs: int, times: tuple[int, int], parts: Iterator[Keys]) -> None:
        """Write a group; its `parts` are in order, each key once."""
        told, at = msgspec.msgpack.encode(data), self._file.tell()
        self._file.write(bytes(_HEAD.size) + _padded(told))
        check = count = 0
        for keys in parts:
            content = keys.astype("<u8").tobytes()
            self._file.write(content)
            check, count = zlib.crc32(content, check), count + len(keys)
        end = self._file.tell()
        self._file.seek(at)
        self._file.write(_head(data.group, told, check, count, times, ordered=True, runs=runs))
        self._file.seek(end)

    def finish(self) -> None:
        """Sync the file, and give it the name by which it counts, and the files that it stands for do not."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.rename(self._root / (self._stem + MERGED))
        sync_folder(self._root)

    def abandon(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
            self._partial.unlink(missing_ok=True)


def read_on(content: FileContent) -> None:
    """Read the blocks that a file has got since, up to the first that is damaged or not whole. Raises `OSError`."""
    with open(content.path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while (end := _read_block(file, content, size)) is not None:
            content.end = end


def _read_block(file: BinaryIO, content: FileContent, size: int) -> int | None:
    """Read the block behind what is read, and return its end; None where there is none."""
    file.seek(content.end)
    if len(head := file.read(_HEAD.size)) < _HEAD.size:
        return None
    magic, check, keys_check, group, count, runs, first_ms, last_ms, told_size, is_ordered = _HEAD.unpack(head)
    offset = content.end + _HEAD.size + told_size + _padding(told_size)
    end: int = offset + KEY_BYTES * count
    if magic not in (_KEYS, _SOURCES) or end > size:
        return None
    told = file.read(told_size)
    if zlib.crc32(told, zlib.crc32(head[_CHECKED_FROM:])) != check:
        return None
    try:
        if magic == _SOURCES:
            content.sources = _sources_decoder.decode(told)
            return end
        if told:
            content.data[group.hex()] = _data_decoder.decode(told)
    except msgspec.MsgspecError:
        return None
    content.blocks.append(
        KeyBlock(group.hex(), content.path, offset, count, runs, first_ms, last_ms, bool(is_ordered), keys_check)
    )
    return end


def _head(
    group: str,
    told: bytes,
    content: bytes | int,
    count: int,
    times: tuple[int, int],
    *,
    ordered: bool,
    runs: int | None = None,
    magic: bytes = _KEYS,
) -> bytes:
    """Return the head of a block; `content` are its keys, or their checksum."""
    keys_check = content if isinstance(content, int) else zlib.crc32(content)
    fields = (bytes.fromhex(group), count, count if runs is None else runs, *times, len(told), int(ordered))
    head = _HEAD.pack(magic, 0, keys_check, *fields)
    return _HEAD.pack(magic, zlib.crc32(told, zlib.crc32(head[_CHECKED_FROM:])), keys_check, *fields)


def _padded(told: bytes) -> bytes:
    """Return facts with zeros behind them, so that keys begin at a multiple of their size."""
    return told + bytes(_padding(len(told)))


def _padding(size: int) -> int:
    return -size % KEY_BYTES


def keys_in(file: np.ndarray[tuple[int], np.dtype[np.uint8]], block: KeyBlock) -> Keys | None:
    """Return the keys of a block of a file that is in memory; None where they do not have their checksum."""
    content = file[block.offset : block.offset + KEY_BYTES * block.count]
    if block.is_sound is None:
        block.is_sound = len(content) == KEY_BYTES * block.count and zlib.crc32(content.data) == block.check
        if not block.is_sound:
            _log.warning("trials_damaged", extra={"file": block.path.name, "trials": block.count})
    return content.view("<u8") if block.is_sound else None
