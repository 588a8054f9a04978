"""What is answered, queued or published only once it is on disk, and what of the rest is written there.

Composes the ledger with the machines that wait for it. The records of backtests that run and end are written too, but
nobody waits for those: after a crash their result on disk, or another run from the start, tells the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, assert_never

from backtestr_broker.core.clients.idempotency import Answer, RequestKey
from backtestr_broker.core.scheduling.scheduler import Scheduler
from backtestr_protocol.codec import encoded_payload
from backtestr_protocol.errors import BacktestrError, ErrorData, SystemFault
from backtestr_protocol.messages import Contract

from .commit_queue import CommitQueue, Pending, PendingAnswer, PendingBacktest, PendingState, SavedJobs
from .events import Persist
from .records import AnswerPut, AnswerRecord, Change, JobDeleted, JobPut, StatePut, StateRecord
from .shared_state import SharedState

# Seconds after which what could not be written is tried again, though nobody waits for it.
SAVE_RETRY = 1.0


class Desk(Protocol):
    """What happens when something is on disk, or cannot be."""

    scheduler: Scheduler
    state: SharedState
    wall_ms: int

    def answer(self, request_key: RequestKey, result: Contract | Answer | BacktestrError | ErrorData) -> None: ...
    def report(self, error: BacktestrError) -> None: ...
    def error_data(self, error: BacktestrError, **about: str) -> ErrorData: ...
    def state_changed(self, record: StateRecord) -> None: ...
    def send_to_disk(self, persist: Persist) -> None: ...


class Durability:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._ledger = CommitQueue()
        self._unsaved: dict[str, None] = {}  # backtests whose records on disk are not what they are in memory
        self._saving = False
        self._save_due = 0.0
        self.fails = False  # the last commit did

    # --- what has to be on disk first ---

    def persist(self, changes: Sequence[Change], held: Pending) -> None:
        """Write `changes`, all or none, and release `held` when they are on disk. Raises `Busy`."""
        self._ledger.check_room(sum(change.size for change in changes))
        self._desk.send_to_disk(self._ledger.issue(changes, held))

    def check_room(self, size: int = 0) -> None:
        """Raises `Busy` when no change of that size may be issued now."""
        self._ledger.check_room(size)

    def answer(self, request_key: RequestKey, result: Contract, changes: Sequence[Change] = ()) -> None:
        """Answer a running request once `changes` and the answer are on disk, so that it is not executed again even by
        a later broker. Raises `Busy`."""
        answer, remembered = self._to_remember(request_key, result)
        self.persist([*changes, remembered], PendingAnswer(request_key, answer))

    def change_state(self, request_key: RequestKey, result: Contract, record: StateRecord) -> None:
        """The same for a change of shared state that is on its way, so that it is not refused: see `check_room`."""
        answer, remembered = self._to_remember(request_key, result)
        persist = self._ledger.issue([StatePut(record), remembered], PendingState(request_key, answer, record))
        self._desk.send_to_disk(persist)

    def refuse_in_turn(self, request_key: RequestKey, error: BacktestrError) -> None:
        """Refuse a running request once everything that is on its way is on disk: the refusal rests on that. Raises
        `Busy`."""
        refusal = Answer(encoded_payload("Failure", self._desk.error_data(error)))
        if not self._ledger.wait(PendingAnswer(request_key, refusal)):
            self._desk.answer(request_key, refusal)

    def _to_remember(self, request_key: RequestKey, result: Contract) -> tuple[Answer, AnswerPut]:
        answer = Answer(encoded_payload("Success", result))
        client_id, request_id = request_key
        record = AnswerRecord(
            client_id=client_id, request_id=request_id, payload=answer.payload, wall_ms=self._desk.wall_ms
        )
        return answer, AnswerPut(record)

    # --- what is written without anybody waiting ---

    def save_job(self, backtest_id: str) -> None:
        """Have a backtest's record written, as it is when the disk comes to it."""
        self._unsaved[backtest_id] = None

    def next_deadline(self) -> float | None:
        return self._save_due if self._unsaved and not self._saving else None

    def save(self, now: float) -> None:
        """Write what has changed, one batch after the other so that changes in between add up."""
        if not self._unsaved or self._saving or now < self._save_due:
            return
        unsaved, self._unsaved = tuple(self._unsaved), {}
        jobs = self._desk.scheduler.jobs
        changes = [JobPut(jobs.get(one).record()) if one in jobs else JobDeleted(one) for one in unsaved]
        self._saving = True
        self._desk.send_to_disk(self._ledger.issue(changes, SavedJobs(unsaved)))

    # --- what the storage thread says ---

    def committed(self, ticket: int) -> None:
        """Everything up to that ticket is on disk."""
        self.fails = False
        for held in self._ledger.committed(ticket):
            match held:
                case PendingBacktest(backtest_id):
                    self._desk.scheduler.accepted(backtest_id)
                case PendingAnswer(request_key, answer):
                    self._desk.answer(request_key, answer)
                case PendingState(request_key, answer, record):
                    self._desk.state.commit(record)
                    self._desk.state_changed(record)
                    self._desk.answer(request_key, answer)
                case SavedJobs():
                    self._saving = False
                case _:
                    assert_never(held)

    def failed(self, generation: int, reason: str, now: float) -> None:
        """Nothing of that generation will get to disk. Whoever waits may try again, and finds out whether there is room
        by then."""
        fault = SystemFault(f"the broker could not write to its disk: {reason}")
        released = self._ledger.failed(generation)
        if released:
            self._desk.state.roll_back()
        if released and not self.fails:
            self.fails = True
            self._desk.report(fault)
        for held in released:
            match held:
                case PendingBacktest(backtest_id):
                    self._desk.scheduler.not_accepted(backtest_id, fault)
                case PendingAnswer(request_key) | PendingState(request_key):
                    self._desk.answer(request_key, fault)
                case SavedJobs(backtest_ids):
                    self._saving = False
                    self._save_due = now + SAVE_RETRY
                    self._unsaved = dict.fromkeys([*backtest_ids, *self._unsaved])
                case _:
                    assert_never(held)

    def check_invariants(self) -> None:
        self._ledger.check_invariants()
        assert len(self._ledger) or not self._saving
