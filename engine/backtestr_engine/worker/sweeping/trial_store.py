"""The ledger of trials on disk: workers enter what they run, each in a file of its own, and any of them counts.

A group is counted by its distinct keys, so that to enter a trial again changes nothing: neither a block that is
computed twice after a crash, nor a backtest that equals a row. Nothing here lowers a number. Files of workers that have
ended are merged when trials are listed, which leaves 8 bytes for a trial.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from backtestr_engine.research.trials import Keys, TrialData
from backtestr_protocol.errors import Busy, DataError
from backtestr_protocol.system.durable_files import remove, sync_file
from backtestr_protocol.system.file_lock import FileLock

from .trial_log import LOCK, LOG, MERGED, PARTIAL, FileContent, KeyBlock, MergedFile, TrialLog, keys_in, read_on

# Keys that are put in order together: 32 MB, and as much again for the order.
TOGETHER = 1 << 22
# Files of ended workers, and bytes of them, up to which they are left as they are.
LEFT_FILES, LEFT_BYTES = 8, 1 << 20
# A merged file is merged again with what has come to so much of it: each trial is then written some ten times at most.
_GROWTH = 2
_PATIENCE = 30.0
_RETRY_AFTER_MS = 1_000


class GroupFacts(msgspec.Struct, frozen=True):
    """A group of trials, and its blocks."""

    data: TrialData
    blocks: list[KeyBlock]

    @property
    def runs(self) -> int:
        return sum(block.runs for block in self.blocks)

    @property
    def first_ms(self) -> int:
        return min(block.first_ms for block in self.blocks)

    @property
    def last_ms(self) -> int:
        return max(block.last_ms for block in self.blocks)


class TrialStore:
    """The ledger under `root`. One store may be used by several threads."""

    def __init__(
        self, root: Path, wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000, together: int = TOGETHER
    ) -> None:
        self._root = root
        self._wall_ms = wall_ms
        self._together = together
        self._writing = threading.Lock()
        self._log: TrialLog | None = None
        self._reading = threading.Lock()
        self._files: dict[str, FileContent] = {}
        self._groups: dict[str, GroupFacts] = {}
        self._counts: dict[str, tuple[int, int]] = {}  # by group: the blocks that were counted, and the trials

    def append(self, data: TrialData, keys: Keys, *, synced: bool = True) -> None:
        """Enter the trials of a run, or of a block of a sweep. Raises `OSError`.

        When this returns no end of a process can lose them, and if `synced` no end of the machine either.
        """
        with self._writing:
            if self._log is not None and self._log.is_full:
                self._close()
            self._log = self._log or TrialLog(self._root)
            try:
                self._log.append(data, keys, self._wall_ms(), synced=synced)
            except OSError:
                self._close()
                raise

    def sync(self) -> None:
        """Have on disk what was entered. Raises `OSError`."""
        with self._writing:
            if self._log is not None:
                sync_file(self._log.path)

    def close(self) -> None:
        """Close the file of this worker; the next entry begins another."""
        with self._writing:
            self._close()

    def _close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    # --- counting ---

    def count(self, group: str) -> int:
        """Return the number of trials of a group, 0 for one that has none. Raises `DataError` and `Busy`."""
        with self._read():
            return self._count(group)

    @contextlib.contextmanager
    def read(self, *, merge: bool = False) -> Iterator[dict[str, GroupFacts]]:
        """Yield all groups by id, which stay as they are within the block; `count_of` counts one there.

        With `merge` the files of workers that have ended are merged before. Raises `DataError` and `Busy`.
        """
        with self._read(merge=merge):
            yield self._groups

    def count_of(self, group: str) -> int:
        """Return the number of trials of a group within a `read` block."""
        return self._count(group)

    @contextlib.contextmanager
    def _read(self, *, merge: bool = False) -> Iterator[None]:
        if not self._root.is_dir():
            yield
            return
        with self._reading:
            lock = FileLock(self._root / f"merge{LOCK}")
            try:
                if not lock.take(_PATIENCE):
                    raise Busy("the ledger of trials is being merged; ask again", retryAfterMs=_RETRY_AFTER_MS)
                try:
                    self._refresh()
                    if merge and self._merge():
                        self._refresh()
                    yield
                finally:
                    lock.release()
            except OSError as error:
                raise DataError(f"the ledger of trials cannot be read: {error}; look at {self._root}") from error

    def _count(self, group: str) -> int:
        if (facts := self._groups.get(group)) is None:
            return 0
        blocks = facts.blocks
        if len(blocks) == 1 and blocks[0].is_ordered:
            return blocks[0].count
        stamp = hash(tuple((block.path.stem, block.offset) for block in blocks))
        if (known := self._counts.get(group)) is None or known[0] != stamp:
            known = self._counts[group] = stamp, sum(len(part) for part in self._distinct(blocks))
        return known[1]

    def _distinct(self, blocks: Sequence[KeyBlock]) -> Iterator[Keys]:
        """Iterate over the keys of blocks, in order and each once, in parts that fit into memory."""
        files = {block.path: _mapped(block.path) for block in blocks}
        parts = max(1, -(-sum(block.count for block in blocks) // self._together))
        for part in range(parts):
            low, high = (part << 64) // parts, ((part + 1) << 64) // parts - 1
            pieces: list[Keys] = []
            for block in blocks:
                keys = keys_in(files[block.path], block)
                if keys is None:
                    continue
                if parts == 1:
                    pieces.append(keys)
                else:
                    pieces.append(_between(keys, np.uint64(low), np.uint64(high), block.is_ordered))
            yield _each_once(np.concatenate(pieces) if pieces else np.empty(0, dtype=np.uint64))

    def _refresh(self) -> None:
        """Read what has come since, and remove what a merged file stands for."""
        present = {path.stem: path for kind in (LOG, MERGED) for path in self._root.glob(f"*{kind}")}
        files = {stem: self._files.get(stem) or FileContent(path) for stem, path in present.items()}
        changed = set(files) != set(self._files)
        for content in files.values():
            if content.path.stat().st_size > content.end:
                before = content.end
                read_on(content)
                changed |= content.end > before
        replaced = {stem for content in files.values() for stem in content.sources}
        for stem in replaced & set(files):
            self._remove(files.pop(stem).path)
        if not changed:
            return
        self._files, self._groups = files, {}
        for content in files.values():
            for block in content.blocks:
                if (facts := self._groups.get(block.group)) is None:
                    facts = self._groups[block.group] = GroupFacts(content.data[block.group], [])
                facts.blocks.append(block)

    # --- merging ---

    def _merge(self) -> bool:
        """Merge the files of workers that have ended, if there are many; return whether any were."""
        for path in self._root.glob(f"*{PARTIAL}"):
            remove(path)
        with contextlib.ExitStack() as stack:
            logs = [one for one in self._files.values() if one.path.suffix == LOG and self._has_ended(one, stack)]
            size = sum(one.end for one in logs)
            if len(logs) <= LEFT_FILES and size <= LEFT_BYTES:
                return False
            merged = [one for one in self._files.values() if one.path.suffix == MERGED]
            for one in sorted(merged, key=lambda content: content.end):
                if one.end <= _GROWTH * size:
                    logs.append(one)
                    size += one.end
            chosen = [one for one in logs if self._is_sound(one)]
            self._write(chosen)
        for one in chosen:
            self._remove(one.path)
        return bool(chosen)

    def _write(self, chosen: Sequence[FileContent]) -> None:
        groups: dict[str, list[KeyBlock]] = {}
        data = {group: facts for content in chosen for group, facts in content.data.items()}
        for content in chosen:
            for block in content.blocks:
                groups.setdefault(block.group, []).append(block)
        file = MergedFile(self._root, [content.path.stem for content in chosen])
        try:
            for group, blocks in groups.items():
                facts = GroupFacts(data[group], blocks)
                file.add(data[group], facts.runs, (facts.first_ms, facts.last_ms), self._distinct(blocks))
            file.finish()
        except BaseException:  # it is raised again: whatever it is, nothing is left that is not whole
            file.abandon()
            raise

    def _has_ended(self, content: FileContent, stack: contextlib.ExitStack) -> bool:
        """Return whether no worker writes to a file any more; it is locked then until the stack ends."""
        lock = FileLock(content.path.with_suffix(LOCK))
        if not lock.take():
            return False
        stack.callback(lock.release)
        return True

    def _is_sound(self, content: FileContent) -> bool:
        """Return whether all of a file can be read: one that is damaged stays as it is, and counts as far as it can."""
        read_on(content)  # its worker may have entered more before it ended
        file = _mapped(content.path) if content.blocks else np.empty(0, dtype=np.uint8)
        return all(keys_in(file, block) is not None for block in content.blocks)

    def _remove(self, path: Path) -> None:
        remove(path)
        remove(path.with_suffix(LOCK))


def _mapped(path: Path) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))


def _each_once(keys: Keys) -> Keys:
    """Put keys in order, and return each once. `np.unique` takes 7 s for four million, and this 0.25 s."""
    keys.sort()
    is_first = np.ones(len(keys), dtype=np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
    return keys[is_first]


def _between(keys: Keys, low: np.uint64, high: np.uint64, is_ordered: bool) -> Keys:
    """Return the keys from `low` up to and including `high`."""
    if is_ordered:
        return keys[np.searchsorted(keys, low) : np.searchsorted(keys, high, "right")]
    return keys[(keys >= low) & (keys <= high)]
