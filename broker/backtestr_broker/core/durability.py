"""Answer, queue and publish what has to be on disk first, and write the records that no request waits for.

The records of jobs that start and end are written without a request that waits: after a crash the result on disk, or
another simulation from the start, tells the same.
"""

from __future__ import annotations

from typing import assert_never

from backtestr_broker.core.clients.answers import Answer, RequestKey
from backtestr_broker.core.scheduling.scheduler import Scheduler
from backtestr_protocol import topics
from backtestr_protocol.codec import encoded_payload
from backtestr_protocol.errors import BacktestrError, DiskUnwritable
from backtestr_protocol.messages import Contract

from .commit_queue import (
    DoneDeletions,
    PendingAnswer,
    PendingBacktest,
    PendingDeletion,
    PendingPin,
    PendingState,
    PendingSweep,
    SavedJobs,
)
from .deletions import Deletions
from .outbox import Outbox, failure
from .records import Change, JobDeleted, JobPut, StatePut, StateRecord, SweepPut
from .shared_state import SharedState, update_message

# Seconds after which records that could not be written are tried again, though no request waits for them.
SAVE_RETRY = 1.0


class Durability:
    """Releases what waited for the commit queue, and writes the records of jobs that have changed."""

    def __init__(self, outbox: Outbox, scheduler: Scheduler, state: SharedState, deletions: Deletions) -> None:
        self._outbox = outbox
        self._commit_queue = outbox.commit_queue
        self._scheduler = scheduler
        self._jobs = scheduler.jobs
        self._sweeps = scheduler.sweeping.sweeps
        self._state = state
        self._deletions = deletions
        self._saving = False
        self._save_due = 0.0

    # --- what has to be on disk first ---

    def check_room(self, size: int = 0) -> None:
        """Raise `Busy` when no change of that size may be issued now."""
        self._commit_queue.check_room(size)

    def change_state(self, request_key: RequestKey, result: Contract, record: StateRecord) -> None:
        """Write a change of shared state that is on its way, then publish and answer it.

        It is not refused for lack of room: see `check_room`.
        """
        answer = Answer(encoded_payload("Success", result))
        changes: list[Change] = [StatePut(record), self._outbox.remembered(request_key, answer)]
        self._outbox.submit_admitted(changes, PendingState(request_key, answer, record))

    def refuse_in_turn(self, request_key: RequestKey, error: BacktestrError) -> None:
        """Refuse a running request once everything that is on its way is on disk: the refusal rests on that.

        Raises `Busy`.
        """
        refusal = failure(self._outbox.error_data(error))
        if not self._commit_queue.wait(PendingAnswer(request_key, refusal)):
            self._outbox.answer(request_key, refusal)

    # --- what is written without a request that waits for it ---

    def next_deadline(self) -> float | None:
        """Return the time at which `save` is due again, if it is."""
        return self._save_due if self._has_unsaved() and not self._saving else None

    def _has_unsaved(self) -> bool:
        return bool(self._jobs.unsaved or self._sweeps.unsaved)

    def save(self, now: float) -> None:
        """Write the jobs and sweeps that have changed, one batch after the other so that changes in between add up."""
        if self._saving or not self._has_unsaved() or now < self._save_due:
            return
        jobs, starting = self._jobs, set(self._scheduler.accepting())
        unsaved, jobs.unsaved = tuple(jobs.unsaved), {}
        # An id that was forgotten and is taken again has its new record on the way already.
        changes: list[Change] = [
            JobPut(jobs.get(one).record()) if one in jobs else JobDeleted(one) for one in unsaved if one not in starting
        ]
        sweeps, self._sweeps.unsaved = tuple(self._sweeps.unsaved), {}
        changes += [SweepPut(self._sweeps.get(one).record()) for one in sweeps]
        self._saving = True
        self._outbox.submit_admitted(changes, SavedJobs(unsaved, sweeps))

    # --- reports of the storage thread ---

    def committed(self, ticket: int) -> None:
        """Release what waited for the tickets up to that one: they are on disk."""
        for pending in self._commit_queue.committed(ticket):
            match pending:
                case PendingBacktest(backtest_id):
                    self._scheduler.accepted(backtest_id)
                case PendingSweep(sweep_id):
                    self._scheduler.sweeping.accepted(sweep_id)
                case PendingAnswer(request_key, answer):
                    self._outbox.answer(request_key, answer)
                case PendingState(request_key, answer, record):
                    self._state.commit(record)
                    self._outbox.publish(
                        topics.state(record.key), encoded_payload("StateUpdate", update_message(record))
                    )
                    self._outbox.answer(request_key, answer)
                case SavedJobs():
                    self._saving = False
                case PendingPin(request_key, answer, backtest_id, pinned):
                    self._deletions.stored.pin(backtest_id, pinned)
                    self._outbox.answer(request_key, answer)
                case PendingDeletion(batch):
                    self._deletions.committed(batch)
                case DoneDeletions():
                    pass
                case _:
                    assert_never(pending)

    def failed(self, generation: int, reason: str, now: float) -> None:
        """Release what waited for that generation: nothing of it will get to disk.

        The clients that wait may try again, and learn whether there is room by then.
        """
        fault = DiskUnwritable(
            f"the broker could not write its database to the disk, and has changed nothing: {reason}"
        )
        failed_before = self._commit_queue.fails
        released = self._commit_queue.failed(generation)
        if released:
            self._state.roll_back()
            if not failed_before:
                self._outbox.report(fault)
        for pending in released:
            match pending:
                case PendingBacktest(backtest_id):
                    self._scheduler.not_accepted(backtest_id, fault)
                case PendingSweep(sweep_id):
                    self._scheduler.sweeping.not_accepted(sweep_id, fault)
                case PendingAnswer(request_key) | PendingState(request_key):
                    self._outbox.answer(request_key, fault)
                case PendingPin(request_key, _, backtest_id):
                    self._deletions.stored.end_pin(backtest_id)
                    self._outbox.answer(request_key, fault)
                case PendingDeletion(batch):
                    self._deletions.failed(batch, fault)
                case DoneDeletions():
                    pass
                case SavedJobs(backtest_ids, sweep_ids):
                    self._saving = False
                    self._save_due = now + SAVE_RETRY
                    known = (one for one in sweep_ids if one in self._sweeps)
                    self._sweeps.unsaved = dict.fromkeys([*known, *self._sweeps.unsaved])
                    self._jobs.unsaved = dict.fromkeys([*backtest_ids, *self._jobs.unsaved])
                case _:
                    assert_never(pending)

    def check_invariants(self) -> None:
        pending = self._commit_queue.pending()
        assert any(isinstance(one, SavedJobs) for one in pending) == self._saving
        changes = [one.record for one in pending if isinstance(one, PendingState)]
        assert changes == self._state.on_its_way(), "a change is on its way and its record is not, or reversed"
        backtests = [one.backtest_id for one in pending if isinstance(one, PendingBacktest)]
        assert backtests == self._scheduler.accepting(), "a backtest waits for a record that is not on its way"
        sweeps = [one.sweep_id for one in pending if isinstance(one, PendingSweep)]
        assert sweeps == self._scheduler.sweeping.starting(), "a sweep waits for a record that is not on its way"
