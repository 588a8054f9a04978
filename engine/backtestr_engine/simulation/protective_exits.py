"""Protective exits: stop loss, take profit, trailing stop and liquidation.

While a position is open the account has two prices, its floor and its ceiling: a bar whose low reaches the floor or
whose high reaches the ceiling closes it. For a long position the floor is the nearest of stop loss, trailing stop and
liquidation, and the ceiling is the take profit; for a short position it is the other way round. Within a bar the stop
is checked before the profit, and only then does the trailing reference move: the worse order of prices is assumed.

A level is a product of rounded numbers (100 · 1.1 is 110.00000000000001), so a price that differs from it by rounding
touches it, and is the price of the fill: floor and ceiling are nearer than their levels by `tolerance`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backtestr_engine.data.arrays import Floats

from .account import ENTRY_CLOSE, FILL_PRICE
from .costs import slipped
from .execution import EventBuffers, close_position, emit_order, shortfall
from .numba_kernel import kernel
from .records import (
    BUY,
    LIMIT,
    LIQUIDATED,
    MARKET,
    SELL,
    STOP,
    STOP_LOSS,
    TAKE_PROFIT,
    TRAILING_STOP,
)
from .touches import tolerance, touched

_NO_PRICE = 1e-9
"""A liquidation price below this is rounding: there is none."""


@kernel
def risked_at(bar: int, levels: Floats) -> float:
    """Return the fraction that a position may lose by the stops of the signal of `bar`; 0 is no bound."""
    column = min(bar, levels.shape[1] - 1)
    stop_loss, trailing_stop = levels[0, column], levels[2, column]
    risked: float = stop_loss if stop_loss > 0.0 else trailing_stop
    return risked


AT_OPEN, WITHIN, AT_CLOSE = range(3)
"""The moments of a bar at which a position is opened."""


@kernel
def arm_exits(signal_bar: int, bar: int, moment: int, close: Floats, levels: Floats, rule: Any, state: Any) -> None:
    """Arm the exits of the position that was opened at a moment of `bar` by a signal on `signal_bar`.

    After the close nothing is left of the bar, and a base that is its close is not known before: then the exits act
    from the next bar on.
    """
    column = min(signal_bar, levels.shape[1] - 1)
    state.stop_loss, state.take_profit, state.trailing_stop = levels[0, column], levels[1, column], levels[2, column]
    if rule.stop_base == FILL_PRICE:
        state.stop_base = state.average_price
    elif rule.stop_base == ENTRY_CLOSE:
        state.stop_base = close[bar]
    else:
        state.stop_base = close[signal_bar]
    at_open, on_entry_close = moment == AT_OPEN, rule.stop_base == ENTRY_CLOSE
    within = moment == WITHIN and rule.same_bar_within
    state.liquidates_from = bar if at_open or within else bar + 1
    state.trailing_reference = state.stop_base
    state.armed_from = bar if ((at_open and rule.same_bar) or within) and not on_entry_close else bar + 1
    state.trails_from = bar if at_open and not on_entry_close else bar + 1
    stops = state.stop_loss > 0.0 or state.take_profit > 0.0 or state.trailing_stop > 0.0
    # Without credit a long position cannot lose more than was paid for it.
    if stops or (rule.liquidates and (rule.leverage != 1.0 or state.quantity < 0.0)):
        state.armed = True
        set_levels(rule, state)


@kernel
def disarm_exits(state: Any) -> None:
    """Disarm all exits."""
    state.stop_loss = state.take_profit = state.trailing_stop = 0.0
    state.armed = False


@kernel
def set_levels(rule: Any, state: Any) -> None:
    """Set floor and ceiling from the exits of the open position.

    Liquidation is at the price p where cash + the value of other positions + quantity · p = maintenance margin ·
    |quantity · p|.
    """
    side = 1.0 if state.quantity > 0.0 else -1.0
    against, beyond = -side * np.inf, side * np.inf
    state.stop_reason = STOP_LOSS
    if state.stop_loss > 0.0:
        against = state.stop_base * (1.0 - side * state.stop_loss)
    if state.trailing_stop > 0.0:
        trailing = state.trailing_reference * (1.0 - side * state.trailing_stop)
        if side * trailing > side * against:
            against = trailing
            state.stop_reason = TRAILING_STOP
    state.liquidation = 0.0
    if rule.liquidates:
        margin = 1.0 - side * rule.maintenance_margin
        state.liquidation = -(state.cash + state.elsewhere) / (state.quantity * margin)
        if state.liquidation < _NO_PRICE:
            state.liquidation = 0.0
        if state.liquidation > 0.0 and side * state.liquidation > side * against:
            against = state.liquidation
            state.stop_reason = LIQUIDATED
    if state.take_profit > 0.0:
        beyond = state.stop_base * (1.0 + side * state.take_profit)
    state.stop_level, state.profit_level = against, beyond
    low, high = (against, beyond) if side > 0.0 else (beyond, against)
    state.floor = low + tolerance(low, state.stop_base, rule)
    state.ceiling = high - tolerance(high, state.stop_base, rule)


@kernel
def since_fill(
    by_limit: bool, market: float, opened: float, high: float, low: float, close: float, state: Any
) -> tuple[float, float]:
    """Return the high and low of a bar that count for a position that was opened within it at the price `market`.

    A price moves against an order until it reaches its limit, so the bar's extreme on that side is later than the fill;
    the other may be earlier, and only the close is known to be later. With a stop it is the other way round: the
    extreme beyond it is later. The one before it is taken to be later, the worse, unless the stop level lies between
    the open and the fill: the price passed it on its way to the fill, and need not have come back.
    """
    highest, lowest = max(market, close), min(market, close)
    if by_limit:
        return (highest, low) if state.quantity > 0.0 else (high, lowest)
    if state.quantity > 0.0:
        return high, (lowest if state.stop_level > opened else low)
    return (highest if state.stop_level < opened else high), low


@kernel
def protect(
    bar: int, opened: float, high: float, low: float, time: int, rule: Any, state: Any, log: EventBuffers
) -> bool:
    """Close the open position if `bar` reaches one of its levels, and move the trailing stop.

    Returns whether a level was reached. If the open is beyond the level, the fill is at the open. What an exit cannot
    close for lack of cash stays armed, and the next bar tries again.
    """
    is_long = state.quantity > 0.0
    floor, ceiling, reason, stop_level = state.floor, state.ceiling, state.stop_reason, state.stop_level
    if bar < state.armed_from:
        floor, ceiling, reason, stop_level = -np.inf, np.inf, LIQUIDATED, state.liquidation
        if stop_level > 0.0 and bar >= state.liquidates_from:
            near = tolerance(stop_level, state.stop_base, rule)
            floor, ceiling = (stop_level + near, np.inf) if is_long else (-np.inf, stop_level - near)
    ended = False
    if low <= floor or high >= ceiling:
        base = state.stop_base
        if is_long:
            stopped = low <= floor
            level = touched(stop_level if stopped else state.profit_level, low if stopped else high, base, rule)
            market = min(opened, level) if stopped else max(opened, level)
        else:
            stopped = high >= ceiling
            level = touched(stop_level if stopped else state.profit_level, high if stopped else low, base, rule)
            market = max(opened, level) if stopped else min(opened, level)
        side = SELL if is_long else BUY
        order_type = STOP if stopped else LIMIT
        slips = stopped and rule.slip_stops
        if not stopped:
            reason = TAKE_PROFIT
        elif reason == LIQUIDATED:
            order_type, level, slips = MARKET, market, rule.slip_exits
        price = slipped(side, market, rule) if slips else market
        asked = abs(state.quantity)
        filled, fee = close_position(asked, price, market, time, rule, state, log)
        if filled < asked:
            reason = shortfall(side, filled)
        emit_order(side, order_type, asked, level, market, price, filled, fee, reason, 0, time, state, log)
        ended = True
        if state.quantity == 0.0:
            disarm_exits(state)
            return True
        set_levels(rule, state)
    if state.trailing_stop > 0.0 and bar >= state.trails_from:
        best = high if state.quantity > 0.0 else low
        if (best - state.trailing_reference) * state.quantity > 0.0:
            state.trailing_reference = best
            set_levels(rule, state)
    return ended
