"""A fake of the storage thread and its database has committed changes, waiting changes and faults.

It commits at once unless it is `held`, and fails while it is `full`. `restored` returns its records.
"""

from __future__ import annotations

from collections import deque

from backtestr_broker.core.events import CommitFailed, Committed, Persist
from backtestr_broker.core.records import (
    AnswerPut,
    AnswerRecord,
    Change,
    JobDeleted,
    JobPut,
    JobRecord,
    Restored,
    StatePut,
    StateRecord,
)


class Disk:
    def __init__(self) -> None:
        self.jobs: dict[str, JobRecord] = {}  # in the order of their first commit
        self.answers: dict[tuple[str, str], AnswerRecord] = {}
        self.state: dict[str, StateRecord] = {}
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
            case JobDeleted(backtest_id):
                self.jobs.pop(backtest_id, None)
            case AnswerPut(record):
                self.answers[record.client_id, record.request_id] = record
            case StatePut(record):
                self.state[record.key] = record

    def lose_power(self) -> None:
        """Lose every change that was not committed."""
        self.waiting.clear()
        self._failed_generation = -1

    def restored(self, wall_ms: int) -> Restored:
        answers = sorted(self.answers.values(), key=lambda one: one.wall_ms)
        return Restored(
            wall_ms=wall_ms,
            jobs=list(self.jobs.values()),
            answers=answers,
            state=sorted(self.state.values(), key=lambda one: one.revision),
            moved_aside=self.moved_aside,
        )
