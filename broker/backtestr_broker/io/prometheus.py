"""Metrics for Prometheus, over HTTP on this machine's loopback address and nowhere else.

    server = MetricsServer(9464)          # http://127.0.0.1:9464/metrics
    server.show(core, dropped, lag)       # on the broker's thread, once a heartbeat

Whoever scrapes is answered on a thread of the server's own from the latest snapshot, so never waits for the broker's
loop, and the loop never for him. Labels come from the protocol's tables; names of clients, topics and backtests are not
among them, for there is no end of those. docs/monitoring.md lists what there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import get_args

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import start_http_server
from prometheus_client.registry import Collector

from backtestr_broker.core.core import Core
from backtestr_broker.core.counters import BUCKETS, CounterSnapshot
from backtestr_broker.core.scheduling.workers import WorkerState
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.messages import BacktestState, Health
from backtestr_protocol.system_status import SystemStatus, WorkerStatus
from backtestr_protocol.topics import SOCKETS

HOST = "127.0.0.1"


class Snapshot(msgspec.Struct, frozen=True):
    """Everything that is shown, as of one moment. Nobody changes any of it."""

    status: SystemStatus
    measured: CounterSnapshot
    backtests: Mapping[BacktestState, int]
    queues: Mapping[str, tuple[int, int]]  # length and bound
    dropped: Mapping[str, int]  # messages that a full queue did not take, by socket
    loop_lag_ms: float  # the longest since the snapshot before


class MetricsServer:
    def __init__(self, port: int) -> None:
        """Raises `InvalidConfiguration` when the port cannot be listened on."""
        self._latest: Snapshot | None = None
        registry = CollectorRegistry()
        registry.register(_Collector(self))
        try:
            self._server, self._thread = start_http_server(port, HOST, registry)
        except OSError as error:
            raise InvalidConfiguration(
                f"broker.toml: metrics.port is {port}: cannot listen on {HOST}:{port}: {error.strerror}. Name a port "
                "that is free, or 0 for no metrics",
                option="metrics.port",
            ) from error

    @property
    def latest(self) -> Snapshot | None:
        return self._latest

    def show(self, core: Core, dropped: Mapping[str, int], loop_lag_ms: float) -> None:
        """Take a snapshot, to be shown from now on."""
        self._latest = Snapshot(
            status=core.status(),
            measured=core.counters.measured(),
            backtests=Counter(job.status for job in core.scheduler.jobs),
            queues=core.scheduler.queues,
            dropped=dict(dropped),
            loop_lag_ms=loop_lag_ms,
        )

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Collector(Collector):
    def __init__(self, server: MetricsServer) -> None:
        self._server = server

    def describe(self) -> list[Metric]:
        """Nothing: to be registered is not to be scraped."""
        return []

    def collect(self) -> Iterator[Metric]:
        latest = self._server.latest
        if latest is not None:
            yield from _of_requests(latest.measured)
            yield from _of_streams(latest)
            yield from _of_work(latest)
            yield from _of_batches(latest.status)
            yield from _of_broker(latest)


def _of_requests(measured: CounterSnapshot) -> Iterator[Metric]:
    total = CounterMetricFamily(
        "backtestr_requests", "Requests that were answered, by type and outcome.", labels=["type", "outcome"]
    )
    for labels, count in measured.requests.items():
        total.add_metric(labels, count)
    yield total
    took = HistogramMetricFamily(
        "backtestr_request_duration_seconds",
        "From a request's arrival at the broker until its answer was sent, of those that were executed.",
        labels=["type"],
    )
    bounds = [*map(str, BUCKETS), "+Inf"]
    for request_type, taken in measured.latencies.items():
        took.add_metric([request_type], list(zip(bounds, accumulate(taken.counts), strict=True)), taken.seconds)
    yield took


def _of_streams(latest: Snapshot) -> Iterator[Metric]:
    counters = {
        "messages": ("backtestr_stream_messages", "Messages that were published."),
        "bytes": ("backtestr_stream_bytes", "Bytes of the payloads that were published, as workers sent them."),
        "unheard": ("backtestr_stream_unheard_messages", "Messages that nobody had subscribed to: kept, not sent."),
        "fetches": ("backtestr_repairs", "FetchMissed requests that were answered with messages or without."),
        "fetched": ("backtestr_repaired_messages", "Messages in those answers."),
    }
    for field, (name, said) in counters.items():
        family = CounterMetricFamily(name, said, labels=["class"])
        for class_name, streamed in latest.measured.streams.items():
            family.add_metric([class_name], getattr(streamed, field))
        yield family
    subscriptions = GaugeMetricFamily("backtestr_subscriptions", "Subscriptions, by socket.", labels=["socket"])
    if (streams := latest.status.streams) is not None:
        for stream in SOCKETS:
            subscriptions.add_metric([stream], streams.subscriptions.get(stream, 0))
        yield subscriptions
        yield GaugeMetricFamily("backtestr_topics", "Topics that there are.", value=streams.topics)
    dropped = CounterMetricFamily(
        "backtestr_dropped_messages",
        "Messages to a client (requests) or a worker (engine) that its full queue did not take.",
        labels=["socket"],
    )
    for socket, count in latest.dropped.items():
        dropped.add_metric([socket], count)
    yield dropped


def _of_work(latest: Snapshot) -> Iterator[Metric]:
    length = GaugeMetricFamily("backtestr_queue_length", "What waits for a worker.", labels=["queue"])
    bound = GaugeMetricFamily("backtestr_queue_limit", "How much may wait; beyond it there is BUSY.", labels=["queue"])
    for name, (count, most) in latest.queues.items():
        length.add_metric([name], count)
        bound.add_metric([name], most)
    yield length
    yield bound
    backtests = GaugeMetricFamily("backtestr_backtests", "Backtests that are remembered.", labels=["status"])
    for state in get_args(BacktestState):
        backtests.add_metric([state], latest.backtests.get(state, 0))
    yield backtests
    workers = GaugeMetricFamily("backtestr_workers", "Workers, by kind and state.", labels=["kind", "state"])
    restarts = CounterMetricFamily("backtestr_worker_restarts", "How often a worker was replaced.", labels=["worker"])
    counted = Counter((_kind(one), one.state) for one in latest.status.workers)
    for kind in sorted({_kind(one) for one in latest.status.workers}):
        for state in get_args(WorkerState):
            workers.add_metric([kind, state], counted[kind, state])
    for one in latest.status.workers:
        restarts.add_metric([one.worker_id], one.restarts)
    yield workers
    yield restarts


def _of_batches(status: SystemStatus) -> Iterator[Metric]:
    """What workers say of their batching and compressing; it begins anew with each of them."""
    size = GaugeMetricFamily("backtestr_batch_size", "Messages that make a batch.", labels=["worker", "class"])
    wait = "How long the oldest message of a batch waited until it was sent, lately."
    waited = GaugeMetricFamily("backtestr_batch_latency_seconds", wait, labels=["worker", "class"])
    total = CounterMetricFamily("backtestr_batches", "Batches that were sent.", labels=["worker", "class"])
    taken = CounterMetricFamily("backtestr_compression_in_bytes", "Bytes before compression.", labels=["worker"])
    given = CounterMetricFamily("backtestr_compression_out_bytes", "Bytes after compression.", labels=["worker"])
    spent = CounterMetricFamily("backtestr_compression_seconds", "Time that compressing took.", labels=["worker"])
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


def _of_broker(latest: Snapshot) -> Iterator[Metric]:
    status = latest.status
    health = GaugeMetricFamily("backtestr_health", "1 for the status that the broker is in.", labels=["status"])
    for one in get_args(Health):
        health.add_metric([one], one == status.status)
    yield health
    yield GaugeMetricFamily("backtestr_uptime_seconds", "Since the broker's start.", value=status.uptime_ms / 1000)
    yield GaugeMetricFamily("backtestr_sessions", "Clients that are connected.", value=status.connected_clients)
    lag = "The longest that something waited for the broker's loop since the heartbeat before."
    yield GaugeMetricFamily("backtestr_loop_lag_seconds", lag, value=latest.loop_lag_ms / 1000)
    memory = "Resident memory of the broker and its workers."
    yield GaugeMetricFamily("backtestr_memory_bytes", memory, value=status.memory_usage.used)
    cpu = "Processor time of the broker and its workers, as a fraction of all cores."
    yield GaugeMetricFamily("backtestr_cpu_ratio", cpu, value=status.cpu_usage / 100)
    failures = "Commits to disk that failed."
    yield CounterMetricFamily("backtestr_commit_failures", failures, value=latest.measured.commit_failures)
    limited = CounterMetricFamily(
        "backtestr_rate_limited_requests", "RATE_LIMIT_EXCEEDED, by priority class.", labels=["priority"]
    )
    for priority, rate in status.throttle.items():
        limited.add_metric([priority], rate.hits)
    yield limited


def _kind(worker: WorkerStatus) -> str:
    return worker.worker_id.rpartition("-")[0]
