"""Measure and remove stored files, on a thread of its own: the event loop does not wait for the disk.

    files = StoredFiles(data_dir, rules, wake)
    files.start()
    files.submit(effect)      # SurveyFiles, RemoveResults: never waits
    files.take()              # -> FilesSurveyed, ResultsRemoved

Results are removed when the core says so. Recordings of earlier starts and files that were set aside of damaged
databases are removed here, by rules of their own. A result is renamed before its files are removed, so that it is there
as a whole or not at all, and what a crash leaves of it has a name by which the next start removes it. No link is
followed: one that has the name of a result is removed itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec

from backtestr_broker.core.deletions import MAX_DELETING
from backtestr_broker.core.events import FilesSurveyed, RemoveResults, ResultsRemoved, SurveyFiles
from backtestr_broker.core.retention import RetentionRules, StoredItem, due
from backtestr_broker.recording.format import RECORDINGS
from backtestr_broker.recording.parts import RECORDING
from backtestr_protocol.file_names import file_name, name_of
from backtestr_protocol.result_messages import DiskUsage

from .checkpoint_files import remove_checkpoints
from .database import DATABASE
from .database_rescue import ASIDE
from .open_folder import OpenFolder, open_folder

# The folders in the data directory.
RESULTS = "results"
CHECKPOINTS = "checkpoints"
CATALOGUE = "catalog"
TABLES = "tables"
SWEEPS = "sweeps"
TRIALS = "trials"
# At most one survey and a batch for each backtest that is being deleted.
MAX_QUEUED = MAX_DELETING + 16
# The id of a backtest.
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
# The name of a result: made of the id. Anything else in the folder is not backtestr's, and is left alone.
_RESULT = re.compile(r"(?:%[0-9A-F]{2})?[0-9A-Za-z_-]{1,64}")
# The name of a result whose files are being removed.
_REMOVING = re.compile(rf"\.{_RESULT.pattern}\.deleted")
# Seconds between two looks at recordings and damaged databases: their ages are counted in days.
_OTHERS_INTERVAL = 3600.0
# The time of a set-aside database in its name, which all of its files have in common.
_ASIDE_STAMP = re.compile(re.escape(f"{DATABASE}{ASIDE}") + r"(\d{8}T\d{6}\.\d{3}Z)")

Order = SurveyFiles | RemoveResults
Report = FilesSurveyed | ResultsRemoved

_log = logging.getLogger(__name__)


class FileRules(msgspec.Struct, frozen=True, kw_only=True):
    """The retention of recordings and of files of damaged databases; `current` is the recording being written."""

    recordings: RetentionRules
    damaged: RetentionRules
    current: str | None = None


class StoredFiles:
    """The files in the data directory, as the broker measures and removes them."""

    def __init__(self, data_dir: Path, rules: FileRules, wake: Callable[[], None]) -> None:
        """`wake` is called when there is something to `take`."""
        self._data_dir = data_dir
        self._results = data_dir / RESULTS
        self._rules = rules
        self._wake = wake
        self._queue: queue.Queue[Order | None] = queue.Queue(MAX_QUEUED)
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        # Of each result: what says that it has not changed since, then its bytes and the time at which it was stored.
        self._known: dict[str, tuple[tuple[int, int], int, int]] = {}
        self._others_due = 0.0
        self._thread = threading.Thread(target=self._run, name="backtestr files", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, order: Order) -> None:
        """Queue a survey or a removal. The core bounds how many are on their way."""
        self._queue.put_nowait(order)

    def take(self) -> list[Report]:
        """Return the results since the last time, in order."""
        return [self._reports.get_nowait() for _ in range(self._reports.qsize())]

    def close(self, patience: float) -> None:
        """End the thread after what it is doing, or leave it after so many seconds: what is left is done again."""
        if self._thread.ident is not None:
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait(None)
            self._thread.join(patience)

    # --- the thread ---

    def _run(self) -> None:
        self._sweep()
        while (order := self._queue.get()) is not None:
            report: Report
            match order:
                case SurveyFiles(unended, wall_ms):
                    remove_checkpoints(self._data_dir / CHECKPOINTS, unended, wall_ms)
                    self._remove_others()
                    report = self.survey()
                case RemoveResults(batch, backtest_ids):
                    report = self.remove(batch, backtest_ids)
            self._reports.put(report)
            self._wake()

    def survey(self) -> FilesSurveyed:
        """Measure everything; a result that has not changed is not measured again."""
        try:
            changed, gone = self._survey_results()
            sweeps = self._survey_sweeps()
            return FilesSurveyed(changed, gone, self._usage(sweeps), None, _wall_ms(), sweeps)
        except Exception as error:  # a tree that is too deep, for one: the thread continues, and the core says why
            _log.warning("the files could not be surveyed: %s", _text(error))
            return FilesSurveyed({}, [], None, _text(error), _wall_ms())

    def remove(self, batch: int, backtest_ids: tuple[str, ...]) -> ResultsRemoved:
        """Remove the results of backtests."""
        freed: dict[str, int] = {}
        failed: dict[str, str] = {}
        try:
            with open_folder(self._results) as results:
                for backtest_id in backtest_ids:
                    if not _ID.fullmatch(backtest_id):
                        failed[backtest_id] = "it is no name of a result"
                        continue
                    try:
                        freed[backtest_id] = _remove(results, backtest_id)
                        self._known.pop(backtest_id, None)
                    except Exception as error:  # whatever it is, the other results are removed
                        failed[backtest_id] = _text(error)
                results.sync()  # until then the deletions are on record, and are done again after a loss of power
        except FileNotFoundError:
            freed = dict.fromkeys(backtest_ids, 0)  # there is no result at all yet
        except OSError as error:
            freed, failed = {}, dict.fromkeys(backtest_ids, _text(error))
        return ResultsRemoved(batch, freed, failed, _wall_ms())

    def _survey_results(self) -> tuple[dict[str, tuple[int, int]], list[str]]:
        known: dict[str, tuple[tuple[int, int], int, int]] = {}
        changed: dict[str, tuple[int, int]] = {}
        for entry in _entries(self._results):
            if not _RESULT.fullmatch(entry.name) or not entry.is_dir(follow_symlinks=False):
                continue
            try:
                found = entry.stat(follow_symlinks=False)
                mark = (found.st_ino, found.st_mtime_ns)
                backtest_id = name_of(entry.name)
                before = self._known.get(backtest_id)
                if before is not None and before[0] == mark:
                    known[backtest_id] = before
                    continue
                size, stored_ms = _size(Path(entry.path)), found.st_mtime_ns // 1_000_000
            except FileNotFoundError:  # it was replaced or removed meanwhile
                continue
            known[backtest_id] = (mark, size, stored_ms)
            changed[backtest_id] = (size, stored_ms)
        gone = [name for name in self._known if name not in known]
        self._known = known
        return changed, gone

    def _survey_sweeps(self) -> dict[str, int]:
        """Return the bytes of the rows of each sweep; other things in their folder are not backtestr's."""
        return {
            name_of(entry.name): _size(Path(entry.path))
            for entry in _entries(self._data_dir / SWEEPS)
            if _RESULT.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        }

    def _usage(self, sweeps: dict[str, int]) -> DiskUsage:
        sizes: dict[str, int] = {}
        for entry in _entries(self._data_dir):
            if entry.name.startswith(DATABASE):
                with contextlib.suppress(FileNotFoundError):
                    sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
        damaged = sum(size for name, size in sizes.items() if name.startswith(f"{DATABASE}{ASIDE}"))
        return DiskUsage(
            results=len(self._known),
            results_bytes=sum(size for _, size, _ in self._known.values()),
            recordings_bytes=_size(self._data_dir / RECORDINGS),
            database_bytes=sum(sizes.values()) - damaged,
            damaged_bytes=damaged,
            catalogue_bytes=_size(self._data_dir / CATALOGUE),
            free_bytes=shutil.disk_usage(self._data_dir).free,
            measured_time=_wall_ms(),
            tables_bytes=_size(self._data_dir / TABLES),
            sweeps=len(sweeps),
            sweeps_bytes=sum(sweeps.values()),
            trials_bytes=_size(self._data_dir / TRIALS),
        )

    # --- what is removed without the core ---

    def _sweep(self) -> None:
        """Remove what an earlier broker had begun to remove."""
        with contextlib.suppress(OSError), open_folder(self._results) as results:
            for name in results.names():
                if _REMOVING.fullmatch(name):
                    with contextlib.suppress(OSError):
                        _remove_tree(results, name)

    def _remove_others(self) -> None:
        """Remove the recordings and the damaged databases that are due, now and then."""
        if time.monotonic() < self._others_due:
            return
        self._others_due = time.monotonic() + _OTHERS_INTERVAL
        try:
            self._remove_recordings()
            self._remove_damaged()
        except Exception as error:  # the thread continues, and tries again in an hour
            _log.warning("old files could not be removed: %s", _text(error))

    def _remove_recordings(self) -> None:
        folder = self._data_dir / RECORDINGS
        items = [
            StoredItem(entry.name, _size(Path(entry.path)), _stored_ms(entry), entry.name == self._rules.current)
            for entry in _entries(folder)
            if RECORDING.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        ]
        for one in due(items, self._rules.recordings, _wall_ms()):
            with open_folder(folder) as recordings:
                _remove_tree(recordings, one.name)
            _log.info("recording %s was deleted: %s", one.name, one.reason)

    def _remove_damaged(self) -> None:
        parts: dict[str, list[os.DirEntry[str]]] = {}
        for entry in _entries(self._data_dir):
            if (stamp := _ASIDE_STAMP.match(entry.name)) is not None:
                parts.setdefault(stamp[1], []).append(entry)
        items = [
            StoredItem(
                stamp,
                sum(one.stat(follow_symlinks=False).st_size for one in files),
                max(map(_stored_ms, files)),
            )
            for stamp, files in parts.items()
        ]
        for item in due(items, self._rules.damaged, _wall_ms()):
            for entry in parts[item.name]:
                Path(entry.path).unlink(missing_ok=True)
            _log.info("what was set aside of the database at %s was deleted: %s", item.name, item.reason)


def _remove(results: OpenFolder, backtest_id: str) -> int:
    """Remove one result from the folder `results`; return the bytes that it took."""
    name = file_name(backtest_id)
    removing = f".{name}.deleted"
    size = 0
    with contextlib.suppress(FileNotFoundError):  # what was left when it could not be removed before
        size += _remove_tree(results, removing)
    try:
        found = results.entry(name)
    except FileNotFoundError:
        return size
    if not found.is_folder:  # a link, or a file that somebody put there
        results.unlink(name)
        return size + found.size
    results.rename(name, results, removing)
    return size + _remove_tree(results, removing)


def _remove_tree(parent: OpenFolder, name: str) -> int:
    """Remove a folder with everything in it, however deep; return the bytes of its files.

    Folders in it are moved up and emptied one by one, so that neither descriptors nor recursion run out. Links are
    removed themselves.
    """
    with contextlib.closing(parent.inner(name)) as root:
        size = _empty(root, None)
        while folders := root.names():
            for folder in folders:
                with contextlib.closing(root.inner(folder)) as inner:
                    size += _empty(inner, root)
                root.rmdir(folder)
    parent.rmdir(name)
    return size


def _empty(folder: OpenFolder, root: OpenFolder | None) -> int:
    """Remove the files in a folder, and move the folders in it to `root` if one is given; return the files' bytes."""
    size = 0
    for entry in folder.entries():
        if not entry.is_folder:
            size += entry.size
            folder.unlink(entry.name)
        elif root is not None:
            folder.rename(entry.name, root, uuid.uuid4().hex)
    return size


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, none where there is no folder."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except FileNotFoundError:
        return []


def _size(folder: Path) -> int:
    """Return the bytes of all files below a folder.

    Links count as links; files that vanish meanwhile, or that may not be looked at, do not count.
    """
    size = 0
    folders = [str(folder)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    with contextlib.suppress(OSError):
                        size += entry.stat(follow_symlinks=False).st_size
    return size


def _stored_ms(entry: os.DirEntry[str]) -> int:
    return entry.stat(follow_symlinks=False).st_mtime_ns // 1_000_000


def _text(error: Exception) -> str:
    """Return an error as text that can be sent: a path in it may be no UTF-8."""
    return str(error).encode("utf-8", "backslashreplace").decode()


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
