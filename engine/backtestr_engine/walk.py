"""The walk: the loop that goes through bars, turns signals into orders, and keeps the account.

One numba kernel over a small account record. Everything that a later bar needs of an earlier one is in that record, so
walking in chunks of any sizes gives bit for bit what one walk gives: this is what makes progress, pause and stop exact.

What signals ask for is a market order, decided on the close of a bar, and filled at that close or at the next open
(`fill_at`); or, for an entry, one that waits for its price (`pending.py`). A market order is emitted once, with its
final status; so are protective exits, which become orders when they are hit. A reversal is one order that closes one
position and opens another, or two by convention. An exit is never refused for lack of cash unless `short_of_cash` is
"cut".

On a bar, in this order: what an earlier signal asks for at the open; protective exits; the order that waits;
what the bar's own signal asks for at the close; the end of the data.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np

from .account import IGNORE, REVERSE, new_account
from .arrays import Bytes, Floats, Integers, Records
from .bars import Bars
from .costs import FIRST_PART, listed_fee, slipped
from .execution import Log, close_position, emit_order, open_position
from .exits import guard, protect, risked_at, set_levels, unguard
from .fills import (
    BUY,
    CUT,
    END_OF_DATA,
    MARKET,
    NO_CASH,
    NO_NEXT_BAR,
    NO_REASON,
    OPEN_AT_END,
    ORDER,
    POSITION,
    SELL,
    STOP,
    TRADE,
)
from .kernel import cached_kernel, kernel
from .pending import cancel, expire, pending_price, place, reached, withdraw
from .signals import EXIT, SHORT_EXIT, TIED, Signals


class Prices(NamedTuple):
    """The columns of the bars."""

    timestamp: Integers
    open: Floats
    high: Floats
    low: Floats
    close: Floats


class Events(msgspec.Struct, frozen=True):
    """What happened on some bars, in order: arrays of `ORDER`, `POSITION` and `TRADE` (closed ones)."""

    orders: Records
    positions: Records
    trades: Records


class Walk:
    """A walk over `bars` with their `signals`: `advance` it as far and as often as is convenient.

    `equity` holds cash + quantity · close for every bar walked; the rest of it is not yet written.
    """

    def __init__(self, bars: Bars, signals: Signals, rules: Records, initial_capital: float) -> None:
        self.account = new_account(initial_capital)
        self.equity: Floats = np.empty(len(bars), dtype=np.float64)
        self.bars_walked = 0
        self._prices = Prices(bars.timestamp, bars.open, bars.high, bars.low, bars.close)
        self._flags = signals.flags
        if rules["strict_crosses"][0]:
            self._flags = np.where(signals.flags & np.uint8(TIED), np.uint8(0), signals.flags)
        self._levels = _levels(signals, rules)
        self._rules = rules
        # Room for all that can happen: a bar's signals make two orders and two changes of position at most (a close
        # and a refused or a new opening), every position can be stopped once, and the end of the data is one more.
        # Memory is taken page by page as it fills.
        busy = int(np.count_nonzero(signals.flags))
        orders = np.zeros((3 if rules["order_type"][0] == MARKET else 6) * busy + 1, dtype=ORDER)
        positions = np.zeros(3 * busy + 1, dtype=POSITION)
        trades = np.zeros(2 * busy + 1, dtype=TRADE)
        self._log = Log(orders, positions, trades, np.zeros(3, dtype=np.int64))

    def advance(self, max_bars: int) -> Events:
        """Walk up to `max_bars` more bars and return what happened on them."""
        before = self._log.counts.copy()
        stop = min(self.bars_walked + max_bars, len(self.equity))
        _walk(
            self._prices,
            self._flags,
            self._levels,
            self.equity,
            self._rules,
            self.account,
            self._log,
            self.bars_walked,
            stop,
        )
        self.bars_walked = stop
        return self._events_from(before)

    def events(self) -> Events:
        """Everything that has happened so far."""
        return self._events_from(np.zeros(3, dtype=np.int64))

    def _events_from(self, first: Integers) -> Events:
        orders, positions, trades, counts = self._log
        return Events(orders[first[0] : counts[0]], positions[first[1] : counts[1]], trades[first[2] : counts[2]])


def _levels(signals: Signals, rules: Records) -> Floats:
    """Rows stop loss, take profit, trailing stop (fractions, 0 is none), limit and stop price (NaN is none): a value
    per bar, or one for all."""
    given = [
        (signals.stop_loss, float(rules["stop_loss"][0])),
        (signals.take_profit, float(rules["take_profit"][0])),
        (signals.trailing_stop, float(rules["trailing_stop"][0])),
        (signals.limit_price, np.nan),
        (signals.stop_price, np.nan),
    ]
    columns = max((len(own) for own, _ in given if own is not None), default=1)
    levels = np.empty((len(given), columns))
    for row, (own, option) in zip(levels, given, strict=True):
        row[:] = option if own is None else np.where(np.isnan(own), option, own)
    return levels


@cached_kernel
def _walk(
    prices: Prices,
    flags: Bytes,
    levels: Floats,
    equity: Floats,
    rules: Any,
    account: Any,
    log: Log,
    start: int,
    stop: int,
) -> None:
    """Walk bars [start, stop)."""
    rule = rules[0]
    state = account[0]
    timestamp, open, high, low, close = prices
    last = timestamp.size - 1
    delay = 0 if rule.fill_at_close else 1
    bar = start
    while bar < stop:
        time = timestamp[bar]
        if delay == 1 and bar >= 1 and flags[bar - 1] != 0:
            held = state.positions_opened
            _obey(flags[bar - 1], open[bar], risked_at(bar - 1, levels), time, rule, state, log)
            if state.positions_opened != held:
                guard(bar - 1, bar, True, close, levels, rule, state)
        stopped = False
        if state.guarded:
            stopped = protect(bar, open[bar], high[bar], low[bar], time, rule, state, log)
        if state.pending_side != 0:
            held = state.positions_opened
            signal_bar = state.pending_bar
            risked = risked_at(signal_bar, levels)
            market = _await(bar, open[bar], high[bar], low[bar], risked, time, rule, state, log)
            if state.positions_opened != held:
                guard(signal_bar, bar, market == open[bar], close, levels, rule, state)
                if state.guarded:
                    protect(bar, open[bar], high[bar], low[bar], time, rule, state, log)
        if rule.order_type != MARKET and flags[bar] != 0 and not (stopped and delay == 0 and rule.skip_after_stop):
            if state.pending_side != 0:
                withdraw(flags[bar], time, rule, state, log)
            _, opens = _decide(flags[bar], rule, state.quantity)
            if opens != 0:
                place(opens, bar, close[bar], risked_at(bar, levels), levels, time, rule, state, log)
        if delay == 0 and flags[bar] != 0 and not (stopped and rule.skip_after_stop):
            held = state.positions_opened
            _obey(flags[bar], close[bar], risked_at(bar, levels), time, rule, state, log)
            if state.positions_opened != held:
                guard(bar, bar, False, close, levels, rule, state)
        if bar == last:
            if rule.close_at_end and state.quantity != 0.0:
                _leave(open[bar] if rule.end_at_open else close[bar], time, END_OF_DATA, rule, state, log)
            if state.pending_side != 0:
                cancel(OPEN_AT_END, time, rule, state, log)
            if delay == 1 and flags[bar] != 0:
                _refuse(flags[bar], close[bar], time, rule, state, log)
        # From here to the next bar with something to do, only prices move.
        cash, quantity, first = state.cash, state.quantity, bar
        quiet_until = min(stop, bar + 1 if rule.order_type != MARKET else max(last, bar + 1))
        if not state.guarded:
            while True:
                equity[bar] = cash + quantity * close[bar]
                bar += 1
                if bar >= quiet_until or flags[bar - delay] != 0:
                    break
        else:
            floor, ceiling = state.floor, state.ceiling
            if state.trailing_stop > 0.0:
                quiet_until = bar + 1
            while True:
                equity[bar] = cash + quantity * close[bar]
                bar += 1
                if bar >= quiet_until or flags[bar - delay] != 0 or low[bar] <= floor or high[bar] >= ceiling:
                    break
        if quantity != 0.0:
            state.bars_exposed += bar - first


@kernel
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


@kernel
def _obey(flags: int, market: float, risked: float, time: int, rule: Any, state: Any, log: Log) -> None:
    """Do what the signals ask at the price of the market, except entries that wait for their own."""
    closes, opens = _decide(flags, rule, state.quantity)
    if opens != 0 and rule.order_type != MARKET:
        return
    if closes or opens != 0:
        _exchange(closes, opens, MARKET, market, market, True, 0, risked, time, rule, state, log)


@kernel
def _exchange(
    closes: bool,
    opens: int,
    order_type: int,
    order_price: float,
    market: float,
    slips: bool,
    order_id: int,
    risked: float,
    time: int,
    rule: Any,
    state: Any,
    log: Log,
) -> None:
    """Close the position, open one on side `opens` (0: none), or both, and emit the order that did it."""
    side = opens
    if closes:
        side = SELL if state.quantity > 0.0 else BUY
    asked = closed = opened = fee = 0.0
    reason = NO_REASON
    listed = FIRST_PART
    if closes:
        price = slipped(side, market, rule) if slips and rule.slip_exits else market
        asked = abs(state.quantity)
        closed, fee = close_position(price, market, time, rule, state, log)
        if closed == 0.0:
            reason = NO_CASH
        elif closed < asked:
            reason = CUT
            if state.guarded:
                set_levels(rule, state)
        else:
            unguard(state)
        ends = opens == 0 or closed < asked
        if ends or rule.two_orders:
            own = order_id if ends else 0
            emit_order(side, order_type, asked, order_price, market, price, closed, fee, reason, own, time, state, log)
            if ends:
                return
            asked = closed = fee = 0.0
        else:
            listed = listed_fee(closed, price, rule)
    price = slipped(side, market, rule) if slips else market
    wanted, opened, opening_fee, reason = open_position(opens, price, market, listed, risked, time, rule, state, log)
    if opened == 0.0 and closed > 0.0:
        emit_order(side, order_type, asked, order_price, market, price, closed, fee, NO_REASON, 0, time, state, log)
        asked = closed = fee = 0.0
    asked += wanted
    filled, fee = closed + opened, fee + opening_fee
    emit_order(side, order_type, asked, order_price, market, price, filled, fee, reason, order_id, time, state, log)


@kernel
def _await(
    bar: int, opened: float, high: float, low: float, risked: float, time: int, rule: Any, state: Any, log: Log
) -> float:
    """Fill the pending order if `bar` reaches its price, or let it expire: the market's price of the fill, or NaN."""
    market = reached(opened, high, low, rule, state)
    if np.isnan(market):
        expire(bar, time, rule, state, log)
        return market
    side, price = state.pending_side, pending_price(rule, state)
    state.pending_side = 0
    closes = state.quantity * side < 0.0
    slips = rule.order_type == STOP
    _exchange(closes, side, rule.order_type, price, market, slips, state.pending_id, risked, time, rule, state, log)
    return market


@kernel
def _leave(market: float, time: int, reason: int, rule: Any, state: Any, log: Log) -> None:
    """Close the position by a market order, for that reason."""
    side = SELL if state.quantity > 0.0 else BUY
    asked = abs(state.quantity)
    price = slipped(side, market, rule) if rule.slip_exits else market
    filled, fee = close_position(price, market, time, rule, state, log)
    if filled < asked:
        reason = CUT if filled > 0.0 else NO_CASH
    unguard(state)
    emit_order(side, MARKET, asked, market, market, price, filled, fee, reason, 0, time, state, log)


@kernel
def _refuse(flags: int, price: float, time: int, rule: Any, state: Any, log: Log) -> None:
    """Reject what the signals of the last bar ask for: there is no next open."""
    closes, opens = _decide(flags, rule, state.quantity)
    side = opens
    if closes:
        side = SELL if state.quantity > 0.0 else BUY
    if side != 0 and (opens == 0 or rule.order_type == MARKET):
        emit_order(side, MARKET, abs(state.quantity), price, price, np.nan, 0.0, 0.0, NO_NEXT_BAR, 0, time, state, log)
