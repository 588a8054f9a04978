"""How the broker fares, as `SystemStatus`, and what makes it `warning` or `error`, each with a reason in words.

PROTOCOL.md, section 12, has the same thresholds for those who read the status.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from backtestr_broker.core.scheduling.liveness import Liveness, WorkerHealth
from backtestr_broker.core.scheduling.scheduler import Scheduler
from backtestr_broker.core.scheduling.workers import Worker
from backtestr_broker.core.streams.listeners import Listeners
from backtestr_broker.core.streams.sequencer import Sequencer
from backtestr_protocol.messages import Health
from backtestr_protocol.system_status import (
    ClassLoad,
    Connections,
    MemoryUsage,
    RateStatus,
    Streams,
    SystemStatus,
    TopicLoad,
    WorkerStatus,
)
from backtestr_protocol.worker_channel import WorkerKind

from .counters import Counters
from .events import HostSample

# A loop that was away for longer makes a person wait; at ten times that, clients begin to miss heartbeats.
WARNING_LAG_MS = 250.0
ERROR_LAG_MS = 2500.0
# Of the machine's memory, used by the broker and its workers.
WARNING_MEMORY_PERCENT = 80.0
# Of a bounded queue, or of the table of sessions: whoever asks next is about to be told BUSY.
WARNING_FULL_PERCENT = 90.0
# A worker that was not heard of for so many of its beats is busy with something that does not let it speak, or hung.
SILENT_SECONDS = 5.0
# For so long people should see that a worker was lost, though another has taken its place.
RECENT_SECONDS = 60.0
# Topics that the status lists: those of six backtests and what the broker says itself.
LISTED_TOPICS = 20

HealthReason = tuple[Health, str]


def findings(
    *,
    scheduler: Scheduler,
    liveness: Liveness,
    connections: Connections,
    host: HostSample,
    disk_fails: bool,
    configured: Mapping[WorkerKind, int],
    now: float,
) -> list[HealthReason]:
    """What is not as it should be, the worst first."""
    found: list[HealthReason] = []
    if disk_fails:
        found.append(("error", "the disk cannot be written to: nothing that has to be on it is accepted"))
    ready = Counter(worker.kind for worker in scheduler.workers if worker.peer is not None)
    for kind, count in configured.items():
        if count and not ready[kind]:
            found.append(("error", f"no {kind} worker is ready"))
        elif ready[kind] < count:
            found.append(("warning", f"{ready[kind]} of {count} {kind} workers are ready"))
    for worker_id, life in liveness.items():
        found += _of_worker(worker_id, life, now)
    if host.loop_lag_ms > WARNING_LAG_MS:
        level: Health = "error" if host.loop_lag_ms > ERROR_LAG_MS else "warning"
        found.append((level, f"the broker's loop was away for {host.loop_lag_ms:.0f} ms"))
    if (percent := _percent(host.memory_used, host.memory_total)) > WARNING_MEMORY_PERCENT:
        found.append(("warning", f"the broker and its workers use {percent:.0f} % of the machine's memory"))
    if host.recorder_failed:
        found.append(("warning", "the flight recorder had to give up; the log says why"))
    bounded = {**scheduler.queues, "sessions": (connections.active, connections.limit)}
    for name, (count, limit) in bounded.items():
        if _percent(count, limit) >= WARNING_FULL_PERCENT:
            found.append(("warning", f"{name}: {count} of {limit}, beyond which there is BUSY"))
    return sorted(found, key=lambda finding: finding[0])  # "error" comes before "warning"


def _of_worker(worker_id: str, life: WorkerHealth, now: float) -> list[HealthReason]:
    found: list[HealthReason] = []
    if life.crash_loops(now):
        then = f"; the next start is in {max(0.0, life.next_start - now):.1f} s" if life.next_start is not None else ""
        found.append(("warning", f"{worker_id} ends soon after its start, {life.early_deaths} times in a row{then}"))
    elif life.lost_at is not None and now - life.lost_at < RECENT_SECONDS:
        found.append(("warning", f"{worker_id} was lost {now - life.lost_at:.0f} s ago: {life.lost_reason}"))
    if not life.has_ended and life.beat_interval and life.silent >= max(SILENT_SECONDS, 2 * life.beat_interval):
        at_work = "is busy" if life.still == 0.0 else "uses no processor time"
        found.append(("warning", f"{worker_id} has not been heard of for {life.silent:.0f} s and {at_work}"))
    return found


def system_status(
    *,
    scheduler: Scheduler,
    liveness: Liveness,
    connections: Connections,
    throttle: dict[str, RateStatus],
    streams: Streams,
    host: HostSample,
    disk_fails: bool,
    configured_workers: Mapping[WorkerKind, int],
    uptime: float,
    now: float,
    wall_ms: int,
) -> SystemStatus:
    """`uptime` and `now` in monotonic seconds."""
    found = findings(
        scheduler=scheduler,
        liveness=liveness,
        connections=connections,
        host=host,
        disk_fails=disk_fails,
        configured=configured_workers,
        now=now,
    )
    return SystemStatus(
        status=found[0][0] if found else "healthy",
        uptime_ms=round(uptime * 1000),
        memory_usage=MemoryUsage(
            used=host.memory_used,
            total=host.memory_total,
            percentage=_percent(host.memory_used, host.memory_total),
        ),
        cpu_usage=host.cpu_percent,
        active_backtests=sum(job.status in ("running", "paused") for job in scheduler.jobs),
        queued_requests=scheduler.queued,
        connected_clients=connections.active,
        workers=[_worker_status(worker, liveness.of(worker.worker_id), now) for worker in scheduler.workers],
        loop_lag_ms=host.loop_lag_ms,
        last_heartbeat=wall_ms,
        reasons=[reason for _, reason in found],
        connections=connections,
        throttle=throttle,
        streams=streams,
    )


def streams_status(sequencer: Sequencer, subscriptions: Listeners, measures: Counters) -> Streams:
    """What is published, and who listens."""
    return Streams(
        topics=len(sequencer),
        subscriptions={name: count for name, count in subscriptions.totals().items() if count},
        by_class={
            name: ClassLoad(**msgspec.structs.asdict(one)) for name, one in measures.by_class().items() if one.messages
        },
        per_topic=[
            TopicLoad(
                topic=topic,
                messages=last.seq,
                subscribers=subscriptions.count(last.topic_class.socket, last.name),
            )
            for last, topic in sequencer.latest(LISTED_TOPICS)
        ],
    )


def _worker_status(worker: Worker, life: WorkerHealth, now: float) -> WorkerStatus:
    return WorkerStatus(
        worker_id=worker.worker_id,
        pid=worker.pid,
        state=worker.state,
        last_seen_ms=round((now - worker.last_seen) * 1000),
        restarts=life.restarts,
        early_deaths=life.early_deaths,
        next_start_ms=None if life.next_start is None else round(max(0.0, life.next_start - now) * 1000),
        batching=worker.batching,
        compression=worker.compression,
    )


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0
