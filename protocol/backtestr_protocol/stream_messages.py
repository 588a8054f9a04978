"""This module has the contracts of stream messages, which are published alone or in a `Batch`."""

from __future__ import annotations

from typing import Literal

import msgspec

from .messages import Contract, OrderStatus, OrderType, Side, StateEntry
from .payload_compression import Compression


# The garbage collector does not track it (`gc=False`): it holds texts and numbers only, and there are millions.
class PriceUpdate(Contract, frozen=True, kw_only=True, gc=False):
    """A price.

    One of a price replay has `replay_id`, and a bar that a backtest simulated has `backtest_id`. A price of a feed has
    neither.
    """

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
    """A point of the equity curve; `drawdown` (positive) and `returns` (since the start) are fractions."""

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


class OrderUpdate(Contract, frozen=True, kw_only=True, gc=False):
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


class PositionUpdate(Contract, frozen=True, kw_only=True, gc=False):
    """A change of a position, or an open position at a later price.

    `quantity` is signed: negative is short, 0 is closed. With `mark` the position did not change: it is valued at the
    close of its latest bar, and `timestamp` is the open time of the last simulated bar.
    """

    position_id: str
    backtest_id: str
    symbol: str
    quantity: float
    average_price: float
    current_price: float
    unrealized_pnl: float = msgspec.field(name="unrealizedPnL")
    realized_pnl: float = msgspec.field(name="realizedPnL")
    timestamp: int
    mark: bool = False


class StateUpdate(StateEntry, frozen=True, kw_only=True):
    """A key was set or deleted; the value of a `deleted` key is nil. `revision` counts the changes of all keys."""

    revision: int
    deleted: bool = False


class Watermarks(Contract, frozen=True, kw_only=True):
    topics: dict[str, int]


class Column(Contract, frozen=True, kw_only=True):
    """The values of one field, 8 bytes each, little-endian: float64 (`<f8`) or int64 (`<i8`)."""

    dtype: Literal["<f8", "<i8"]
    data: bytes


Columns = dict[str, Column | str | int | float]


class Batch(Contract, frozen=True, kw_only=True):
    """A batch of `count` stream messages.

    `messages` is the array of their payloads in order (`compression: "none"`), or the compressed MessagePack bytes of
    that array. A column batch has `type` and `columns` instead: a map from the name of each field to a `Column`, or to
    the value that all messages share, or the compressed MessagePack bytes of that map.
    """

    count: int
    compression: Compression
    raw_bytes: int
    messages: list[msgspec.Raw] | bytes | None = None
    type: str | None = None
    columns: Columns | bytes | None = None
