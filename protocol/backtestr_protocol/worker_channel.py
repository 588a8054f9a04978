"""The channel between the broker and its engine workers: not part of the public protocol, free to change with both.

Frames are `signature, message, payload*` on DEALER (worker) to ROUTER (broker), signed like everything else under a
label for each direction. A worker does one task at a time, may keep paused backtests parked beside it, and answers on
its I/O thread whatever its compute thread does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from .codec import TO_BROKER, TO_WORKER, Signer, decode, encode
from .errors import ErrorData, SerializationError
from .messages import AlgorithmInfo, SeriesInfo
from .system_status import BatchingStatus, CompressionStatus

WorkerKind = Literal["compute", "interactive"]
# What a worker can be told to do. A backtest is checked before it is accepted and run afterwards, the bars of a replay
# are read before it is hosted beside the tasks; the others bear the names of the requests that they answer.
Work = Literal[
    "CheckBacktest",
    "RunBacktest",
    "OpenReplay",
    "RegisterAlgorithm",
    "GetAlgorithmStatus",
    "ListMarketData",
    "GetMarketData",
    "ImportMarketData",
    "DescribeMarketData",
    "ResampleMarketData",
    "DeleteMarketData",
    "GetBacktestResults",
    "GetPerformanceMetrics",
]
Action = Literal["pause", "resume", "stop"]
Outcome = Literal["completed", "failed", "stopped"]

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["console", "json"]

# What a worker process exits with that refuses its settings or its configuration: it would again.
EXIT_REFUSED = 2

# Messages of a worker that wait in its socket, and as many in the broker's. Whatever comes behind them, the progress
# that somebody looks at, is late by the time that they take: 3 ms when each is a batch of 500, and 150 ms with ZeroMQ's
# own 1,000. They keep the broker as busy as 1,000 do.
MAX_ON_THE_WAY = 16

# A paused backtest keeps its arrays in its worker; more than this and pausing answers BUSY.
MAX_PARKED = 16


class _Note(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag=True):
    """Base of the channel's messages: the struct's name is its tag."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a worker is told at its start, as a line of JSON on its lifeline. `key` is the signing key in hex.
    `log_level` and `log_format` are the broker's, whose standard error it shares."""

    worker_id: str
    kind: WorkerKind
    endpoint: str
    key: str
    log_level: LogLevel = "info"
    log_format: LogFormat = "console"


# --- worker to broker ---


class Ready(_Note, frozen=True, kw_only=True):
    """The worker is warm, and will beat every so many milliseconds. `series` is what the catalogue holds (an
    interactive worker tells)."""

    worker_id: str
    pid: int
    kind: WorkerKind
    algorithms: list[AlgorithmInfo]
    series: list[SeriesInfo]
    beat_interval_ms: Annotated[int, msgspec.Meta(ge=1)] = 1000


class Beat(_Note, frozen=True, kw_only=True):
    """The I/O thread is alive; `task_id` is what the compute thread is at. How it publishes, once it has."""

    task_id: str | None
    batching: dict[str, BatchingStatus] = {}
    compression: CompressionStatus | None = None


class ReplayMark(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Of which replay something is, and the open time of its last bar, in milliseconds."""

    replay_id: str
    current_time: int


class Published(_Note, frozen=True, kw_only=True):
    """One payload frame follows: a stream payload, or a `Batch` of `count` messages."""

    topic: str
    count: int
    progress_percent: float | None = None
    replay: ReplayMark | None = None


class Paused(_Note, frozen=True, kw_only=True):
    """A backtest, or a replay, stands still: nothing more of it is published until it is resumed."""

    task_id: str


class Resumed(_Note, frozen=True, kw_only=True):
    task_id: str


class Finished(_Note, frozen=True, kw_only=True):
    """A task, or a replay, has ended: `error` says why it failed; else a frame of Success data and the attachments
    follow. After one that `is_last` the worker ends by itself: its compute thread is stuck in the task."""

    task_id: str
    outcome: Outcome
    error: ErrorData | None = None
    is_last: bool = False


ToBroker = Ready | Beat | Published | Paused | Resumed | Finished

# --- broker to worker ---


class Assign(_Note, frozen=True, kw_only=True):
    """Do this; one frame with its data follows. For a backtest, `paused` says to park it before its first bar, and
    `published` how many messages of its topics an earlier worker got out before it died: they are not sent again.
    `restored` says that an earlier broker accepted it: a result of it on disk is its result. `client_id` and
    `request_id` say who asked for it, for the log."""

    task_id: str
    work: Work
    paused: bool = False
    restored: bool = False
    client_id: str | None = None
    request_id: str | None = None
    published: dict[str, int] = {}


class Control(_Note, frozen=True, kw_only=True):
    """Of a backtest that a compute worker holds, or of a replay that an interactive one hosts."""

    task_id: str
    action: Action


class Credit(_Note, frozen=True, kw_only=True):
    """So many bars of a replay may have been published in all. What a `Credit` allows no later one takes back."""

    replay_id: str
    allowed: int


Task = Assign | Control
ToWorker = Task | Credit


class OpenReplay(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What `Assign` of that work carries: read these bars and publish them from number `position` on. Exactly one of
    `bars_per_second`, `speed` and `allowed`, the first credit, is there. `checksum` is that of the bars from which an
    earlier worker published; other bars are refused."""

    replay_id: str
    symbol: str
    timeframe: str
    start_time: int | None
    end_time: int | None
    bars_per_second: float | None
    speed: float | None
    allowed: int | None
    position: int = 0
    paused: bool = False
    checksum: int | None = None


class OpenedReplay(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What it is answered with: how many bars there are in all, the open times of the first and last, in milliseconds,
    and their checksum."""

    bars: int
    start_time: int
    end_time: int
    checksum: int


_to_broker = msgspec.msgpack.Decoder(ToBroker)
_to_worker = msgspec.msgpack.Decoder(ToWorker)


def encode_to_broker(signer: Signer, note: ToBroker, payload: Sequence[bytes] = ()) -> list[bytes]:
    return signer.seal(TO_BROKER, [encode(note), *payload])


def encode_to_worker(signer: Signer, note: ToWorker, payload: Sequence[bytes] = ()) -> list[bytes]:
    return signer.seal(TO_WORKER, [encode(note), *payload])


def decode_to_broker(signer: Signer, frames: Sequence[bytes]) -> tuple[ToBroker, list[bytes]]:
    """The note and the frames after it. Raises `MessageError`."""
    body, rest = _verified(signer, TO_BROKER, frames)
    return decode(_to_broker, body), rest


def decode_to_worker(signer: Signer, frames: Sequence[bytes]) -> tuple[ToWorker, list[bytes]]:
    """The note and the frames after it. Raises `MessageError`."""
    body, rest = _verified(signer, TO_WORKER, frames)
    return decode(_to_worker, body), rest


def _verified(signer: Signer, label: bytes, frames: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    if len(frames) < 2:
        raise SerializationError(f"expected the frames signature, note, payload; {len(frames)} frame(s) came")
    signature, *signed = frames
    signer.verify(label, signature, signed)
    return signed[0], list(signed[1:])
