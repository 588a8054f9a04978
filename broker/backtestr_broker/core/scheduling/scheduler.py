"""Assign work to workers: jobs to compute workers, interactive tasks to interactive workers.

A compute worker gets one job at a time to compute. A job with a pace, which waits nearly all the time, lends its worker
once it has begun: the worker goes on with it beside the next one. A pause, resume or stop is answered when it has taken
effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import msgspec

from backtestr_broker.core.algorithms import Algorithms
from backtestr_broker.core.clients.answers import RequestKey
from backtestr_broker.core.commit_queue import PendingBacktest
from backtestr_broker.core.outbox import Outbox
from backtestr_broker.core.records import JobPut, JobRecord
from backtestr_protocol import topics, worker_channel
from backtestr_protocol.codec import decode, encoded_payload
from backtestr_protocol.errors import (
    BacktestrError,
    Busy,
    ErrorData,
    MessageError,
    StateConflict,
    SystemFault,
    TimeLimitExceeded,
    ValidationError,
)
from backtestr_protocol.messages import BacktestAccepted, BacktestConfig, BacktestState
from backtestr_protocol.sweep_messages import SweepAccepted
from backtestr_protocol.worker_channel import Action

from .awaited_results import AwaitedResults
from .interactive_tasks import InteractiveTasks
from .jobs import Job, JobEvent, Jobs
from .losses import cost_two, count_loss, go_on, has_lost_too_many, take_checkpoint, too_many
from .publications import count, publish, published_before
from .resuming import Resuming
from .stream_fetches import StreamFetches
from .sweep_scheduling import SweepScheduling
from .task_queue import RETRY_AFTER_MS, TaskQueue
from .workers import Worker, Workers

# Requests that wait for one backtest to pause, resume or stop: more come from a client that repeats itself in a loop.
MAX_WAITING = 256

_config_decoder = msgspec.msgpack.Decoder(BacktestConfig)


class Scheduler:
    """Decides which worker does what next, and takes what workers report of it."""

    def __init__(
        self,
        outbox: Outbox,
        algorithms: Algorithms,
        *,
        replays_lost: Callable[[str, str], None],
        configured: Mapping[worker_channel.WorkerKind, int],
        max_queued_backtests: int,
        max_queued_questions: int,
    ) -> None:
        """Take the number of workers of each kind, and what to call when an interactive worker is lost.

        `replays_lost` is called with the worker id and the reason.
        """
        self.jobs = Jobs()
        self.workers = Workers(configured)
        self._outbox = outbox
        self.algorithms = algorithms
        self._replays_lost = replays_lost
        self._accepting: dict[str, Job] = {}  # accepted once they are on disk; no client sees them before
        self._job_queue = TaskQueue(max_queued_backtests)
        self.interactive = InteractiveTasks(outbox, self.workers, max_queued_questions)
        self.stream_fetches = StreamFetches(outbox, self.jobs, self.workers, self.interactive)
        self.results = AwaitedResults(outbox, self.jobs, self.workers, self.interactive)
        self.sweeping = SweepScheduling(outbox, self.jobs, self.workers, self.interactive, self._assign)
        self._resuming = Resuming()

    @property
    def queued(self) -> int:
        """The number of jobs and interactive tasks that wait for a worker."""
        return len(self._job_queue) + len(self.interactive.queue)

    @property
    def queues(self) -> dict[str, tuple[int, int]]:
        """The number of queued tasks and the bound of each queue, by name."""
        return {
            "backtests": (len(self._job_queue), self._job_queue.bound),
            "questions": (len(self.interactive.queue), self.interactive.queue.bound),
        }

    # --- requests ---

    def start(self, data: bytes, request_key: RequestKey, work: worker_channel.Work = "CheckBacktest") -> None:
        """Have a worker check a backtest's config, which `work` makes of the data, then accept it. Raises `Busy`."""
        accept = self.interactive.answering(work, request_key, partial(self._accept, request_key))
        self.interactive.ask(work, data, request_key, "B", done=accept)

    def started_by(self, request_key: RequestKey) -> BacktestAccepted | SweepAccepted | None:
        """Return the acceptance of the backtest or sweep that this request started, if it did."""
        job = self.jobs.started_by(request_key)
        return self.sweeping.started_by(request_key) if job is None else job.accepted()

    def restore(self, records: Iterable[JobRecord]) -> None:
        """Take over the jobs of an earlier broker: those that had not ended go on, in order of acceptance."""
        self.jobs.restore(records)
        for job in self.jobs:
            self._outbox.create_topics(topics.of_backtest(job.backtest_id))
            if not job.ended:
                to_park, paced = job.requested == "pause", job.pace is not None
                self._job_queue.push_admitted(job.backtest_id, "B", self._owner(job), to_park, paced)

    def check_room(self, client_id: str) -> None:
        """Raise `Busy` when that client could not queue a further backtest."""
        owner = self._outbox.answers.owner_of(client_id)
        own = sum(self._owner(job) == owner for job in self._accepting.values())
        self._job_queue.check_room(owner, len(self._accepting), own)

    def _owner(self, job: Job) -> str:
        """Return the one whose share of the queue the job takes."""
        return self._outbox.answers.owner_of(job.client_id)

    def waiting(self, client_id: str) -> int:
        """Return the number of jobs and interactive tasks that wait for a worker, of that client.

        All clients with one key of the allow-list wait as one.
        """
        owner = self._outbox.answers.owner_of(client_id)
        return self._job_queue.waiting(owner) + self.interactive.queue.waiting(owner)

    def pause(self, job: Job, request_key: RequestKey) -> BacktestAccepted | None:
        """Pause a job: return the answer, or None when it comes later.

        Raises `StateConflict`, and `Busy` when too many are parked.
        """
        self._refuse_ended(job, "paused")
        if job.status == "paused" and not self._is_resuming(job):
            return job.accepted()
        if job.status == "paused" and self._cancel_resume(job):
            self._settle(job, "resume", StateConflict("paused again before it could go on", status=job.status))
            job.requested = None
            return job.accepted()
        has_to_tell = job.status == "running" and job.requested != "pause"
        if job.worker_id is not None:
            self.workers.check_room_to_park(self._worker_of(job), job.backtest_id)
        self._wait(job, "pause", request_key)
        if job.worker_id is not None:
            self._worker_of(job).to_park.add(job.backtest_id)
        if job.status == "queued":
            self._job_queue.set_to_park(job.backtest_id, True)
            self._assign()  # a paced one waited for room to lend, and needs none yet
        if has_to_tell:
            self._control(job, "pause")
        return None

    def resume(self, job: Job, request_key: RequestKey) -> BacktestAccepted | None:
        """Resume a job: return the answer, or None when it comes later. Raises `StateConflict`."""
        self._refuse_ended(job, "resumed")
        if job.status == "queued":
            self._let_run(job)
            self._job_queue.set_to_park(job.backtest_id, False)
            self.jobs.save(job.backtest_id)
            self._assign()
            return job.accepted()
        if job.status == "running" and job.requested != "pause":
            return job.accepted()
        self._wait(job, "resume", request_key)
        if job.status == "paused" and not self._is_resuming(job):
            self._queue_resume(job)
        return None

    def stop(self, job: Job, request_key: RequestKey) -> BacktestAccepted | None:
        """Stop a job: return the answer, or None when it comes later. A job that has ended stays as it is."""
        if job.ended:
            return job.accepted()
        if job.status == "queued":
            self._job_queue.remove(job.backtest_id)
            self._end(job, "stopped")
            return job.accepted()
        has_to_tell = job.requested != "stop"
        self._wait(job, "stop", request_key)
        if has_to_tell:
            self._cancel_resume(job)
            self._control(job, "stop")
        return None

    # --- worker messages: one that does not fit raises `ValidationError` and changes nothing ---

    def ready(self, peer: bytes, message: worker_channel.Ready, now: float) -> Worker | None:
        """Take a worker that is ready, and return it; None for one that was not started."""
        worker = self.workers.ready(message.worker_id, peer, now)
        self._assign()
        return worker

    def published(self, worker: Worker, message: worker_channel.Published, payload: list[bytes]) -> None:
        """Publish what a worker sent: on a topic of a backtest that it has, or prices."""
        publish(self._outbox, self.jobs, worker, message, payload)

    def counted(self, worker: Worker, message: worker_channel.Counted) -> None:
        """Give numbers to what a worker counted instead of sending it, of a backtest that it has."""
        count(self._outbox, self.jobs, worker, message)

    def paused(self, worker: Worker, message: worker_channel.Paused) -> None:
        """Take the pause of a job that its worker has parked."""
        job = self._job_at(worker, message.task_id, "running")
        if job.backtest_id not in worker.to_park and not self.workers.can_park(worker):  # it was not told to
            raise ValidationError(f"{worker.worker_id} paused more backtests than it may hold")
        worker.release(job.backtest_id)
        worker.parked.add(job.backtest_id)
        self._change(job, "paused")
        self._settle(job, "pause", job.accepted())
        if job.requested == "resume":
            self._queue_resume(job)
        elif job.requested == "pause":
            self._settle(job, "resume", StateConflict("paused again before it could go on", status=job.status))
            job.requested = None
        self._assign()

    def resumed(self, worker: Worker, message: worker_channel.Resumed) -> None:
        """Take the resumption of a parked job."""
        job = self._job_at(worker, message.task_id, "paused")
        job.lends = job.backtest_id in worker.lending
        self._change(job, "resumed")
        self._settle(job, "resume", job.accepted())
        if job.requested == "pause":
            self._control(job, "pause")
            return
        worker.to_park.discard(job.backtest_id)  # a pause was taken back before the worker was told of it
        if job.requested == "resume":
            self._let_run(job)
        self._assign()

    def lent(self, worker: Worker, message: worker_channel.Lent) -> None:
        """Take that a paced job has begun, and goes on beside the next task of its worker."""
        job = self._job_at(worker, message.task_id, "running")
        if job.pace is None or job.lends or not self.workers.can_lend(worker):
            raise ValidationError(
                f"{worker.worker_id} was lent by {job.backtest_id}, which has no pace or lends it already"
            )
        worker.task_id = None
        worker.lending.add(job.backtest_id)
        job.lends = True
        self._assign()

    def checkpointed(self, worker: Worker, message: worker_channel.Checkpointed) -> None:
        """Take that a job has a checkpoint."""
        take_checkpoint(self._held_job(worker, message.task_id), message)

    def continued(self, worker: Worker, message: worker_channel.Continued) -> None:
        """Take that a job of an earlier broker goes on from its checkpoint."""
        go_on(self._outbox, self._held_job(worker, message.task_id), message)

    def cost_workers(self, worker: Worker, message: worker_channel.CostWorkers) -> None:
        """Fail a job of which the same bars have ended two workers."""
        job = self._job_at(worker, message.task_id, "running")
        worker.release(job.backtest_id)
        self._fail(job, cost_two(job, message))
        self._assign()

    def finished(self, worker: Worker, message: worker_channel.Finished, payload: list[bytes]) -> None:
        """Take the end of an interactive task or of a job."""
        if not worker.holds(message.task_id):
            raise ValidationError(f"{worker.worker_id} finished {message.task_id[:200]!r}, which it does not hold")
        is_of_sweep = message.task_id == worker.task_id and self.sweeping.has(worker)
        worker.release(message.task_id)
        if worker.kind == "interactive":
            self.interactive.finished(worker, message, payload)
        elif is_of_sweep:
            self.sweeping.finished(worker, message, payload)
        else:
            self._backtest_finished(self.jobs.get(message.task_id), message, payload if message.is_wanted else [])
        if message.is_last:
            worker.leaving = message.reason
            stuck = "it was stuck in a task past its time limit"
            self._lose(worker, message.reason or stuck, overdue=False, blames_others=False)
        else:
            self._assign()

    def held_by(self, worker_id: str) -> list[str]:
        """Return the tasks that the worker works on or has parked."""
        worker = self.workers.get(worker_id)
        return sorted(worker.parked | worker.running)

    def lost(self, worker_id: str, reason: str, *, overdue: bool = False, killed: bool = False) -> None:
        """Take the end of a worker's process: its work goes to another worker, unless it has lost too many.

        Workers that were `killed` from outside may be many. The task it computed fails at once if the worker was ended
        as `overdue`: it would end the next worker as well.
        Backtests that lent the worker are not to blame where it computed a task, and do not count the loss then: code
        of an algorithm runs only before its backtest lends the worker.
        """
        worker = self.workers.get(worker_id)
        self._lose(worker, reason, overdue=overdue, blames_others=worker.task_id is None, killed=killed)

    def _lose(self, worker: Worker, reason: str, *, overdue: bool, blames_others: bool, killed: bool = False) -> None:
        """Take the end of a worker; the loss counts for backtests that lent it if it `blames_others`.

        Those that it had parked did nothing, and do not count it.
        """
        lending = worker.lending
        task_id, others = self.workers.lost(worker.worker_id)
        self._resuming.lost(worker.worker_id)
        if worker.kind == "interactive":
            self.interactive.lost(task_id, reason, overdue=overdue)
            self._replays_lost(worker.worker_id, reason)
        else:
            counts = dict.fromkeys(others, False) | dict.fromkeys(lending, blames_others)
            if task_id is not None and self.sweeping.has(worker):
                self.sweeping.lost(worker.worker_id, reason, killed=killed)
            elif task_id is not None:
                counts[task_id] = True
            self.stream_fetches.lost(worker.worker_id)
            for backtest_id in sorted(counts):
                count_loss(self.jobs.get(backtest_id), reason, counts=counts[backtest_id], killed=killed)
                self._job_lost(self.jobs.get(backtest_id), reason, overdue=overdue and backtest_id == task_id)
        if (spare := self.workers.replace_by_spare(worker.kind)) is not None:
            self._outbox.notify("worker_ready", workerId=spare.worker_id, pid=spare.pid, kind=spare.kind)
        self._assign()

    # --- jobs ---

    def _accept(self, request_key: RequestKey, frames: list[bytes]) -> None:
        """Put a backtest on disk whose config a worker has checked; once there it is queued, and the request answered.

        Raises `Busy`, `StateConflict` and `SystemFault`.
        """
        checked = frames[0]
        try:
            config = decode(_config_decoder, checked)
        except MessageError as error:
            raise SystemFault(f"the check of a backtest gave no BacktestConfig: {error}") from error
        if config.backtest_id is None or config.symbol is None:
            raise SystemFault("the check of a backtest lost its backtestId or its symbol")
        self.check_room(request_key[0])
        self.jobs.check_free(config.backtest_id)
        self.sweeping.check_free(config.backtest_id)
        if config.backtest_id in self._accepting:
            raise StateConflict(f"backtest {config.backtest_id!r} is being started already; choose another backtestId")
        job = Job(
            backtest_id=config.backtest_id,
            algorithm_id=config.algorithm_id,
            symbols=config.symbols or [config.symbol],
            config=checked,
            request_key=request_key,
            submit_time=self._outbox.wall_ms,
        )
        self._outbox.submit([JobPut(job.record())], PendingBacktest(job.backtest_id))
        self._accepting[job.backtest_id] = job

    def accepted(self, backtest_id: str) -> None:
        """Queue a backtest that is on disk now: from here on it is known, and will come to an end."""
        job = self._accepting.pop(backtest_id)
        self.jobs.add(job)
        self._job_queue.push_admitted(backtest_id, "B", self._owner(job), paced=job.pace is not None)
        self._announce(job)
        self._outbox.answer(job.request_key, job.accepted())
        self._assign()

    def not_accepted(self, backtest_id: str, error: BacktestrError) -> None:
        """Refuse a backtest that could not be written to disk: it was never started."""
        self._outbox.answer(self._accepting.pop(backtest_id).request_key, error)

    def _change(self, job: Job, event: JobEvent, error: ErrorData | None = None, results: Sequence[bytes] = ()) -> None:
        self.jobs.change(job, event, self._outbox.wall_ms, error)
        self._announce(job)
        self.results.changed(job, results)

    def _announce(self, job: Job) -> None:
        """Tell of a job's change, and have its record written."""
        if job.status == "queued" and not job.losses:
            self._outbox.create_topics(topics.of_backtest(job.backtest_id))
        if job.error is not None and job.error.code == "ALGORITHM_ERROR":
            self.algorithms.failed(job.algorithm_id, job.error)
        self._outbox.notify("backtest_changed", **job.facts())
        self.jobs.save(job.backtest_id)
        while (forgotten := self.jobs.forget_oldest()) is not None:
            for topic in topics.of_backtest(forgotten.backtest_id):
                self._outbox.sequencer.drop(topic)
        self._outbox.publish(topics.BACKTESTS, encoded_payload("BacktestStatus", job.status_message()))

    def _end(self, job: Job, event: JobEvent, error: ErrorData | None = None, results: Sequence[bytes] = ()) -> None:
        self._change(job, event, error, results)
        waiting, job.waiting = job.waiting, []
        for action, request_key in waiting:
            if action == "stop":
                self._outbox.answer(request_key, job.accepted())
            else:
                conflict = StateConflict(f"the backtest was {job.status} before it could {action}", status=job.status)
                self._outbox.answer(request_key, conflict)

    def _backtest_finished(self, job: Job, message: worker_channel.Finished, results: Sequence[bytes]) -> None:
        self._cancel_resume(job)
        unexplained = message.outcome == "failed" and message.error is None
        if unexplained or (message.outcome == "completed" and job.status == "paused"):
            self._fail(
                job, SystemFault(f"the engine said {message.outcome!r} of the {job.status} backtest {job.backtest_id}")
            )
            return
        if message.outcome == "completed":
            job.progress_percent = 100.0
        self._end(job, message.outcome, message.error if message.outcome == "failed" else None, results)

    def _job_lost(self, job: Job, reason: str, *, overdue: bool) -> None:
        was_paused = job.status == "paused"
        self._change(job, "lost")
        if job.requested == "stop":
            self._end(job, "stopped")
        elif overdue:
            self._fail(job, TimeLimitExceeded(f"the worker of backtest {job.backtest_id} was {reason}"))
        elif has_lost_too_many(job):
            self._fail(job, too_many(job, reason))
        else:
            if job.requested == "resume":
                self._let_run(job)
            elif was_paused:
                job.requested = "pause"
            to_park, paced = job.requested == "pause", job.pace is not None
            self._job_queue.push_front(job.backtest_id, "B", self._owner(job), to_park, paced)

    def _fail(self, job: Job, error: BacktestrError) -> None:
        """End a job as failed, and publish the error on `system.errors`."""
        fault = self._outbox.error_data(error, backtestId=job.backtest_id)
        self._end(job, "failed", fault)
        self._outbox.publish(topics.ERRORS, encoded_payload("Error", fault))

    def _wait(self, job: Job, action: Action, request_key: RequestKey) -> None:
        """Answer the request when `action`, which is now the latest, has taken effect. Raises `Busy`."""
        if len(job.waiting) >= MAX_WAITING:
            raise Busy(f"{MAX_WAITING} requests wait for this backtest already", retryAfterMs=RETRY_AFTER_MS)
        job.waiting.append((action, request_key))
        job.requested = action

    def _let_run(self, job: Job) -> None:
        """Settle the requests of a job that runs, or will without being paused first."""
        job.requested = None
        self._settle(job, "resume", job.accepted())
        self._settle(job, "pause", StateConflict("resumed before it had paused", status=job.status))

    def _settle(self, job: Job, action: Action, result: BacktestAccepted | BacktestrError) -> None:
        """Answer the requests that waited for `action`."""
        settled = [request_key for waited_for, request_key in job.waiting if waited_for == action]
        job.waiting = [(waited_for, request_key) for waited_for, request_key in job.waiting if waited_for != action]
        for request_key in settled:
            self._outbox.answer(request_key, result)

    def _refuse_ended(self, job: Job, verb: str) -> None:
        if job.ended or job.requested == "stop":
            state = job.status if job.ended else "being stopped"
            raise StateConflict(f"a backtest that is {state} cannot be {verb}", status=job.status)

    def _job_at(self, worker: Worker, task_id: str, status: BacktestState) -> Job:
        """Return the job that a worker's message names, if the worker works on it and its status is `status`."""
        job = self._held_job(worker, task_id) if worker.runs(task_id) else None
        if job is not None and job.status == status:
            return job
        raise ValidationError(f"{worker.worker_id} spoke of {task_id[:200]!r}, which it has not {status}")

    def _held_job(self, worker: Worker, task_id: str) -> Job:
        """Return the job that a worker's message names, if the worker has it, parked or not."""
        if worker.kind == "compute" and worker.holds(task_id) and task_id in self.jobs:
            return self.jobs.get(task_id)
        raise ValidationError(f"{worker.worker_id} spoke of {task_id[:200]!r}, which it does not hold")

    def _worker_of(self, job: Job) -> Worker:
        assert job.worker_id is not None
        return self.workers.get(job.worker_id)

    def _control(self, job: Job, action: Action) -> None:
        self._outbox.instruct(self._worker_of(job).peer, worker_channel.Control(task_id=job.backtest_id, action=action))

    # --- resuming: only the worker that has a backtest parked can continue it ---

    def _queue_resume(self, job: Job) -> None:
        assert job.worker_id is not None
        self._resuming.add(job.worker_id, job.backtest_id)
        self._assign()

    def _is_resuming(self, job: Job) -> bool:
        worker = self._worker_of(job)
        return worker.runs(job.backtest_id) or job.backtest_id in self._resuming.of(worker.worker_id)

    def _cancel_resume(self, job: Job) -> bool:
        """Cancel a resume that its worker has not been told of; return false when there is none."""
        if job.worker_id is None or job.backtest_id not in self._resuming.of(job.worker_id):
            return False
        self._resuming.remove(job.worker_id, job.backtest_id)
        return True

    # --- assignment ---

    def _assign(self) -> None:
        self.interactive.assign()
        for worker_id in self._resuming:
            self._continue_parked(self.workers.get(worker_id))
        for worker in self.workers.idle("compute"):
            if not self.sweeping.has_turn() and self._assign_backtest(worker):
                self.sweeping.passed()
            else:
                self.sweeping.assign(worker)
        while len(self._job_queue) and (spare := self.sweeping.swap_in_spare()) is not None:
            self._assign_backtest(spare)  # it holds nothing, so it has room for any

    def _continue_parked(self, worker: Worker) -> None:
        """Continue parked backtests: the first when no other is computed, and paced ones while they may lend it."""
        for backtest_id in self._resuming.of(worker.worker_id):
            if not self._can_continue(worker, job := self.jobs.get(backtest_id)):
                continue
            self._resuming.remove(worker.worker_id, backtest_id)
            worker.release(backtest_id)
            if job.pace is None:
                worker.task_id = backtest_id
            else:
                worker.lending.add(backtest_id)
            self._control(job, "resume")

    def _can_continue(self, worker: Worker, job: Job) -> bool:
        return worker.task_id is None if job.pace is None else self._has_room_to_lend(worker)

    def _has_room_to_lend(self, worker: Worker) -> bool:
        """Return true if one more paced backtest may lend the worker; one that is about to keeps its room."""
        is_kept = (task_id := worker.task_id) in self.jobs and self.jobs.get(task_id or "").pace is not None
        return self.workers.can_lend(worker, kept=int(is_kept))

    def _assign_backtest(self, worker: Worker) -> bool:
        # A job that is to be paused before its first bar goes to a worker that has room to park it.
        next_id = self._job_queue.pop(self.workers.can_park(worker), self.workers.can_lend(worker))
        if next_id is None:
            return False
        job = self.jobs.get(next_id)
        worker.task_id = job.backtest_id
        if job.requested == "pause":
            worker.to_park.add(job.backtest_id)
        job.worker_id = worker.worker_id
        job.unheard = self.stream_fetches.unheard(job)
        assign = worker_channel.Assign(
            task_id=job.backtest_id,
            work="RunBacktest",
            paused=job.requested == "pause",
            resumes=job.begun,
            restored=job.restored,
            unnumbered=job.unnumbered,
            client_id=job.client_id,
            request_id=job.request_key[1],
            published=published_before(self._outbox, job),
            progress_at=job.progress_at.tolist() or None,
            unheard=job.unheard or None,
            losses=job.losses or None,
        )
        job.begun = True
        self._change(job, "started")
        self._outbox.instruct(worker.peer, assign, job.config)
        return True

    def accepting(self) -> list[str]:
        """Return the backtests that are on their way to disk, in that order. No client sees them before."""
        return list(self._accepting)

    def waiting_requests(self) -> list[RequestKey]:
        """Return the keys of the requests that wait for a task, for acceptance, or for a backtest to change."""
        accepting = [job.request_key for job in self._accepting.values()]
        changes = [request_key for job in self.jobs for _, request_key in job.waiting]
        parts = (self.interactive, self.stream_fetches, self.results, self.sweeping)
        return [*(one for part in parts for one in part.waiting_requests()), *accepting, *changes]

    def check_invariants(self) -> None:
        of_all = (self.jobs, self.workers, self._job_queue, self.interactive, self.stream_fetches, self.results)
        for one in (*of_all, self.sweeping):
            one.check_invariants()
        compute = [worker for worker in self.workers if worker.kind == "compute"]
        at_work = {one for worker in compute for one in worker.running if one in self.jobs}
        lending = {backtest_id for worker in self.workers for backtest_id in worker.lending}
        parked = {backtest_id for worker in self.workers for backtest_id in worker.parked}
        running = {job.backtest_id for job in self.jobs if job.status == "running"}
        paused = {job.backtest_id for job in self.jobs if job.status == "paused"}
        assert running <= at_work, f"running without a worker: {running - at_work}"
        assert at_work | parked == running | paused, f"{at_work=} {parked=} {running=} {paused=}"
        assert {job.backtest_id for job in self.jobs if job.lends} == lending & running
        queued = [job for job in self.jobs if job.status == "queued"]
        assert len(queued) == len(self._job_queue), "a queued backtest is not in the queue, or the reverse"
        for job in queued:
            assert self._job_queue.is_to_park(job.backtest_id) == (job.requested == "pause"), (
                f"{job.backtest_id} {job.requested}"
            )
        for job in self.jobs:
            assert len(job.waiting) <= MAX_WAITING
            assert job.requested is not None or not job.waiting, f"a request waits for nothing of {job.backtest_id}"
        for worker_id in self._resuming:
            waiting = self._resuming.of(worker_id)
            able = [one for one in waiting if self._can_continue(self.workers.get(worker_id), self.jobs.get(one))]
            assert not able, f"{worker_id} could continue {able}"
        for worker in self.workers.idle("compute"):
            rooms = {"none": True, "to park": self.workers.can_park(worker), "to lend": self.workers.can_lend(worker)}
            able = [job.backtest_id for job in queued if rooms[self._job_queue.room(job.backtest_id)]]
            assert not able, f"{worker.worker_id} is idle and could run {able}"
        assert not [backtest_id for backtest_id in self._accepting if backtest_id in self.jobs], "accepted twice"
