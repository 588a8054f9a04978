"""Delete backtests, on request and by retention: first their records, then their files.

    request or retention ──issue──► on its way to disk ──committed──► files are removed ──removed──► done
                                         │ failed: nothing was deleted

The record of a deletion is on disk before a file is touched, in the same commit that deletes the job. So after a crash
at any moment the backtest is either still there as a whole, or the next broker removes the rest of it. Requests about
what is stored wait for a survey of the files that began after they came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, islice

import msgspec

from backtestr_broker.core.clients.answers import Answer, RequestKey
from backtestr_broker.core.scheduling.jobs import COMPARED
from backtestr_broker.core.scheduling.scheduler import Scheduler
from backtestr_protocol import topics
from backtestr_protocol.codec import encoded_payload
from backtestr_protocol.errors import BacktestrError, Busy, NotFound, StateConflict, SystemFault, unknown
from backtestr_protocol.messages import Contract
from backtestr_protocol.result_messages import MAX_PRUNED, DeletedBacktest

from .commit_queue import DoneDeletions, PendingDeletion
from .events import FilesSurveyed, RemoveResults, ResultsRemoved, SurveyFiles
from .outbox import Outbox
from .records import Change, DeletionDone, DeletionPut, DeletionRecord, JobDeleted
from .retention import DueItem, RetentionRules, due
from .stored_results import StoredResults

# Seconds between two surveys of the files while nothing happens, and from the end of a backtest to the next.
SURVEY_INTERVAL = 60.0
SURVEY_SOON = 5.0
# A survey is followed by a rest of so many times its length, so that requests in a loop do not keep the processor busy,
# and of so many seconds at the most.
SURVEY_REST = 4.0
MAX_REST = 10.0
# Requests that wait for a survey, and backtests that are being deleted: each is more than people make.
MAX_WAITING = 4096
MAX_DELETING = 4 * MAX_PRUNED
# Seconds after which a survey is taken to hang, as one on a network disk may: requests are not kept waiting for it.
SURVEY_PATIENCE = 60.0
# Results that retention deletes at a time, so that requests come in between.
RETENTION_BATCH = 100
# Milliseconds that a client is told to wait before it tries again.
RETRY_AFTER_MS = 100


class _Batch(msgspec.Struct):
    """Backtests that are deleted together; `answer` makes the answer of the bytes that each has freed.

    Retention names its reasons in `due`, for the log.
    """

    backtest_ids: list[str]
    due: Sequence[DueItem] = ()
    request_key: RequestKey | None = None
    answer: Callable[[dict[str, int]], Contract] | None = None


class _Waiting(msgspec.Struct, frozen=True):
    """A request that waits for a survey."""

    request_key: RequestKey
    action: Callable[[], None]
    alone: bool


class Deletions:
    """The backtests that are being deleted, the surveys of the files, and retention."""

    def __init__(self, outbox: Outbox, scheduler: Scheduler, stored: StoredResults, rules: RetentionRules) -> None:
        self.stored = stored
        self.rules = rules
        self._outbox = outbox
        self._scheduler = scheduler
        self._jobs = scheduler.jobs
        self._issued = 0
        self._batches: dict[int, _Batch] = {}
        self._gone: set[str] = set()  # deleted on disk, though files of them may still be there
        self._unremoved: set[str] = set()  # those of them whose files could not be removed
        self._to_start: list[str] = []  # deletions that an earlier broker has not finished
        self._survey_due = outbox.now
        self._surveying = False
        self._survey_began = self._rest_until = 0.0
        self._ended_seen = 0
        self._waiting: list[_Waiting] = []
        self._surveyed_for: list[_Waiting] = []

    def restore(self, deletions: Sequence[DeletionRecord]) -> None:
        """Take over the deletions that an earlier broker has not finished, but for ids that were taken again."""
        self._to_start = [one.backtest_id for one in deletions if one.backtest_id not in self._jobs]
        self._gone.update(self._to_start)
        self._jobs.deleting.update(self._to_start)

    # --- requests ---

    def after_survey(self, request_key: RequestKey, action: Callable[[], None], *, alone: bool = False) -> None:
        """Call `action` once the files are surveyed again; a `BacktestrError` that it raises is the answer.

        Raises `Busy`, for one that works `alone` also while another such waits.
        """
        if alone and any(one.alone for one in (*self._waiting, *self._surveyed_for)):
            raise Busy("another request of this kind is under way", retryAfterMs=RETRY_AFTER_MS)
        if len(self._waiting) + len(self._surveyed_for) >= MAX_WAITING:
            raise Busy(f"{MAX_WAITING} requests wait for the results to be counted", retryAfterMs=RETRY_AFTER_MS)
        self._waiting.append(_Waiting(request_key, action, alone))
        self.survey()

    def check_readable(self, backtest_id: str) -> None:
        """Raise `NotFound` for a backtest that is deleted, though files of it may still be there."""
        if backtest_id in self._gone:
            raise NotFound(f"backtest {backtest_id!r} was deleted", kind="result", name=backtest_id)

    def check_known(self, backtest_id: str) -> None:
        """Raise `NotFound`, naming a near miss, unless there is such a backtest or a result of one.

        Raises `Busy` for one that is being deleted.
        """
        self.check_readable(backtest_id)
        if backtest_id in self._jobs.deleting:
            raise Busy(f"backtest {backtest_id!r} is being deleted", retryAfterMs=RETRY_AFTER_MS)
        if backtest_id not in self._jobs and backtest_id not in self.stored:
            known = chain(
                (job.backtest_id for job in reversed(list(self._jobs))), (one for one, _, _ in self.stored.newest())
            )
            raise unknown("backtest", backtest_id, islice(dict.fromkeys(known), COMPARED))

    def delete(self, backtest_id: str, request_key: RequestKey) -> None:
        """Delete a backtest with its results, then answer the request.

        Raises `NotFound`, `StateConflict` for one that has not ended or is pinned, and `Busy`.
        """
        self.check_known(backtest_id)
        if backtest_id in self._in_use():
            status = self._jobs.get(backtest_id).status if backtest_id in self._jobs else "queued"
            raise StateConflict(
                f"backtest {backtest_id!r} is {status}; stop it (StopBacktest) before it is deleted", status=status
            )
        if self.stored.is_pinned(backtest_id):
            raise StateConflict(f"backtest {backtest_id!r} is pinned; unpin it (PinBacktest) before it is deleted")
        size = self.stored.size(backtest_id)
        remembered = DeletedBacktest(backtest_id=backtest_id, freed_bytes=size)
        answer = self._outbox.remembered(request_key, Answer(encoded_payload("Success", remembered)))
        self._issue(_Batch([backtest_id], request_key=request_key, answer=lambda _freed: remembered), [answer])

    def due(self, rules: RetentionRules) -> list[DueItem]:
        """Return the results that these rules would delete now, the oldest first."""
        return due(self.stored.items(self._in_use()), rules, self._outbox.wall_ms)

    def prune(
        self, items: list[DueItem], request_key: RequestKey, answer: Callable[[dict[str, int]], Contract]
    ) -> None:
        """Delete these results, then answer the request. Raises `Busy`."""
        self._issue(_Batch([one.name for one in items], request_key=request_key, answer=answer))

    def _in_use(self) -> set[str]:
        """Return the backtests that have not ended, and those that are being deleted."""
        active = {job.backtest_id for job in self._jobs if not job.ended}
        return active | set(self._scheduler.accepting()) | self._jobs.deleting

    def _issue(self, batch: _Batch, more: Sequence[Change] = ()) -> None:
        if len(self._jobs.deleting) + len(batch.backtest_ids) > MAX_DELETING:
            raise Busy(f"{len(self._jobs.deleting)} backtests are being deleted", retryAfterMs=RETRY_AFTER_MS)
        changes: list[Change] = [*more]
        for backtest_id in batch.backtest_ids:
            record = DeletionRecord(backtest_id=backtest_id, wall_ms=self._outbox.wall_ms)
            changes += [JobDeleted(backtest_id), DeletionPut(record)]
        self._issued += 1
        self._outbox.submit(changes, PendingDeletion(self._issued))
        self._batches[self._issued] = batch
        self._jobs.deleting.update(batch.backtest_ids)

    # --- what happened ---

    def committed(self, number: int) -> None:
        """Forget the backtests of a batch, whose deletion is on disk now, and have their files removed."""
        batch = self._batches[number]
        for backtest_id in batch.backtest_ids:
            if backtest_id in self._jobs:
                self._jobs.forget(backtest_id)
                for topic in topics.of_backtest(backtest_id):
                    self._outbox.sequencer.drop(topic)
        self._gone.update(batch.backtest_ids)
        for one in batch.due:
            self._outbox.notify("backtest_deleted", backtestId=one.name, bytes=one.size, reason=one.reason)
        self._outbox.add(RemoveResults(number, tuple(batch.backtest_ids)))

    def failed(self, number: int, fault: BacktestrError) -> None:
        """Take back a batch that could not be written: nothing of it is deleted."""
        batch = self._batches.pop(number)
        self._jobs.deleting.difference_update(batch.backtest_ids)
        if batch.request_key is not None:
            self._outbox.answer(batch.request_key, fault)

    def removed(self, event: ResultsRemoved) -> None:
        """Take the removal of a batch's files, and answer the request that waits for it."""
        batch = self._batches.pop(event.batch)
        done = [one for one in batch.backtest_ids if one not in event.failed]
        self._gone.difference_update(done)
        self._unremoved.difference_update(done)
        self._jobs.deleting.difference_update(done)
        self.stored.surveyed({}, done, None)
        if done:
            self._outbox.submit_admitted([DeletionDone(one) for one in done], DoneDeletions())
        fault = self._take_failures(event.failed)
        if batch.request_key is not None and batch.answer is not None:
            self._outbox.answer(batch.request_key, fault or batch.answer(event.freed))
        if done:
            self.survey()

    def _take_failures(self, failed: dict[str, str]) -> SystemFault | None:
        new = failed.keys() - self._unremoved
        self._unremoved |= failed.keys()
        if not failed:
            return None
        backtest_id = min(new or failed)
        fault = SystemFault(
            f"backtest {backtest_id!r} is deleted, but its files could not be removed: {failed[backtest_id]}; this is "
            "tried again every minute and at every start"
        )
        if new:
            self._outbox.report(fault)
        return fault

    # --- surveys and retention ---

    def next_deadline(self) -> float | None:
        """Return the time at which the next survey is due; None while one is under way."""
        return None if self._surveying else self._survey_due

    def on_time(self, now: float) -> None:
        """Begin a survey if one is due, and what an earlier broker left to be removed."""
        if self._to_start:
            self._remove_again(self._to_start)
            self._to_start = []
        if self._jobs.ended_total != self._ended_seen:
            self._ended_seen = self._jobs.ended_total
            self._survey_due = min(self._survey_due, now + SURVEY_SOON)
        if self._surveying and now - self._survey_began > SURVEY_PATIENCE:
            self._give_up_waiting(f"the disk has not answered for {now - self._survey_began:.0f} s")
        elif now >= self._survey_due:
            self.survey()

    def _give_up_waiting(self, problem: str) -> None:
        """Answer what waits for a survey that does not end; the status shows why until it has ended after all."""
        self.stored.problem = problem
        waited = [*self._surveyed_for, *self._waiting]
        self._surveyed_for, self._waiting = [], []
        for one in waited:
            self._outbox.answer(one.request_key, SystemFault(f"the results cannot be counted: {problem}"))

    def survey(self) -> None:
        """Have the files surveyed now, or after a rest if they just were, or once more if that is under way."""
        now = self._outbox.now
        if self._surveying:
            return
        if now < self._rest_until:
            self._survey_due = self._rest_until
        else:
            self._surveying, self._survey_began = True, now
            self._waiting, self._surveyed_for = [], self._waiting
            unended = tuple(job.backtest_id for job in self._jobs if not job.ended)
            self._outbox.add(SurveyFiles(unended, self._outbox.wall_ms))

    def surveyed(self, event: FilesSurveyed, now: float) -> None:
        """Take a survey: answer what waited for it, and delete what is due."""
        self._surveying = False
        rest = min(SURVEY_REST * (now - self._survey_began), MAX_REST)
        self._rest_until, self._survey_due = now + rest, now + SURVEY_INTERVAL
        self.stored.surveyed(event.changed, event.gone, event.usage)
        self.stored.problem = event.problem
        waited, self._surveyed_for = self._surveyed_for, []
        for one in waited:
            try:
                if event.problem is not None:
                    raise SystemFault(f"the results cannot be counted: {event.problem}")
                one.action()
            except BacktestrError as error:
                self._outbox.answer(one.request_key, error)
        if event.problem is None:
            self._retain()
        if self._unremoved and not self._batches:
            self._remove_again(sorted(self._unremoved))
        if self._waiting:
            self.survey()

    def _retain(self) -> None:
        """Delete the results that are due, some at a time, unless a batch is on its way."""
        if self._batches:
            return
        items = self.due(self.rules)[:RETENTION_BATCH]
        if not items:
            return
        try:
            self._issue(_Batch([one.name for one in items], due=items))
        except Busy:
            return  # the next survey comes to it

    def _remove_again(self, backtest_ids: list[str]) -> None:
        self._issued += 1
        self._batches[self._issued] = _Batch(backtest_ids)
        self._outbox.add(RemoveResults(self._issued, tuple(backtest_ids)))

    def waiting_requests(self) -> list[RequestKey]:
        """Return the keys of the requests that wait for a survey or for the end of a deletion."""
        waiting = [one.request_key for one in (*self._waiting, *self._surveyed_for)]
        return waiting + [one.request_key for one in self._batches.values() if one.request_key is not None]

    def check_invariants(self) -> None:
        self.stored.check_invariants()
        deleting = {one for batch in self._batches.values() for one in batch.backtest_ids}
        assert deleting | self._unremoved | set(self._to_start) == self._jobs.deleting
        assert self._gone <= self._jobs.deleting
        assert not [one for one in self._gone if one in self._jobs], "a deleted backtest is known"
        comes = self._surveying or self._survey_due <= self._rest_until
        assert comes or not self._waiting, "a request waits for a survey that does not come"
