"""Report the broker's health as `SystemStatus`: `warning` and `error` each with a reason in words.

PROTOCOL.md, section 12, has the same thresholds for readers of the status.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping

import msgspec

from backtestr_broker.core.algorithms import Algorithms
from backtestr_broker.core.clients.admission import MAX_PENDING, Admission
from backtestr_broker.core.clients.sessions import Sessions
from backtestr_broker.core.outbox import Outbox
from backtestr_broker.core.scheduling.liveness import Liveness, WorkerHealth
from backtestr_broker.core.scheduling.scheduler import Scheduler
from backtestr_broker.core.scheduling.workers import Worker
from backtestr_protocol.messages import Health
from backtestr_protocol.system_status import (
    ClassLoad,
    ClientLoad,
    CompressionStatus,
    Connections,
    MemoryUsage,
    Streams,
    SystemStatus,
    TopicLoad,
    WorkerStatus,
)
from backtestr_protocol.worker_channel import WorkerKind

from .events import HostSample
from .shared_state import SharedState
from .stored_results import StoredResults

# Milliseconds that the event loop may lag: beyond, a person waits; at ten times that, clients miss heartbeats.
WARNING_LAG_MS = 250.0
ERROR_LAG_MS = 2500.0
# Percent of the machine's memory that the broker and its workers use.
WARNING_MEMORY_PERCENT = 80.0
# Percent of a bounded queue, or of the table of sessions: beyond, requests are soon answered with BUSY.
WARNING_FULL_PERCENT = 90.0
# A worker without a beat for so many seconds is in a call that does not let it beat, or hung.
SILENT_SECONDS = 5.0
# Seconds for which the status shows that a worker was lost, though another has taken its slot.
RECENT_SECONDS = 60.0
# Topics that the status lists: those of six backtests and the broker's own.
LISTED_TOPICS = 20
# Clients that the status lists, the busiest: it goes to every listener every second.
LISTED_CLIENTS = 20
# Files of algorithms with problems that it names, and the most characters of a reason.
LISTED_PROBLEMS = 3
REASON_CHARACTERS = 300

# Damaged keys of the shared state that a reason names.
NAMED_KEYS = 5

NOTHING_DECOMPRESSED = CompressionStatus(batches=0, bytes_in=0, bytes_out=0, time_ms=0.0)

HealthReason = tuple[Health, str]


class Status:
    """Makes the `SystemStatus` of what the broker's machines hold now."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        sessions: Sessions,
        admission: Admission,
        scheduler: Scheduler,
        liveness: Liveness,
        configured: Mapping[WorkerKind, int],
        state: SharedState,
        stored: StoredResults,
    ) -> None:
        """Take, as `configured`, the number of workers of each kind that the configuration asks for."""
        self.host = HostSample(memory_used=0, memory_total=0, cpu_percent=0.0, loop_lag_ms=0.0)
        self._outbox = outbox
        self._sessions = sessions
        self._admission = admission
        self._scheduler = scheduler
        self._liveness = liveness
        self._configured = configured
        self._state = state
        self._stored = stored
        self.was_damaged = False  # the database, when the broker started
        self.build: str | None = None  # which parts are compiled, in words
        self._started = outbox.now
        self._last_heartbeat = 0  # none yet

    def report(self) -> SystemStatus:
        """Return the status as of now."""
        host, now, connections = self.host, self._outbox.now, self._connections()
        reasons = self._reasons(connections, now)
        return SystemStatus(
            status=reasons[0][0] if reasons else "healthy",
            uptime_ms=round((now - self._started) * 1000),
            memory_usage=MemoryUsage(
                used=host.memory_used,
                total=host.memory_total,
                percentage=_percent(host.memory_used, host.memory_total),
            ),
            cpu_usage=host.cpu_percent,
            active_backtests=sum(job.status in ("running", "paused") for job in self._scheduler.jobs),
            queued_requests=self._scheduler.queued,
            connected_clients=connections.active,
            workers=[
                _worker_status(worker, self._liveness.of(worker.worker_id), now) for worker in self._scheduler.workers
            ],
            loop_lag_ms=host.loop_lag_ms,
            last_heartbeat=self._last_heartbeat or self._outbox.wall_ms,
            reasons=[reason for _, reason in reasons],
            connections=connections,
            throttle=self._admission.rates(),
            streams=_streams(self._outbox),
            disk=self._stored.usage,
            decompression=NOTHING_DECOMPRESSED,
            build=self.build,
        )

    def heartbeat(self) -> SystemStatus:
        """Return the status that is published now, as a heartbeat."""
        self._last_heartbeat = self._outbox.wall_ms
        return self.report()

    def _reasons(self, connections: Connections, now: float) -> list[HealthReason]:
        """Return what is not as it should be, the worst first."""
        found: list[HealthReason] = []
        if self._outbox.commit_queue.fails:
            found.append(("error", "the disk cannot be written to: nothing that has to be on it is accepted"))
        for kind, count in self._configured.items():
            active = self._scheduler.workers.active_of(kind)
            if count and not active:
                found.append(("error", f"no {kind} worker is ready"))
            elif active < count:
                found.append(("warning", f"{active} of {count} {kind} workers are ready"))
        for worker_id, health in self._liveness.items():
            found += _of_worker(worker_id, health, now)
        found += _of_algorithms(self._scheduler.algorithms)
        if self.host.loop_lag_ms > WARNING_LAG_MS:
            level: Health = "error" if self.host.loop_lag_ms > ERROR_LAG_MS else "warning"
            found.append((level, f"the broker's loop was away for {self.host.loop_lag_ms:.0f} ms"))
        if (percent := _percent(self.host.memory_used, self.host.memory_total)) > WARNING_MEMORY_PERCENT:
            found.append(("warning", f"the broker and its workers use {percent:.0f} % of the machine's memory"))
        if self.was_damaged:
            found.append(("warning", "the database was damaged when the broker started; its log says what is lost"))
        if lost := self._state.lost:
            named = ", ".join(lost[:NAMED_KEYS]) + (", …" if len(lost) > NAMED_KEYS else "")
            found.append(("warning", f"{len(lost)} keys of the shared state are damaged, set them again: {named}"))
        if self._stored.problem is not None:
            found.append(("warning", f"the results cannot be counted, so none is deleted: {self._stored.problem}"))
        if self.host.recorder_failed:
            found.append(("warning", "nothing is recorded: the recorder has failed; the log says why"))
        if self.host.descriptors_exhausted:
            found.append(("warning", "the machine or the broker has hardly a file descriptor left"))
        for name, load in (self.host.sockets or {}).items():
            if _percent(load.connections, load.limit) >= WARNING_FULL_PERCENT:
                found.append(
                    ("warning", f"{name}: {load.connections} of {load.limit} connections; further ones are ended")
                )
        bounded = {**self._scheduler.queues, "sessions": (connections.active, connections.limit)}
        for name, (count, limit) in bounded.items():
            if _percent(count, limit) >= WARNING_FULL_PERCENT:
                found.append(("warning", f"{name}: {count} of {limit}, beyond which there is BUSY"))
        return sorted(found, key=lambda finding: finding[0])  # "error" comes before "warning"

    def _connections(self) -> Connections:
        """Return the number of sessions, and the load that the busiest clients make."""
        connected = Counter(session.client_id for session in self._sessions)
        known = [(client_id, counts) for client_id, counts in self._admission if client_id in connected]
        busiest = heapq.nlargest(LISTED_CLIENTS, known, key=lambda one: one[1].total)
        return Connections(
            active=len(self._sessions),
            limit=self._sessions.limit,
            pending_limit=MAX_PENDING,
            per_client=[
                ClientLoad(
                    client_id=client_id,
                    sessions=connected[client_id],
                    requests=counts.total,
                    by_priority={priority: count for priority, count in counts.requests.items() if count},
                    throttled=counts.throttled,
                    busy=counts.busy,
                    pending=self._outbox.answers.running(client_id),
                    queued=self._scheduler.waiting(client_id),
                )
                for client_id, counts in busiest
            ],
        )


def _of_algorithms(algorithms: Algorithms) -> list[HealthReason]:
    problems = algorithms.problems()
    found: list[HealthReason] = [
        ("warning", f"an algorithm is not loaded: {one.message[:REASON_CHARACTERS]}")
        for one in problems[:LISTED_PROBLEMS]
    ]
    if (more := len(problems) - LISTED_PROBLEMS) > 0:
        found.append(("warning", f"{more} more files of algorithms are not loaded; see: backtestr algorithms"))
    return found


def _of_worker(worker_id: str, health: WorkerHealth, now: float) -> list[HealthReason]:
    found: list[HealthReason] = []
    if health.crash_loops(now):
        then = (
            f"; the next start is in {max(0.0, health.next_start - now):.1f} s" if health.next_start is not None else ""
        )
        found.append(("warning", f"{worker_id} ends soon after its start, {health.early_deaths} times in a row{then}"))
    elif health.lost_at is not None and now - health.lost_at < RECENT_SECONDS:
        verb = "ended" if health.replaced else "was lost"
        found.append(("warning", f"{worker_id} {verb} {now - health.lost_at:.0f} s ago: {health.lost_reason}"))
    if not health.has_ended and health.beat_interval and health.silent >= max(SILENT_SECONDS, 2 * health.beat_interval):
        at_work = "is busy" if health.still == 0.0 else "uses no processor time"
        found.append(("warning", f"{worker_id} has not been heard of for {health.silent:.0f} s and {at_work}"))
    return found


def _streams(outbox: Outbox) -> Streams:
    """Return what is published, and the number of listeners."""
    listeners = outbox.listeners
    return Streams(
        topics=len(outbox.sequencer),
        subscriptions={name: count for name, count in listeners.totals().items() if count},
        by_class={
            name: ClassLoad(**msgspec.structs.asdict(one))
            for name, one in outbox.counters.by_class().items()
            if one.messages
        },
        per_topic=[
            TopicLoad(
                topic=topic,
                messages=last.seq,
                subscribers=listeners.count(last.topic_class.socket, last.name),
            )
            for last, topic in outbox.sequencer.latest(LISTED_TOPICS)
        ],
    )


def _worker_status(worker: Worker, health: WorkerHealth, now: float) -> WorkerStatus:
    return WorkerStatus(
        worker_id=worker.worker_id,
        pid=worker.pid,
        state=worker.state,
        last_seen_ms=round((now - worker.last_seen) * 1000),
        restarts=health.restarts,
        early_deaths=health.early_deaths,
        replacements=health.replacements,
        next_start_ms=None if health.next_start is None else round(max(0.0, health.next_start - now) * 1000),
        batching=worker.batching,
        compression=worker.compression,
        bars_cache=worker.bars_cache,
    )


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0
