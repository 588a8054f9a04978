"""Work onto workers: composes jobs, workers and queues, and decides who does what next.

Two kinds of work: questions (market data, results, the check of a backtest before it is accepted) for interactive
workers, and backtests for compute workers. A pause, resume or stop is answered when it has taken effect.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import msgspec

from backtestr_protocol import engine, topics
from backtestr_protocol.codec import encoded_payload
from backtestr_protocol.engine import Work, WorkerKind
from backtestr_protocol.errors import BacktestrError, Busy, ErrorData, StateConflict, SystemFault
from backtestr_protocol.messages import BacktestAccepted, BacktestConfig, Contract, Priority

from .answers import Answer
from .jobs import MAX_LOSSES, Job, JobEvent, Jobs, Waiter, Wish
from .queue import RETRY_AFTER_MS, TaskQueue
from .workers import Worker, Workers


class Outbox(Protocol):
    """What the scheduler makes happen outside itself; the core turns it into effects."""

    def instruct(self, worker: Worker, note: engine.ToWorker, payload: bytes | None = None) -> None: ...
    def answer(self, waiter: Waiter, result: Contract | Answer | BacktestrError | ErrorData) -> None: ...
    def publish(self, topic: str, payload: bytes, count: int = 1) -> None: ...
    def report(self, error: ErrorData) -> None: ...
    def job_changed(self, job: Job) -> None: ...
    def last_seq(self, topic: str) -> int: ...
    def error_data(self, error: BacktestrError) -> ErrorData: ...


class _Question(msgspec.Struct):
    """Work for an interactive worker, and who waits for its answer."""

    work: Work
    data: bytes
    waiter: Waiter
    priority: Priority
    losses: int = 0


class Scheduler:
    def __init__(self, outbox: Outbox, *, max_queued_backtests: int, max_queued_questions: int) -> None:
        self.jobs = Jobs()
        self.workers = Workers()
        self._outbox = outbox
        self._job_queue = TaskQueue(max_queued_backtests)
        self._questions: dict[str, _Question] = {}
        self._question_queue = TaskQueue(max_queued_questions)
        self._asked = 0
        self._resuming: dict[str, deque[str]] = {}  # worker id -> its parked backtests that wait to go on
        self._wall_ms = 0

    @property
    def queued(self) -> int:
        return len(self._job_queue) + len(self._question_queue)

    # --- what clients ask ---

    def ask(self, work: Work, data: bytes, waiter: Waiter, priority: Priority) -> None:
        """Have an interactive worker do `work`. Raises `Busy`."""
        self._asked += 1
        question_id = f"question-{self._asked}"
        self._question_queue.push(question_id, priority)
        self._questions[question_id] = _Question(work, data, waiter, priority)
        self._dispatch()

    def check_room(self) -> None:
        """Raises `Busy` when no further backtest could be queued."""
        self._job_queue.check_room()

    def pause(self, job: Job, waiter: Waiter) -> BacktestAccepted | None:
        """The answer, or None when it comes later. Raises `StateConflict`, and `Busy` when too many are parked."""
        self._refuse_ended(job, "paused")
        if job.status == "paused" and not self._is_resuming(job):
            return job.accepted()
        if job.status == "paused" and self._cancel_resume(job):
            self._settle(job, "resume", StateConflict("paused again before it could go on", status=job.status))
            job.wish = None
            return job.accepted()
        if job.status == "running" and job.wish != "pause":
            worker = self._worker_of(job)
            if not self.workers.can_park(worker):
                raise Busy(
                    f"{worker.worker_id} holds {len(worker.parked)} paused backtests, the most it can; "
                    "resume or stop one of them",
                    retryAfterMs=RETRY_AFTER_MS,
                )
            self._control(job, "pause")
        job.wish = "pause"
        job.waiting.append(("pause", waiter))
        return None

    def resume(self, job: Job, waiter: Waiter) -> BacktestAccepted | None:
        """The answer, or None when it comes later. Raises `StateConflict`."""
        self._refuse_ended(job, "resumed")
        if job.status == "queued":
            if job.wish == "pause":
                job.wish = None
                self._settle(job, "pause", StateConflict("resumed before it had started", status=job.status))
            return job.accepted()
        if job.status == "running" and job.wish != "pause":
            return job.accepted()
        job.waiting.append(("resume", waiter))
        if job.status == "paused" and not self._is_resuming(job):
            self._queue_resume(job)
        job.wish = "resume"
        return None

    def stop(self, job: Job, waiter: Waiter) -> BacktestAccepted | None:
        """The answer, or None when it comes later. A backtest that has ended stays as it is."""
        if job.ended:
            return job.accepted()
        if job.status == "queued":
            self._job_queue.remove(job.backtest_id)
            self._end(job, "stopped")
            return job.accepted()
        job.waiting.append(("stop", waiter))
        if job.wish != "stop":
            self._cancel_resume(job)
            self._control(job, "stop")
        job.wish = "stop"
        return None

    # --- what workers say ---

    def at(self, wall_ms: int) -> None:
        """Wall-clock time of the event at hand, for the time stamps of jobs."""
        self._wall_ms = wall_ms

    def ready(self, peer: bytes, note: engine.Ready, now: float) -> Worker | None:
        """The worker that became ready; None for one that nobody started."""
        worker = self.workers.ready(note.worker_id, peer, now)
        self._dispatch()
        return worker

    def published(self, worker: Worker, note: engine.Published, payload: bytes) -> None:
        self._outbox.publish(note.topic, payload, note.count)
        if note.progress_percent is not None and worker.task_id is not None:
            self.jobs.get(worker.task_id).progress_percent = note.progress_percent

    def paused(self, worker: Worker, note: engine.Paused) -> None:
        if note.task_id != worker.task_id:
            return
        job = self.jobs.get(note.task_id)
        worker.task_id = None
        worker.parked.add(job.backtest_id)
        self._change(job, "paused")
        self._settle(job, "pause", job.accepted())
        if job.wish == "resume":
            self._queue_resume(job)
        elif job.wish == "pause":
            self._settle(job, "resume", StateConflict("paused again before it could go on", status=job.status))
            job.wish = None
        self._dispatch()

    def resumed(self, worker: Worker, note: engine.Resumed) -> None:
        if note.task_id != worker.task_id:
            return
        job = self.jobs.get(note.task_id)
        self._change(job, "resumed")
        self._settle(job, "resume", job.accepted())
        if job.wish == "pause":
            self._control(job, "pause")
        elif job.wish == "resume":
            job.wish = None

    def finished(self, worker: Worker, note: engine.Finished, payload: list[bytes]) -> None:
        """A question or a backtest has ended; what nobody waits for any more is ignored."""
        known = note.task_id == worker.task_id or note.task_id in worker.parked
        if not known:
            return
        if note.task_id == worker.task_id:
            worker.task_id = None
        worker.parked.discard(note.task_id)
        if worker.kind == "interactive":
            self._question_answered(note, payload)
        else:
            job = self.jobs.get(note.task_id)
            self._cancel_resume(job)
            if note.outcome == "completed":
                job.progress_percent = 100.0
            self._end(job, note.outcome, note.error)
        self._dispatch()

    def lost(self, worker_id: str, reason: str) -> None:
        """The worker's process has ended: its work goes to another once, and fails the second time."""
        worker = self.workers.get(worker_id)
        task_id, parked = self.workers.lost(worker_id)
        self._resuming.pop(worker_id, None)
        if worker.kind == "interactive":
            if task_id is not None:
                self._question_lost(task_id, reason)
        else:
            for backtest_id in sorted(parked | ({task_id} if task_id is not None else set())):
                self._job_lost(self.jobs.get(backtest_id), reason)
        self._dispatch()

    # --- jobs ---

    def _accept(self, config: BacktestConfig, waiter: Waiter) -> BacktestAccepted:
        assert config.backtest_id is not None, "the core names every backtest before it is checked"
        self.check_room()
        job = Job(
            backtest_id=config.backtest_id,
            algorithm_id=config.algorithm_id,
            symbol=config.symbol,
            config=msgspec.msgpack.encode(config),
            key=waiter,
            submit_time=self._wall_ms,
        )
        self.jobs.add(job)
        self._job_queue.push(job.backtest_id, "B")
        self._announce(job)
        return job.accepted()

    def _change(self, job: Job, event: JobEvent, error: ErrorData | None = None) -> None:
        self.jobs.change(job, event, self._wall_ms, error)
        self._announce(job)

    def _announce(self, job: Job) -> None:
        self._outbox.job_changed(job)
        self._outbox.publish(topics.BACKTESTS, encoded_payload("BacktestStatus", job.status_message()))

    def _end(self, job: Job, event: JobEvent, error: ErrorData | None = None) -> None:
        self._change(job, event, error)
        waiting, job.waiting = job.waiting, []
        for wish, waiter in waiting:
            if wish == "stop":
                self._outbox.answer(waiter, job.accepted())
            else:
                conflict = StateConflict(f"the backtest was {job.status} before it could {wish}", status=job.status)
                self._outbox.answer(waiter, conflict)

    def _job_lost(self, job: Job, reason: str) -> None:
        was_paused = job.status == "paused"
        stopping = job.wish == "stop"
        self._change(job, "lost")
        if job.losses > MAX_LOSSES:
            fault = self._outbox.error_data(
                SystemFault(f"the worker of backtest {job.backtest_id} ended, for the second time: {reason}")
            )
            self._end(job, "failed", fault)
            self._outbox.report(fault)
        elif stopping:
            self._end(job, "stopped")
        else:
            if was_paused and job.wish is None:
                job.wish = "pause"
            self._job_queue.push_front(job.backtest_id, "B")

    def _settle(self, job: Job, wish: Wish, result: BacktestAccepted | BacktestrError) -> None:
        """Answer those that waited for `wish`."""
        settled = [waiter for wished, waiter in job.waiting if wished == wish]
        job.waiting = [(wished, waiter) for wished, waiter in job.waiting if wished != wish]
        for waiter in settled:
            self._outbox.answer(waiter, result)

    def _refuse_ended(self, job: Job, verb: str) -> None:
        if job.ended or job.wish == "stop":
            state = job.status if job.ended else "being stopped"
            raise StateConflict(f"a backtest that is {state} cannot be {verb}", status=job.status)

    def _worker_of(self, job: Job) -> Worker:
        assert job.worker_id is not None
        return self.workers.get(job.worker_id)

    def _control(self, job: Job, action: engine.Action) -> None:
        self._outbox.instruct(self._worker_of(job), engine.Control(task_id=job.backtest_id, action=action))

    # --- resuming: only the worker that holds a paused backtest can go on with it ---

    def _queue_resume(self, job: Job) -> None:
        assert job.worker_id is not None
        self._resuming.setdefault(job.worker_id, deque()).append(job.backtest_id)
        self._dispatch()

    def _is_resuming(self, job: Job) -> bool:
        worker = self._worker_of(job)
        return worker.task_id == job.backtest_id or job.backtest_id in self._resuming.get(worker.worker_id, ())

    def _cancel_resume(self, job: Job) -> bool:
        """Take back a resume that its worker has not been told of; False when there is none."""
        waiting = self._resuming.get(job.worker_id or "", deque())
        if job.backtest_id not in waiting:
            return False
        waiting.remove(job.backtest_id)
        return True

    # --- questions ---

    def _question_answered(self, note: engine.Finished, payload: list[bytes]) -> None:
        question = self._questions.pop(note.task_id)
        if note.error is not None:
            self._outbox.answer(question.waiter, note.error)
        elif question.work == "CheckBacktest":
            try:
                accepted = self._accept(msgspec.msgpack.decode(payload[0], type=BacktestConfig), question.waiter)
            except BacktestrError as error:
                self._outbox.answer(question.waiter, error)
            else:
                self._outbox.answer(question.waiter, accepted)
        else:
            data, *attachments = payload
            success = encoded_payload("Success", msgspec.Raw(data))
            self._outbox.answer(question.waiter, Answer(success, tuple(attachments)))

    def _question_lost(self, question_id: str, reason: str) -> None:
        question = self._questions[question_id]
        question.losses += 1
        if question.losses > MAX_LOSSES:
            del self._questions[question_id]
            fault = SystemFault(f"the worker that answered {question.work} ended, for the second time: {reason}")
            self._outbox.answer(question.waiter, fault)
        else:
            self._question_queue.push_front(question_id, question.priority)

    # --- who does what next ---

    def _dispatch(self) -> None:
        for worker in self.workers.idle("interactive"):
            if (question_id := self._question_queue.pop()) is None:
                break
            question = self._questions[question_id]
            worker.task_id = question_id
            self._outbox.instruct(worker, engine.Assign(task_id=question_id, work=question.work), question.data)
        for worker in self.workers.idle("compute"):
            self._dispatch_backtest(worker)

    def _dispatch_backtest(self, worker: Worker) -> None:
        if waiting := self._resuming.get(worker.worker_id):
            backtest_id = waiting.popleft()
            worker.parked.discard(backtest_id)
            worker.task_id = backtest_id
            self._control(self.jobs.get(backtest_id), "resume")
            return
        backtest_id_or_none = self._job_queue.pop()
        if backtest_id_or_none is None:
            return
        job = self.jobs.get(backtest_id_or_none)
        worker.task_id = job.backtest_id
        job.worker_id = worker.worker_id
        assign = engine.Assign(
            task_id=job.backtest_id,
            work="RunBacktest",
            paused=job.wish == "pause",
            published={topic: self._outbox.last_seq(topic) for topic in topics.of_backtest(job.backtest_id)},
        )
        self._change(job, "started")
        self._outbox.instruct(worker, assign, job.config)
        if job.wish == "resume":  # asked for while it was parked in a worker that died
            self._settle(job, "resume", job.accepted())
            job.wish = None

    def any_ready(self, kind: WorkerKind) -> bool:
        return self.workers.any_ready(kind)

    def check_invariants(self) -> None:
        self.jobs.check_invariants()
        self.workers.check_invariants()
        self._job_queue.check_invariants()
        self._question_queue.check_invariants()
        at_work = {worker.task_id for worker in self.workers if worker.kind == "compute"} - {None}
        parked = {backtest_id for worker in self.workers for backtest_id in worker.parked}
        running = {job.backtest_id for job in self.jobs if job.status == "running"}
        paused = {job.backtest_id for job in self.jobs if job.status == "paused"}
        assert running <= at_work, f"running without a worker: {running - at_work}"
        assert at_work | parked == running | paused, f"{at_work=} {parked=} {running=} {paused=}"
        queued = sum(job.status == "queued" for job in self.jobs)
        assert queued == len(self._job_queue), "a queued backtest is not in the queue, or the reverse"
