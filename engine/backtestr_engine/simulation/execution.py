"""Execution of fills: they change the account and leave records.

Everything that changes cash or quantity is in this file. Prices are fill prices, after slippage.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from backtestr_engine.data.arrays import Integers

from .costs import (
    FIRST_PART,
    MINIMUM_QUANTITY,
    ROUNDING,
    affordable,
    brings_less_than_its_fee,
    fee_of,
    free_cash,
    further_fee,
    own_share,
    size_of,
)
from .numba_kernel import kernel
from .records import BUY, CUT, FEE_TOO_HIGH, FILLED, NO_CASH, NO_REASON, REJECTED, SELL

IMMATERIAL = 1e-9
"""A fraction of equity: an order that differs by less than this from what was wanted differs by rounding."""


class EventBuffers(NamedTuple):
    """The arrays to which a simulation writes its records; `counts` are the numbers of orders, positions and trades.

    The kinds of record are `ORDER`, `WRITTEN_POSITION` and `WRITTEN_TRADE`.

    Without `keeps_all` orders and positions are counted and not written: a sweep needs the trades alone.
    """

    orders: Any
    positions: Any
    trades: Any
    counts: Integers
    keeps_all: bool


@kernel
def open_position(
    side: int,
    price: float,
    market: float,
    fee_so_far: float,
    risked: float,
    target_quantity: float,
    time: int,
    rule: Any,
    state: Any,
    log: EventBuffers,
) -> tuple[float, float, float, int]:
    """Open a position, or add to one on its side.

    `fee_so_far` is the listed fee of the close that began the order, or `FIRST_PART`. `risked` is the fraction of price
    that the position may lose, for size risk; `target_quantity` is as for `size_of`. Returns the quantity wanted and
    filled, the fee, and the reason for less or none.
    """
    free = free_cash(side, market, rule, state)
    worth = free if rule.share_of_cash else state.cash + state.elsewhere
    if np.isnan(target_quantity):
        free = own_share(free, rule, state)
    wanted, quantity, reason = size_of(side, price, market, free, worth, fee_so_far, risked, target_quantity, rule)
    if quantity == 0.0:
        return wanted, 0.0, 0.0, reason
    if reason == CUT and (wanted - quantity) * price < IMMATERIAL * abs(state.equity):
        reason = NO_REASON
    fee = further_fee(quantity, price, fee_so_far, rule)
    state.cash -= side * quantity * price + fee
    if side == BUY and rule.leverage == 1.0 and not rule.cost_per_unit:
        state.cash = max(state.cash, 0.0)  # A purchase is not on credit: what is below zero is rounding.
    state.realized -= fee
    if state.quantity == 0.0:
        state.quantity = side * quantity
        state.average_price = price
        state.entry_fees = fee
        state.entry_time = time
        state.position_realized = -fee
        state.positions_opened += 1
        state.positions += 1
        state.position_id = state.positions
    else:
        held = abs(state.quantity)
        state.average_price = (held * state.average_price + quantity * price) / (held + quantity)
        state.quantity += side * quantity
        state.entry_fees += fee
        state.position_realized -= fee
    _emit_position(state, market, time, log)
    return wanted, quantity, fee, reason


@kernel
def close_position(
    asked: float, price: float, market: float, time: int, rule: Any, state: Any, log: EventBuffers
) -> tuple[float, float]:
    """Close `asked` units of the position, and return the quantity closed and the fee.

    Where orders are cut to the cash at hand, a cover closes what cash allows, and a sale that would cost cash closes
    nothing.
    """
    side = SELL if state.quantity > 0.0 else BUY
    held = abs(state.quantity)
    quantity = asked
    if side == BUY and rule.cut:
        most = affordable(state.cash, price, FIRST_PART, 1.0, rule)
        if asked - most > ROUNDING * asked:
            quantity = np.floor(most) if rule.whole_units else most
        if quantity < MINIMUM_QUANTITY:
            return 0.0, 0.0
    elif side == SELL and brings_less_than_its_fee(quantity, price, FIRST_PART, rule):
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
    trade.position_id = state.position_id
    trade.symbol = state.symbol
    trade.entry_time = state.entry_time
    trade.exit_time = time
    trade.quantity = quantity
    trade.entry_price = state.average_price
    trade.exit_price = price
    trade.fees = entry_fees + fee
    trade.pnl = gross - entry_fees - fee
    trade["return"] = trade.pnl / (state.average_price * quantity)
    trade.side = -side
    trade.mae = trade.mfe = 0.0
    trade.padding = trade.more_padding = 0
    log.counts[2] += 1

    if state.quantity == 0.0:
        state.positions_closed += 1
    _emit_position(state, market, time, log)
    return quantity, fee


@kernel
def share_fee(
    closed: float, closing_fee: float, opened: float, opening_fee: float, rule: Any, log: EventBuffers
) -> float:
    """Share the fee of a reversal, by units, between the trade that it closed and the position that it opened.

    Without a fixed or a least fee each has paid its own; of these the close has paid all. The log's latest trade and
    latest two positions are those of the order. Returns what is moved from the trade to the new position.
    """
    if rule.commission_fixed == 0.0 and rule.commission_minimum == 0.0:
        return 0.0
    moved: float = closing_fee - (closing_fee + opening_fee) * (closed / (closed + opened))
    trade = log.trades[log.counts[2] - 1]
    trade.fees -= moved
    trade.pnl += moved
    trade["return"] = trade.pnl / (trade.entry_price * trade.quantity)
    if log.keeps_all:
        log.positions[log.counts[1] - 2].realized += moved
        log.positions[log.counts[1] - 1].realized -= moved
    return moved


@kernel
def shortfall(side: int, filled: float) -> int:
    """Return the reason for an exit that is filled in part or not at all."""
    if filled > 0.0:
        return CUT
    return FEE_TOO_HIGH if side == SELL else NO_CASH


@kernel
def _emit_position(state: Any, market: float, time: int, log: EventBuffers) -> None:
    if log.keeps_all:
        position = log.positions[log.counts[1]]
        position.position_id = state.position_id
        position.symbol = state.symbol
        position.timestamp = time
        position.quantity = state.quantity
        position.average_price = state.average_price
        position.current_price = market
        position.unrealized = state.quantity * (market - state.average_price) + 0.0  # never −0
        position.realized = state.position_realized
        position.padding = 0
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
    log: EventBuffers,
) -> None:
    """Record the end of an order: filled when `filled` is above 0, else rejected.

    An `order_id` of 0 gives the order the next id. `price` is the record's; `market` and `fill_price` are the prices
    before and after slippage.
    """
    if order_id == 0:
        state.orders += 1
        order_id = state.orders
    if filled > 0.0:
        state.orders_filled += 1
        state.fees += fee
        state.slippage += abs(fill_price - market) * filled
        state.traded_value += fill_price * filled
    if log.keeps_all:
        order = log.orders[log.counts[0]]
        order.order_id = order_id
        order.timestamp = time
        order.quantity = asked
        order.price = price
        order.fill_price = fill_price if filled > 0.0 else np.nan
        order.fill_quantity = filled
        order.fee = fee
        order.symbol = state.symbol
        order.side = side
        order.order_type = order_type
        order.status = FILLED if filled > 0.0 else REJECTED
        order.reason = reason
    log.counts[0] += 1
