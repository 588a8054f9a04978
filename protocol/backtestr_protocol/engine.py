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
# What a worker can be told to do. A backtest is checked before it is accepted and run afterwards; the others bear the
# names of the requests that they answer.
Work = Literal[
    "CheckBacktest",
    "RunBacktest",
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

# A paused backtest keeps its arrays in its worker; more than this and pausing answers BUSY.
MAX_PARKED = 16


class _Note(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag=True):
    """Base of the channel's messages: the struct's name is its tag."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a worker is told at its start, as a line of JSON on its lifeline. `key` is the signing key in hex."""

    worker_id: str
    kind: WorkerKind
    endpoint: str
    key: str


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


class Published(_Note, frozen=True, kw_only=True):
    """One payload frame follows: a stream payload, or a `Batch` of `count` messages."""

    topic: str
    count: int
    progress_percent: float | None = None


class Paused(_Note, frozen=True, kw_only=True):
    task_id: str


class Resumed(_Note, frozen=True, kw_only=True):
    task_id: str


class Finished(_Note, frozen=True, kw_only=True):
    """A task has ended: `error` says why it failed; else a frame of Success data and the attachments follow. After one
    that `is_last` the worker ends by itself: its compute thread is stuck in the task."""

    task_id: str
    outcome: Outcome
    error: ErrorData | None = None
    is_last: bool = False


ToBroker = Ready | Beat | Published | Paused | Resumed | Finished

# --- broker to worker ---


class Assign(_Note, frozen=True, kw_only=True):
    """Do this; one frame with its data follows. For a backtest, `paused` says to park it before its first bar, and
    `published` how many messages of its topics an earlier worker got out before it died: they are not sent again.
    `restored` says that an earlier broker accepted it: a result of it on disk is its result."""

    task_id: str
    work: Work
    paused: bool = False
    restored: bool = False
    published: dict[str, int] = {}


class Control(_Note, frozen=True, kw_only=True):
    task_id: str
    action: Action


ToWorker = Assign | Control

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
