"""Requests for results that wait for the end of a backtest which a worker computes now.

The worker is told of the first one, and makes its answer while it stores the result: so the answer comes with the end,
and needs no interactive worker. Others that wait for the same are given the same, and those that wait for something
else are read from the stored result. When the backtest is not computed any more, for whatever reason, all are answered.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from backtestr_broker.core.clients.answers import RequestKey
from backtestr_broker.core.outbox import Outbox
from backtestr_protocol.codec import encode
from backtestr_protocol.message_types import REQUESTS
from backtestr_protocol.messages import BacktestResults, GetBacktestResults
from backtestr_protocol.worker_channel import Wanted

from .interactive_tasks import InteractiveTasks, forwarded
from .jobs import Job, Jobs
from .workers import Workers

# Requests that wait for the end of one backtest; further ones are answered at once.
MAX_WAITING = 64


class _Awaited(msgspec.Struct):
    """The requests that wait for one backtest, each with the time until which it waits.

    `told` is the request that its worker knows: the first, which may have been answered meanwhile.
    """

    told: GetBacktestResults
    waiting: list[tuple[RequestKey, GetBacktestResults, float]] = []


class AwaitedResults:
    """The requests that wait for the ends of backtests."""

    def __init__(self, outbox: Outbox, jobs: Jobs, workers: Workers, interactive: InteractiveTasks) -> None:
        self._outbox = outbox
        self._jobs = jobs
        self._workers = workers
        self._interactive = interactive
        self._awaited: dict[str, _Awaited] = {}  # by backtest id

    def ask(self, job: Job, data: GetBacktestResults, request_key: RequestKey) -> BacktestResults | None:
        """Return the answer for a job that has no results yet, or None where it comes later."""
        if not data.wait_ms or job.status != "running" or job.pace is not None:
            return job.without_results()
        awaited = self._awaited.get(job.backtest_id)
        if awaited is None:
            assert job.worker_id is not None
            awaited = self._awaited[job.backtest_id] = _Awaited(data)
            wanted = Wanted(task_id=job.backtest_id)
            self._outbox.instruct(self._workers.get(job.worker_id).peer, wanted, encode(data))
        elif len(awaited.waiting) >= MAX_WAITING:
            return job.without_results()
        awaited.waiting.append((request_key, data, self._outbox.now + data.wait_ms / 1000))
        return None

    def changed(self, job: Job, frames: Sequence[bytes]) -> None:
        """Answer the requests that wait for a job if it is computed no more; `frames` are what its worker answers."""
        if job.status == "running" or (awaited := self._awaited.pop(job.backtest_id, None)) is None:
            return
        for request_key, data, _ in awaited.waiting:
            if not job.has_results:
                self._outbox.answer(request_key, job.without_results())
            elif frames and (data.tables, data.mapped) == (awaited.told.tables, awaited.told.mapped):
                self._outbox.answer(request_key, forwarded(list(frames)))
            else:
                priority = REQUESTS["GetBacktestResults"].priority
                self._interactive.ask("GetBacktestResults", encode(data), request_key, priority, admitted=True)

    def on_time(self, now: float) -> None:
        """Answer the requests that have waited as long as they would."""
        for backtest_id, awaited in self._awaited.items():
            for request_key, _, until in awaited.waiting:
                if until <= now:
                    self._outbox.answer(request_key, self._jobs.get(backtest_id).without_results())
            awaited.waiting = [one for one in awaited.waiting if one[2] > now]

    def waiting_requests(self) -> list[RequestKey]:
        """Return the keys of the requests that wait for the end of a backtest."""
        return [request_key for awaited in self._awaited.values() for request_key, _, _ in awaited.waiting]

    def check_invariants(self) -> None:
        for backtest_id, awaited in self._awaited.items():
            assert self._jobs.get(backtest_id).status == "running", f"a request waits for {backtest_id}"
            assert len(awaited.waiting) <= MAX_WAITING
