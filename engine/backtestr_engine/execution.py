"""Execution: what a fill does to the account, and the records it leaves, for the kernel of `walk.py`.

Everything that changes cash or quantity is in this file. Prices come in as they are filled, after slippage.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .arrays import Integers
from .costs import FIRST_PART, MINIMUM_QUANTITY, affordable, fee_of, further_fee, size_of
from .fills import BUY, FILLED, REJECTED, SELL
from .kernel import kernel


class Log(NamedTuple):
    """Where a walk writes its records; `counts` says how many orders, positions and trades there are."""

    orders: Any
    positions: Any
    trades: Any
    counts: Integers


@kernel
def open_position(
    side: int, price: float, market: float, listed: float, risked: float, time: int, rule: Any, state: Any, log: Log
) -> tuple[float, float, float, int]:
    """Open a position from flat; `listed` is the listed fee of the close that began the order, or `FIRST_PART`.

    `risked` is the fraction of price that the position may lose, for size risk. Returns the quantity wanted and filled,
    the fee, and the reason for less or none.
    """
    wanted, quantity, reason = size_of(side, price, market, state.cash, listed, risked, rule)
    if quantity == 0.0:
        return wanted, 0.0, 0.0, reason
    fee = further_fee(quantity, price, listed, rule)
    state.cash -= side * quantity * price + fee
    if side == BUY and rule.leverage == 1.0 and not rule.cost_per_unit:
        state.cash = max(state.cash, 0.0)  # A purchase is not on credit: below zero is the last bit of rounding.
    state.quantity = side * quantity
    state.average_price = price
    state.entry_fees = fee
    state.entry_time = time
    state.position_realized = -fee
    state.realized -= fee
    state.positions_opened += 1
    _emit_position(state, market, time, log)
    return wanted, quantity, fee, reason


@kernel
def close_position(price: float, market: float, time: int, rule: Any, state: Any, log: Log) -> tuple[float, float]:
    """Close the position, or what cash allows of it when a cover is cut. Returns the quantity closed and the fee."""
    side = SELL if state.quantity > 0.0 else BUY
    held = abs(state.quantity)
    quantity = held
    if side == BUY and rule.cut:
        quantity = min(held, affordable(state.cash, price, FIRST_PART, 1.0, rule))
        if quantity < MINIMUM_QUANTITY:
            return 0.0, 0.0
    fee = fee_of(quantity, price, rule)
    entry_fees = state.entry_fees * (quantity / held)
    gross = -side * quantity * (price - state.average_price)
    state.cash -= side * quantity * price + fee
    state.quantity = 0.0 if quantity == held else state.quantity + side * quantity
    state.entry_fees -= entry_fees
    state.position_realized += gross - fee
    state.realized += gross - fee

    trade = log.trades[log.counts[2]]
    trade.position_id = state.positions_opened
    trade.entry_time = state.entry_time
    trade.exit_time = time
    trade.quantity = quantity
    trade.entry_price = state.average_price
    trade.exit_price = price
    trade.fees = entry_fees + fee
    trade.pnl = gross - entry_fees - fee
    trade["return"] = trade.pnl / (state.average_price * quantity)
    trade.side = -side
    log.counts[2] += 1

    if state.quantity == 0.0:
        state.positions_closed += 1
    _emit_position(state, market, time, log)
    return quantity, fee


@kernel
def _emit_position(state: Any, market: float, time: int, log: Log) -> None:
    position = log.positions[log.counts[1]]
    position.position_id = state.positions_opened
    position.timestamp = time
    position.quantity = state.quantity
    position.average_price = state.average_price
    position.current_price = market
    position.unrealized = state.quantity * (market - state.average_price) + 0.0  # never −0
    position.realized = state.position_realized
    log.counts[1] += 1


@kernel
def emit_order(
    side: int,
    order_type: int,
    asked: float,
    price: float,
    market: float,
    fill_price: float,
    filled: float,
    fee: float,
    reason: int,
    order_id: int,
    time: int,
    state: Any,
    log: Log,
) -> None:
    """Record the end of an order: filled when `filled` is above 0, else rejected. Id 0 stands for a new order's.

    `price` is the record's, `market` and `fill_price` are those before and after slippage.
    """
    if order_id == 0:
        state.orders += 1
        order_id = state.orders
    order = log.orders[log.counts[0]]
    order.order_id = order_id
    order.timestamp = time
    order.quantity = asked
    order.price = price
    order.fill_quantity = filled
    order.fee = fee
    order.side = side
    order.order_type = order_type
    order.reason = reason
    if filled > 0.0:
        order.fill_price = fill_price
        order.status = FILLED
        state.orders_filled += 1
        state.fees += fee
        state.slippage += abs(fill_price - market) * filled
        state.traded_value += fill_price * filled
    else:
        order.fill_price = np.nan
        order.status = REJECTED
    log.counts[0] += 1
