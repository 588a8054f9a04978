"""The contracts of the system's status: how the broker, its workers and its clients fare."""

from __future__ import annotations

from typing import Literal

from .messages import Contract, Health


class MemoryUsage(Contract, frozen=True, kw_only=True):
    """Bytes; `used` by the broker and its workers, of the machine's `total`."""

    used: int
    total: int
    percentage: float


class BatchingStatus(Contract, frozen=True, kw_only=True):
    """How a worker publishes on one class of topics: messages that make a batch, ms that the first of them waits for
    others, and how long it waited lately until it was sent; messages and batches since the worker's start."""

    size: int
    wait_ms: float
    latency_ms: float
    messages: int
    batches: int


class CompressionStatus(Contract, frozen=True, kw_only=True):
    """What compressing came to since the worker's start: batches, their bytes before and after, and its time."""

    batches: int
    bytes_in: int
    bytes_out: int
    time_ms: float


class WorkerStatus(Contract, frozen=True, kw_only=True):
    """`restarts`: how often it was started again. `early_deaths`: how often in a row it ended soon after its start.
    `next_start_ms`: until it is started again, of one that is lost. `batching` is by class of topics (`orders`)."""

    worker_id: str
    pid: int
    state: Literal["starting", "idle", "busy", "lost"]
    last_seen_ms: int
    restarts: int = 0
    early_deaths: int = 0
    next_start_ms: int | None = None
    batching: dict[str, BatchingStatus] = {}
    compression: CompressionStatus | None = None


class ClientLoad(Contract, frozen=True, kw_only=True):
    """What one client has asked for since it came, how often it was told RATE_LIMIT_EXCEEDED and BUSY, and what of it
    is under way: `pending` is not answered yet, `queued` waits for a worker."""

    client_id: str
    sessions: int
    requests: int
    by_priority: dict[str, int]
    throttled: int
    busy: int
    pending: int
    queued: int


class Connections(Contract, frozen=True, kw_only=True):
    """`active` of `limit` sessions; `pending_limit` bounds `pending` of each client; the busiest clients."""

    active: int
    limit: int
    pending_limit: int
    per_client: list[ClientLoad]


class RateStatus(Contract, frozen=True, kw_only=True):
    """What each client may do in one priority class (0 a second: no limit), and how often that limit was hit."""

    per_second: int
    burst: int
    hits: int


class TopicLoad(Contract, frozen=True, kw_only=True):
    """`messages`: as many as the topic had, which is its last `seq`. `subscribers`: subscriptions that it matches."""

    topic: str
    messages: int
    subscribers: int


class ClassLoad(Contract, frozen=True, kw_only=True):
    """Of all topics of a class, since the broker's start: messages and bytes of payload that were published, messages
    that nobody listened to (they were kept for repair, and not sent), and what was fetched again, in how many answers
    and messages."""

    messages: int
    bytes: int
    unheard: int = 0
    fetches: int = 0
    fetched: int = 0


class Streams(Contract, frozen=True, kw_only=True):
    """`topics` there are; `subscriptions` by socket; `by_class` those classes that had messages; `per_topic` the topics
    that moved last, the latest first."""

    topics: int
    subscriptions: dict[str, int]
    by_class: dict[str, ClassLoad]
    per_topic: list[TopicLoad]


class SystemStatus(Contract, frozen=True, kw_only=True):
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
