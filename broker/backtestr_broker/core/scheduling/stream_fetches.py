"""Answer FetchMissed of a backtest's orders, positions and progress beyond what their rings retain.

The worker that holds the backtest makes these messages again; once the backtest has ended, an interactive worker does
so from its stored result. A worker is also told which of these topics no subscriber holds: it counts their messages
instead of sending them.
"""

from __future__ import annotations

import msgspec

from backtestr_broker.core.clients.answers import Answer, RequestKey
from backtestr_broker.core.outbox import Outbox
from backtestr_protocol import topics
from backtestr_protocol.codec import encode, encoded_payload
from backtestr_protocol.errors import BacktestrError, Busy, ErrorData, SystemFault, ValidationError
from backtestr_protocol.message_types import REQUESTS
from backtestr_protocol.messages import FetchMissed, Missed
from backtestr_protocol.worker_channel import Fetch, Fetched, Unheard

from .interactive_tasks import InteractiveTasks, Result, forwarded
from .jobs import Job, Jobs
from .task_queue import RETRY_AFTER_MS
from .workers import Worker, Workers

# Fetches that wait for one worker: some milliseconds of its time each, between two chunks of its backtest.
MAX_WAITING = 64


class _Fetch(msgspec.Struct, frozen=True):
    worker_id: str
    request_key: RequestKey
    data: FetchMissed


class StreamFetches:
    """The fetches that wait for the worker of a backtest, and what workers know of the topics' listeners."""

    def __init__(self, outbox: Outbox, jobs: Jobs, workers: Workers, interactive: InteractiveTasks) -> None:
        self._outbox = outbox
        self._jobs = jobs
        self._workers = workers
        self._interactive = interactive
        self._waiting: dict[int, _Fetch] = {}
        self._asked = 0
        self._changes = 0  # of the listeners, of which workers were told

    # --- fetches ---

    def fetch(self, data: FetchMissed, request_key: RequestKey) -> Missed | None:
        """Return the answer from the topic's ring, or None where a worker makes it.

        Raises `NotFound` for an unknown topic, `ValidationError` for a range that ends before it begins, and `Busy`.
        """
        job = self._job_of(data)
        if job is None or not self._is_in_log(job, data):
            return self._from_ring(data, has_all=job is not None and (not job.ended or job.has_results))
        if data.to_seq is not None and data.to_seq < data.from_seq:
            raise ValidationError(f"$.toSeq: {data.to_seq}, expected at least fromSeq, {data.from_seq}", path="$.toSeq")
        if job.worker_id is not None:
            self._ask_worker(self._workers.get(job.worker_id), job, data, request_key)
        elif job.has_results:
            self._ask_for_stored(data, request_key)
        else:
            raise Busy("the worker of this backtest was lost; ask again", retryAfterMs=RETRY_AFTER_MS)
        self._outbox.counters.fetched(data.topic)
        return None

    def _job_of(self, data: FetchMissed) -> Job | None:
        backtest_id = topics.backtest_of(data.topic)
        return self._jobs.get(backtest_id) if backtest_id is not None and backtest_id in self._jobs else None

    def _is_in_log(self, job: Job, data: FetchMissed) -> bool:
        """Return true if some worker has, or will have, messages that the ring does not retain."""
        sequencer = self._outbox.sequencer
        if job.has_results and not sequencer.last_seq(data.topic):  # it was published by an earlier broker
            return True
        if data.from_seq > sequencer.last_seq(data.topic) or data.from_seq >= sequencer.oldest_seq(data.topic):
            return False
        return not job.ended or job.has_results

    def _from_ring(self, data: FetchMissed, *, has_all: bool = False) -> Missed:
        """Return the answer from the ring; where a worker `has_all` messages, none is too old to be fetched."""
        missed = self._outbox.sequencer.fetch(data.topic, data.from_seq, data.to_seq)
        if has_all:
            missed = msgspec.structs.replace(missed, oldest_seq=1)
        self._outbox.counters.fetched(data.topic, missed)
        return missed

    def _ask_worker(self, worker: Worker, job: Job, data: FetchMissed, request_key: RequestKey) -> None:
        if sum(one.worker_id == worker.worker_id for one in self._waiting.values()) >= MAX_WAITING:
            raise Busy(f"{MAX_WAITING} fetches wait for this backtest's worker", retryAfterMs=RETRY_AFTER_MS)
        self._asked += 1
        self._waiting[self._asked] = _Fetch(worker.worker_id, request_key, data)
        last = self._outbox.sequencer.last_seq(data.topic)
        fetch = Fetch(
            task_id=job.backtest_id,
            fetch_id=self._asked,
            topic=data.topic,
            from_seq=data.from_seq,
            to_seq=last if data.to_seq is None else min(data.to_seq, last),
        )
        self._outbox.instruct(worker.peer, fetch)

    def _ask_for_stored(self, data: FetchMissed, request_key: RequestKey) -> None:
        forward = self._interactive.answering("FetchMissed", request_key, forwarded)

        def done(worker: Worker | None, result: Result) -> None:
            code = result.code if isinstance(result, ErrorData | BacktestrError) else None
            if code == "NOT_FOUND":  # a result of an earlier version, or one that was deleted
                self._answer_from_ring(data, request_key)
            else:
                forward(worker, result)

        self._interactive.ask("FetchMissed", encode(data), request_key, REQUESTS["FetchMissed"].priority, done=done)

    def _answer_from_ring(self, data: FetchMissed, request_key: RequestKey) -> None:
        try:
            self._outbox.answer(request_key, self._from_ring(data))
        except BacktestrError as error:
            self._outbox.answer(request_key, error)

    def answered(self, worker: Worker, message: Fetched, payload: list[bytes]) -> None:
        """Pass on a worker's answer as it is. Raises `ValidationError` for one that it was not asked for."""
        fetch = self._waiting.get(message.fetch_id)
        if fetch is None or fetch.worker_id != worker.worker_id:
            raise ValidationError(f"{worker.worker_id} answered fetch {message.fetch_id}, which it was not asked")
        del self._waiting[message.fetch_id]
        if message.error is not None:
            self._outbox.answer(fetch.request_key, message.error)
        elif payload:
            self._outbox.answer(fetch.request_key, Answer(encoded_payload("Success", msgspec.Raw(payload[0]))))
        else:
            self._ask_again(fetch)

    def _ask_again(self, fetch: _Fetch) -> None:
        """Answer a fetch that came to its worker when the backtest had ended there."""
        job = self._job_of(fetch.data)
        try:
            if job is not None and job.worker_id == fetch.worker_id:
                raise SystemFault(f"{fetch.worker_id} does not hold {job.backtest_id}, which it was assigned")
            answer = self.fetch(fetch.data, fetch.request_key)
        except BacktestrError as error:
            self._outbox.answer(fetch.request_key, error)
        else:
            if answer is not None:
                self._outbox.answer(fetch.request_key, answer)

    def lost(self, worker_id: str) -> None:
        """Refuse the fetches that waited for a worker that was lost; a later try finds the next one."""
        for fetch_id, fetch in list(self._waiting.items()):
            if fetch.worker_id == worker_id:
                del self._waiting[fetch_id]
                self._outbox.answer(
                    fetch.request_key,
                    Busy("the worker of this backtest was lost; ask again", retryAfterMs=RETRY_AFTER_MS),
                )

    def waiting_requests(self) -> list[RequestKey]:
        """Return the keys of the requests that wait for a backtest's worker."""
        return [fetch.request_key for fetch in self._waiting.values()]

    # --- listeners ---

    def unheard(self, job: Job) -> list[str]:
        """Return the topics of a backtest that no subscriber holds."""
        listeners = self._outbox.listeners
        return [
            topic
            for topic in topics.of_backtest(job.backtest_id)
            if not listeners.wants(topics.socket_of(topic), topic.encode())
        ]

    def listeners_changed(self) -> None:
        """Tell workers of backtests whose topics have other listeners now."""
        if (changes := self._outbox.listeners.changes) == self._changes:
            return
        self._changes = changes
        for worker in self._workers:
            if worker.kind == "compute" and worker.peer is not None:
                for backtest_id in sorted(worker.running | worker.parked):
                    if backtest_id not in self._jobs:  # a block of a sweep
                        continue
                    job = self._jobs.get(backtest_id)
                    if (unheard := self.unheard(job)) != job.unheard:
                        job.unheard = unheard
                        self._outbox.instruct(worker.peer, Unheard(task_id=backtest_id, topics=unheard))

    def check_invariants(self) -> None:
        for fetch in self._waiting.values():
            assert self._workers.get(fetch.worker_id).peer is not None, f"{fetch.data} waits for a lost worker"
        for job in self._jobs:
            assert job.worker_id is None or job.unheard == self.unheard(job), f"its worker knows other listeners: {job}"
