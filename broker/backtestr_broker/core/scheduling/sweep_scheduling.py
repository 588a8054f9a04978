"""Run sweeps: have them checked and accepted, give their blocks to idle compute workers, and take what comes back.

Sweeps are bulk work. A block goes to a worker that no backtest waits for; where backtests never leave one, a block has
its turn after so many of them. A backtest that finds all workers at blocks goes to a spare worker. So it waits for one
block at most, where no spare is ready, and a sweep is never stopped by backtests.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from backtestr_broker.core.clients.answers import RequestKey
from backtestr_broker.core.commit_queue import DoneDeletions, PendingSweep
from backtestr_broker.core.outbox import Outbox
from backtestr_broker.core.records import Change, SweepDeleted, SweepPut, SweepRecord
from backtestr_protocol import topics, worker_channel
from backtestr_protocol.codec import decode, encode, encoded_payload
from backtestr_protocol.errors import BacktestrError, Busy, ErrorData, MessageError, StateConflict, SystemFault
from backtestr_protocol.state_values import checksum
from backtestr_protocol.stream_messages import Column
from backtestr_protocol.sweep_messages import DeletedSweep, StartSweep, SweepAccepted
from backtestr_protocol.sweep_tasks import (
    BlockDone,
    CheckedSweep,
    ProposedBatch,
    SpanDone,
    SurveyedSweep,
    SweepBlock,
    SweepProposal,
    SweepSpan,
    SweepSurvey,
)

from .interactive_tasks import NO_REQUEST, Done, InteractiveTasks, Result
from .jobs import Jobs
from .sweeps import Sweep, SweepEvent, Sweeps, checked_answer
from .task_queue import MAX_PASSED, RETRY_AFTER_MS
from .trial_counts import TrialCounts
from .workers import Worker, Workers

# Workers that may be lost while they propose a batch, before the sweep fails.
MAX_PROPOSALS_LOST = 3

_checked_decoder = msgspec.msgpack.Decoder(CheckedSweep)
_proposed_decoder = msgspec.msgpack.Decoder(ProposedBatch)
_done_decoder = msgspec.msgpack.Decoder(BlockDone)
_span_decoder = msgspec.msgpack.Decoder(SpanDone)
_survey_decoder = msgspec.msgpack.Decoder(SurveyedSweep)
_deleted_decoder = msgspec.msgpack.Decoder(DeletedSweep)


class SweepScheduling:
    """The sweeps, and the compute workers that work on them."""

    def __init__(
        self,
        outbox: Outbox,
        jobs: Jobs,
        workers: Workers,
        interactive: InteractiveTasks,
        assign: Callable[[], None],
    ) -> None:
        """Take the backtests, whose ids are no sweep's, and what assigns work once there is some."""
        self.sweeps = Sweeps()
        self._outbox = outbox
        self._jobs = jobs
        self._assign_all = assign
        self._workers = workers
        self._interactive = interactive
        self.trials = TrialCounts(outbox, interactive, self.sweeps, lambda sweep: self._publish(sweep, {}))
        self.unreadable: list[str] = []  # sweeps of an earlier broker that this one cannot read
        self._starting: dict[str, Sweep] = {}  # accepted once they are on disk; no client sees them before
        self._deleting: set[str] = set()
        self._at: dict[str, str] = {}  # by worker, the sweep that it has a task of
        self._numbered = 0
        self._passed = 0  # backtests assigned since the last block, while a block could have been

    @property
    def compute_workers(self) -> int:
        """The number of workers that could compute blocks."""
        return self._workers.active_of("compute")

    def restore(self, records: list[SweepRecord]) -> None:
        """Take over the sweeps of an earlier broker: those that had not ended go on."""
        self.unreadable = self.sweeps.restore(records)
        self._outbox.create_topics(topics.progress(sweep.sweep_id) for sweep in self.sweeps)

    def report_unreadable(self) -> None:
        """Report the sweeps of an earlier broker that cannot be read, once."""
        for sweep_id in self.unreadable:
            text = f"sweep {sweep_id!r} was written by another version of backtestr, and cannot go on; its rows stay"
            self._outbox.report(SystemFault(text))
        self.unreadable = []

    # --- requests ---

    def start(
        self, data: StartSweep, sweep_id: str, request_key: RequestKey, cluster: str = ""
    ) -> SweepAccepted | None:
        """Have a worker check a sweep, then accept it. The same request again is answered as before.

        `cluster` is the address of the one that computes it; empty for none.

        Raises `StateConflict` for another sweep of that id, and `Busy`.
        """
        asked = checksum(encode(msgspec.structs.replace(data, sweep_id=sweep_id)))
        if not data.dry_run:
            if sweep_id in self.sweeps and (known := self.sweeps.get(sweep_id)).asked == asked:
                return known.accepted(self.compute_workers)
            self._jobs.check_free(sweep_id)  # they share the topics of progress
            self.check_free(sweep_id)
            self.sweeps.check_room(len(self._starting))
        accept = partial(self._accept, data.dry_run, sweep_id, asked, request_key)
        done = self._interactive.answering("CheckSweep", request_key, accept)
        asked_of_worker = msgspec.structs.replace(data, scheduler=cluster)
        self._interactive.ask("CheckSweep", encode(asked_of_worker), request_key, "B", done=done)
        return None

    def check_free(self, sweep_id: str) -> None:
        """Raise `StateConflict` where a sweep has that id."""
        if sweep_id in self.sweeps or sweep_id in self._starting:
            status = self.sweeps.get(sweep_id).status if sweep_id in self.sweeps else "queued"
            raise StateConflict(
                f"a sweep {sweep_id!r} exists that is another; choose another id, or leave it out", status=status
            )

    def _accept(
        self, dry_run: bool, sweep_id: str, asked: str, request_key: RequestKey, frames: list[bytes]
    ) -> SweepAccepted | None:
        """Put a checked sweep on disk; once there it is queued, and the request answered."""
        try:
            checked = decode(_checked_decoder, frames[0])
        except MessageError as error:
            raise SystemFault(f"the check of a sweep gave no CheckedSweep: {error}") from error
        if dry_run:
            return checked_answer(checked, self.compute_workers)
        self._jobs.check_free(sweep_id)
        self.check_free(sweep_id)
        self.sweeps.check_room(len(self._starting))
        sweep = Sweep(sweep_id, checked, request_key, asked, self._outbox.wall_ms)
        self._outbox.submit([SweepPut(sweep.record())], PendingSweep(sweep_id))
        self._starting[sweep_id] = sweep
        return None

    def accepted(self, sweep_id: str) -> None:
        """Queue a sweep that is on disk now."""
        sweep = self._starting.pop(sweep_id)
        self.sweeps.add(sweep)
        self._outbox.create_topics([topics.progress(sweep_id)])
        self._announce(sweep)
        self._outbox.answer(sweep.request_key, sweep.accepted(self.compute_workers))
        self._assign_all()

    def started_by(self, request_key: RequestKey) -> SweepAccepted | None:
        """Return the acceptance of the sweep that this request started, if it did."""
        sweep = self.sweeps.started_by(request_key)
        return None if sweep is None else sweep.accepted(self.compute_workers)

    def not_accepted(self, sweep_id: str, error: BacktestrError) -> None:
        """Refuse a sweep that could not be written to disk: it was never started."""
        self._outbox.answer(self._starting.pop(sweep_id).request_key, error)

    def pause(self, sweep: Sweep, request_key: RequestKey) -> None:
        """Give out no further block of it; those being computed still count. Raises `StateConflict` and `Busy`."""
        self._steer(sweep, None if sweep.status == "paused" else "paused", request_key)

    def resume(self, sweep: Sweep, request_key: RequestKey) -> None:
        """Let it go on, also after a failure. Raises `StateConflict` and `Busy`."""
        self._steer(sweep, None if sweep.status in ("queued", "running") else "resumed", request_key)

    def stop(self, sweep: Sweep, request_key: RequestKey) -> None:
        """End it early; its rows stay. One that has ended stays as it is. Raises `Busy`."""
        self._steer(sweep, None if sweep.ended else "stopped", request_key)

    def _steer(self, sweep: Sweep, event: SweepEvent | None, request_key: RequestKey) -> None:
        """Change a sweep, and answer once the change is on disk."""
        self._outbox.commit_queue.check_room()
        if sweep.sweep_id in self._deleting:
            raise StateConflict(f"sweep {sweep.sweep_id!r} is being deleted", status=sweep.status)
        if event is not None:
            self._change(sweep, event)
        self._outbox.answer_durably(request_key, sweep.accepted(self.compute_workers), [SweepPut(sweep.record())])
        self.trials.settle(sweep)
        self._assign_all()

    def delete(self, sweep: Sweep, request_key: RequestKey) -> None:
        """Remove the rows of a sweep that has ended, then its record, and answer. Raises `StateConflict` and `Busy`."""
        if not sweep.ended:
            raise StateConflict(
                f"sweep {sweep.sweep_id!r} is {sweep.status}; stop it (StopSweep) before it is deleted",
                status=sweep.status,
            )
        if self.is_busy(sweep):
            raise Busy(
                f"a worker is just ending its last task of sweep {sweep.sweep_id!r}, or it is being deleted already",
                retryAfterMs=RETRY_AFTER_MS,
            )

        def removed(frames: list[bytes]) -> None:
            answer = decode(_deleted_decoder, frames[0])
            deleted: list[Change] = [SweepDeleted(sweep.sweep_id)]
            self._outbox.answer_durably(request_key, answer, deleted)
            self._forget(sweep)

        self._remove(sweep, request_key, self._interactive.answering("DeleteSweep", request_key, removed))

    def is_busy(self, sweep: Sweep) -> bool:
        """Return true while a worker has a task of a sweep, or it is being deleted: then nobody may forget it."""
        return sweep.is_at_work or sweep.sweep_id in self._deleting

    def retire(self, sweep: Sweep, retired: Callable[[BacktestrError | ErrorData | None], None]) -> None:
        """Remove an ended sweep that no request is about; `retired` gets the error, if any. Raises `Busy`."""

        def done(_worker: Worker | None, result: Result) -> None:
            if not isinstance(result, list):
                retired(result)
                return
            self._outbox.submit_admitted([SweepDeleted(sweep.sweep_id)], DoneDeletions())
            self._forget(sweep)
            retired(None)

        self._remove(sweep, NO_REQUEST, done)

    def _forget(self, sweep: Sweep) -> None:
        self.sweeps.forget(sweep.sweep_id)
        self._outbox.sequencer.drop(topics.progress(sweep.sweep_id))

    def _remove(self, sweep: Sweep, request_key: RequestKey, then: Done) -> None:
        """Have a worker remove the rows of a sweep, then call `then`. Raises `Busy`."""

        def done(worker: Worker | None, result: Result) -> None:
            self._deleting.discard(sweep.sweep_id)
            then(worker, result)

        self._deleting.add(sweep.sweep_id)
        try:
            data = encode({"sweepId": sweep.sweep_id})
            self._interactive.ask("DeleteSweep", data, request_key, "B", done=done)
        except Busy:
            self._deleting.discard(sweep.sweep_id)
            raise

    # --- assignment ---

    def has_turn(self) -> bool:
        """Return true if a block goes ahead of the next backtest: so many of them were assigned meanwhile."""
        return self._passed >= MAX_PASSED and self.sweeps.has_work()

    def passed(self) -> None:
        """Count a backtest that was assigned; it passed a block if there is one."""
        self._passed = self._passed + 1 if self.sweeps.has_work() else 0

    def swap_in_spare(self) -> Worker | None:
        """Return a spare that is active now in place of a worker at a block, which ends that block; None without one.

        So a backtest that finds all workers at blocks waits for none of them.
        """
        spare = self._workers.swap_in_spare("compute", self.has)
        if spare is not None:
            self.passed()
        return spare

    def assign(self, worker: Worker) -> bool:
        """Give an idle compute worker a task of a sweep; return false where there is none."""
        sweep = self.sweeps.next()
        if sweep is None:
            return False
        self._passed = 0
        self._numbered += 1
        if sweep.status == "queued":
            self._change(sweep, "started")
        worker.task_id = f"sweep:{sweep.sweep_id}:{self._numbered}"  # no backtest has such an id
        self._at[worker.worker_id] = sweep.sweep_id
        client_id, request_id = sweep.request_key
        work, data = self._task(sweep, worker)
        assign = worker_channel.Assign(task_id=worker.task_id, work=work, client_id=client_id, request_id=request_id)
        self._outbox.instruct(worker.peer, assign, data)
        return True

    def _task(self, sweep: Sweep, worker: Worker) -> tuple[worker_channel.Work, bytes]:
        if not sweep.is_surveyed:
            sweep.surveyor = worker.worker_id
            return "SurveySweep", encode(SweepSurvey(sweep_id=sweep.sweep_id, checked=sweep.checked))
        if not sweep.blocks.has_left():
            batch = sweep.blocks.next_batch()
            assert batch is not None
            sweep.proposer = worker.worker_id
            return "ProposeBatch", encode(SweepProposal(sweep_id=sweep.sweep_id, checked=sweep.checked, batch=batch))
        block = sweep.blocks.take(worker.worker_id)
        if sweep.scheduler is not None and block.reason is None:
            return "RunSpan", encode(
                SweepSpan(
                    sweep_id=sweep.sweep_id,
                    checked=sweep.checked,
                    first=block.first,
                    count=block.count,
                    stride=sweep.stride,
                    unit_seconds=sweep.blocks.unit_seconds,
                    is_measured=sweep.blocks.is_measured,
                )
            )
        return "RunBlock", encode(
            SweepBlock(
                sweep_id=sweep.sweep_id,
                checked=sweep.checked,
                first=block.first,
                count=block.count,
                stride=sweep.stride,
                limit_ms=sweep.blocks.limit_ms(block),
                reason=block.reason,
            )
        )

    # --- what comes back ---

    def has(self, worker: Worker) -> bool:
        """Return true if the worker's task is one of a sweep."""
        return worker.worker_id in self._at

    def finished(self, worker: Worker, message: worker_channel.Finished, payload: list[bytes]) -> None:
        """Take the end of a block or of a survey. A block that ends its worker counts as lost."""
        sweep = self.sweeps.get(self._at[worker.worker_id])
        error = message.error
        if error is not None and message.is_last and message.reason is None and sweep.surveyor is None:
            self.lost(worker.worker_id, error.message, killed=False)  # it did not come back in time
            return
        del self._at[worker.worker_id]
        cells_done: dict[str, Column] = {}
        span: SpanDone | None = None
        try:
            if error is None and sweep.surveyor == worker.worker_id:
                sweep.surveyed(decode(_survey_decoder, payload[0]))
            elif error is None and sweep.proposer == worker.worker_id:
                sweep.take_proposed(decode(_proposed_decoder, payload[0]).proposed)
            elif error is None and sweep.is_at_span(worker.worker_id):
                span = decode(_span_decoder, payload[0])
                sweep.span_done(worker.worker_id, span, self._outbox.now)
                cells_done = span.cells_done
            elif error is None:
                done = decode(_done_decoder, payload[0])
                sweep.block_done(worker.worker_id, done, self._outbox.now)
                cells_done = done.cells_done
        except (MessageError, IndexError) as problem:
            error = self._outbox.error_data(SystemFault(f"a worker's answer is no part of a sweep: {problem}"))
        if error is not None:
            sweep.worker_gone(worker.worker_id)
            self._failed(sweep, error)
        elif span is not None and span.problem is not None and sweep.status in ("queued", "running"):
            self._halted(sweep, span, span.problem)
        elif sweep.is_done and not sweep.ended:
            self._change(sweep, "completed", cells_done=cells_done)
        else:
            self._publish(sweep, cells_done)
        self.trials.settle(sweep)

    def lost(self, worker_id: str, reason: str, *, killed: bool) -> None:
        """Take the loss of a worker that had a task of a sweep."""
        sweep = self.sweeps.get(self._at.pop(worker_id))
        sweep.worker_gone(worker_id, reason, killed=killed)
        if sweep.proposals_lost >= MAX_PROPOSALS_LOST:
            sweep.proposals_lost = 0
            text = f"{MAX_PROPOSALS_LOST} workers were lost while they proposed the next trials of the sweep: {reason}"
            self._failed(sweep, self._outbox.error_data(SystemFault(f"{text}; resume it (ResumeSweep) to try again")))
        self._publish(sweep, {})
        self.trials.settle(sweep)

    def _halted(self, sweep: Sweep, span: SpanDone, problem: ErrorData) -> None:
        """Let a sweep wait until it is resumed, as when its cluster was lost, or fail it; what is on disk counts."""
        if not span.pauses:
            self._failed(sweep, problem)
            return
        self._change(sweep, "paused", problem, span.cells_done)
        self._outbox.publish(topics.ERRORS, encoded_payload("Error", problem))

    def _failed(self, sweep: Sweep, error: ErrorData) -> None:
        """End a sweep whose block failed as a whole; what is on disk stays, and it can be resumed."""
        if sweep.ended:
            return
        self._change(sweep, "failed", error)
        self._outbox.publish(topics.ERRORS, encoded_payload("Error", error))

    def _change(
        self,
        sweep: Sweep,
        event: SweepEvent,
        error: ErrorData | None = None,
        cells_done: dict[str, Column] | None = None,
    ) -> None:
        self.sweeps.change(sweep, event, self._outbox.wall_ms, error)
        self._announce(sweep, cells_done)

    def _announce(self, sweep: Sweep, cells_done: dict[str, Column] | None = None) -> None:
        self._outbox.notify("sweep_changed", **sweep.facts())
        self._publish(sweep, cells_done or {})

    def _publish(self, sweep: Sweep, cells_done: dict[str, Column]) -> None:
        message = sweep.progress(self._outbox.now, self.compute_workers, cells_done)
        self._outbox.publish(topics.progress(sweep.sweep_id), encoded_payload("SweepProgress", message))

    def starting(self) -> list[str]:
        """Return the sweeps that are on their way to disk, in that order."""
        return list(self._starting)

    def waiting_requests(self) -> list[RequestKey]:
        """Return the keys of the requests whose sweeps are on their way to disk."""
        return [sweep.request_key for sweep in self._starting.values()]

    def check_invariants(self) -> None:
        self.sweeps.check_invariants()
        assert not [sweep_id for sweep_id in self._starting if sweep_id in self.sweeps], "accepted twice"
        for worker_id, sweep_id in self._at.items():
            assert sweep_id in self.sweeps, f"{worker_id} is at a task of {sweep_id}, which was deleted"
            task_id = self._workers.get(worker_id).task_id
            assert task_id is not None
            assert task_id.startswith(f"sweep:{sweep_id}:")
        for worker in self._workers:
            assert worker.active or worker.task_id is None or self.has(worker), "a spare works at what is no sweep"
        at_blocks = {worker_id for sweep in self.sweeps for worker_id in sweep.blocks.in_flight}
        others = {worker_id for sweep in self.sweeps for worker_id in (sweep.surveyor, sweep.proposer)} - {None}
        assert at_blocks | others == self._at.keys(), "a block is computed by no worker, or a worker has none"
        assert not (self._workers.idle("compute") and self.sweeps.has_work()), "a block waits though a worker is idle"
