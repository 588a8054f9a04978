"""The output of `backtestr status`: reasons, limits and their hits, workers and the busiest clients."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from backtestr.cli.rendering import results_table, status_table
from backtestr.results import Results
from backtestr_protocol.metrics import Metrics
from backtestr_protocol.system_status import (
    BatchingStatus,
    ClientLoad,
    CompressionStatus,
    Connections,
    MemoryUsage,
    RateStatus,
    SystemStatus,
    WorkerStatus,
)


def shown(**changes: Any) -> list[str]:
    """Return the lines of the table, with single spaces."""
    status = SystemStatus(
        **{
            "status": "healthy",
            "uptime_ms": 65_000,
            "memory_usage": MemoryUsage(used=1 << 30, total=8 << 30, percentage=12.5),
            "cpu_usage": 4.0,
            "active_backtests": 1,
            "queued_requests": 17,
            "connected_clients": 2,
            "workers": [WorkerStatus(worker_id="compute-1", pid=42, state="busy", last_seen_ms=300)],
            "loop_lag_ms": 1.25,
            "last_heartbeat": 0,
            **changes,
        }
    )
    console = Console(file=io.StringIO(), width=160)
    console.print(status_table(status))
    assert isinstance(console.file, io.StringIO)
    return [" ".join(line.replace("│", " ").split()) for line in console.file.getvalue().splitlines()]


def test_a_status_without_optional_fields_is_shown() -> None:
    lines = shown()
    assert "status healthy" in lines
    assert "clients 2" in lines
    assert "waiting for a worker 17" in lines
    assert "loop lag 1.2 ms" in lines
    assert not [line for line in lines if line.startswith("build")]
    assert "compute-1 42 busy 0.3 s ago 0" in lines


def test_what_is_compiled_is_shown() -> None:
    assert "build frames: [a reason]" in shown(build="frames: [a reason]")


def test_the_health_reasons_stand_below_the_status() -> None:
    lines = shown(status="warning", reasons=["compute-1 was lost 3 s ago: killed by signal 9", "a [strange] one"])
    assert lines[:3] == ["status warning", "compute-1 was lost 3 s ago: killed by signal 9", "a [strange] one"]


def test_rate_limits_refusals_and_the_busiest_clients_are_shown() -> None:
    load = ClientLoad(
        client_id="[note]book",
        sessions=2,
        requests=12_345,
        by_priority={"B": 12_345},
        throttled=1_000,
        busy=7,
        pending=30,
        queued=29,
    )
    lines = shown(
        connections=Connections(active=2, limit=1024, pending_limit=1024, per_client=[load]),
        throttle={
            "R": RateStatus(per_second=0, burst=1, hits=0),
            "B": RateStatus(per_second=200, burst=1000, hits=1_000),
        },
    )
    assert "clients 2 of 1024" in lines
    assert "real-time requests no limit; refused 0" in lines
    assert "background requests 200 a second, 1,000 at once; refused 1,000" in lines
    assert "[note]book 2 12,345 30 29 1,000 7" in lines


def test_the_next_start_of_a_lost_worker_is_shown() -> None:
    lost = WorkerStatus(
        worker_id="compute-1",
        pid=42,
        state="lost",
        last_seen_ms=12_000,
        restarts=5,
        early_deaths=5,
        next_start_ms=1_600,
    )
    assert "compute-1 42 lost, next start in 1.6 s 12.0 s ago 5" in shown(workers=[lost])


def test_batching_and_compression_of_workers_are_shown() -> None:
    batching = {"orders": BatchingStatus(size=500, wait_ms=5.0, latency_ms=7.25, messages=12_345, batches=30)}
    compression = CompressionStatus(batches=20, bytes_in=3 << 20, bytes_out=1 << 20, time_ms=12.4)
    worker = WorkerStatus(
        worker_id="compute-1", pid=42, state="busy", last_seen_ms=300, batching=batching, compression=compression
    )
    connections = Connections(active=1, limit=10, pending_limit=10, per_client=[])
    lines = shown(workers=[worker], connections=connections)
    assert "compute-1 orders 12,345 30 500 5.0 ms 7.2 ms" in lines
    assert "compressed by compute-1 20 batches, 3.0 MiB to 1.0 MiB in 12 ms" in lines
    assert not any("latency" in line for line in shown()), "nothing was published"


def test_the_warnings_of_a_result_stand_above_its_figures() -> None:
    rejected = "7 of 8 orders were rejected: not enough cash (7)"
    metrics = Metrics(total_return=6.97).with_warnings([rejected])
    output = io.StringIO()
    results = Results(backtest_id="b", status="completed", config={}, metrics=metrics, tables={})
    Console(file=output, width=120).print(results_table(results))
    lines = [" ".join(line.split()) for line in output.getvalue().splitlines()]

    assert lines.index(f"warning {rejected}") < next(at for at, line in enumerate(lines) if "Total return" in line)
