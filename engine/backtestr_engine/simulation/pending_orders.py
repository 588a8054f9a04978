"""Pending orders: limit, stop and stop-limit entries, from their placing to their end.

An entry signal places an order at the close of its bar; from the next bar on it waits for its price. There is at most
one for each symbol: a new entry replaces it, on either side, and an exit of its side cancels it. It ends filled,
rejected (when its price was reached, and cash or size did not suffice) or cancelled. Every change is a record with the
same id.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backtestr_engine.algorithms.signals import EXIT, SHORT_EXIT
from backtestr_engine.data.arrays import Floats

from .costs import FIRST_PART, own_share, size_of
from .execution import EventBuffers
from .numba_kernel import kernel
from .records import (
    BUY,
    CANCELLED,
    EXPIRED,
    LIMIT,
    NO_PRICE,
    NO_REASON,
    PENDING,
    REJECTED,
    REPLACED,
    SELL,
    STOP,
    WITHDRAWN,
)
from .touches import tolerance, touched


@kernel
def _emit(status: int, reason: int, time: int, rule: Any, state: Any, log: EventBuffers) -> None:
    if log.keeps_all:
        order = log.orders[log.counts[0]]
        order.order_id = state.pending_id
        order.timestamp = time
        order.quantity = state.pending_quantity
        order.price = pending_price(rule, state)
        order.fill_price = np.nan
        order.fill_quantity = 0.0
        order.fee = 0.0
        order.symbol = state.symbol
        order.side = state.pending_side
        order.order_type = rule.order_type
        order.status = status
        order.reason = reason
    log.counts[0] += 1


@kernel
def pending_price(rule: Any, state: Any) -> float:
    """Return the price of the order's records: its limit, or the stop of a stop or stop-limit order."""
    price: float = state.pending_limit if rule.order_type == LIMIT else state.pending_stop
    return price


@kernel
def cancel(reason: int, time: int, rule: Any, state: Any, log: EventBuffers) -> None:
    """End the pending order unfilled."""
    _emit(CANCELLED, reason, time, rule, state, log)
    state.pending_side = 0


@kernel
def withdraw(flags: int, time: int, rule: Any, state: Any, log: EventBuffers) -> None:
    """Cancel the pending order if the signals ask for an exit of its side."""
    if flags & (EXIT if state.pending_side == BUY else SHORT_EXIT) != 0:
        cancel(WITHDRAWN, time, rule, state, log)


@kernel
def place(
    side: int,
    bar: int,
    close: float,
    risked: float,
    levels: Floats,
    time: int,
    rule: Any,
    state: Any,
    log: EventBuffers,
) -> None:
    """Place an order for an entry on `bar`, in place of the one that is pending."""
    if state.pending_side != 0:
        cancel(REPLACED, time, rule, state, log)
    column = min(bar, levels.shape[1] - 1)
    state.orders += 1
    state.pending_id = state.orders
    state.pending_side = side
    state.pending_bar = bar
    state.pending_triggered = False
    state.pending_limit, state.pending_stop = levels[3, column], levels[4, column]
    limit_missing = rule.order_type != STOP and np.isnan(state.pending_limit)
    stop_missing = rule.order_type != LIMIT and np.isnan(state.pending_stop)
    if limit_missing or stop_missing:
        state.pending_quantity = 0.0
        _emit(REJECTED, NO_PRICE, time, rule, state, log)
        state.pending_side = 0
        return
    price = pending_price(rule, state)
    # The size of the order if the position in this symbol were closed first.
    free = state.cash + state.quantity * close
    worth = free + state.elsewhere
    if side == SELL or rule.short_collateral:
        free -= state.locked
    if rule.share_of_cash:
        worth = free
    free = own_share(free, rule, state)
    state.pending_quantity, _, _ = size_of(side, price, price, free, worth, FIRST_PART, risked, np.nan, rule)
    _emit(PENDING, NO_REASON, time, rule, state, log)


@kernel
def reached(opened: float, high: float, low: float, rule: Any, state: Any) -> float:
    """Return the market's price at which the pending order is filled on a bar, or NaN.

    A stop-limit order that is triggered beyond its limit waits for the limit from the next bar on. A price that differs
    from limit or stop by rounding touches it, and is the price of the fill.
    """
    buys = state.pending_side == BUY
    limit, near_limit = state.pending_limit, tolerance(state.pending_limit, state.pending_limit, rule)
    if rule.order_type != LIMIT and not state.pending_triggered:
        stop, near_stop = state.pending_stop, tolerance(state.pending_stop, state.pending_stop, rule)
        if (high < stop - near_stop) if buys else (low > stop + near_stop):
            return np.nan
        market: float = (
            max(opened, touched(stop, high, stop, rule)) if buys else min(opened, touched(stop, low, stop, rule))
        )
        if rule.order_type == STOP:
            return market
        state.pending_triggered = True
        if (market > limit + near_limit) if buys else (market < limit - near_limit):
            return np.nan
        within: float = min(market, limit) if buys else max(market, limit)
        return within
    if (low > limit + near_limit) if buys else (high < limit - near_limit):
        return np.nan
    best: float = (
        min(opened, touched(limit, low, limit, rule)) if buys else max(opened, touched(limit, high, limit, rule))
    )
    return best


@kernel
def pending_levels(rule: Any, state: Any) -> tuple[float, float]:
    """Return the prices that may fill the pending order: a low at or below the first, a high at or above the second."""
    buys = state.pending_side == BUY
    if rule.order_type == LIMIT or state.pending_triggered:
        price, from_above = state.pending_limit, buys
    else:
        price, from_above = state.pending_stop, not buys
    near = tolerance(price, price, rule)
    return (price + near, np.inf) if from_above else (-np.inf, price - near)


@kernel
def expire(bar: int, time: int, rule: Any, state: Any, log: EventBuffers) -> None:
    """Cancel the pending order after the last bar on which it is valid."""
    if rule.valid_bars > 0 and bar - state.pending_bar >= rule.valid_bars:
        cancel(EXPIRED, time, rule, state, log)
