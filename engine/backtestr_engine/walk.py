"""The walk: the loop that goes through bars, turns signals into orders, and keeps the account.

One numba kernel over a small account record. Everything that a later bar needs of an earlier one is in that record, so
walking in chunks of any sizes gives bit for bit what one walk gives: this is what makes progress, pause and stop exact.

An order is market, decided on the close of a bar, and filled at that close or at the next open (`fill_at`). It is
emitted once, with its final status. A reversal is one order that closes one position and opens another. An exit is
never refused for lack of cash unless `short_of_cash` is "cut".
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numba import njit

# numba's cache on disk watches this file alone: after changing a constant that is imported here, touch it.
from .account import IGNORE, REVERSE, new_account
from .arrays import Bytes, Floats, Integers, Records
from .bars import Bars
from .costs import FIRST_PART, MINIMUM_QUANTITY, affordable, fee_of, further_fee, listed_fee, size_of, slipped
from .fills import (
    BUY,
    CUT,
    END_OF_DATA,
    FILLED,
    MARKET,
    NO_CASH,
    NO_NEXT_BAR,
    NO_REASON,
    ORDER,
    POSITION,
    REJECTED,
    SELL,
    TRADE,
)
from .signals import EXIT, SHORT_EXIT


class Events(msgspec.Struct, frozen=True):
    """What happened on some bars, in order: arrays of `ORDER`, `POSITION` and `TRADE` (closed ones)."""

    orders: Records
    positions: Records
    trades: Records


class Walk:
    """A walk over `bars` with their signal `flags`: `advance` it as far and as often as is convenient.

    `equity` holds cash + quantity · close for every bar walked; the rest of it is not yet written.
    """

    def __init__(self, bars: Bars, flags: Bytes, rules: Records, initial_capital: float) -> None:
        self.account = new_account(initial_capital)
        self.equity: Floats = np.empty(len(bars), dtype=np.float64)
        self.bars_walked = 0
        self._bars = bars
        self._flags = flags
        self._rules = rules
        # Room for all that can happen: a bar's signals make two orders and two changes of position at most (a close
        # and a refused or a new opening), the end of the data one more. Memory is taken page by page as it fills.
        busy = int(np.count_nonzero(flags))
        self._orders = np.zeros(2 * busy + 1, dtype=ORDER)
        self._positions = np.zeros(2 * busy + 1, dtype=POSITION)
        self._trades = np.zeros(busy + 1, dtype=TRADE)
        self._counts = np.zeros(3, dtype=np.int64)

    def advance(self, max_bars: int) -> Events:
        """Walk up to `max_bars` more bars and return what happened on them."""
        before = self._counts.copy()
        stop = min(self.bars_walked + max_bars, len(self._bars))
        _walk(
            self._bars.timestamp,
            self._bars.open,
            self._bars.close,
            self._flags,
            self.equity,
            self._rules,
            self.account,
            self._orders,
            self._positions,
            self._trades,
            self._counts,
            self.bars_walked,
            stop,
        )
        self.bars_walked = stop
        return self._events_from(before)

    def events(self) -> Events:
        """Everything that has happened so far."""
        return self._events_from(np.zeros(3, dtype=np.int64))

    def _events_from(self, first: Integers) -> Events:
        orders, positions, trades = self._counts
        return Events(
            self._orders[first[0] : orders], self._positions[first[1] : positions], self._trades[first[2] : trades]
        )


@njit(cache=True, nogil=True)
def _walk(
    timestamp: Integers,
    open: Floats,
    close: Floats,
    flags: Bytes,
    equity: Floats,
    rules: Any,
    account: Any,
    orders: Any,
    positions: Any,
    trades: Any,
    counts: Integers,
    start: int,
    stop: int,
) -> None:
    """Walk bars [start, stop). `counts` says how many orders, positions and trades there are, before and after."""
    rule = rules[0]
    state = account[0]
    last = timestamp.size - 1
    market, delay = (close, 0) if rule.fill_at_close else (open, 1)
    bar = start
    while bar < stop:
        time = timestamp[bar]
        if bar >= delay and flags[bar - delay] != 0:
            _obey(flags[bar - delay], market[bar], time, rule, state, orders, positions, trades, counts)
        if bar == last:
            if rule.close_at_end and state.quantity != 0.0:
                side = SELL if state.quantity > 0.0 else BUY
                asked = abs(state.quantity)
                filled, fee = _close(close[bar], time, rule, state, positions, trades, counts)
                reason = END_OF_DATA if filled == asked else (CUT if filled > 0.0 else NO_CASH)
                _emit(side, asked, close[bar], filled, fee, reason, time, rule, state, orders, counts)
            if delay == 1 and flags[bar] != 0:
                _refuse(flags[bar], close[bar], time, rule, state, orders, counts)
        # From here to the next bar with something to do, only prices move.
        cash, quantity, first = state.cash, state.quantity, bar
        quiet_until = min(stop, max(last, bar + 1))
        while True:
            equity[bar] = cash + quantity * close[bar]
            bar += 1
            if bar >= quiet_until or flags[bar - delay] != 0:
                break
        if quantity != 0.0:
            state.bars_exposed += bar - first


@njit(cache=True, nogil=True)
def _decide(flags: int, rule: Any, quantity: float) -> tuple[bool, int]:
    """What the signals of a bar ask of a position: whether to close it, and the side to open (0: none).

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


@njit(cache=True, nogil=True)
def _obey(
    flags: int,
    price: float,
    time: int,
    rule: Any,
    state: Any,
    orders: Any,
    positions: Any,
    trades: Any,
    counts: Integers,
) -> None:
    """Do what the signals ask at the market's `price`, and emit the order that did it."""
    closes, opens = _decide(flags, rule, state.quantity)
    asked = closed = opened = fee = 0.0
    side = opens
    reason = NO_REASON
    if closes:
        side = SELL if state.quantity > 0.0 else BUY
        asked = abs(state.quantity)
        closed, fee = _close(price, time, rule, state, positions, trades, counts)
        if closed == 0.0:
            reason = NO_CASH
        elif closed < asked:
            reason = CUT
    if opens != 0 and closed == asked:
        listed = listed_fee(closed, slipped(side, price, rule), rule) if closed > 0.0 else FIRST_PART
        wanted, opened, opening_fee, refusal = _open(opens, price, listed, time, rule, state, positions, counts)
        if opened == 0.0 and closed > 0.0:
            _emit(side, asked, price, closed, fee, reason, time, rule, state, orders, counts)
            asked = closed = fee = 0.0
        asked += wanted
        fee += opening_fee
        reason = refusal
    if side != 0:
        _emit(side, asked, price, closed + opened, fee, reason, time, rule, state, orders, counts)


@njit(cache=True, nogil=True)
def _refuse(flags: int, price: float, time: int, rule: Any, state: Any, orders: Any, counts: Integers) -> None:
    """Reject what the signals of the last bar ask for: there is no next open."""
    closes, opens = _decide(flags, rule, state.quantity)
    side = opens
    if closes:
        side = SELL if state.quantity > 0.0 else BUY
    if side != 0:
        _emit(side, abs(state.quantity), price, 0.0, 0.0, NO_NEXT_BAR, time, rule, state, orders, counts)


@njit(cache=True, nogil=True)
def _open(
    side: int, market: float, listed: float, time: int, rule: Any, state: Any, positions: Any, counts: Integers
) -> tuple[float, float, float, int]:
    """Open a position from flat; `listed` is the listed fee of the close that began the order, or `FIRST_PART`.

    Returns the quantity wanted and filled, the fee, and the reason for less or none.
    """
    price = slipped(side, market, rule)
    wanted, quantity, reason = size_of(side, price, state.cash, listed, rule)
    if quantity == 0.0:
        return wanted, 0.0, 0.0, reason
    fee = further_fee(quantity, price, listed, rule)
    state.cash -= side * quantity * price + fee
    if side == BUY:
        state.cash = max(state.cash, 0.0)  # A purchase is never on credit: below zero is the last bit of rounding.
    state.quantity = side * quantity
    state.average_price = price
    state.entry_fees = fee
    state.entry_time = time
    state.position_realized = -fee
    state.realized -= fee
    state.positions_opened += 1
    _emit_position(state, market, time, positions, counts)
    return wanted, quantity, fee, reason


@njit(cache=True, nogil=True)
def _close(
    market: float, time: int, rule: Any, state: Any, positions: Any, trades: Any, counts: Integers
) -> tuple[float, float]:
    """Close the position, or what cash allows of it when a cover is cut. Returns the quantity closed and the fee."""
    side = SELL if state.quantity > 0.0 else BUY
    price = slipped(side, market, rule)
    held = abs(state.quantity)
    quantity = held
    if side == BUY and rule.cut:
        quantity = min(held, affordable(state.cash, price, FIRST_PART, rule))
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

    trade = trades[counts[2]]
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
    counts[2] += 1

    if state.quantity == 0.0:
        state.positions_closed += 1
    _emit_position(state, market, time, positions, counts)
    return quantity, fee


@njit(cache=True, nogil=True)
def _emit_position(state: Any, market: float, time: int, positions: Any, counts: Integers) -> None:
    position = positions[counts[1]]
    position.position_id = state.positions_opened
    position.timestamp = time
    position.quantity = state.quantity
    position.average_price = state.average_price
    position.current_price = market
    position.unrealized = state.quantity * (market - state.average_price) + 0.0  # never −0
    position.realized = state.position_realized
    counts[1] += 1


@njit(cache=True, nogil=True)
def _emit(
    side: int,
    asked: float,
    market: float,
    filled: float,
    fee: float,
    reason: int,
    time: int,
    rule: Any,
    state: Any,
    orders: Any,
    counts: Integers,
) -> None:
    state.orders += 1
    order = orders[counts[0]]
    order.order_id = state.orders
    order.timestamp = time
    order.quantity = asked
    order.price = market
    order.fill_quantity = filled
    order.fee = fee
    order.side = side
    order.order_type = MARKET
    order.reason = reason
    if filled > 0.0:
        price = slipped(side, market, rule)
        order.fill_price = price
        order.status = FILLED
        state.orders_filled += 1
        state.fees += fee
        state.slippage += abs(price - market) * filled
        state.traded_value += price * filled
    else:
        order.fill_price = np.nan
        order.status = REJECTED
    counts[0] += 1
