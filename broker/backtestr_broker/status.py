"""How the broker fares, as `SystemStatus`, and the thresholds behind `warning` and `error`."""

from __future__ import annotations

from collections.abc import Mapping

from backtestr_protocol.engine import WorkerKind
from backtestr_protocol.messages import Health, MemoryUsage, SystemStatus, WorkerStatus

from .events import HostSample
from .scheduler import Scheduler

# A loop that was away for longer makes a person wait.
WARNING_LAG_MS = 250.0
# Of the machine's memory, used by the broker and its workers.
WARNING_MEMORY_PERCENT = 80.0


def health(
    *, ready: Mapping[WorkerKind, int], configured: Mapping[WorkerKind, int], host: HostSample, disk_fails: bool
) -> Health:
    """`error`: a kind of work that nobody can do, or a disk that cannot be written to. `warning`: a worker missing, a
    slow loop, memory running short, or a flight recorder that had to give up."""
    if disk_fails:
        return "error"
    if any(count and not ready.get(kind) for kind, count in configured.items()):
        return "error"
    missing = any(ready.get(kind, 0) < count for kind, count in configured.items())
    memory_percent = _percent(host.memory_used, host.memory_total)
    if missing or host.loop_lag_ms > WARNING_LAG_MS or memory_percent > WARNING_MEMORY_PERCENT or host.recorder_failed:
        return "warning"
    return "healthy"


def system_status(
    *,
    scheduler: Scheduler,
    clients: int,
    host: HostSample,
    disk_fails: bool,
    configured_workers: Mapping[WorkerKind, int],
    uptime: float,
    now: float,
    wall_ms: int,
) -> SystemStatus:
    """`uptime` and `now` in monotonic seconds."""
    workers = [
        WorkerStatus(
            worker_id=worker.worker_id,
            pid=worker.pid,
            state=worker.state,
            last_seen_ms=round((now - worker.last_seen) * 1000),
        )
        for worker in scheduler.workers
    ]
    ready: dict[WorkerKind, int] = {}
    for worker in scheduler.workers:
        ready[worker.kind] = ready.get(worker.kind, 0) + (worker.peer is not None)
    return SystemStatus(
        status=health(ready=ready, configured=configured_workers, host=host, disk_fails=disk_fails),
        uptime_ms=round(uptime * 1000),
        memory_usage=MemoryUsage(
            used=host.memory_used,
            total=host.memory_total,
            percentage=_percent(host.memory_used, host.memory_total),
        ),
        cpu_usage=host.cpu_percent,
        active_backtests=sum(job.status in ("running", "paused") for job in scheduler.jobs),
        queued_requests=scheduler.queued,
        connected_clients=clients,
        workers=workers,
        loop_lag_ms=host.loop_lag_ms,
        last_heartbeat=wall_ms,
    )


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0
