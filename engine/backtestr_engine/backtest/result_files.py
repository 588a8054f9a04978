"""The arrays of a stored result: one file that has them as they lie in memory, and files of earlier versions.

    records.bin   arrays one behind the other; `Part` says where each is, and what its rows have

Nothing is converted, neither to write an array nor to read it. The file is written and synced in a thread of its own:
what grows while bars are simulated is written as it comes, the rest while the figures of the result are computed.
Earlier versions have a file for each array, as Arrow IPC stream.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import zlib
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import polars as pl

from backtestr_engine.data.arrays import AnyArray, Records
from backtestr_engine.data.block_sums import checksum
from backtestr_protocol.private_files import private_opener

RECORDS = "records.bin"
# The most parts of one result, and more than there are.
_MAX_PARTS = 32
# The bytes from which a file is synced while further parts are on their way: a sync of fewer takes as long as the last.
_SYNC_FROM = 1 << 20
# The same while bars are simulated, when nothing waits for a sync.
_SYNC_AHEAD_FROM = 1 << 24
# The files and columns of arrays of one column in earlier versions; the first ones lack some of the files.
_ARROW_COLUMNS = {
    "equity": ("equity", "equity"),
    "starts": ("times", "start"),
    "bars": ("times", "bars"),
    "changes": ("changes", "order_id"),
    "signals": ("signals", "signal_time"),
}


class Part(msgspec.Struct, frozen=True):
    """An array in the file: its place in bytes, its checksum (`data/block_sums.py`), and its rows.

    `columns` has the name, the numpy format and the place in the row of each column. A part without columns is bytes.
    """

    offset: int
    size: int
    checksum: int
    row: int = 1
    columns: list[tuple[str, str, int]] = []


class _Place:
    """The place of an array: its first byte, how many bytes of it are written, and for how many there is room."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.written = 0
        self.room = 0


class RecordWriter:
    """Writes the file of a result, in a thread of its own: `add` its arrays, then take its `parts`, then `close` it.

    An array must not change before `parts` has returned. One that grows may be written `ahead` before it is added.
    """

    def __init__(self, path: Path) -> None:
        """Create the file, readable by this user only."""
        self._file = open(path, "xb", buffering=0, opener=private_opener)  # noqa: SIM115 - `close` does
        self._queue: queue.Queue[tuple[str, AnyArray, int | None] | None] = queue.Queue(_MAX_PARTS)
        self._written = threading.Event()
        self._parts: dict[str, Part] = {}
        self._places: dict[str, _Place] = {}
        self._end = 0  # of the bytes that are given to arrays
        self._unsynced = 0
        self._is_wanted = True
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="backtestr result", daemon=True)
        self._thread.start()

    def ahead(self, name: str, so_far: AnyArray, most_rows: int = 0) -> None:
        """Have the rows written that an array has so far, but for those of earlier calls. Waits for nothing.

        `add` takes the whole array later, and writes what is missing. Room is kept for `most_rows`; an array that grows
        beyond its room is written anew, unless it is the last one.
        """
        with contextlib.suppress(queue.Full):  # the disk is slow: a later call, or `add`, has these rows too
            self._queue.put_nowait((name, so_far, most_rows * so_far.dtype.itemsize))

    def add(self, name: str, content: AnyArray | bytes) -> None:
        """Have an array written. It need not be contiguous."""
        array = np.frombuffer(content, dtype=np.uint8) if isinstance(content, bytes) else content
        self._queue.put((name, array, None))

    def parts(self) -> dict[str, Part]:
        """Return where all arrays are, once they are written; nothing is added from now on. Raises `OSError`."""
        self._queue.put(None)
        self._written.wait()
        if self._error is not None:
            raise self._error
        return self._parts

    def close(self) -> None:
        """Wait until all is on disk, which is only said after `parts`, and close the file. Raises `OSError`."""
        if not self._written.is_set():
            self._queue.put(None)
        self._thread.join()
        self._file.close()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Close the file without waiting for the disk: it is not wanted any more."""
        self._is_wanted = False
        with contextlib.suppress(OSError):
            self.close()

    def _run(self) -> None:
        try:
            self._write_all()
        except BaseException as error:  # it is raised again where the result is waited for
            self._error = error
            while not self._written.is_set() and self._queue.get() is not None:
                pass
        self._written.set()

    def _write_all(self) -> None:
        while (one := self._queue.get()) is not None:
            if not self._is_wanted:
                continue
            name, array, room = one
            content = np.ascontiguousarray(array).view(np.uint8).data
            place = self._place(name, max(len(content), room or 0))
            self._write(place, content)
            if room is None:
                self._parts[name] = _part(name, array, place.offset, content)
            if self._unsynced >= (_SYNC_FROM if room is None else _SYNC_AHEAD_FROM) and self._queue.empty():
                self._sync()
        self._written.set()
        self._sync()

    def _place(self, name: str, room: int) -> _Place:
        """Return the place of an array, which has that room: the place that it has, or a new one behind all others."""
        place = self._places.get(name)
        if place is None or (room > place.room and place.offset + place.room < self._end):
            place = self._places[name] = _Place(self._end)
        place.room = max(place.room, room)
        self._end = max(self._end, place.offset + place.room)
        return place

    def _write(self, place: _Place, content: memoryview) -> None:
        rest = content[place.written :]
        self._file.seek(place.offset + place.written)
        while rest:  # the file has no buffer, and may take less
            rest = rest[self._file.write(rest) or 0 :]
        self._unsynced += len(content) - place.written
        place.written = len(content)

    def _sync(self) -> None:
        if self._is_wanted:
            os.fsync(self._file.fileno())
        self._unsynced = 0


def _part(name: str, array: AnyArray, offset: int, content: memoryview) -> Part:
    row = array.dtype.itemsize
    columns = [(column, kind.str, at) for column, (kind, at, *_) in (array.dtype.fields or {}).items()]
    if not columns and array.dtype != np.uint8:
        columns = [(name, array.dtype.str, 0)]
    return Part(offset, len(content), checksum(content), row, columns)


class StoredArrays(Protocol):
    """The arrays of a stored result, each compared with its checksum once. Reading raises `ValueError`, `OSError`."""

    def has(self, name: str) -> bool:
        """Return whether the result has that array: earlier versions lack some."""
        ...

    def content(self, name: str) -> bytes:
        """Return the bytes of a part that has no columns."""
        ...

    def column(self, name: str) -> AnyArray:
        """Return an array of one column."""
        ...

    def records(self, name: str, kind: np.dtype[np.void]) -> Records:
        """Return an array as records of that kind."""
        ...


class RecordFile:
    """The arrays in `records.bin`."""

    def __init__(self, folder: Path, parts: dict[str, Part]) -> None:
        self._path = folder / RECORDS
        self._parts = parts
        self._arrays: dict[str, AnyArray] = {}

    def has(self, name: str) -> bool:
        return name in self._parts

    def content(self, name: str) -> bytes:
        return self._array(name).tobytes()

    def column(self, name: str) -> AnyArray:
        array = self._array(name)
        (only,) = array.dtype.names or ()
        return array[only]

    def records(self, name: str, kind: np.dtype[np.void]) -> Records:
        found = self._array(name)
        if found.dtype == kind:
            return found.view(kind)
        records = np.zeros(len(found), dtype=kind)
        for field in kind.names or ():
            records[field] = found[field]
        return records

    def _array(self, name: str) -> AnyArray:
        if name not in self._arrays:
            part = self._parts[name]
            content = np.empty(part.size, dtype=np.uint8)
            with open(self._path, "rb", buffering=0) as file:
                file.seek(part.offset)
                if file.readinto(content.data) != part.size:
                    raise ValueError(f"{RECORDS} ends within {name}")
            if checksum(content.data) != part.checksum:
                raise ValueError(f"the checksum of {name} in {RECORDS} does not match")
            self._arrays[name] = content.view(_kind(part))
        return self._arrays[name]


def _kind(part: Part) -> np.dtype[np.void] | np.dtype[np.uint8]:
    if not part.columns:
        return np.dtype(np.uint8)
    names, formats, offsets = zip(*part.columns, strict=True)
    return np.dtype(
        {"names": list(names), "formats": list(formats), "offsets": list(offsets), "itemsize": part.row},
        align=False,
    )


class ArrowFiles:
    """The arrays of a result of an earlier version: `<name>.arrow`, and `streams.msgpack`."""

    def __init__(self, folder: Path, checksums: dict[str, int]) -> None:
        """`checksums` has the CRC-32 of each file; results of version 0.1 have none."""
        self._folder = folder
        self._checksums = checksums
        self._tables: dict[str, pl.DataFrame] = {}
        self._records: dict[str, Records] = {}

    def has(self, name: str) -> bool:
        return (self._folder / self._file(name)).exists()

    def content(self, name: str) -> bytes:
        return self._content(self._file(name))

    def column(self, name: str) -> AnyArray:
        _, column = _ARROW_COLUMNS[name]
        return self._table(name)[column].to_numpy()

    def records(self, name: str, kind: np.dtype[np.void]) -> Records:
        if name not in self._records:
            table = self._table(name)
            records = np.zeros(table.height, dtype=kind)
            for field in kind.names or ():
                records[field] = table[field].to_numpy()
            self._records[name] = records
        return self._records[name]

    def _file(self, name: str) -> str:
        return "streams.msgpack" if name == "streams" else f"{_ARROW_COLUMNS.get(name, (name,))[0]}.arrow"

    def _table(self, name: str) -> pl.DataFrame:
        """Read a file. A damaged one could end the process that reads it: its checksum is compared before."""
        file = self._file(name)
        if file not in self._tables:
            self._tables[file] = pl.read_ipc_stream(self._content(file))
        return self._tables[file]

    def _content(self, file: str) -> bytes:
        content = (self._folder / file).read_bytes()
        if self._checksums.get(file, found := zlib.crc32(content)) != found:
            raise ValueError(f"the checksum of {file} does not match")
        return content
