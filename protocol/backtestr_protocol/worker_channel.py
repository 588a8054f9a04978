"""This module has the messages between the broker and its workers, which are not part of the public protocol.

They may change with broker and engine. Frames are `message, payload*`, from DEALER (worker) to ROUTER (broker) and
back. The connection is authenticated, and not each message: the first one of a worker is `signature, Ready`, signed
with the key that it has read from its lifeline, and the broker takes nothing from a connection without it. The broker
signs nothing, since it alone listens where workers connect: in a directory of this user, or at a port with a CURVE key.

A worker does one task at a time, may hold paced and parked backtests beside it, and sends beats from its I/O thread,
whatever its compute thread does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from .codec import TO_BROKER, Signer, decode, encode
from .errors import ErrorData, SerializationError, ValidationError
from .messages import AlgorithmInfo, AlgorithmProblem, SeriesInfo, ShortText, TickPrice
from .price_messages import Rate, Speed
from .ranges import Integer, Name, NotNegative, Positive, Symbol, Text, Topic
from .secret import Secret, decode_secret, encode_secret
from .system_status import BatchingStatus, CacheStatus, CompressionStatus

WorkerKind = Literal["compute", "interactive"]
# The kinds of tasks. A backtest is checked before it is accepted, and run afterwards. The bars of a price replay are
# read before it is hosted beside the tasks. A sweep is checked, surveyed after a restart, and run in blocks, or in
# spans that a cluster computes; the trials of one that learns from its rows are proposed in batches; one row of a sweep
# is checked as a backtest. The other kinds have the names of the requests that they answer.
Work = Literal[
    "CheckBacktest",
    "RunBacktest",
    "OpenReplay",
    "CheckSweep",
    "SurveySweep",
    "ProposeBatch",
    "RunBlock",
    "RunSpan",
    "OpenSweepRun",
    "GetSweepResults",
    "DeleteSweep",
    "GetTrials",
    "RegisterAlgorithm",
    "GetAlgorithmStatus",
    "EvaluateAlgorithm",
    "ListMarketData",
    "GetMarketData",
    "ImportMarketData",
    "DescribeMarketData",
    "ResampleMarketData",
    "DeleteMarketData",
    "GetBacktestResults",
    "GetPerformanceMetrics",
    "FetchMissed",
]
Action = Literal["pause", "resume", "stop"]
Outcome = Literal["completed", "failed", "stopped"]

Percent = Annotated[float, msgspec.Meta(ge=0.0, le=100.0)]

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["console", "json"]

# The exit code of a worker that refuses its settings or its configuration. It would refuse them again.
EXIT_REFUSED = 2
# That of a worker that is to be replaced, since a task has left its process in another state. It has said the reason.
EXIT_REPLACED = 3

# The most messages of a worker that wait in its socket, and as many in the broker's. Messages behind them, such as
# progress, are late by the time that these take: 3 ms if each is a batch of 500, and 150 ms with the 1,000 that ZeroMQ
# allows by default. They keep the broker as busy as 1,000 do.
MAX_ON_THE_WAY = 16

# The most messages in one batch: sequence numbers could never go back from a number that was wrong.
MAX_BATCH = 65_536
# The most messages that are counted at once on a topic that no subscriber holds: those of one step.
MAX_COUNTED = 1 << 30
# The most progress messages of one backtest. A worker makes them rarer long before (`publishing/stream_log.py`).
MAX_PROGRESS = 1 << 20
# The longest time between two beats of a worker, in milliseconds.
MAX_BEAT_INTERVAL_MS = 3_600_000
# The most algorithms and stored series that a worker names. Files and folders of so many would take minutes to read.
MAX_ALGORITHMS = 100_000
MAX_SERIES = 1_000_000
# The most topics of one backtest, and topic classes of a worker: one for prices of each symbol, and three more.
MAX_TOPICS = 1_100

# The most parked backtests of a worker; each keeps its arrays in memory. Beyond it, pausing is answered with BUSY.
MAX_PARKED = 16


class _WorkerMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag=True):
    """The base of worker messages; the name of each struct is its tag, also in recordings."""


class WorkerCurve(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The CURVE keys of a worker that connects over TCP, each 40 characters of Z85: the broker's, and its own pair."""

    server_public_key: str
    public_key: str
    secret_key: Secret


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The settings of a worker, which it reads at its start as a line of JSON on its lifeline.

    `key` is the signing key. `log_level` and `log_format` are those of the broker, whose standard error the worker
    shares. `early_exits` counts the workers before it that ended soon after their start. `curve` has the keys for an
    `endpoint` that is encrypted. In `tables_directory` it writes table files, if it is given.
    """

    worker_id: str
    kind: WorkerKind
    endpoint: str
    key: Secret
    early_exits: int = 0
    log_level: LogLevel = "info"
    log_format: LogFormat = "console"
    curve: WorkerCurve | None = None
    tables_directory: str | None = None


# --- worker to broker ---


class Ready(_WorkerMessage, frozen=True, kw_only=True):
    """The worker has warmed up, and will send a beat every `beat_interval_ms`.

    An interactive worker names the stored `series` of the catalogue. `problems` are the files of algorithms that this
    worker has not loaded.
    """

    worker_id: Name
    pid: NotNegative
    kind: WorkerKind
    algorithms: Annotated[list[AlgorithmInfo], msgspec.Meta(max_length=MAX_ALGORITHMS)]
    series: Annotated[list[SeriesInfo], msgspec.Meta(max_length=MAX_SERIES)]
    problems: Annotated[list[AlgorithmProblem], msgspec.Meta(max_length=MAX_ALGORITHMS)] = []
    beat_interval_ms: Annotated[int, msgspec.Meta(ge=1, le=MAX_BEAT_INTERVAL_MS)] = 1000


class Beat(_WorkerMessage, frozen=True, kw_only=True):
    """A beat: the worker's I/O thread is running.

    `task_id` is the task that the compute thread is at. `batching` and `compression` are the figures of what it has
    published, `bars_cache` those of the bars that it keeps in memory.
    """

    task_id: Name | None
    batching: Annotated[dict[Name, BatchingStatus], msgspec.Meta(max_length=MAX_TOPICS)] = {}
    compression: CompressionStatus | None = None
    bars_cache: CacheStatus | None = None


class ReplayMark(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The price replay that published a message, and the open time of its last bar there, in milliseconds."""

    replay_id: Name
    current_time: Integer


class Published(_WorkerMessage, frozen=True, kw_only=True):
    """A message for a topic; one frame follows: a stream payload, or a `Batch` of `count` messages.

    `task_id` names the backtest whose prices these are, since their topic does not; absent, it is the task that the
    worker computes.
    """

    topic: Topic
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_BATCH)]
    progress_percent: Percent | None = None
    replay: ReplayMark | None = None
    task_id: Name | None = None


class Counted(_WorkerMessage, frozen=True, kw_only=True):
    """The messages of a backtest that no subscriber of its topics would get, as numbers: the worker's log has them.

    `counts` has the number by topic. `progress_at` has the bars that were simulated when progress was made, in order.
    It comes before the progress and the marks that are made there, so that another worker can make them again.
    """

    task_id: Name
    counts: Annotated[
        dict[Topic, Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNTED)]], msgspec.Meta(max_length=MAX_TOPICS)
    ] = {}
    progress_at: Annotated[list[NotNegative], msgspec.Meta(max_length=MAX_PROGRESS)] = []
    progress_percent: Percent | None = None


class Fetched(_WorkerMessage, frozen=True, kw_only=True):
    """The answer to a `Fetch`: one frame follows, the data of the answer to FetchMissed.

    No frame and no `error` means that the worker does not hold the backtest any more.
    """

    task_id: Name
    fetch_id: NotNegative
    error: ErrorData | None = None


class Paused(_WorkerMessage, frozen=True, kw_only=True):
    """A backtest or a price replay is paused, and publishes nothing more until it is resumed."""

    task_id: Name


class Resumed(_WorkerMessage, frozen=True, kw_only=True):
    """A backtest or a price replay continues."""

    task_id: Name


class Lent(_WorkerMessage, frozen=True, kw_only=True):
    """A paced backtest has begun, and lends its worker: the worker takes another task, and goes on with it beside that.

    It is sent once at most, and by no backtest that has left the process in another state than before. A paced backtest
    that is resumed lends its worker from then on, without this message.
    """

    task_id: Name


class Checkpointed(_WorkerMessage, frozen=True, kw_only=True):
    """The checkpoint of a backtest has the first `bars` bars: another worker would go on behind them.

    A checkpoint of 0 bars has the signals. Not every checkpoint is told: after the loss of a worker the first one is,
    and then one in each interval.
    """

    task_id: Name
    bars: NotNegative


class Continued(_WorkerMessage, frozen=True, kw_only=True):
    """A backtest goes on from a checkpoint that was made under an earlier broker.

    `numbers` has, for each topic, the sequence number of the last message at the checkpoint, and `progress_percent` is
    the progress there. `progress_at` has the bars that were simulated when progress was made, in order, also behind the
    checkpoint: it is made there again.
    """

    task_id: Name
    numbers: Annotated[dict[Topic, NotNegative], msgspec.Meta(max_length=MAX_TOPICS)]
    progress_at: Annotated[list[NotNegative], msgspec.Meta(max_length=MAX_PROGRESS)] = []
    progress_percent: Percent | None = None


class CostWorkers(_WorkerMessage, frozen=True, kw_only=True):
    """The same bars of a backtest have ended two workers, and are not simulated a third time: the backtest has failed.

    They are those from `first_bar` up to, but not including, `stop_bar`. Without a bar among them it was the algorithm,
    before the first bar, or the end of the backtest, behind the last.
    """

    task_id: Name
    first_bar: NotNegative
    stop_bar: NotNegative


class Finished(_WorkerMessage, frozen=True, kw_only=True):
    """A task or a price replay has ended.

    `error` states why it failed. Otherwise a frame of Success data and the attachments follow. Those of a backtest are
    the answer to the request that is `Wanted`, if it `is_wanted`. If it `is_last`, the worker ends by itself after it:
    for the `reason` that the task has left its process in another state, or, without one, because its compute thread is
    stuck in the task.
    """

    task_id: Name
    outcome: Outcome
    error: ErrorData | None = None
    is_wanted: bool = False
    is_last: bool = False
    reason: Text | None = None


ToBroker = (
    Ready
    | Beat
    | Published
    | Counted
    | Fetched
    | Paused
    | Resumed
    | Lent
    | Checkpointed
    | Continued
    | CostWorkers
    | Finished
)

# --- broker to worker ---


class Assign(_WorkerMessage, frozen=True, kw_only=True):
    """A task for the worker; one frame with its data follows.

    A backtest that is `paused` is parked before its next bar. One that `resumes` was assigned before, and goes on from
    its checkpoint if it has one. `published` counts, for each topic of a backtest, the messages that a lost worker had
    already sent or counted: those behind the checkpoint are made again, and none of them is sent. `progress_at` has the
    bars at which that worker made progress: it is made there again, and nowhere between. `losses` counts the workers
    lost since the last checkpoint that was told. `unheard` are topics that no subscriber holds, as in `Unheard`. Of an
    `unnumbered` backtest an earlier broker may have published: its topics go on from the numbers at its checkpoint. A
    `restored` backtest was accepted by an earlier broker: a result of it on disk is its result. `client_id` and
    `request_id` name the request, for the log.
    """

    task_id: Name
    work: Work
    paused: bool = False
    resumes: bool = False
    restored: bool = False
    unnumbered: bool = False
    client_id: Name | None = None
    request_id: Name | None = None
    published: Annotated[dict[Topic, NotNegative], msgspec.Meta(max_length=MAX_TOPICS)] = {}
    progress_at: Annotated[list[NotNegative], msgspec.Meta(max_length=MAX_PROGRESS)] | None = None
    unheard: Annotated[list[Topic], msgspec.Meta(max_length=MAX_TOPICS)] | None = None
    losses: NotNegative | None = None


class Control(_WorkerMessage, frozen=True, kw_only=True):
    """A requested action for a backtest of a compute worker, or for a price replay of an interactive worker."""

    task_id: Name
    action: Action


class Unheard(_WorkerMessage, frozen=True, kw_only=True):
    """All topics of a backtest that no subscriber holds now: messages on them are counted instead of sent."""

    task_id: Name
    topics: Annotated[list[Topic], msgspec.Meta(max_length=MAX_TOPICS)]


class Wanted(_WorkerMessage, frozen=True, kw_only=True):
    """Its results are waited for; a frame follows, the data of GetBacktestResults. `Finished` may have the answer."""

    task_id: Name


class Fetch(_WorkerMessage, frozen=True, kw_only=True):
    """A question for messages of a backtest that the worker holds; `Fetched` with its `fetch_id` is the answer."""

    task_id: Name
    fetch_id: NotNegative
    topic: Topic
    from_seq: Positive
    to_seq: NotNegative


class Credit(_WorkerMessage, frozen=True, kw_only=True):
    """The number of bars that a price replay may have published in all; a later `Credit` never lowers it."""

    replay_id: Name
    allowed: NotNegative


Task = Assign | Control | Unheard | Fetch
ToWorker = Task | Wanted | Credit


class OpenReplay(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The data of an `Assign` of this work: read the bars or ticks, and publish them from number `position` on.

    Exactly one of `bars_per_second`, `speed` and `allowed`, the first credit, is present. `checksum` is that of the
    bars from which an earlier worker published; other bars are refused.
    """

    replay_id: Name
    symbol: Symbol
    timeframe: ShortText
    start_time: Integer | None
    end_time: Integer | None
    bars_per_second: Rate | None
    speed: Speed | None
    allowed: NotNegative | None
    position: NotNegative = 0
    paused: bool = False
    checksum: NotNegative | None = None
    price: TickPrice | None = None


class OpenedReplay(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The answer to `OpenReplay`: the number of bars, the open times of the first and last in ms, the checksum."""

    bars: Positive
    start_time: Integer
    end_time: Integer
    checksum: NotNegative


def encode_settings(settings: WorkerSettings) -> bytes:
    """Return the line of JSON that a worker reads at its start, with the key in hex and a newline at its end."""
    return msgspec.json.encode(settings, enc_hook=encode_secret) + b"\n"


def decode_settings(line: bytes) -> WorkerSettings:
    """Decode that line. Raises `msgspec.DecodeError` for any other, with nothing of the key in its text."""
    return msgspec.json.decode(line, type=WorkerSettings, dec_hook=decode_secret)


_to_broker = msgspec.msgpack.Decoder(ToBroker)
_to_worker = msgspec.msgpack.Decoder(ToWorker)


def encode_proof(signer: Signer, message: Ready) -> list[bytes]:
    """Return the frames of the first message on a worker's connection, which prove that the worker has the key."""
    return signer.seal(TO_BROKER, [encode(message)])


def decode_proof(signer: Signer, frames: Sequence[bytes]) -> Ready:
    """Return the first message on a connection; raise `MessageError` for frames that do not prove it is a worker's."""
    if len(frames) != 2:
        raise SerializationError(f"expected the frames signature, message; {len(frames)} frame(s) came")
    signature, body = frames
    signer.verify(TO_BROKER, signature, [body])
    message = decode(_to_broker, body)
    if not isinstance(message, Ready):
        raise ValidationError(f"expected Ready as the first message of a worker, not {type(message).__name__}")
    return message


def encode_to_broker(message: ToBroker, payload: Sequence[bytes] = ()) -> list[bytes]:
    """Return the frames of a message of a worker that has proved itself."""
    return [encode(message), *payload]


def encode_to_worker(message: ToWorker, payload: Sequence[bytes] = ()) -> list[bytes]:
    """Return the frames of a message of the broker."""
    return [encode(message), *payload]


def decode_to_broker(frames: Sequence[bytes]) -> tuple[ToBroker, list[bytes]]:
    """Return the message and the frames after it; raise `MessageError` for frames that a worker would not send."""
    return decode(_to_broker, _first(frames)), list(frames[1:])


def decode_to_worker(frames: Sequence[bytes]) -> tuple[ToWorker, list[bytes]]:
    """Return the message and the frames after it; raise `MessageError` for frames that a broker would not send."""
    return decode(_to_worker, _first(frames)), list(frames[1:])


def _first(frames: Sequence[bytes]) -> bytes:
    if not frames:
        raise SerializationError("expected the frames message, payload; none came")
    return frames[0]
