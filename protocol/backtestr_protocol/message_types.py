"""This module has the tables of PROTOCOL.md: the request types with priority, data and answer, and the stream types.

The contracts themselves are in `messages.py`, `price_messages.py`, `result_messages.py`, `stream_messages.py` and
`system_status.py`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .errors import ErrorData
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
from .stream_messages import (
    BacktestProgress,
    Batch,
    OrderUpdate,
    PositionUpdate,
    PriceUpdate,
    StateUpdate,
    Watermarks,
)
from .system_status import SystemStatus

Priority = Literal["R", "I", "B", "K"]
PRIORITIES: tuple[Priority, ...] = ("R", "I", "B", "K")


class RequestType(msgspec.Struct, frozen=True):
    """A row of the request table: priority (`R` real-time, `I` interactive, `B` background, `K` bulk) and contracts.

    `data` is the contract of the request, and `success` that of the data of its Success.
    """

    priority: Priority
    data: type[Contract]
    success: type[Contract]


REQUESTS: dict[str, RequestType] = {
    "Hello": RequestType("R", Hello, Welcome),
    "Goodbye": RequestType("R", Nothing, Nothing),
    "Ping": RequestType("R", Nothing, Pong),
    "GetSystemStatus": RequestType("R", Nothing, SystemStatus),
    "StopBacktest": RequestType("R", BacktestRef, BacktestAccepted),
    "PauseBacktest": RequestType("R", BacktestRef, BacktestAccepted),
    "ResumeBacktest": RequestType("R", BacktestRef, BacktestAccepted),
    "GetBacktestStatus": RequestType("R", BacktestRef, BacktestStatus),
    "GetState": RequestType("R", GetState, StateEntry),
    "UpdateState": RequestType("I", UpdateState, UpdatedState),
    "DeleteState": RequestType("I", DeleteState, DeletedState),
    "SnapshotState": RequestType("I", SnapshotState, StateSnapshot),
    "FetchMissed": RequestType("I", FetchMissed, Missed),
    "ListAlgorithms": RequestType("I", Nothing, AlgorithmList),
    "RegisterAlgorithm": RequestType("I", RegisterAlgorithm, AlgorithmInfo),
    "GetAlgorithmStatus": RequestType("I", AlgorithmRef, AlgorithmStatus),
    "ListMarketData": RequestType("I", Nothing, SeriesList),
    "GetMarketData": RequestType("I", GetMarketData, MarketData),
    "ImportMarketData": RequestType("B", ImportMarketData, Imported),
    "DescribeMarketData": RequestType("I", DescribeMarketData, SeriesFacts),
    "ResampleMarketData": RequestType("B", ResampleMarketData, StoredSeries),
    "DeleteMarketData": RequestType("B", DeleteMarketData, DeletedMarketData),
    "StartBacktest": RequestType("B", BacktestConfig, BacktestAccepted),
    "ListBacktests": RequestType("I", ListBacktests, BacktestList),
    "GetBacktestResults": RequestType("I", GetBacktestResults, BacktestResults),
    "GetPerformanceMetrics": RequestType("I", BacktestRef, PerformanceMetrics),
    "DeleteBacktest": RequestType("I", BacktestRef, DeletedBacktest),
    "PinBacktest": RequestType("I", PinBacktest, PinnedBacktest),
    "ListResults": RequestType("I", ListResults, ResultList),
    "PruneResults": RequestType("B", PruneResults, PrunedResults),
    "StartPriceReplay": RequestType("B", StartPriceReplay, PriceReplayStarted),
    "PausePriceReplay": RequestType("R", PriceReplayRef, PriceReplayAccepted),
    "ResumePriceReplay": RequestType("R", PriceReplayRef, PriceReplayAccepted),
    "StopPriceReplay": RequestType("R", PriceReplayRef, PriceReplayAccepted),
    "AcknowledgePrices": RequestType("R", AcknowledgePrices, PriceReplayAccepted),
    "GetPriceReplayStatus": RequestType("R", PriceReplayRef, PriceReplayStatus),
    "ListPriceReplays": RequestType("I", Nothing, PriceReplayList),
    "PublishPrices": RequestType("R", PublishPrices, PublishedPrices),
}

# The types that `payload.type` of a stream message may name. `Batch` holds several messages of any other type.
STREAMED: dict[str, type[msgspec.Struct]] = {
    "PriceUpdate": PriceUpdate,
    "BacktestProgress": BacktestProgress,
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
