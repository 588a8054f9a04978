"""Decode messages from workers and route them to the scheduler, the price replays and liveness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

import msgspec

from backtestr_broker.core.algorithms import Algorithms
from backtestr_broker.core.outbox import Outbox
from backtestr_broker.core.requests.price_replay_requests import PriceReplayRequests
from backtestr_broker.core.scheduling.liveness import Liveness
from backtestr_broker.core.scheduling.scheduler import Scheduler
from backtestr_broker.core.scheduling.workers import Worker
from backtestr_protocol import worker_channel
from backtestr_protocol.errors import MessageError, SystemFault, ValidationError
from backtestr_protocol.messages import SeriesInfo
from backtestr_protocol.texts import bounded, bounded_details

from .events import StartSpares, WorkerExited, WorkerStarted

Ended = TypeVar("Ended", worker_channel.Finished, worker_channel.Fetched)


class WorkerMessages:
    """Takes what happens to workers: starts, messages and ends."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        scheduler: Scheduler,
        replays: PriceReplayRequests,
        algorithms: Algorithms,
        liveness: Liveness,
    ) -> None:
        self.liveness = liveness
        self.serving = False  # once a worker of each kind is ready, for good
        self._were_complete = False  # whether all configured workers have been ready
        self.series_at_start: list[SeriesInfo] = []  # the catalogue, as the first interactive worker found it
        self._outbox = outbox
        self._scheduler = scheduler
        self._replays = replays
        self._algorithms = algorithms

    def started(self, event: WorkerStarted, now: float) -> None:
        """Take the start of a worker's process."""
        self._scheduler.workers.start(event.worker_id, event.kind, event.pid, now)
        self.liveness.started(event.worker_id, now)

    def received(self, peer: bytes, frames: list[bytes], now: float) -> None:
        """Take frames from a peer on the engine socket: its proof that it is a worker, and then its messages."""
        worker = self._scheduler.workers.at(peer)
        if worker is None and self._scheduler.workers.was_at(peer):
            return
        try:
            if worker is None:
                self._ready(peer, worker_channel.decode_proof(self._outbox.envelopes.signer, frames), now)
                return
            message, payload = worker_channel.decode_to_broker(frames)
        except MessageError as error:
            if self._outbox.may_report_unreadable(peer):
                about = {} if worker is None else {"workerId": worker.worker_id}
                reason = f"on the engine socket: {error.message}"
                self._outbox.notify("message_refused", code=error.code, reason=reason, **about)
            return
        worker.last_seen = now
        self.liveness.heard(worker.worker_id)
        try:
            self._route(worker, message, payload)
        except ValidationError as error:
            facts = {"code": error.code, "reason": error.message, "workerId": worker.worker_id}
            self._outbox.notify("message_refused", **facts)

    def _route(self, worker: Worker, message: worker_channel.ToBroker, payload: list[bytes]) -> None:
        """Give a message to the machine that it concerns. Raises `ValidationError` for one that does not fit."""
        scheduler, replays = self._scheduler, self._replays
        if type(message) is worker_channel.Published:  # first, and not by `isinstance`: there are many
            (scheduler if message.replay is None else replays).published(worker, message, payload)
            return
        match message:
            case worker_channel.Paused() | worker_channel.Resumed() if worker.kind == "interactive":
                replays.steered(worker, message)
            case worker_channel.Finished(task_id=task_id) if worker.kind == "interactive" and task_id != worker.task_id:
                replays.finished(worker, _with_bounded_error(message))
            case worker_channel.Counted():
                scheduler.counted(worker, message)
            case worker_channel.Fetched():
                scheduler.stream_fetches.answered(worker, _with_bounded_error(message), payload)
            case worker_channel.Paused():
                scheduler.paused(worker, message)
            case worker_channel.Resumed():
                scheduler.resumed(worker, message)
            case worker_channel.Lent():
                scheduler.lent(worker, message)
            case worker_channel.Checkpointed():
                scheduler.checkpointed(worker, message)
            case worker_channel.Continued():
                scheduler.continued(worker, message)
            case worker_channel.CostWorkers():
                scheduler.cost_workers(worker, message)
            case worker_channel.Finished():
                scheduler.finished(worker, _with_bounded_error(message), payload)
            case worker_channel.Ready():
                raise ValidationError(f"{worker.worker_id} is ready already")
            case worker_channel.Beat():
                worker.batching, worker.compression = message.batching, message.compression
                worker.bars_cache = message.bars_cache

    def _ready(self, peer: bytes, message: worker_channel.Ready, now: float) -> None:
        workers = self._scheduler.workers
        worker = self._scheduler.ready(peer, message, now)
        if worker is None:
            reason = f"no worker {message.worker_id[:200]!r} is starting"
            self._outbox.notify("message_refused", code="VALIDATION_ERROR", reason=reason)
            return
        for info in message.algorithms:
            self._algorithms.registered(info)
        self._algorithms.not_loaded(worker.worker_id, message.problems)
        self.liveness.ready(worker.worker_id, message.beat_interval_ms / 1000)
        signal: Literal["worker_ready", "spare_ready"] = "worker_ready" if worker.active else "spare_ready"
        self._outbox.notify(signal, workerId=worker.worker_id, pid=worker.pid, kind=worker.kind)
        if worker.kind == "interactive" and not self.serving:
            self.series_at_start = message.series
        if not self.serving and workers.any_active("compute") and workers.any_active("interactive"):
            self.serving = True
            self._outbox.notify("serving")
        if not self._were_complete and workers.are_complete():
            self._were_complete = True
            self._outbox.add(StartSpares())

    def exited(self, event: WorkerExited, now: float) -> None:
        """Take the end of a worker's process."""
        held = self._scheduler.held_by(event.worker_id)
        leaving = self._scheduler.workers.get(event.worker_id).leaving
        replaced = leaving is not None
        reason = event.reason if leaving is None else f"it was replaced after a task: {leaving}"
        self._outbox.notify("worker_lost", workerId=event.worker_id, reason=reason, held=held)
        next_start = now + event.restart_ms / 1000
        looping = self.liveness.ended(event.worker_id, reason, event.early_deaths, next_start, now, replaced=replaced)
        if looping is not None:
            self._outbox.report(SystemFault(looping))
        self._scheduler.lost(event.worker_id, reason, overdue=event.overdue, killed=event.killed is True)

    def check_liveness(self, cpu_seconds: Mapping[int, float], now: float) -> None:
        """Have workers killed that hang. `cpu_seconds` is what each process has used, by its id."""
        cpu = {one.worker_id: cpu_seconds[one.pid] for one in self._scheduler.workers if one.pid in cpu_seconds}
        for one in self.liveness.check(cpu, now):
            self._outbox.kill(one.worker_id, one.reason)


def _with_bounded_error(message: Ended) -> Ended:
    """Return the message with texts that may be kept and sent on; a worker has bounded them already."""
    error = message.error
    if error is None:
        return message
    kept = msgspec.structs.replace(error, message=bounded(error.message), details=bounded_details(error.details))
    return msgspec.structs.replace(message, error=kept)
