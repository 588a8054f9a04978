"""This module has the tables of PROTOCOL.md: the request types with priority, data and answer, and the stream types.

The contracts themselves are in `messages.py`, `evaluation_messages.py`, `import_messages.py`, `price_messages.py`,
`result_messages.py`, `stream_messages.py`, `sweep_messages.py`, `system_status.py` and `trial_messages.py`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .errors import ErrorData
from .evaluation_messages import EvaluateAlgorithm, Evaluation
from .import_messages import Imported, ImportMarketData
from .messages import (
    AlgorithmInfo,
    AlgorithmList,
    AlgorithmRef,
    AlgorithmStatus,
    BacktestAccepted,
    BacktestConfig,
    BacktestList,
    BacktestRef,
    BacktestResults,
    BacktestStatus,
    Contract,
    DeletedMarketData,
    DeletedState,
    DeleteMarketData,
    DeleteState,
    DescribeMarketData,
    FetchMissed,
    GetBacktestResults,
    GetMarketData,
    GetState,
    Hello,
    ListBacktests,
    MarketData,
    Missed,
    Nothing,
    PerformanceMetrics,
    Pong,
    RegisterAlgorithm,
    ResampleMarketData,
    SeriesFacts,
    SeriesList,
    SnapshotState,
    StateEntry,
    StateSnapshot,
    StoredSeries,
    UpdatedState,
    UpdateState,
    Welcome,
)
from .price_messages import (
    AcknowledgePrices,
    PriceReplayAccepted,
    PriceReplayList,
    PriceReplayRef,
    PriceReplayStarted,
    PriceReplayStatus,
    PublishedPrices,
    PublishPrices,
    StartPriceReplay,
)
from .result_messages import (
    DeletedBacktest,
    ListResults,
    PinBacktest,
    PinnedBacktest,
    PrunedResults,
    PruneResults,
    ResultList,
)
from .rights import Right
from .stream_messages import (
    BacktestProgress,
    Batch,
    OrderUpdate,
    PositionUpdate,
    PriceUpdate,
    StateUpdate,
    Watermarks,
)
from .sweep_messages import (
    DeletedSweep,
    GetSweepResults,
    GetSweepRun,
    ListSweeps,
    StartSweep,
    SweepAccepted,
    SweepDetails,
    SweepList,
    SweepProgress,
    SweepRef,
    SweepResults,
)
from .system_status import SystemStatus
from .trial_messages import GetTrials, TrialList

Priority = Literal["R", "I", "B", "K"]
PRIORITIES: tuple[Priority, ...] = ("R", "I", "B", "K")


class RequestType(msgspec.Struct, frozen=True):
    """A row of the request table: priority (`R` real-time, `I` interactive, `B` background, `K` bulk) and contracts.

    `right` is the least right that a client's key needs. `data` is the contract of the request, and `success` that of
    the data of its Success.
    """

    priority: Priority
    right: Right
    data: type[Contract]
    success: type[Contract]


REQUESTS: dict[str, RequestType] = {
    "Hello": RequestType("R", "read", Hello, Welcome),
    "Goodbye": RequestType("R", "read", Nothing, Nothing),
    "Ping": RequestType("R", "read", Nothing, Pong),
    "GetSystemStatus": RequestType("R", "read", Nothing, SystemStatus),
    "StopBroker": RequestType("R", "all", Nothing, Nothing),
    "StopBacktest": RequestType("R", "run", BacktestRef, BacktestAccepted),
    "PauseBacktest": RequestType("R", "run", BacktestRef, BacktestAccepted),
    "ResumeBacktest": RequestType("R", "run", BacktestRef, BacktestAccepted),
    "GetBacktestStatus": RequestType("R", "read", BacktestRef, BacktestStatus),
    "GetState": RequestType("R", "read", GetState, StateEntry),
    "UpdateState": RequestType("I", "all", UpdateState, UpdatedState),
    "DeleteState": RequestType("I", "all", DeleteState, DeletedState),
    "SnapshotState": RequestType("I", "read", SnapshotState, StateSnapshot),
    "FetchMissed": RequestType("I", "read", FetchMissed, Missed),
    "ListAlgorithms": RequestType("I", "read", Nothing, AlgorithmList),
    "RegisterAlgorithm": RequestType("I", "all", RegisterAlgorithm, AlgorithmInfo),
    "GetAlgorithmStatus": RequestType("I", "read", AlgorithmRef, AlgorithmStatus),
    "EvaluateAlgorithm": RequestType("B", "run", EvaluateAlgorithm, Evaluation),
    "ListMarketData": RequestType("I", "read", Nothing, SeriesList),
    "GetMarketData": RequestType("I", "read", GetMarketData, MarketData),
    "ImportMarketData": RequestType("B", "all", ImportMarketData, Imported),
    "DescribeMarketData": RequestType("I", "read", DescribeMarketData, SeriesFacts),
    "ResampleMarketData": RequestType("B", "all", ResampleMarketData, StoredSeries),
    "DeleteMarketData": RequestType("B", "all", DeleteMarketData, DeletedMarketData),
    "StartBacktest": RequestType("B", "run", BacktestConfig, BacktestAccepted),
    "ListBacktests": RequestType("I", "read", ListBacktests, BacktestList),
    "GetBacktestResults": RequestType("I", "read", GetBacktestResults, BacktestResults),
    "GetPerformanceMetrics": RequestType("I", "read", BacktestRef, PerformanceMetrics),
    "DeleteBacktest": RequestType("I", "all", BacktestRef, DeletedBacktest),
    "PinBacktest": RequestType("I", "all", PinBacktest, PinnedBacktest),
    "ListResults": RequestType("I", "read", ListResults, ResultList),
    "PruneResults": RequestType("B", "all", PruneResults, PrunedResults),
    "StartPriceReplay": RequestType("B", "run", StartPriceReplay, PriceReplayStarted),
    "PausePriceReplay": RequestType("R", "run", PriceReplayRef, PriceReplayAccepted),
    "ResumePriceReplay": RequestType("R", "run", PriceReplayRef, PriceReplayAccepted),
    "StopPriceReplay": RequestType("R", "run", PriceReplayRef, PriceReplayAccepted),
    "AcknowledgePrices": RequestType("R", "run", AcknowledgePrices, PriceReplayAccepted),
    "GetPriceReplayStatus": RequestType("R", "read", PriceReplayRef, PriceReplayStatus),
    "ListPriceReplays": RequestType("I", "read", Nothing, PriceReplayList),
    "PublishPrices": RequestType("R", "all", PublishPrices, PublishedPrices),
    "StartSweep": RequestType("B", "run", StartSweep, SweepAccepted),
    "PauseSweep": RequestType("R", "run", SweepRef, SweepAccepted),
    "ResumeSweep": RequestType("R", "run", SweepRef, SweepAccepted),
    "StopSweep": RequestType("R", "run", SweepRef, SweepAccepted),
    "GetSweepStatus": RequestType("R", "read", SweepRef, SweepDetails),
    "ListSweeps": RequestType("I", "read", ListSweeps, SweepList),
    "GetSweepResults": RequestType("I", "read", GetSweepResults, SweepResults),
    "GetSweepRun": RequestType("B", "run", GetSweepRun, BacktestAccepted),
    "DeleteSweep": RequestType("B", "all", SweepRef, DeletedSweep),
    "GetTrials": RequestType("I", "read", GetTrials, TrialList),
}

# The types that `payload.type` of a stream message may name. `Batch` holds several messages of any other type.
STREAMED: dict[str, type[msgspec.Struct]] = {
    "PriceUpdate": PriceUpdate,
    "BacktestProgress": BacktestProgress,
    "SweepProgress": SweepProgress,
    "OrderUpdate": OrderUpdate,
    "PositionUpdate": PositionUpdate,
    "SystemStatus": SystemStatus,
    "Error": ErrorData,
    "BacktestStatus": BacktestStatus,
    "PriceReplayStatus": PriceReplayStatus,
    "Watermarks": Watermarks,
    "StateUpdate": StateUpdate,
    "Batch": Batch,
}

# The types of the payloads on the topics of each class (`topics.CLASSES`), each topic having one; a `Batch` of them may
# come in its place.
TOPIC_TYPES: dict[str, tuple[str, ...]] = {
    "prices.": ("PriceUpdate",),
    "progress.": ("BacktestProgress", "SweepProgress"),
    "orders.": ("OrderUpdate",),
    "positions.": ("PositionUpdate",),
    "system.status": ("SystemStatus",),
    "system.errors": ("Error",),
    "system.backtests": ("BacktestStatus",),
    "system.replays": ("PriceReplayStatus",),
    "system.watermarks": ("Watermarks",),
    "state.": ("StateUpdate",),
}
