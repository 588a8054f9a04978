"""Keep the workers: which there are, the task of each, and which takes the next.

A worker is `starting` until it reports that it is ready, then `idle` or `busy`, and `lost` once its process has ended.
At most as many workers of a kind as are configured are active, which is to take tasks. One that is ready beyond them is
`spare`: it waits, and becomes active as soon as an active one is lost. It also takes the place of one that is at bulk
work while a backtest waits: that one ends its task, and is the spare then.

Beside the one task that it computes, a compute worker may hold others: lending backtests, which have a pace and take
little time, and parked ones, which are paused and take none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from backtestr_protocol.errors import Busy
from backtestr_protocol.messages import MAX_LENDING
from backtestr_protocol.system_status import BatchingStatus, CacheStatus, CompressionStatus
from backtestr_protocol.worker_channel import MAX_PARKED, WorkerKind

from .liveness import CRASH_LOOP_STAGES
from .task_queue import RETRY_AFTER_MS

# The connections of ended workers whose last messages may still come; each broker has far fewer workers.
_FORMER = 1024

WorkerState = Literal["starting", "idle", "busy", "spare", "lost"]


class Worker:
    """A worker. `peer` is its connection on the engine socket, None before it is ready and after it was lost."""

    __slots__ = (
        "active",
        "bars_cache",
        "batching",
        "compression",
        "has_ended",
        "kind",
        "last_seen",
        "leaving",
        "lending",
        "parked",
        "peer",
        "pid",
        "task_id",
        "to_park",
        "worker_id",
    )

    def __init__(self, worker_id: str, kind: WorkerKind, pid: int, now: float) -> None:
        self.worker_id = worker_id
        self.kind = kind
        self.pid = pid
        self.last_seen = now
        self.peer: bytes | None = None
        self.has_ended = False
        self.active = False  # whether it takes tasks
        self.leaving: str | None = None  # why it ends by itself, once it has said so
        self.task_id: str | None = None
        self.lending: set[str] = set()  # paced backtests that run beside the task
        self.parked: set[str] = set()
        self.to_park: set[str] = set()  # those that it runs, and has to park: room is kept for them
        self.batching: dict[str, BatchingStatus] = {}  # how it publishes, from its latest beat
        self.compression: CompressionStatus | None = None
        self.bars_cache: CacheStatus | None = None

    def holds(self, task_id: str) -> bool:
        """Return true if the worker works on that task, or has it parked."""
        return self.runs(task_id) or task_id in self.parked

    def runs(self, task_id: str) -> bool:
        """Return true if the worker works on that task."""
        return task_id == self.task_id or task_id in self.lending

    @property
    def running(self) -> set[str]:
        """The tasks that the worker works on."""
        return self.lending | ({self.task_id} if self.task_id is not None else set())

    def release(self, task_id: str) -> None:
        """Forget a task that the worker no longer works on, and has not parked."""
        if task_id == self.task_id:
            self.task_id = None
        for held in (self.lending, self.parked, self.to_park):
            held.discard(task_id)

    @property
    def state(self) -> WorkerState:
        if self.has_ended:
            return "lost"
        if self.peer is None:
            return "starting"
        if self.running:
            return "busy"
        return "idle" if self.active else "spare"


class Workers:
    """All workers. `configured` is how many of each kind are active at most."""

    def __init__(self, configured: Mapping[WorkerKind, int]) -> None:
        self._configured = dict(configured)
        self._workers: dict[str, Worker] = {}
        self._by_peer: dict[bytes, Worker] = {}
        self._former: deque[bytes] = deque(maxlen=_FORMER)
        # Workers of each kind that ended before they were ready, since the last one was.
        self._failed_starts: dict[WorkerKind, int] = {}

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def start(self, worker_id: str, kind: WorkerKind, pid: int, now: float) -> None:
        """Add a worker whose process was started; an earlier one of that id has ended."""
        earlier = self._workers.get(worker_id)
        assert earlier is None or earlier.has_ended, f"{worker_id} is started twice"
        self._workers[worker_id] = Worker(worker_id, kind, pid, now)

    def ready(self, worker_id: str, peer: bytes, now: float) -> Worker | None:
        """Take the connection of a worker that can work, and return the worker, which is active or a spare.

        Returns None for one that was not started, that was ready before, or whose connection is another's.
        """
        worker = self._workers.get(worker_id)
        if worker is None or worker.has_ended or worker.peer is not None or peer in self._by_peer:
            return None
        worker.peer = peer
        worker.last_seen = now
        worker.active = not self.are_complete(worker.kind)
        self._failed_starts.pop(worker.kind, None)
        self._by_peer[peer] = worker
        return worker

    def at(self, peer: bytes) -> Worker | None:
        return self._by_peer.get(peer)

    def was_at(self, peer: bytes) -> bool:
        """Return true if a worker that has ended had that connection."""
        return peer in self._former

    def get(self, worker_id: str) -> Worker:
        return self._workers[worker_id]

    def lost(self, worker_id: str) -> tuple[str | None, set[str]]:
        """Take the end of a worker: return its task, and the backtests that lent it or that it had parked."""
        worker = self._workers[worker_id]
        if worker.peer is None and not worker.has_ended:
            self._failed_starts[worker.kind] = self.failed_starts(worker.kind) + 1
        worker.has_ended = True
        if worker.peer is not None:
            del self._by_peer[worker.peer]
            self._former.append(worker.peer)
            worker.peer = None
        worker.active = False
        task, others = worker.task_id, worker.lending | worker.parked
        worker.task_id, worker.lending, worker.parked, worker.to_park = None, set(), set(), set()
        return task, others

    def replace_by_spare(self, kind: WorkerKind) -> Worker | None:
        """Make a spare active where an active worker is missing, and return it; None where there is no spare.

        The one that has been ready for longest is taken: the next to be lost is none of those that have just started.
        """
        if self.are_complete(kind):
            return None
        spares = [worker for worker in self._by_peer.values() if worker.kind == kind and not worker.active]
        for worker in sorted(spares, key=lambda one: one.task_id is not None)[:1]:
            worker.active = True
            return worker
        return None

    def swap_in_spare(self, kind: WorkerKind, is_at_bulk: Callable[[Worker], bool]) -> Worker | None:
        """Make a waiting spare active in place of a worker that does bulk work and nothing else, and return it.

        None where no spare waits or no worker is so.
        """
        ready = [worker for worker in self._by_peer.values() if worker.kind == kind and worker.leaving is None]
        spares = [worker for worker in ready if not worker.active and not worker.running]
        others = [
            worker
            for worker in ready
            if worker.active and is_at_bulk(worker) and not (worker.lending or worker.parked or worker.to_park)
        ]
        if not spares or not others:
            return None
        others[0].active, spares[0].active = False, True
        return spares[0]

    def idle(self, kind: WorkerKind) -> list[Worker]:
        """Return the workers that could take a task now, those with the fewest lending and parked ones first."""
        free = [
            worker
            for worker in self._workers.values()
            if worker.kind == kind and worker.active and worker.task_id is None
        ]
        return sorted(free, key=lambda worker: (len(worker.lending), len(worker.parked)))

    def can_park(self, worker: Worker) -> bool:
        """Return true if the worker has room to park one more backtest."""
        return len(worker.parked) + len(worker.to_park) < MAX_PARKED

    def check_room_to_park(self, worker: Worker, backtest_id: str) -> None:
        """Raise `Busy` where the worker has no room to park a backtest that it runs."""
        if backtest_id not in worker.to_park and not self.can_park(worker):
            raise Busy(
                f"{worker.worker_id} holds {len(worker.parked) + len(worker.to_park)} paused backtests, the most it "
                "can; resume or stop one of them",
                retryAfterMs=RETRY_AFTER_MS,
            )

    def can_lend(self, worker: Worker, kept: int = 0) -> bool:
        """Return true if one more paced backtest may lend the worker, beside those for which room is `kept`."""
        return len(worker.lending) + kept < MAX_LENDING

    def any_active(self, kind: WorkerKind) -> bool:
        return self.active_of(kind) > 0

    def active_of(self, kind: WorkerKind) -> int:
        """Return the number of active workers of a kind."""
        return sum(worker.kind == kind and worker.active for worker in self._workers.values())

    def failed_starts(self, kind: WorkerKind) -> int:
        """Return how many workers of a kind have ended before they were ready, since the last one was ready."""
        return self._failed_starts.get(kind, 0)

    def cannot_start(self, kind: WorkerKind) -> bool:
        """Return true if no worker of a kind is ready, and starts have failed so often that it is proven."""
        proven = CRASH_LOOP_STAGES[0] * self._configured.get(kind, 1)
        return not self.any_active(kind) and self.failed_starts(kind) >= proven

    def are_complete(self, *kinds: WorkerKind) -> bool:
        """Return true if as many workers of these kinds, or of all, are active as are configured."""
        return all(self.active_of(kind) >= self._configured.get(kind, 0) for kind in kinds or self._configured)

    def is_at_task(self, worker_id: str) -> bool:
        """Return true if the worker works on a task, or was given up because of one, and its process is still there."""
        worker = self._workers.get(worker_id)
        return worker is not None and (worker.has_ended or bool(worker.running))

    def check_invariants(self) -> None:
        for worker in self:
            assert worker.task_id not in worker.parked | worker.lending
            assert not worker.parked & worker.lending
            assert worker.to_park <= worker.running, f"{worker.worker_id} is to park what it does not run"
            assert len(worker.parked) + len(worker.to_park) <= MAX_PARKED
            assert len(worker.lending) <= MAX_LENDING
            assert worker.peer is None or self._by_peer[worker.peer] is worker
            assert worker.active or not (worker.lending or worker.parked), f"{worker.worker_id} is a spare and works"
            if worker.peer is None:
                assert worker.task_id is None, f"{worker.worker_id} works without a connection"
                assert not worker.parked | worker.lending
                assert not worker.active, f"{worker.worker_id} is active without a connection"
        for kind, count in self._configured.items():
            assert self.active_of(kind) <= count, f"more {kind} workers are active than are configured"
            ready = sum(worker.kind == kind for worker in self._by_peer.values())
            assert self.active_of(kind) == min(count, ready), f"a spare {kind} worker waits though one is missing"
