"""This module has the contracts of the system's status: the broker, its workers and its clients."""

from __future__ import annotations

from typing import Literal

from .messages import Contract, Health
from .ranges import NotNegative, Number
from .result_messages import DiskUsage


class MemoryUsage(Contract, frozen=True, kw_only=True):
    """Memory in bytes: `used` by the broker and its workers, of the machine's `total`.

    `percentage` is `used` in percent of `total`, from 0 to 100.
    """

    used: int
    total: int
    percentage: float


class BatchingStatus(Contract, frozen=True, kw_only=True):
    """The batching of a worker on one topic class.

    `size` is the number of messages that make a batch, and `wait_ms` how long the first of them waits for others.
    `latency_ms` is how long it recently waited until it was sent. `messages` and `batches` count from the worker's
    start.
    """

    size: NotNegative
    wait_ms: Number
    latency_ms: Number
    messages: NotNegative
    batches: NotNegative


class CompressionStatus(Contract, frozen=True, kw_only=True):
    """The compression of a worker since its start: batches, their bytes before and after, and the time spent."""

    batches: NotNegative
    bytes_in: NotNegative
    bytes_out: NotNegative
    time_ms: Number


class CacheStatus(Contract, frozen=True, kw_only=True):
    """A cache since the start of its process: how often it had what was asked for, and what it holds now in bytes."""

    hits: NotNegative
    misses: NotNegative
    bytes: NotNegative
    limit_bytes: NotNegative


class WorkerStatus(Contract, frozen=True, kw_only=True):
    """The status of a worker. A `spare` one is ready, and takes tasks once another is lost.

    `restarts` counts how often it was started again, and `replacements` how often because a task had left its process
    in another state. `early_deaths` counts its early exits in a row. A lost worker has `next_start_ms`, the time until
    it is started again. `batching` is by topic class (`orders`).
    `bars_cache` is the cache of stored bars.
    """

    worker_id: str
    pid: int
    state: Literal["starting", "idle", "busy", "spare", "lost"]
    last_seen_ms: int
    restarts: int = 0
    early_deaths: int = 0
    replacements: int = 0
    next_start_ms: int | None = None
    batching: dict[str, BatchingStatus] = {}
    compression: CompressionStatus | None = None
    bars_cache: CacheStatus | None = None


class ClientLoad(Contract, frozen=True, kw_only=True):
    """The requests of one client since its first one.

    `throttled` counts its answers of RATE_LIMIT_EXCEEDED, and `busy` those of BUSY. `pending` requests are not answered
    yet, and `queued` ones wait for a worker.
    """

    client_id: str
    sessions: int
    requests: int
    by_priority: dict[str, int]
    throttled: int
    busy: int
    pending: int
    queued: int


class Connections(Contract, frozen=True, kw_only=True):
    """The sessions: `active` of at most `limit`.

    `pending_limit` bounds `pending` of each client. `per_client` has the busiest clients.
    """

    active: int
    limit: int
    pending_limit: int
    per_client: list[ClientLoad]


class RateStatus(Contract, frozen=True, kw_only=True):
    """The rate limit of one priority for each client (0 a second: no limit), and how often it was reached."""

    per_second: int
    burst: int
    hits: int


class TopicLoad(Contract, frozen=True, kw_only=True):
    """The load of a topic; `messages` is its last `seq`, and `subscribers` counts the subscriptions that match it."""

    topic: str
    messages: int
    subscribers: int


class ClassLoad(Contract, frozen=True, kw_only=True):
    """The load of all topics of a class since the broker's start.

    `messages` and `bytes` (of payloads) were published. `unheard` messages had no listener: they were retained for
    repair, and not sent. `fetches` answers of FetchMissed had `fetched` messages.
    """

    messages: int
    bytes: int
    unheard: int = 0
    fetches: int = 0
    fetched: int = 0


class Streams(Contract, frozen=True, kw_only=True):
    """The streams: the number of `topics`, and `subscriptions` by socket.

    `by_class` has the topic classes that had messages, and `per_topic` the topics published last, the latest first.
    """

    topics: int
    subscriptions: dict[str, int]
    by_class: dict[str, ClassLoad]
    per_topic: list[TopicLoad]


class SystemStatus(Contract, frozen=True, kw_only=True):
    """The status of the system.

    `cpu_usage` is the processor time of the broker and its workers in percent of all cores, from 0 to 100.
    `last_heartbeat` is the time of the last message on `system.status`, in a heartbeat its own. `decompression` is
    all 0: neither the broker nor a worker decompresses anything, clients do. `build` says for people which
    parts of the broker are compiled, and why others are pure Python.
    """

    status: Health
    uptime_ms: int
    memory_usage: MemoryUsage
    cpu_usage: float
    active_backtests: int
    queued_requests: int
    connected_clients: int
    workers: list[WorkerStatus]
    loop_lag_ms: float
    last_heartbeat: int
    reasons: list[str] = []
    connections: Connections | None = None
    throttle: dict[str, RateStatus] = {}
    streams: Streams | None = None
    disk: DiskUsage | None = None
    decompression: CompressionStatus | None = None
    build: str | None = None
