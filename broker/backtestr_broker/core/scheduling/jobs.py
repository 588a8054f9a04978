"""Keep the jobs: backtests from acceptance on. Everything that can change a job's status is in this file.

    queued ──started──► running ──paused──► paused
      ▲  │                 │ ◄──resumed─────  │
      │  └──stopped/failed─┼──────────────────┤
      └────────lost────────┴──────────────────┤
                           ▼                  ▼
                completed | failed | stopped  (final)

`lost` is the loss of the worker: the job goes back to the queue, and fails if it was lost too often (`losses.py`). Work
is exact, so the next worker goes on from the last checkpoint, and continues the streams where they were.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal

import msgspec

from backtestr_broker.core.clients.answers import RequestKey
from backtestr_broker.core.records import JobRecord
from backtestr_protocol.errors import ErrorData, StateConflict, unknown
from backtestr_protocol.messages import FINAL_STATES, BacktestAccepted, BacktestResults, BacktestState, BacktestStatus
from backtestr_protocol.worker_channel import Action

JobEvent = Literal["started", "paused", "resumed", "completed", "failed", "stopped", "lost"]

TRANSITIONS: dict[tuple[BacktestState, JobEvent], BacktestState] = {
    ("queued", "started"): "running",
    ("queued", "stopped"): "stopped",
    ("queued", "failed"): "failed",
    ("running", "paused"): "paused",
    ("running", "completed"): "completed",
    ("running", "failed"): "failed",
    ("running", "stopped"): "stopped",
    ("running", "lost"): "queued",
    ("paused", "resumed"): "running",
    ("paused", "failed"): "failed",
    ("paused", "stopped"): "stopped",
    ("paused", "lost"): "queued",
}

# Ended backtests that are still listed, and whose streams can still be repaired; results on disk stay by `[retention]`.
MAX_ENDED = 1000
# Workers that a job may lose without a further checkpoint between before it fails, if they end by themselves: it may be
# the job that ends them. And those that are killed besides: by somebody, or by the system for want of memory.
MAX_LOSSES = 9
MAX_KILLED = 99


class _Options(msgspec.Struct, frozen=True):
    pace: float | None = None


class _Configured(msgspec.Struct, frozen=True):
    options: _Options = _Options()


_configured = msgspec.msgpack.Decoder(_Configured)

# Names that a wrong one is compared with, the newest: comparing with thousands of UUIDs would take half a second.
COMPARED = 50


class Job:
    """One backtest, from its acceptance on. Times in milliseconds since the Unix epoch."""

    __slots__ = (
        "algorithm_id",
        "backtest_id",
        "bars_stored",
        "begun",
        "config",
        "end_time",
        "error",
        "killed",
        "lends",
        "losses",
        "lost_reason",
        "pace",
        "prices_published",
        "progress_at",
        "progress_percent",
        "request_key",
        "requested",
        "restored",
        "start_time",
        "status",
        "submit_time",
        "symbols",
        "unheard",
        "unnumbered",
        "waiting",
        "worker_id",
    )

    def __init__(
        self,
        *,
        backtest_id: str,
        algorithm_id: str,
        symbols: list[str],
        config: bytes,
        request_key: RequestKey,
        submit_time: int,
    ) -> None:
        self.backtest_id = backtest_id
        self.algorithm_id = algorithm_id
        self.symbols = symbols  # at least one
        self.config = config  # MessagePack of the BacktestConfig, as the worker gets it
        self.pace = pace_of(config)
        self.lends = False  # it runs, and its worker takes other tasks meanwhile
        self.request_key = request_key  # a duplicate of StartBacktest has the same
        self.submit_time = submit_time
        self.start_time: int | None = None
        self.end_time: int | None = None
        self.status: BacktestState = "queued"
        self.progress_percent = 0.0
        self.error: ErrorData | None = None
        self.worker_id: str | None = None
        self.begun = False  # a worker had it before
        self.killed = 0  # of the lost workers, those that were killed from outside
        self.losses = 0  # of workers, since the last checkpoint that was further on
        self.lost_reason: str | None = None  # the end of the last of them
        self.bars_stored = -1  # in its checkpoint, as far as workers have told; 0 are the signals alone
        self.unnumbered = False  # an earlier broker may have published, and nothing was since
        self.progress_at = array("q")  # the bars at which its worker has made progress; another makes it there again
        self.unheard: list[str] = []  # those of its topics that its worker knows to be without a subscriber
        self.prices_published: dict[str, int] = {}  # by topic, which it shares with others
        self.restored = False  # an earlier broker accepted it, and may have completed it
        self.requested: Action | None = None  # the latest action that has not taken effect
        self.waiting: list[tuple[Action, RequestKey]] = []

    @property
    def client_id(self) -> str:
        """The client that started the job."""
        return self.request_key[0]

    @property
    def ended(self) -> bool:
        """True once the status is final."""
        return self.status in FINAL_STATES

    @property
    def has_results(self) -> bool:
        """True if a worker stored results: a job that was stopped in the queue has none."""
        return self.status in ("completed", "stopped") and self.start_time is not None

    def accepted(self) -> BacktestAccepted:
        """Return the answer to requests that start or change the job."""
        return BacktestAccepted(backtest_id=self.backtest_id, status=self.status)

    def facts(self) -> dict[str, str]:
        """Return what the log has: the ids by which a job is followed through all programs, and why it failed."""
        client_id, request_id = self.request_key
        facts = {"backtestId": self.backtest_id, "status": self.status, "clientId": client_id, "requestId": request_id}
        if self.worker_id is not None:
            facts["workerId"] = self.worker_id
        if self.error is not None:
            facts |= {"code": self.error.code, "message": self.error.message}
        return facts

    def without_results(self) -> BacktestResults:
        """Return the answer to a request for its results before it has any."""
        config = msgspec.msgpack.decode(self.config)
        return BacktestResults(backtest_id=self.backtest_id, status=self.status, config=config, metrics=None, tables=[])

    def record(self) -> JobRecord:
        """Return the job's record on disk."""
        return JobRecord(
            backtest_id=self.backtest_id,
            client_id=self.request_key[0],
            request_id=self.request_key[1],
            algorithm_id=self.algorithm_id,
            symbols=self.symbols,
            config=self.config,
            submit_time=self.submit_time,
            start_time=self.start_time,
            end_time=self.end_time,
            status=self.status,
            progress_percent=self.progress_percent,
            error=self.error,
            losses=self.losses,
            to_pause=not self.ended and (self.status == "paused" or self.requested == "pause"),
        )

    def status_message(self) -> BacktestStatus:
        """Return the status as clients get it."""
        return BacktestStatus(
            backtest_id=self.backtest_id,
            status=self.status,
            algorithm_id=self.algorithm_id,
            symbol=self.symbols[0],
            symbols=self.symbols if len(self.symbols) > 1 else [],
            progress_percent=self.progress_percent,
            submit_time=self.submit_time,
            start_time=self.start_time,
            end_time=self.end_time,
            error=self.error,
            pace=self.pace,
            lends=self.lends,
        )


def pace_of(config: bytes) -> float | None:
    """Return the pace in an encoded BacktestConfig, in bars a second; None where it has none, or cannot be read."""
    try:
        return _configured.decode(config).options.pace
    except msgspec.MsgspecError:
        return None


def restored_job(record: JobRecord) -> Job:
    """Return the job of an earlier broker; one that had not ended goes on from its checkpoint, if it has one."""
    job = Job(
        backtest_id=record.backtest_id,
        algorithm_id=record.algorithm_id,
        symbols=record.symbols,
        config=record.config,
        request_key=(record.client_id, record.request_id),
        submit_time=record.submit_time,
    )
    job.losses = record.losses
    job.restored = job.begun = job.unnumbered = True
    if record.status in FINAL_STATES:
        job.status = record.status
        job.start_time, job.end_time = record.start_time, record.end_time
        job.progress_percent = record.progress_percent
        job.error = record.error
    elif record.to_pause:
        job.requested = "pause"
    return job


class Jobs:
    """All jobs that are known, in the order in which they were accepted."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._by_request_key: dict[RequestKey, str] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self.ended_total = 0  # of the jobs that have ended since the broker's start
        self.deleting: set[str] = set()  # ids that no job may take: their records or files are being deleted
        self.unsaved: dict[str, None] = {}  # backtests whose records on disk are not what they are in memory

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def __contains__(self, backtest_id: str | None) -> bool:
        return backtest_id in self._jobs

    def check_free(self, backtest_id: str) -> None:
        """Raise `StateConflict` when a job of that id is known, or is being deleted."""
        if backtest_id in self.deleting:
            raise StateConflict(f"backtest {backtest_id!r} is being deleted; choose another backtestId, or wait")
        if backtest_id in self._jobs:
            raise StateConflict(
                f"backtest {backtest_id!r} exists; choose another backtestId, or leave it out",
                status=self._jobs[backtest_id].status,
            )

    def add(self, job: Job) -> None:
        """Add a job. Raises `StateConflict` when one of its id is known."""
        self.check_free(job.backtest_id)
        self._jobs[job.backtest_id] = job
        self._by_request_key[job.request_key] = job.backtest_id

    def restore(self, records: Iterable[JobRecord]) -> None:
        """Add the jobs of an earlier broker, in the order of their acceptance."""
        for record in records:
            self.add(restored_job(record))
        ended = [job for job in self if job.ended]
        for job in sorted(ended, key=lambda job: job.end_time or 0):
            self._ended[job.backtest_id] = None

    def get(self, backtest_id: str) -> Job:
        """Return a job. Raises `NotFound`, naming a near miss."""
        job = self._jobs.get(backtest_id)
        if job is None:
            raise unknown("backtest", backtest_id, islice(reversed(self._jobs), COMPARED))
        return job

    def started_by(self, request_key: RequestKey) -> Job | None:
        """Return the job that this request started, if it did."""
        backtest_id = self._by_request_key.get(request_key)
        return self._jobs[backtest_id] if backtest_id is not None else None

    def change(self, job: Job, event: JobEvent, wall_ms: int, error: ErrorData | None = None) -> None:
        """Move `job` along the table above. Raises `StateConflict` where the table has no such arrow."""
        following = TRANSITIONS.get((job.status, event))
        if following is None:
            raise StateConflict(f"a backtest that is {job.status} cannot be {event}", status=job.status)
        job.status = following
        job.lends = job.lends and event == "resumed"
        if event == "started":
            job.start_time = wall_ms
        elif event == "lost":
            job.restored = False
            job.worker_id = job.start_time = None
        if job.ended:
            job.end_time = wall_ms
            job.error = error
            job.worker_id = None
            job.requested = None
            job.progress_at = array("q")
            self._ended[job.backtest_id] = None
            self.ended_total += 1

    def forget_oldest(self) -> Job | None:
        """Remove and return the job that ended first, when more have ended than are kept."""
        if len(self._ended) <= MAX_ENDED:
            return None
        return self.forget(next(iter(self._ended)))

    def forget(self, backtest_id: str) -> Job:
        """Remove and return a job that has ended."""
        del self._ended[backtest_id]
        job = self._jobs.pop(backtest_id)
        del self._by_request_key[job.request_key]
        self.save(backtest_id)
        return job

    def save(self, backtest_id: str) -> None:
        """Have a backtest's record written, as it is when the disk comes to it."""
        self.unsaved[backtest_id] = None

    def active_algorithms(self) -> Iterator[str]:
        """Yield the algorithm id of every job that has not ended."""
        return (job.algorithm_id for job in self if not job.ended)

    def check_invariants(self) -> None:
        assert len(self._by_request_key) == len(self._jobs)
        assert set(self._ended) == {job.backtest_id for job in self if job.ended}
        for backtest_id, job in self._jobs.items():
            assert job.backtest_id == backtest_id
            assert job.ended == (job.end_time is not None)
            assert not (job.ended and job.waiting), f"{backtest_id} has ended and a request still waits"
            assert (job.worker_id is not None) == (job.status in ("running", "paused")), f"{backtest_id} {job.status}"
            assert not (job.lends and job.status != "running"), f"{backtest_id} lends its worker and is {job.status}"
            assert job.killed <= job.losses <= MAX_LOSSES + MAX_KILLED + 1
