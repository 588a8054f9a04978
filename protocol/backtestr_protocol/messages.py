"""This module has the contracts of requests and answers (PROTOCOL.md) as typed structs.

Attribute names are snake_case in Python and camelCase on the wire. A field with a default is optional there, and is
left out when it has its default. Times are integer milliseconds since the Unix epoch, UTC. Prices, money and quantities
are float64. The contracts of streams are in `stream_messages.py`, of imports in `import_messages.py`, of evaluations in
`evaluation_messages.py`, of prices in `price_messages.py`, of stored results in `result_messages.py`, of the system's
status in `system_status.py`, of sweeps in `sweep_messages.py`, of the channel to the workers in `worker_channel.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from .errors import ErrorData
from .metrics import Metrics
from .ranges import (
    SYMBOL_MAX_CHARACTERS,
    Fraction,
    FreeMap,
    Integer,
    Milliseconds,
    Name,
    NotNegative,
    Number,
    Positive,
    Symbol,
    Text,
    Topic,
    check_levels,
)
from .timeframes import NAME_PATTERN, TIMEFRAME_RULE
from .timeframes import Timeframe as Timeframe  # others take it from here

MessageType = Literal["Request", "Response", "Event", "Stream", "Error", "Heartbeat"]
BacktestState = Literal["queued", "running", "paused", "completed", "failed", "stopped"]
# The timeframe under which a series of ticks is stored and its prices are published: it has no length.
TICK: Literal["tick"] = "tick"
SeriesTimeframe = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^(?:tick|{NAME_PATTERN})(?!\n)$", description=f"tick, or the length of a bar: {TIMEFRAME_RULE}"
    ),
]
Side = Literal["buy", "sell"]
OrderType = Literal["market", "limit", "stop", "stop_limit"]
OrderStatus = Literal["pending", "filled", "cancelled", "rejected"]
Health = Literal["healthy", "warning", "error"]
Repair = Literal["drop"]
QuotePrice = Literal["bid", "ask", "mid"]
# The price of ticks that bars are made of.
TickPrice = Literal["bid", "ask", "mid", "last"]
Keep = Literal["first", "last"]
TableName = Literal["equity", "trades", "orders", "positions"]
# The name of a table file: one name, so that it leads out of no directory.
TABLE_FILE = r"^[0-9a-f][0-9a-f-]{0,99}\.arrow(?!\n)$"
# Each of them twice: a table is made again for each time that it is named.
MAX_TABLES = 8
Origin = Literal["built-in", "folder", "registered"]
# A client may choose it. It becomes part of topics and file names. Python's `$` also matches before a final line feed,
# which the lookahead excludes.
BacktestId = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_-]{1,64}(?!\n)$")]

# The name of a registered algorithm becomes part of file names; `@` separates it from the version. The first character
# is a letter, a digit or _.
# An algorithm of the folder may have a name that cannot be registered; ids and tables still show it.
ALGORITHM_NAME_MAX_CHARACTERS = 64
ALGORITHM_NAME_RULE = (
    f"the name of an algorithm is 1 to {ALGORITHM_NAME_MAX_CHARACTERS} printable characters, without @ and without "
    "spaces around them"
)
AlgorithmName = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_][0-9A-Za-z_.-]{0,63}(?!\n)$")]
# The most samples of one look-ahead check.
MAX_SAMPLES = 64
# The most parameters of one algorithm: Python code with so many arguments is not written by hand.
MAX_PARAMETERS = 1000
# Some 300 times a built-in algorithm. A longer source holds data, which belong in a file.
MAX_SOURCE_CHARACTERS = 262_144
# Parts of letters, digits, _ and -, joined by dots.
StateKey = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*(?!\n)$", min_length=1, max_length=256)
]
StatePrefix = Annotated[str, msgspec.Meta(max_length=256)]
# A path of a file on the broker's machine: without NUL, and no longer than Linux takes.
FilePath = Annotated[
    str,
    msgspec.Meta(pattern=r"^[^\0]+$", max_length=4096, description="the path of a file, of up to 4,096 characters"),
]
# The text of a date or time, and the name of a timeframe, a format or a time zone: the part that consumes it knows
# which there are.
ShortText = Annotated[str, msgspec.Meta(max_length=64)]
# The most symbols of one backtest: at a million bars each they take 48 GB.
MAX_SYMBOLS = 1000
MAX_INDICATORS = 256
# The most ticks of one answer: 40 MB, as a series of 800,000 bars has.
MAX_TICKS = 1_000_000
# The longest time between two progress messages: a day.
MAX_INTERVAL_MS = 86_400_000
# The most paced backtests that lend one worker. They share it with the backtest that it computes, so each slows that
# down a little, and each keeps its arrays in memory. Beyond it, paced backtests are queued.
MAX_LENDING = 8
# The most versions that a client may say it speaks.
MAX_VERSIONS = 64

FINAL_STATES: frozenset[str] = frozenset({"completed", "failed", "stopped"})


def is_symbol(text: str) -> bool:
    """Return whether `text` can be the name of what is traded, as `SYMBOL_RULE` says."""
    return 0 < len(text) <= SYMBOL_MAX_CHARACTERS and text.isprintable() and text == text.strip()


def is_algorithm_name(text: object) -> bool:
    """Return whether `text` can be the name of an algorithm, as `ALGORITHM_NAME_RULE` says."""
    return (
        isinstance(text, str)
        and 0 < len(text) <= ALGORITHM_NAME_MAX_CHARACTERS
        and text.isprintable()
        and text == text.strip()
        and "@" not in text
    )


class Contract(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The base of every struct on the wire: immutable, with camelCase keys, and defaults left out."""


class Nothing(Contract, frozen=True, kw_only=True):
    """The empty map `{}`: a request or answer without data."""


class Hello(Contract, frozen=True, kw_only=True):
    client_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    client_name: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    client_version: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    protocol_versions: Annotated[list[Integer], msgspec.Meta(max_length=MAX_VERSIONS)]


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
    """The data of Stop-, Pause-, Resume- and DeleteBacktest, GetBacktestStatus and GetPerformanceMetrics."""

    backtest_id: Name


class BacktestAccepted(Contract, frozen=True, kw_only=True):
    """The answer to StartBacktest and to Stop-, Pause- and ResumeBacktest."""

    backtest_id: str
    status: BacktestState


class FetchMissed(Contract, frozen=True, kw_only=True):
    topic: Topic
    from_seq: Positive
    to_seq: NotNegative | None = None


class MissedMessage(Contract, frozen=True, kw_only=True):
    seq: int
    payload: msgspec.Raw


class Missed(Contract, frozen=True, kw_only=True):
    """Retained stream messages; `oldest_seq > from_seq` states a gap: the messages between are no longer retained."""

    topic: str
    from_seq: int
    to_seq: int
    oldest_seq: int
    messages: list[MissedMessage]


class ParameterInfo(Contract, frozen=True, kw_only=True):
    name: Text
    type: Literal["int", "float", "bool", "str"]
    default: Any
    low: float | None = None
    high: float | None = None
    description: Text | None = None


class Finding(Contract, frozen=True, kw_only=True):
    """A sign of look-ahead: `signal` at bar `bar` has another value if more bars follow the first `cut` bars.

    `sample` names the sample on which it was found.
    """

    signal: Text
    bar: NotNegative
    cut: NotNegative
    explanation: Text
    sample: Text | None = None


class CheckedSample(Contract, frozen=True, kw_only=True):
    """A sample of the look-ahead check, and the number of cuts there.

    `problem` is the error that the algorithm raised on the whole sample; it was not checked there.
    """

    name: Text
    bars: NotNegative
    cuts: NotNegative
    problem: Text | None = None


class LookAhead(Contract, frozen=True, kw_only=True):
    """The verdict of the look-ahead check on samples of `bars` bars in all, with `cuts` cuts in all.

    An algorithm that has not passed has a `finding`, or a `problem`: the error that it raised on every sample.
    """

    passed: bool
    bars: NotNegative
    cuts: NotNegative
    finding: Finding | None = None
    problem: Text | None = None
    samples: Annotated[list[CheckedSample], msgspec.Meta(max_length=MAX_SAMPLES)] = []


class AlgorithmInfo(Contract, frozen=True, kw_only=True):
    """An algorithm of the library.

    Only a registered algorithm has `look_ahead` and `registered_time`; others are not checked. `warmup` is the number
    of bars before a start that it declares to need with its default parameters; absent if it declares nothing.
    `requires` has the relations between parameters that it requires, such as `fast < slow`.
    """

    algorithm_id: Text
    name: Text
    version: Text
    description: Text
    parameters: Annotated[list[ParameterInfo], msgspec.Meta(max_length=MAX_PARAMETERS)]
    requires: Annotated[list[Text], msgspec.Meta(max_length=MAX_PARAMETERS)] = []
    across: bool = False
    origin: Origin | None = None
    look_ahead: LookAhead | None = None
    registered_time: Integer | None = None
    warmup: NotNegative | None = None


class RegisterAlgorithm(Contract, frozen=True, kw_only=True):
    """An algorithm to register: `source` is the text of a Python file that defines the algorithm `name`."""

    name: AlgorithmName
    source: Annotated[str, msgspec.Meta(max_length=MAX_SOURCE_CHARACTERS)]


class AlgorithmProblem(Contract, frozen=True, kw_only=True):
    """A file of algorithms that is not loaded, or not all of it, and the reason.

    `name` is that of the algorithm, if the file is of a registered one.
    """

    file: Text
    message: Text
    name: Name | None = None


class AlgorithmList(Contract, frozen=True, kw_only=True):
    """The algorithms by name, and the `problems` of files that are not loaded."""

    algorithms: list[AlgorithmInfo]
    problems: list[AlgorithmProblem] = []


class AlgorithmRef(Contract, frozen=True, kw_only=True):
    algorithm_id: Name


class AlgorithmStatus(AlgorithmInfo, frozen=True, kw_only=True):
    active_backtests: int
    last_error: ErrorData | None


class SeriesInfo(Contract, frozen=True, kw_only=True):
    """A stored series; `start_time` and `end_time` are the open times of its first and last bar.

    `time_zone` is the IANA name of the zone whose dates bars shorter than a day belong to, absent for UTC.
    If `timeframe` is `tick`, `bars` is the number of ticks, and the times are those of the first and the last.
    """

    symbol: Text
    timeframe: SeriesTimeframe
    start_time: Integer
    end_time: Integer
    bars: NotNegative
    time_zone: Text | None = None


class SeriesList(Contract, frozen=True, kw_only=True):
    series: list[SeriesInfo]


class IndicatorConfig(Contract, frozen=True, kw_only=True):
    name: Name
    parameters: FreeMap = {}
    output_names: Annotated[list[Name], msgspec.Meta(max_length=64)] = []


class GetMarketData(Contract, frozen=True, kw_only=True):
    """The bars or ticks to read: `limit` of the range, from its end, or from its start if `keep` is `first`.

    So many as `skip` says are left out before, from the same side. `price` is that of the ticks that bars are made of.
    With `mapped` tables may come as table files.
    """

    symbol: Symbol
    timeframe: ShortText
    start_time: Milliseconds | None = None
    end_time: Milliseconds | None = None
    limit: Positive | None = None
    keep: Keep = "last"
    skip: NotNegative = 0
    price: TickPrice | None = None
    indicators: Annotated[list[IndicatorConfig], msgspec.Meta(max_length=MAX_INDICATORS)] = []
    mapped: bool = False

    def __post_init__(self) -> None:
        for name, value in (("start_time", self.start_time), ("end_time", self.end_time)):
            if value is not None:
                msgspec.structs.force_setattr(self, name, int(value))
        for index, one in enumerate(self.indicators):
            check_levels(one.parameters, f"$.indicators[{index}].parameters")


class TableColumn(Contract, frozen=True, kw_only=True):
    """A column and its type, such as `float64`, `utf8` or `timestamp[us, UTC]`."""

    name: str
    type: str


class TableFile(Contract, frozen=True, kw_only=True):
    """A file in the `tablesDirectory` of the connection file, with its size in bytes and its columns in order."""

    name: Annotated[str, msgspec.Meta(pattern=TABLE_FILE)]
    size: NotNegative
    columns: list[TableColumn]


class TableRef(Contract, frozen=True, kw_only=True):
    """A table, as Arrow that is uncompressed inside: a stream in attachment `frame` (0 = the first), or a file.

    `file` is there in place of `frame` only in answers to requests with `mapped`.
    """

    name: str
    frame: int | None = None
    format: Literal["arrow-ipc-stream", "arrow-ipc-file"]
    rows: int
    file: TableFile | None = None


class MarketData(Contract, frozen=True, kw_only=True):
    """The table `bars`, or `ticks`; `rest` is the number of rows of the range that follow those and `skip`.

    `version` names the stored ticks that were read: two pages with different ones are not of one series.
    """

    symbol: str
    timeframe: str
    tables: list[TableRef]
    rest: int = 0
    version: str | None = None


class DescribeMarketData(Contract, frozen=True, kw_only=True):
    symbol: Symbol
    timeframe: ShortText
    price: TickPrice | None = None


class SeriesGap(Contract, frozen=True, kw_only=True):
    """A range of time without bars, from the end of the bar before it to the open time of the bar after it."""

    start_time: int
    end_time: int
    missing_bars: int


class SeriesFacts(SeriesInfo, frozen=True, kw_only=True):
    """The facts of a series.

    `made_from` is the stored timeframe from which it is read. Weekends and holidays count as gaps. `longest_gaps` has
    at most ten, the longest first. Gaps of ticks are those of the minutes that they make. `columns` has what the ticks
    have of bid, ask, last and volume.
    """

    made_from: SeriesTimeframe
    low: float
    high: float
    volume: float
    gaps: int
    missing_bars: int
    longest_gaps: list[SeriesGap]
    columns: list[str] = []


class ResampleMarketData(Contract, frozen=True, kw_only=True):
    symbol: Symbol
    from_timeframe: ShortText
    to_timeframe: ShortText
    price: TickPrice | None = None


class StoredSeries(SeriesInfo, frozen=True, kw_only=True):
    warnings: list[str]


class DeleteMarketData(Contract, frozen=True, kw_only=True):
    """The series to delete: all series of the symbol if `timeframe` is absent."""

    symbol: Symbol
    timeframe: ShortText | None = None


class DeletedMarketData(Contract, frozen=True, kw_only=True):
    symbol: str
    timeframes: list[SeriesTimeframe]


class BacktestConfig(Contract, frozen=True, kw_only=True):
    """A backtest to run.

    Dates are ISO 8601, a date alone is midnight UTC, and the end is exclusive. An absent start is the first stored
    bar, an absent end is after the last one. `commission` is a fraction of traded value, `slippage` of price. `options`
    are the conventions of the engine (`BacktestOptions`). `symbol` or `symbols` is present; the symbols share the
    account. If both are present, `symbol` is one of `symbols`. `price` is that of the ticks that bars are made of.
    `warmup` is the number of stored bars of each symbol before the start that the algorithm sees without being traded;
    if absent, as many as the algorithm declares.
    """

    backtest_id: BacktestId | None = None
    algorithm_id: Name
    symbol: Symbol | None = None
    symbols: Annotated[list[Symbol], msgspec.Meta(max_length=MAX_SYMBOLS)] = []
    start_date: ShortText | None = None
    end_date: ShortText | None = None
    initial_capital: Number
    timeframe: ShortText
    price: TickPrice | None = None
    commission: Fraction
    slippage: Fraction
    parameters: FreeMap
    options: FreeMap = {}
    warmup: NotNegative | None = None

    def __post_init__(self) -> None:
        check_levels(self.parameters, "$.parameters")
        check_levels(self.options, "$.options")


class StreamOptions(Contract, frozen=True, kw_only=True):
    """The streams of a backtest.

    With `columns`, batches of prices are column batches (PROTOCOL.md, section 9), which the reader must be able to
    decode. With `marks`, each progress comes with an update of every open position, marked to market.
    """

    prices: bool = False
    columns: bool = False
    orders: bool = True
    positions: bool = True
    marks: bool = True
    progress_interval_ms: Annotated[int, msgspec.Meta(ge=1, le=MAX_INTERVAL_MS)] = 50


class BacktestStatus(Contract, frozen=True, kw_only=True):
    """The status of a backtest; if it has several symbols, `symbol` is the first and `symbols` has all.

    `pace` is that of its options, in bars a second. A backtest that `lends` has a pace and is running, and its worker
    takes other backtests meanwhile.
    """

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
    pace: float | None = None
    lends: bool = False


class ListBacktests(Contract, frozen=True, kw_only=True):
    status: BacktestState | None = None
    limit: Positive | None = None


class BacktestList(Contract, frozen=True, kw_only=True):
    backtests: list[BacktestStatus]


class GetBacktestResults(Contract, frozen=True, kw_only=True):
    """The results to read: the tables equity, trades and orders if `tables` is absent.

    With `mapped` tables may come as table files. While the backtest is computed the answer waits, up to `wait_ms`.
    """

    backtest_id: Name
    tables: Annotated[list[TableName], msgspec.Meta(max_length=MAX_TABLES)] | None = None
    mapped: bool = False
    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 0


class BacktestResults(Contract, frozen=True, kw_only=True):
    """The results of a backtest; `metrics` is nil until it has ended, and of the simulated bars if it was stopped.

    `warmup_bars` is the number of bars before the first one that the algorithm saw; of several symbols, the fewest.
    `trial_group` names the trials that it counts among, for GetTrials.
    """

    backtest_id: str
    status: BacktestState
    config: dict[str, Any]
    metrics: Metrics | None
    tables: list[TableRef]
    warmup_bars: NotNegative = 0
    trial_group: str | None = None


class PerformanceMetrics(Contract, frozen=True, kw_only=True):
    backtest_id: str
    metrics: Metrics | None


class GetState(Contract, frozen=True, kw_only=True):
    key: StateKey


class StateEntry(Contract, frozen=True, kw_only=True):
    """A key of the shared state with its value.

    `checksum` is computed by `state_values.checksum`. `timestamp` is the time at which the value was set.
    """

    key: str
    value: Any
    version: int
    checksum: str
    timestamp: int


class UpdateState(Contract, frozen=True, kw_only=True):
    """A change of a key: `value` is any MessagePack.

    Without `expected_version` the change is made at any version; with 0, only if the key has no value.
    """

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
    """The entries to read: those of all keys that begin with `prefix`, of all keys if it is empty."""

    prefix: StatePrefix


class StateSnapshot(Contract, frozen=True, kw_only=True):
    """The entries under a prefix; `watermark` is the revision of the latest change, of any key, that they include."""

    entries: list[StateEntry]
    watermark: int
