"""One bar of one symbol: fills at the open, exits and pending orders within the bar, fills at the close.

    at_open     the signal of the bar before (`fill_at` next_open)
    within      protective exits; the pending order
    at_close    a new pending order; the bar's own signal (`fill_at` close); the end of the data

A signal asks for a market order, which is decided on the close of its bar and filled at that close or at the next open.
An entry may ask for a pending order instead (`pending_orders.py`). A market order is emitted once, with its final
status; so are protective exits, which become orders when they are hit. A reversal is one order that closes one position
and opens another, or two orders by convention. An exit is never rejected for lack of cash unless `short_of_cash` is
"cut". A target is a market order for the difference to it.

`bar` is an index into the arrays, in which the symbol has the bars from `first` up to and including `last`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from backtestr_engine.algorithms.signals import EXIT, SHORT_EXIT, TARGET
from backtestr_engine.data.arrays import Bytes, Floats, Integers

from .account import IGNORE, REVERSE
from .costs import FIRST_PART, MINIMUM_QUANTITY, listed_fee, slipped
from .execution import IMMATERIAL, EventBuffers, close_position, emit_order, open_position, share_fee, shortfall
from .numba_kernel import inlined_kernel, kernel
from .pending_orders import cancel, expire, pending_price, place, reached, withdraw
from .protective_exits import (
    AT_CLOSE,
    AT_OPEN,
    WITHIN,
    arm_exits,
    disarm_exits,
    protect,
    risked_at,
    set_levels,
    since_fill,
)
from .records import BUY, END_OF_DATA, LIMIT, MARKET, NO_NEXT_BAR, NO_REASON, OPEN_AT_END, SELL, STOP


class Prices(NamedTuple):
    """The columns of the bars."""

    timestamp: Integers
    open: Floats
    high: Floats
    low: Floats
    close: Floats


class SignalColumns(NamedTuple):
    """The signals of the algorithm as the kernel reads them, bar by bar.

    `levels`: rows stop loss, take profit, trailing stop (fractions, 0 is none), limit and stop price (NaN is none),
    with a value per bar, or one for all. `targets`: fractions of equity where the flags have TARGET; empty without any.
    """

    flags: Bytes
    levels: Floats
    targets: Floats


@inlined_kernel
def at_open(
    bar: int, first: int, prices: Prices, signals: SignalColumns, rule: Any, state: Any, log: EventBuffers
) -> None:
    """Execute the signal of the bar before at the open, or at the close before that this bar books."""
    if rule.fill_at_close or bar == first or signals.flags[bar - 1] == 0:
        return
    opened = state.positions_opened
    market, time = prices.open[bar], prices.timestamp[bar]
    if rule.books_next_bar:
        market, time = prices.close[bar - 1], prices.timestamp[bar - 1]
    _execute_signal(bar - 1, market, time, signals, rule, state, log)
    if state.positions_opened != opened:
        arm_exits(bar - 1, bar, AT_OPEN, prices.close, signals.levels, rule, state)


@inlined_kernel
def within(bar: int, prices: Prices, signals: SignalColumns, rule: Any, state: Any, log: EventBuffers) -> bool:
    """Execute the protective exits, then fill or expire the pending order.

    Returns whether a protective exit was hit before the pending order.
    """
    if not state.armed and state.pending_side == 0:
        return False  # before any price is read: a read may wait for memory
    open, high, low, time = prices.open[bar], prices.high[bar], prices.low[bar], prices.timestamp[bar]
    stopped = False
    if state.armed:
        stopped = protect(bar, open, high, low, time, rule, state, log)
    if state.pending_side != 0:
        opened = state.positions_opened
        signal_bar = state.pending_bar
        risked = risked_at(signal_bar, signals.levels)
        by_limit = rule.order_type == LIMIT or state.pending_triggered
        market = _fill_pending(bar, open, high, low, risked, time, rule, state, log)
        if state.positions_opened != opened:
            moment = AT_OPEN if market == open else WITHIN
            arm_exits(signal_bar, bar, moment, prices.close, signals.levels, rule, state)
            if state.armed:
                if moment == WITHIN:
                    high, low = since_fill(by_limit, market, open, high, low, prices.close[bar], state)
                protect(bar, market, high, low, time, rule, state, log)
    return stopped


@inlined_kernel
def at_close(
    bar: int, last: int, stopped: bool, prices: Prices, signals: SignalColumns, rule: Any, state: Any, log: EventBuffers
) -> None:
    """Execute or place what the bar's own signal asks for; on the last bar, end what is open.

    `stopped`: `within` hit a protective exit.
    """
    flags, close, time = signals.flags[bar], prices.close[bar], prices.timestamp[bar]
    skipped = stopped and rule.fill_at_close and rule.skip_after_stop
    if flags != 0 and not skipped:
        if rule.order_type != MARKET:
            if state.pending_side != 0:
                withdraw(flags, time, rule, state, log)
            _, opens = decide(flags, rule, state.quantity)
            if opens != 0:
                place(opens, bar, close, risked_at(bar, signals.levels), signals.levels, time, rule, state, log)
        if rule.fill_at_close:
            opened = state.positions_opened
            _execute_signal(bar, close, time, signals, rule, state, log)
            if state.positions_opened != opened:
                arm_exits(bar, bar, AT_CLOSE, prices.close, signals.levels, rule, state)
    if bar == last:
        if rule.close_at_end and state.quantity != 0.0:
            market, ends = prices.open[bar] if rule.end_at_open else close, time
            if rule.end_at_previous_close and bar > 0:
                market, ends = prices.close[bar - 1], prices.timestamp[bar - 1]
            close_at_market(market, ends, END_OF_DATA, rule, state, log)
        if state.pending_side != 0:
            cancel(OPEN_AT_END, time, rule, state, log)
        if flags != 0 and not rule.fill_at_close:
            _reject_signal(bar, close, time, signals, rule, state, log)


@kernel
def decide(flags: int, rule: Any, quantity: float) -> tuple[bool, int]:
    """Return whether the signals of a bar close the position, and the side that they open (0: none).

    Long and short entry at once contradict each other and ask for nothing; an exit outweighs an entry of its own side.
    """
    long_entry = (flags & rule.entry_flags) != 0 and (flags & EXIT) == 0
    short_entry = (flags & rule.short_entry_flags) != 0 and (flags & SHORT_EXIT) == 0
    if long_entry and short_entry:
        long_entry = short_entry = False
    if quantity == 0.0:
        return False, BUY if long_entry else (SELL if short_entry else 0)
    is_long = quantity > 0.0
    opposite = short_entry if is_long else long_entry
    if opposite and rule.on_opposite != IGNORE:
        opened = SELL if is_long else BUY
        return True, opened if rule.on_opposite == REVERSE else 0
    return (flags & (EXIT if is_long else SHORT_EXIT)) != 0, 0


@kernel
def order_to_target(target: float, market: float, rule: Any, state: Any) -> tuple[float, int, float]:
    """Return the order that brings the position to `target`, a signed fraction of equity.

    The order is the units to close, the side to open (0: none) and the units to open. The target of an account without
    equity is no position.
    """
    if rule.entry_flags == 0:
        target = min(target, 0.0)
    if rule.short_entry_flags == 0:
        target = max(target, 0.0)
    held, equity = state.quantity, max(state.equity, 0.0)
    wanted = target * equity / market
    if rule.whole_units:
        wanted = np.trunc(wanted)
    change = wanted - held
    if abs(change) < MINIMUM_QUANTITY or abs(change) * market < IMMATERIAL * equity:
        return 0.0, 0, np.nan
    side = BUY if change > 0.0 else SELL
    if held * change >= 0.0:
        return 0.0, side, abs(change)
    if wanted == 0.0:
        return abs(held), 0, np.nan
    if held * wanted > 0.0:
        return abs(change), 0, np.nan
    return abs(held), side, abs(wanted)


@inlined_kernel
def _execute_signal(
    bar: int, market: float, time: int, signals: SignalColumns, rule: Any, state: Any, log: EventBuffers
) -> None:
    """Execute the signals of `bar` at the price of the market, except entries that become pending orders."""
    flags = signals.flags[bar]
    if flags & TARGET != 0:
        closing, opens, target_quantity = order_to_target(signals.targets[bar], market, rule, state)
    else:
        closes, opens = decide(flags, rule, state.quantity)
        closing, target_quantity = abs(state.quantity) if closes else 0.0, np.nan
        if opens != 0 and rule.order_type != MARKET:
            return
    if closing > 0.0 or opens != 0:
        risked = risked_at(bar, signals.levels)
        _exchange(closing, opens, target_quantity, MARKET, market, market, True, 0, risked, time, rule, state, log)


@kernel
def _exchange(
    closing: float,
    opens: int,
    target_quantity: float,
    order_type: int,
    order_price: float,
    market: float,
    slips: bool,
    order_id: int,
    risked: float,
    time: int,
    rule: Any,
    state: Any,
    log: EventBuffers,
) -> None:
    """Close `closing` units of the position, open a position on side `opens` (0: none), or both, and emit the order.

    `target_quantity` is as for `size_of`.
    """
    side = opens
    if closing > 0.0:
        side = SELL if state.quantity > 0.0 else BUY
    asked = closed = fee = 0.0
    reason = NO_REASON
    fee_so_far = FIRST_PART
    if closing > 0.0:
        price = slipped(side, market, rule) if slips and rule.slip_exits else market
        asked = closing
        closed, fee = close_position(asked, price, market, time, rule, state, log)
        if closed < asked:
            reason = shortfall(side, closed)
        if state.quantity == 0.0:
            disarm_exits(state)
        elif state.armed:
            set_levels(rule, state)
        ends = opens == 0 or closed < asked
        if ends or rule.two_orders:
            own = order_id if ends else 0
            emit_order(side, order_type, asked, order_price, market, price, closed, fee, reason, own, time, state, log)
            if ends:
                return
            asked = closed = fee = 0.0
        else:
            fee_so_far = listed_fee(closed, price, rule)
    price = slipped(side, market, rule) if slips else market
    wanted, opened, opening_fee, reason = open_position(
        opens, price, market, fee_so_far, risked, target_quantity, time, rule, state, log
    )
    if state.armed:
        set_levels(rule, state)
    if opened == 0.0 and closed > 0.0:
        emit_order(side, order_type, asked, order_price, market, price, closed, fee, NO_REASON, 0, time, state, log)
        asked = closed = fee = 0.0
    if opened > 0.0 and closed > 0.0:
        moved = share_fee(closed, fee, opened, opening_fee, rule, log)
        state.entry_fees += moved
        state.position_realized -= moved
    asked += wanted
    filled, fee = closed + opened, fee + opening_fee
    emit_order(side, order_type, asked, order_price, market, price, filled, fee, reason, order_id, time, state, log)


@kernel
def _fill_pending(
    bar: int, opened: float, high: float, low: float, risked: float, time: int, rule: Any, state: Any, log: EventBuffers
) -> float:
    """Fill the pending order if `bar` reaches its price, or expire it; return the market's price or NaN."""
    market = reached(opened, high, low, rule, state)
    if np.isnan(market):
        expire(bar, time, rule, state, log)
        return market
    side, price = state.pending_side, pending_price(rule, state)
    state.pending_side = 0
    closing = abs(state.quantity) if state.quantity * side < 0.0 else 0.0
    own, slips = state.pending_id, rule.order_type == STOP
    _exchange(closing, side, np.nan, rule.order_type, price, market, slips, own, risked, time, rule, state, log)
    return market


@kernel
def close_at_market(market: float, time: int, reason: int, rule: Any, state: Any, log: EventBuffers) -> None:
    """Close the position by a market order for the given reason."""
    side = SELL if state.quantity > 0.0 else BUY
    asked = abs(state.quantity)
    price = slipped(side, market, rule) if rule.slip_exits else market
    filled, fee = close_position(asked, price, market, time, rule, state, log)
    if filled < asked:
        reason = shortfall(side, filled)
    if state.quantity == 0.0:
        disarm_exits(state)
    emit_order(side, MARKET, asked, market, market, price, filled, fee, reason, 0, time, state, log)


@kernel
def _reject_signal(
    bar: int, price: float, time: int, signals: SignalColumns, rule: Any, state: Any, log: EventBuffers
) -> None:
    """Reject what the signals of the last bar ask for, as there is no next open."""
    flags = signals.flags[bar]
    asked = abs(state.quantity)
    if flags & TARGET != 0:
        closing, opens, target_quantity = order_to_target(signals.targets[bar], price, rule, state)
        closes, asked = closing > 0.0, closing + (target_quantity if opens != 0 else 0.0)
    else:
        closes, opens = decide(flags, rule, state.quantity)
    side = opens
    if closes:
        side = SELL if state.quantity > 0.0 else BUY
    if side != 0 and (opens == 0 or rule.order_type == MARKET):
        emit_order(side, MARKET, asked, price, price, np.nan, 0.0, 0.0, NO_NEXT_BAR, 0, time, state, log)
