"""The contracts of the streams: what is published, alone or in a `Batch`."""

from __future__ import annotations

from typing import Literal

import msgspec

from .messages import Contract, OrderStatus, OrderType, Side, StateEntry
from .payload_compression import Compression


# Not for the garbage collector: it holds texts and numbers only, and there are millions.
class PriceUpdate(Contract, frozen=True, kw_only=True, gc=False):
    """`replay_id` marks the bar of a replay, `backtest_id` the bar that a backtest walked over; live prices have
    neither."""

    symbol: str
    timestamp: int
    bid: float
    ask: float
    last: float
    volume: float
    timeframe: str
    replay_id: str | None = None
    backtest_id: str | None = None


class EquityCurvePoint(Contract, frozen=True, kw_only=True):
    """`drawdown` (positive) and `returns` (since the start) are fractions."""

    timestamp: int
    equity: float
    drawdown: float
    returns: float


class BacktestProgress(Contract, frozen=True, kw_only=True):
    backtest_id: str
    current_time: int
    progress_percent: float
    orders_executed: int
    positions_opened: int
    positions_closed: int
    unrealized_pnl: float = msgspec.field(name="unrealizedPnL")
    realized_pnl: float = msgspec.field(name="realizedPnL")
    equity_curve_point: EquityCurvePoint


class OrderUpdate(Contract, frozen=True, kw_only=True):
    order_id: str
    backtest_id: str
    symbol: str
    side: Side
    quantity: float
    price: float
    order_type: OrderType
    status: OrderStatus
    timestamp: int
    fill_price: float | None = None
    fill_quantity: float | None = None
    reason: str | None = None


class PositionUpdate(Contract, frozen=True, kw_only=True):
    """`quantity` is signed: negative is short, 0 is closed."""

    position_id: str
    backtest_id: str
    symbol: str
    quantity: float
    average_price: float
    current_price: float
    unrealized_pnl: float = msgspec.field(name="unrealizedPnL")
    realized_pnl: float = msgspec.field(name="realizedPnL")
    timestamp: int


class StateUpdate(StateEntry, frozen=True, kw_only=True):
    """A key was set, or `deleted`, its value then nil. `revision` counts the changes of all keys."""

    revision: int
    deleted: bool = False


class Watermarks(Contract, frozen=True, kw_only=True):
    topics: dict[str, int]


class Column(Contract, frozen=True, kw_only=True):
    """Values of one field, 8 bytes each, little-endian: float64 (`<f8`) or int64 (`<i8`)."""

    dtype: Literal["<f8", "<i8"]
    data: bytes


Columns = dict[str, Column | str | int | float]


class Batch(Contract, frozen=True, kw_only=True):
    """`messages`: payloads in order (`compression: "none"`), or the compressed MessagePack bytes of that array. Or, of
    messages that are all of one `type`, `columns`: by the name of its field a `Column`, or the value that all have; or
    the compressed MessagePack bytes of that map."""

    count: int
    compression: Compression
    raw_bytes: int
    messages: list[msgspec.Raw] | bytes | None = None
    type: str | None = None
    columns: Columns | bytes | None = None
