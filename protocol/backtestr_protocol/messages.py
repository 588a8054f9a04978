"""The contracts: what each request of PROTOCOL.md carries and is answered, as typed structs. What is streamed is in
`streamed.py`, the system's status in `system_status.py`.

Attribute names are snake_case in Python and camelCase on the wire. A field with a default is optional there, and is
left out when it has its default. Times are integer milliseconds since the Unix epoch, UTC; prices, money and quantities
are float64. The engine's own channel has its contracts in `engine.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from .errors import ErrorData
from .metrics import Metrics

if TYPE_CHECKING:
    Milliseconds = int
else:
    # JavaScript's encoders write what is beyond 32 bits as float64 (msgpackr does so with Date.now()).
    Milliseconds = int | Annotated[float, msgspec.Meta(multiple_of=1.0)]

MessageType = Literal["Request", "Response", "Event", "Stream", "Error", "Heartbeat"]
BacktestState = Literal["queued", "running", "paused", "completed", "failed", "stopped"]
Timeframe = Literal["1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w"]
Side = Literal["buy", "sell"]
OrderType = Literal["market", "limit", "stop", "stop_limit"]
OrderStatus = Literal["pending", "filled", "cancelled", "rejected"]
Health = Literal["healthy", "warning", "error"]
Repair = Literal["drop"]
QuotePrice = Literal["bid", "ask", "mid"]
Keep = Literal["first", "last"]
TableName = Literal["equity", "trades", "orders", "positions"]
Origin = Literal["built-in", "folder", "registered"]
Positive = Annotated[int, msgspec.Meta(ge=1)]
# A client may choose it, and it becomes part of topics and file names. The lookahead is there for Python's `$`.
BacktestId = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_-]{1,64}(?!\n)$")]

# A registered algorithm's becomes part of file names, and `@` parts it from its version. A letter or digit comes first.
AlgorithmName = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_][0-9A-Za-z_.-]{0,63}(?!\n)$")]
# A thousand times the built-in ones: what is longer holds data, which belongs in a file.
MAX_SOURCE_CHARACTERS = 262_144
# Dotted names: parts of letters, digits, _ and -.
StateKey = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*(?!\n)$", min_length=1, max_length=256)
]
StatePrefix = Annotated[str, msgspec.Meta(max_length=256)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]

FINAL_STATES: frozenset[str] = frozenset({"completed", "failed", "stopped"})


class Contract(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What every struct on the wire has in common: immutable, camelCase keys, a default is absent."""


class Nothing(Contract, frozen=True, kw_only=True):
    """`{}`: a request or answer without data."""


class Hello(Contract, frozen=True, kw_only=True):
    client_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    client_name: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    client_version: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    protocol_versions: list[int]


class Welcome(Contract, frozen=True, kw_only=True):
    session_id: str
    instance_id: str
    protocol_version: int
    server_version: str
    heartbeat_interval_ms: int
    session_timeout_ms: int
    max_message_bytes: int
    topics: list[str]


class Pong(Contract, frozen=True, kw_only=True):
    timestamp: int


class BacktestRef(Contract, frozen=True, kw_only=True):
    """Data of Stop-, Pause- and ResumeBacktest, GetBacktestStatus and GetPerformanceMetrics."""

    backtest_id: str


class BacktestAccepted(Contract, frozen=True, kw_only=True):
    """Answer to StartBacktest and to Stop-, Pause- and ResumeBacktest."""

    backtest_id: str
    status: BacktestState


class FetchMissed(Contract, frozen=True, kw_only=True):
    topic: str
    from_seq: Positive
    to_seq: int | None = None


class MissedMessage(Contract, frozen=True, kw_only=True):
    seq: int
    payload: msgspec.Raw


class Missed(Contract, frozen=True, kw_only=True):
    """`oldest_seq > from_seq` states a gap: what lies between is no longer kept."""

    topic: str
    from_seq: int
    to_seq: int
    oldest_seq: int
    messages: list[MissedMessage]


class ParameterInfo(Contract, frozen=True, kw_only=True):
    name: str
    type: Literal["int", "float", "bool", "str"]
    default: Any
    low: float | None = None
    high: float | None = None
    description: str | None = None


class Finding(Contract, frozen=True, kw_only=True):
    """`signal` of bar `bar` is one thing when bars end with the first `cut`, and another when more follow."""

    signal: str
    bar: int
    cut: int
    explanation: str


class LookAhead(Contract, frozen=True, kw_only=True):
    """The verdict of the look-ahead check on a sample of `bars` bars, tried at `cuts` cuts. One that has not passed has
    a `finding`, or a `problem`: how it failed on the sample."""

    passed: bool
    bars: int
    cuts: int
    finding: Finding | None = None
    problem: str | None = None


class AlgorithmInfo(Contract, frozen=True, kw_only=True):
    """`look_ahead` and `registered_time` are those of a registered algorithm; others are not checked by the broker."""

    algorithm_id: str
    name: str
    version: str
    description: str
    parameters: list[ParameterInfo]
    across: bool = False
    origin: Origin | None = None
    look_ahead: LookAhead | None = None
    registered_time: int | None = None


class RegisterAlgorithm(Contract, frozen=True, kw_only=True):
    """`source` is a Python file that defines, among others, the algorithm `name`."""

    name: AlgorithmName
    source: Annotated[str, msgspec.Meta(max_length=MAX_SOURCE_CHARACTERS)]


class AlgorithmList(Contract, frozen=True, kw_only=True):
    algorithms: list[AlgorithmInfo]


class AlgorithmRef(Contract, frozen=True, kw_only=True):
    algorithm_id: str


class AlgorithmStatus(AlgorithmInfo, frozen=True, kw_only=True):
    active_backtests: int
    last_error: ErrorData | None


class SeriesInfo(Contract, frozen=True, kw_only=True):
    """One stored series; `start_time` and `end_time` are the open times of its first and last bar."""

    symbol: str
    timeframe: Timeframe
    start_time: int
    end_time: int
    bars: int


class SeriesList(Contract, frozen=True, kw_only=True):
    series: list[SeriesInfo]


class IndicatorConfig(Contract, frozen=True, kw_only=True):
    name: str
    parameters: dict[str, Any] = {}
    output_names: list[str] = []


class GetMarketData(Contract, frozen=True, kw_only=True):
    """`limit` bars of the range: the last ones, unless `keep` says the first."""

    symbol: str
    timeframe: str
    start_time: Milliseconds | None = None
    end_time: Milliseconds | None = None
    limit: Positive | None = None
    keep: Keep = "last"
    indicators: list[IndicatorConfig] = []

    def __post_init__(self) -> None:
        for name, value in (("start_time", self.start_time), ("end_time", self.end_time)):
            if value is not None:
                msgspec.structs.force_setattr(self, name, int(value))


class TableRef(Contract, frozen=True, kw_only=True):
    """A table in attachment `frame` (0 = the first): an Arrow IPC stream, uncompressed inside."""

    name: str
    frame: int
    format: Literal["arrow-ipc-stream"]
    rows: int


class MarketData(Contract, frozen=True, kw_only=True):
    symbol: str
    timeframe: str
    tables: list[TableRef]


class ImportMarketData(Contract, frozen=True, kw_only=True):
    path: str
    symbol: str
    timeframe: str | None = None
    format: str | None = None
    time_zone: str | None = None
    price: QuotePrice | None = None
    repair: Repair | None = None


class DroppedRows(Contract, frozen=True, kw_only=True):
    """Rows that an import left out for one reason. `first` are the first of their lines in the file (rows of a Parquet
    or Arrow file), counted from 1."""

    reason: str
    column: str
    count: int
    first: list[int]


class Imported(Contract, frozen=True, kw_only=True):
    """`format` is what the file was read as; `dropped` what `repair` left out, every row under one reason."""

    symbol: str
    timeframe: Timeframe
    bars: int
    start_time: int
    end_time: int
    warnings: list[str]
    format: str | None = None
    dropped: list[DroppedRows] = []


class DescribeMarketData(Contract, frozen=True, kw_only=True):
    symbol: str
    timeframe: str


class SeriesGap(Contract, frozen=True, kw_only=True):
    """A stretch without bars: from where the bar before it ends to where the bar after it opens."""

    start_time: int
    end_time: int
    missing_bars: int


class SeriesFacts(SeriesInfo, frozen=True, kw_only=True):
    """What a series is like. `made_from` is the stored timeframe that it is read from. Weekends and holidays are gaps
    like others; `longest_gaps` are at most ten, the longest first."""

    made_from: Timeframe
    low: float
    high: float
    volume: float
    gaps: int
    missing_bars: int
    longest_gaps: list[SeriesGap]


class ResampleMarketData(Contract, frozen=True, kw_only=True):
    symbol: str
    from_timeframe: str
    to_timeframe: str


class StoredSeries(SeriesInfo, frozen=True, kw_only=True):
    warnings: list[str]


class DeleteMarketData(Contract, frozen=True, kw_only=True):
    """`timeframe` absent: every series of the symbol."""

    symbol: str
    timeframe: str | None = None


class DeletedMarketData(Contract, frozen=True, kw_only=True):
    symbol: str
    timeframes: list[Timeframe]


class BacktestConfig(Contract, frozen=True, kw_only=True):
    """The configuration of a backtest.

    Dates are ISO 8601, a date alone is midnight UTC, the end is exclusive. An absent start is the first stored bar, an
    absent end is after the last one. `commission` and `slippage` are fractions of traded value and of price. `options`
    are the engine's named conventions (`BacktestOptions`). Either `symbol` or `symbols`, which share the account, is
    there; where both are, the one is among the others.
    """

    backtest_id: BacktestId | None = None
    algorithm_id: str
    symbol: str | None = None
    symbols: list[str] = []
    start_date: str | None = None
    end_date: str | None = None
    initial_capital: float
    timeframe: str
    commission: float
    slippage: float
    parameters: dict[str, Any]
    options: dict[str, Any] = {}


class StreamOptions(Contract, frozen=True, kw_only=True):
    """`columns`: batches of prices come as columns, which a reader has to know (PROTOCOL.md, section 9)."""

    prices: bool = False
    columns: bool = False
    orders: bool = True
    positions: bool = True
    progress_interval_ms: int = 50


class BacktestStatus(Contract, frozen=True, kw_only=True):
    """Of a backtest of several symbols, `symbol` is the first and `symbols` are all."""

    backtest_id: str
    status: BacktestState
    algorithm_id: str
    symbol: str
    symbols: list[str] = []
    progress_percent: float
    submit_time: int
    start_time: int | None = None
    end_time: int | None = None
    error: ErrorData | None = None


class ListBacktests(Contract, frozen=True, kw_only=True):
    status: BacktestState | None = None
    limit: Positive | None = None


class BacktestList(Contract, frozen=True, kw_only=True):
    backtests: list[BacktestStatus]


class GetBacktestResults(Contract, frozen=True, kw_only=True):
    """`tables` absent: equity, trades and orders."""

    backtest_id: str
    tables: list[TableName] | None = None


class BacktestResults(Contract, frozen=True, kw_only=True):
    """`metrics` is nil until the backtest has ended; a stopped one has those of the bars it walked."""

    backtest_id: str
    status: BacktestState
    config: dict[str, Any]
    metrics: Metrics | None
    tables: list[TableRef]


class PerformanceMetrics(Contract, frozen=True, kw_only=True):
    backtest_id: str
    metrics: Metrics | None


class GetState(Contract, frozen=True, kw_only=True):
    key: StateKey


class StateEntry(Contract, frozen=True, kw_only=True):
    """`checksum` is that of `state_values`; `timestamp` is when the value was set."""

    key: str
    value: Any
    version: int
    checksum: str
    timestamp: int


class UpdateState(Contract, frozen=True, kw_only=True):
    """`value` is any MessagePack. `expected_version` absent: whatever is there; 0: nothing must be there."""

    key: StateKey
    value: msgspec.Raw
    expected_version: NotNegative | None = None


class UpdatedState(Contract, frozen=True, kw_only=True):
    key: str
    version: int
    checksum: str


class DeleteState(Contract, frozen=True, kw_only=True):
    key: StateKey
    expected_version: NotNegative | None = None


class DeletedState(Contract, frozen=True, kw_only=True):
    key: str
    version: int


class SnapshotState(Contract, frozen=True, kw_only=True):
    """`prefix` is what keys begin with, as in a subscription; all of them when it is empty."""

    prefix: StatePrefix


class StateSnapshot(Contract, frozen=True, kw_only=True):
    """`watermark` is the revision of the latest change that is in it, of whatever key."""

    entries: list[StateEntry]
    watermark: int
