"""The types of messages: what each request asks for and answers, how urgent it is, and what may be streamed.

One table each, as PROTOCOL.md has them; the contracts themselves are in `messages.py`, `prices.py`, `streamed.py` and
`system_status.py`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .errors import ErrorData
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
    Imported,
    ImportMarketData,
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
    """A row of PROTOCOL.md's request table: real-time, interactive, background or bulk; data; Success data."""

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
    "StartPriceReplay": RequestType("B", StartPriceReplay, PriceReplayStarted),
    "PausePriceReplay": RequestType("R", PriceReplayRef, PriceReplayAccepted),
    "ResumePriceReplay": RequestType("R", PriceReplayRef, PriceReplayAccepted),
    "StopPriceReplay": RequestType("R", PriceReplayRef, PriceReplayAccepted),
    "AcknowledgePrices": RequestType("R", AcknowledgePrices, PriceReplayAccepted),
    "GetPriceReplayStatus": RequestType("R", PriceReplayRef, PriceReplayStatus),
    "ListPriceReplays": RequestType("I", Nothing, PriceReplayList),
    "PublishPrices": RequestType("R", PublishPrices, PublishedPrices),
}

# What `payload.type` on a stream may be. `Batch` wraps several of any of the others.
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
