"""A fake of the storage thread and its database has committed changes, waiting changes and faults.

It commits at once unless it is `held`, and fails while it is `full`. `restored` returns its records.
"""

from __future__ import annotations

from collections import deque

from backtestr_broker.core.events import CommitFailed, Committed, FilesSurveyed, Persist, RemoveResults, ResultsRemoved
from backtestr_broker.core.records import (
    AnswerPut,
    AnswerRecord,
    Change,
    DeletionDone,
    DeletionPut,
    DeletionRecord,
    JobDeleted,
    JobPut,
    JobRecord,
    PinDeleted,
    PinPut,
    PinRecord,
    Restored,
    StatePut,
    StateRecord,
    SweepDeleted,
    SweepPut,
    SweepRecord,
)
from backtestr_protocol.result_messages import DiskUsage


class Disk:
    def __init__(self) -> None:
        self.jobs: dict[str, JobRecord] = {}  # in the order of their first commit
        self.answers: dict[tuple[str, str], AnswerRecord] = {}
        self.state: dict[str, StateRecord] = {}
        self.pins: dict[str, PinRecord] = {}
        self.deletions: dict[str, DeletionRecord] = {}
        self.sweeps: dict[str, SweepRecord] = {}
        self.sweep_bytes: dict[str, int] = {}
        self.files: dict[str, tuple[int, int]] = {}  # stored results: bytes, and when they were stored
        self.stuck: set[str] = set()  # results whose files cannot be removed
        self._surveyed: dict[str, tuple[int, int]] = {}
        self.held = False
        self.full = False
        self.waiting: deque[Persist] = deque()
        self.commits = 0
        self.moved_aside: str | None = None
        self._failed_generation = -1

    def submit(self, persist: Persist) -> None:
        self.waiting.append(persist)

    def write(self, count: int, wall_ms: int) -> Committed | CommitFailed | None:
        """Commit the first `count` waiting changes as one transaction, and return the report; None without a change."""
        batch = [self.waiting.popleft() for _ in range(min(count, len(self.waiting)))]
        valid = [persist for persist in batch if persist.generation > self._failed_generation]
        if not valid:
            return None
        assert len({persist.generation for persist in valid}) == 1, "a change that builds on a failed one was written"
        if self.full:
            self._failed_generation = valid[-1].generation
            return CommitFailed(self._failed_generation, "database or disk is full", wall_ms)
        for persist in valid:
            for change in persist.changes:
                self._apply(change)
        self.commits += 1
        return Committed(valid[-1].ticket, wall_ms)

    def _apply(self, change: Change) -> None:
        match change:
            case JobPut(record):
                self.jobs[record.backtest_id] = record
                self.deletions.pop(record.backtest_id, None)
            case JobDeleted(backtest_id):
                self.jobs.pop(backtest_id, None)
            case AnswerPut(record):
                self.answers[record.client_id, record.request_id] = record
            case StatePut(record):
                self.state[record.key] = record
            case PinPut(record):
                self.pins[record.backtest_id] = record
            case PinDeleted(backtest_id):
                self.pins.pop(backtest_id, None)
            case DeletionPut(record):
                self.deletions[record.backtest_id] = record
            case DeletionDone(backtest_id):
                self.deletions.pop(backtest_id, None)
            case SweepPut(record):
                self.sweeps[record.sweep_id] = record
            case SweepDeleted(sweep_id):
                self.sweeps.pop(sweep_id, None)

    def survey(self, wall_ms: int) -> FilesSurveyed:
        """Return what has changed of the stored results since the last survey."""
        before, self._surveyed = self._surveyed, dict(self.files)
        changed = {name: one for name, one in self.files.items() if before.get(name) != one}
        usage = DiskUsage(
            results=len(self.files),
            results_bytes=sum(size for size, _ in self.files.values()),
            recordings_bytes=0,
            database_bytes=4096,
            damaged_bytes=0,
            catalogue_bytes=0,
            free_bytes=1 << 30,
            measured_time=wall_ms,
        )
        gone = [name for name in before if name not in self.files]
        return FilesSurveyed(changed, gone, usage, None, wall_ms, dict(self.sweep_bytes))

    def remove(self, order: RemoveResults, wall_ms: int) -> ResultsRemoved:
        """Remove stored results, but for those that are `stuck`."""
        failed = {one: "Permission denied" for one in order.backtest_ids if one in self.stuck}
        removed = [one for one in order.backtest_ids if one not in failed]
        freed = {one: self.files.pop(one, (0, 0))[0] for one in removed}
        for one in removed:
            self._surveyed.pop(one, None)
        return ResultsRemoved(order.batch, freed, failed, wall_ms)

    def lose_power(self) -> None:
        """Lose every change that was not committed."""
        self.waiting.clear()
        self._failed_generation = -1
        self._surveyed.clear()

    def restored(self, wall_ms: int) -> Restored:
        answers = sorted(self.answers.values(), key=lambda one: one.wall_ms)
        return Restored(
            wall_ms=wall_ms,
            jobs=list(self.jobs.values()),
            answers=answers,
            state=sorted(self.state.values(), key=lambda one: one.revision),
            pins=list(self.pins.values()),
            deletions=list(self.deletions.values()),
            sweeps=list(self.sweeps.values()),
            moved_aside=self.moved_aside,
        )
