"""Metrics for Prometheus are served over HTTP on this machine's loopback address and nowhere else.

    server = MetricsServer(9464)          # http://127.0.0.1:9464/metrics
    server.show(core, dropped, lag)       # on the broker's thread, once a heartbeat

The server answers a scrape on a thread of its own from the latest snapshot, so that neither a scrape nor the event loop
waits for the other. Labels come from the protocol's tables; names of clients, topics and backtests are not among them,
since their number is unbounded. docs/monitoring.md lists the metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import get_args

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import make_wsgi_app
from prometheus_client.registry import Collector

from backtestr_broker.core.core import Core
from backtestr_broker.core.counts import BUCKETS, CounterSnapshot
from backtestr_broker.core.scheduling.workers import WorkerState
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.messages import BacktestState, Health
from backtestr_protocol.system_status import SystemStatus, WorkerStatus
from backtestr_protocol.topics import SOCKETS

from .http_server import HOST, serve


class Snapshot(msgspec.Struct, frozen=True):
    """Everything that is shown, at one moment. It is never changed."""

    status: SystemStatus
    measured: CounterSnapshot
    backtests: Mapping[BacktestState, int]
    queues: Mapping[str, tuple[int, int]]  # length and bound
    dropped: Mapping[str, int]  # messages that a full queue did not take, by socket
    connections: Mapping[str, tuple[int, int, int]]  # number, limit and those that were ended, by socket
    loop_lag_ms: float  # the longest since the snapshot before


class MetricsServer:
    """An HTTP server that answers scrapes on a thread of its own."""

    def __init__(self, port: int) -> None:
        """Begin to answer. Raises `InvalidConfiguration` when the port cannot be listened on."""
        self._latest: Snapshot | None = None
        registry = CollectorRegistry()
        registry.register(_Collector(self))
        try:
            self._server = serve(port, make_wsgi_app(registry))
        except OSError as error:
            raise InvalidConfiguration(
                f"broker.toml: metrics.port is {port}: cannot listen on {HOST}:{port}: {error.strerror}. Name a port "
                "that is free, or 0 for no metrics",
                option="metrics.port",
            ) from error

    @property
    def latest(self) -> Snapshot | None:
        """The latest snapshot; None before the first heartbeat."""
        return self._latest

    def show(
        self,
        core: Core,
        dropped: Mapping[str, int],
        loop_lag_ms: float,
        connections: Mapping[str, tuple[int, int, int]] | None = None,
    ) -> None:
        """Take a snapshot, which is shown from now on."""
        self._latest = Snapshot(
            status=core.status(),
            measured=core.counters.measured(),
            backtests=Counter(job.status for job in core.scheduler.jobs),
            queues=core.scheduler.queues,
            dropped=dict(dropped),
            connections=dict(connections or {}),
            loop_lag_ms=loop_lag_ms,
        )

    def close(self) -> None:
        """Stop to answer."""
        self._server.stop()


class _Collector(Collector):
    def __init__(self, server: MetricsServer) -> None:
        self._server = server

    def describe(self) -> list[Metric]:
        """Return nothing, so that a registration does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        latest = self._server.latest
        if latest is not None:
            yield from _request_metrics(latest.measured)
            yield from _stream_metrics(latest)
            yield from _work_metrics(latest)
            yield from _batch_metrics(latest.status)
            yield from _broker_metrics(latest)


def _request_metrics(measured: CounterSnapshot) -> Iterator[Metric]:
    total = CounterMetricFamily(
        "backtestr_requests", "Answered requests, by type and outcome.", labels=["type", "outcome"]
    )
    for labels, count in measured.requests.items():
        total.add_metric(labels, count)
    yield total
    took = HistogramMetricFamily(
        "backtestr_request_duration_seconds",
        "Time from a request's arrival at the broker until its answer was sent, of executed requests.",
        labels=["type"],
    )
    bounds = [*map(str, BUCKETS), "+Inf"]
    for request_type, taken in measured.latencies.items():
        took.add_metric([request_type], list(zip(bounds, accumulate(taken.counts), strict=True)), taken.seconds)
    yield took


def _stream_metrics(latest: Snapshot) -> Iterator[Metric]:
    counters = {
        "messages": ("backtestr_stream_messages", "Published messages."),
        "bytes": ("backtestr_stream_bytes", "Bytes of published payloads, as workers sent them."),
        "unheard": ("backtestr_stream_unheard_messages", "Messages whose topic had no listener: retained, not sent."),
        "fetches": ("backtestr_repairs", "Answered FetchMissed requests, with messages or without."),
        "fetched": ("backtestr_repaired_messages", "Messages in those answers."),
    }
    for field, (name, documentation) in counters.items():
        family = CounterMetricFamily(name, documentation, labels=["class"])
        for class_name, streamed in latest.measured.streams.items():
            family.add_metric([class_name], getattr(streamed, field))
        yield family
    subscriptions = GaugeMetricFamily("backtestr_subscriptions", "Subscriptions, by socket.", labels=["socket"])
    if (streams := latest.status.streams) is not None:
        for stream in SOCKETS:
            subscriptions.add_metric([stream], streams.subscriptions.get(stream, 0))
        yield subscriptions
        yield GaugeMetricFamily("backtestr_topics", "Topics.", value=streams.topics)
    dropped = CounterMetricFamily(
        "backtestr_dropped_messages",
        "Messages that the full queue of a client (requests) or worker (engine) did not take.",
        labels=["socket"],
    )
    for socket, count in latest.dropped.items():
        dropped.add_metric([socket], count)
    yield dropped


def _work_metrics(latest: Snapshot) -> Iterator[Metric]:
    length = GaugeMetricFamily("backtestr_queue_length", "Tasks that wait for a worker.", labels=["queue"])
    bound = GaugeMetricFamily(
        "backtestr_queue_limit", "Tasks that may wait; beyond it the answer is BUSY.", labels=["queue"]
    )
    for name, (count, most) in latest.queues.items():
        length.add_metric([name], count)
        bound.add_metric([name], most)
    yield length
    yield bound
    backtests = GaugeMetricFamily("backtestr_backtests", "Backtests that the broker remembers.", labels=["status"])
    for state in get_args(BacktestState):
        backtests.add_metric([state], latest.backtests.get(state, 0))
    yield backtests
    workers = GaugeMetricFamily("backtestr_workers", "Workers, by kind and state.", labels=["kind", "state"])
    restarts = CounterMetricFamily("backtestr_worker_restarts", "Replacements of a worker.", labels=["worker"])
    counted = Counter((_kind(one), one.state) for one in latest.status.workers)
    for kind in sorted({_kind(one) for one in latest.status.workers}):
        for state in get_args(WorkerState):
            workers.add_metric([kind, state], counted[kind, state])
    for one in latest.status.workers:
        restarts.add_metric([one.worker_id], one.restarts)
    yield workers
    yield restarts


def _batch_metrics(status: SystemStatus) -> Iterator[Metric]:
    """Yield the batching and compression of each worker; the counters of a replaced worker begin again at 0."""
    size = GaugeMetricFamily("backtestr_batch_size", "Messages that make a batch.", labels=["worker", "class"])
    wait = "Recent wait of the oldest message of a batch until it was sent."
    waited = GaugeMetricFamily("backtestr_batch_latency_seconds", wait, labels=["worker", "class"])
    total = CounterMetricFamily("backtestr_batches", "Sent batches.", labels=["worker", "class"])
    taken = CounterMetricFamily("backtestr_compression_in_bytes", "Bytes before compression.", labels=["worker"])
    given = CounterMetricFamily("backtestr_compression_out_bytes", "Bytes after compression.", labels=["worker"])
    spent = CounterMetricFamily("backtestr_compression_seconds", "Time spent on compression.", labels=["worker"])
    for worker in status.workers:
        for class_name, batching in worker.batching.items():
            labels = [worker.worker_id, class_name]
            size.add_metric(labels, batching.size)
            waited.add_metric(labels, batching.latency_ms / 1000)
            total.add_metric(labels, batching.batches)
        if (compression := worker.compression) is not None:
            taken.add_metric([worker.worker_id], compression.bytes_in)
            given.add_metric([worker.worker_id], compression.bytes_out)
            spent.add_metric([worker.worker_id], compression.time_ms / 1000)
    yield from (size, waited, total, taken, given, spent)


def _broker_metrics(latest: Snapshot) -> Iterator[Metric]:
    status = latest.status
    health = GaugeMetricFamily("backtestr_health", "1 for the current status of the broker.", labels=["status"])
    for one in get_args(Health):
        health.add_metric([one], one == status.status)
    yield health
    yield GaugeMetricFamily("backtestr_uptime_seconds", "Time since the broker's start.", value=status.uptime_ms / 1000)
    yield GaugeMetricFamily("backtestr_sessions", "Open sessions of clients.", value=status.connected_clients)
    lag = "The longest wait for the event loop since the heartbeat before."
    yield GaugeMetricFamily("backtestr_loop_lag_seconds", lag, value=latest.loop_lag_ms / 1000)
    memory = "Resident memory of the broker and its workers."
    yield GaugeMetricFamily("backtestr_memory_bytes", memory, value=status.memory_usage.used)
    connections = GaugeMetricFamily("backtestr_connections", "Connections, by socket.", labels=["socket"])
    bound = "Connections that are kept; further ones are ended."
    limits = GaugeMetricFamily("backtestr_connections_limit", bound, labels=["socket"])
    for name, (count, most, _) in latest.connections.items():
        connections.add_metric([name], count)
        limits.add_metric([name], most)
    yield connections
    yield limits
    too_many = "Connections that the broker ended, since they were too many or silent."
    ended = CounterMetricFamily("backtestr_ended_connections", too_many, labels=["socket"])
    for name, (_, _, count) in latest.connections.items():
        ended.add_metric([name], count)
    yield ended
    cpu = "Processor time of the broker and its workers, as a fraction of all cores."
    yield GaugeMetricFamily("backtestr_cpu_ratio", cpu, value=status.cpu_usage / 100)
    failures = "Failed commits to disk."
    yield CounterMetricFamily("backtestr_commit_failures", failures, value=latest.measured.commit_failures)
    limited = CounterMetricFamily(
        "backtestr_rate_limited_requests", "RATE_LIMIT_EXCEEDED, by priority class.", labels=["priority"]
    )
    for priority, rate in status.throttle.items():
        limited.add_metric([priority], rate.hits)
    yield limited


def _kind(worker: WorkerStatus) -> str:
    return worker.worker_id.rpartition("-")[0]
