"""Keep the workers: which there are, the task of each, and which takes the next.

A worker is `starting` until it reports that it is ready, then `idle` or `busy`, and `lost` once its process has ended.
Beside the one task it works on, a compute worker may hold parked ones: paused backtests that take no time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from backtestr_protocol.system_status import BatchingStatus, CacheStatus, CompressionStatus
from backtestr_protocol.worker_channel import MAX_PARKED, WorkerKind

WorkerState = Literal["starting", "idle", "busy", "lost"]


class Worker:
    """A worker. `peer` is its connection on the engine socket, None before it is ready and after it was lost."""

    __slots__ = (
        "bars_cache",
        "batching",
        "compression",
        "has_ended",
        "kind",
        "last_seen",
        "leaving",
        "parked",
        "peer",
        "pid",
        "task_id",
        "worker_id",
    )

    def __init__(self, worker_id: str, kind: WorkerKind, pid: int, now: float) -> None:
        self.worker_id = worker_id
        self.kind = kind
        self.pid = pid
        self.last_seen = now
        self.peer: bytes | None = None
        self.has_ended = False
        self.leaving: str | None = None  # why it ends by itself, once it has said so
        self.task_id: str | None = None
        self.parked: set[str] = set()
        self.batching: dict[str, BatchingStatus] = {}  # how it publishes, from its latest beat
        self.compression: CompressionStatus | None = None
        self.bars_cache: CacheStatus | None = None

    def holds(self, task_id: str) -> bool:
        """Return true if the worker works on that task, or has it parked."""
        return task_id == self.task_id or task_id in self.parked

    @property
    def state(self) -> WorkerState:
        if self.has_ended:
            return "lost"
        if self.peer is None:
            return "starting"
        return "idle" if self.task_id is None else "busy"


class Workers:
    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self._by_peer: dict[bytes, Worker] = {}

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def start(self, worker_id: str, kind: WorkerKind, pid: int, now: float) -> None:
        """Add a worker whose process was started; an earlier one of that id has ended."""
        earlier = self._workers.get(worker_id)
        assert earlier is None or earlier.has_ended, f"{worker_id} is started twice"
        self._workers[worker_id] = Worker(worker_id, kind, pid, now)

    def ready(self, worker_id: str, peer: bytes, now: float) -> Worker | None:
        """Take the connection of a worker that can work, and return the worker.

        Returns None for one that was not started, that was ready before, or whose connection is another's.
        """
        worker = self._workers.get(worker_id)
        if worker is None or worker.has_ended or worker.peer is not None or peer in self._by_peer:
            return None
        worker.peer = peer
        worker.last_seen = now
        self._by_peer[peer] = worker
        return worker

    def at(self, peer: bytes) -> Worker | None:
        return self._by_peer.get(peer)

    def get(self, worker_id: str) -> Worker:
        return self._workers[worker_id]

    def lost(self, worker_id: str) -> tuple[str | None, set[str]]:
        """Take the end of a worker: return its task, and the tasks that it had parked."""
        worker = self._workers[worker_id]
        worker.has_ended = True
        if worker.peer is not None:
            del self._by_peer[worker.peer]
            worker.peer = None
        task, parked = worker.task_id, worker.parked
        worker.task_id, worker.parked = None, set()
        return task, parked

    def idle(self, kind: WorkerKind) -> list[Worker]:
        """Return the workers that could take a task now, those with the fewest parked tasks first."""
        free = [
            worker
            for worker in self._workers.values()
            if worker.kind == kind and worker.peer is not None and worker.task_id is None
        ]
        return sorted(free, key=lambda worker: len(worker.parked))

    def can_park(self, worker: Worker) -> bool:
        return len(worker.parked) < MAX_PARKED

    def any_ready(self, kind: WorkerKind) -> bool:
        return any(worker.kind == kind and worker.peer is not None for worker in self._workers.values())

    def check_invariants(self) -> None:
        for worker in self:
            assert worker.task_id not in worker.parked
            assert len(worker.parked) <= MAX_PARKED
            assert worker.peer is None or self._by_peer[worker.peer] is worker
            if worker.peer is None:
                assert worker.task_id is None, f"{worker.worker_id} works without a connection"
                assert not worker.parked
