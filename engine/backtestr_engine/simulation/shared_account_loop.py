"""A walk over several symbols that share an account: one loop over the rows of a panel.

At every row the symbols that have a bar there get their turns (`turn.py`), moment by moment: what is filled at the open
for all of them, then what happens within the bar, then what is filled at the close. Cash, and the numbers of orders and
positions, are lent to the symbol whose turn it is. Who comes first at a moment is a convention (`symbol_order`).

As in `walk.py`, everything that a later row needs is in the records: chunks of any sizes give bit for bit one walk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from backtestr_engine.algorithms.signals import TARGET, Signals
from backtestr_engine.data.arrays import Booleans, Floats, Integers, Records
from backtestr_engine.data.panel import Panel

from .account import FRACTION, UNITS, VALUE, new_account
from .bar_step import Prices, SignalColumns, at_close, at_open, decide, within
from .execution import EventBuffers
from .numba_kernel import cached_kernel, inlined_kernel, kernel
from .records import MARKET, SELL, Events
from .symbol_loop import EventLog, kept_flags, levels

BOOK = np.dtype(
    [
        ("cash", "f8"),
        ("equity", "f8"),  # at the moment at hand, before its orders
        ("worth", "f8"),  # of all positions at their marks
        ("locked", "f8"),  # by positions short, as `ACCOUNT` has it
        ("orders", "i8"),
        ("positions", "i8"),
    ],
    align=True,
)


class _Queue(NamedTuple):
    """Who has a turn in a row: `present`, whether a symbol has a bar; `acts`, whether that may do anything; `turns`,
    those that act in their order; `keys`, what they are ordered by; `stopped`, whether a protective exit was hit."""

    present: Booleans
    acts: Booleans
    turns: Integers
    keys: Floats
    stopped: Booleans


class SharedAccountSimulation:
    """A walk over a panel with the signals of each of its symbols, as `walk.Walk` over one; `bars_walked` are rows."""

    def __init__(self, panel: Panel, signals: Sequence[Signals], rules: Records, initial_capital: float) -> None:
        symbols = len(panel.series)
        self.account = new_account(initial_capital, symbols)
        self.equity: Floats = np.empty(len(panel), dtype=np.float64)
        self.bars_walked = 0
        self._book = np.zeros(1, dtype=BOOK)
        self._book["cash"] = initial_capital
        self._times = panel.timestamp
        names = ("timestamp", "open", "high", "low", "close")
        self._prices = Prices(*(np.concatenate([getattr(bars, name) for bars in panel.series]) for name in names))
        self._firsts = np.cumsum([0, *(len(bars) for bars in panel.series)])
        self.account["cursor"] = self._firsts[:-1]
        flags = np.concatenate([kept_flags(one, rules) for one in signals])
        self._wishes = SignalColumns(flags, _levels(signals, rules), _targets(signals))
        self._rules = rules
        self._events = EventLog(int(np.count_nonzero(flags)), len(flags), symbols, rules)
        self._queue = _Queue(
            np.zeros(symbols, dtype=np.bool_),
            np.zeros(symbols, dtype=np.bool_),
            np.zeros(symbols, dtype=np.int64),
            np.zeros(symbols),
            np.zeros(symbols, dtype=np.bool_),
        )

    def advance(self, max_bars: int) -> Events:
        """Walk up to `max_bars` more rows and return what happened on them."""
        stop = min(self.bars_walked + max_bars, len(self.equity))
        _walk_together(
            self._times,
            self._firsts,
            self._prices,
            self._wishes,
            self.equity,
            self._rules,
            self.account,
            self._book,
            self._queue,
            self._events.log,
            self.bars_walked,
            stop,
        )
        self.bars_walked = stop
        return self._events.news()

    def events(self) -> Events:
        """Everything that has happened so far."""
        return self._events.all()


def _levels(signals: Sequence[Signals], rules: Records) -> Floats:
    """`Wishes.levels` of all symbols' bars, or one column where it is the same for all."""
    each = [levels(one, rules) for one in signals]
    if all(one.shape[1] == 1 and np.array_equal(one, each[0], equal_nan=True) for one in each):
        return each[0]
    return np.concatenate(
        [np.broadcast_to(one, (len(one), len(own))) for one, own in zip(each, signals, strict=True)], axis=1
    )


def _targets(signals: Sequence[Signals]) -> Floats:
    if all(one.target is None for one in signals):
        return np.empty(0)
    return np.concatenate([np.full(len(one), np.nan) if one.target is None else one.target for one in signals])


@cached_kernel
def _walk_together(
    times: Integers,
    firsts: Integers,
    prices: Prices,
    wishes: SignalColumns,
    equity: Floats,
    rules: Any,
    account: Any,
    books: Any,
    queue: _Queue,
    log: EventBuffers,
    start: int,
    stop: int,
) -> None:
    """Walk rows [start, stop)."""
    rule = rules[0]
    book = books[0]
    for row in range(start, stop):
        time = times[row]
        busy = False
        for symbol in range(account.size):
            state = account[symbol]
            bar, end = state.cursor, firsts[symbol + 1]
            present = bar < end and prices.timestamp[bar] == time
            acts = present and _does_anything(bar, firsts[symbol], end - 1, prices, wishes, state)
            queue.present[symbol], queue.acts[symbol] = present, acts
            busy = busy or acts
        if busy:
            _take_turns(firsts, prices, wishes, rule, account, book, queue, log)
        worth = 0.0
        held = False
        for symbol in range(account.size):
            state = account[symbol]
            if queue.present[symbol]:
                state.mark = prices.close[state.cursor]
                state.cursor += 1
            if state.quantity != 0.0:
                worth += state.quantity * state.mark
                held = True
        equity[row] = book.cash + worth
        if held:
            account[0].bars_exposed += 1


@inlined_kernel
def _does_anything(bar: int, first: int, last: int, prices: Prices, wishes: SignalColumns, state: Any) -> bool:
    """Whether a bar may do more than move its mark."""
    if wishes.flags[bar] != 0 or bar == last or state.pending_side != 0 or (bar > first and wishes.flags[bar - 1] != 0):
        return True
    reached: bool = state.guarded and (
        prices.low[bar] <= state.floor or prices.high[bar] >= state.ceiling or state.trailing_stop > 0.0
    )
    return reached


@kernel
def _take_turns(
    firsts: Integers,
    prices: Prices,
    wishes: SignalColumns,
    rule: Any,
    account: Any,
    book: Any,
    queue: _Queue,
    log: EventBuffers,
) -> None:
    """Let every symbol whose bar may do something have its turn, moment by moment."""
    if not rule.fill_at_close:
        _mark(prices.open, rule, account, book, queue)
        for turn in range(_order_symbols(1, firsts, prices.open, wishes, rule, account, book, queue)):
            symbol = queue.turns[turn]
            state = account[symbol]
            _load_cash(rule, book, state)
            at_open(state.cursor, firsts[symbol], prices, wishes, rule, state, log)
            _store_cash(rule, book, state)
    # vectorbt ends a symbol's whole bar before the next one's begins. With fills at the open that is the same; orders
    # that wait would be sized by prices yet to come, and targets need an equity that knows what was stopped.
    allowed = rule.fill_at_close and rule.order_type == MARKET and wishes.targets.size == 0
    one_by_one = allowed and not rule.sells_first
    if not one_by_one:
        if rule.fill_at_close:
            _mark(prices.open, rule, account, book, queue)
        for symbol in range(account.size):
            if queue.acts[symbol]:
                state = account[symbol]
                _load_cash(rule, book, state)
                queue.stopped[symbol] = within(state.cursor, prices, wishes, rule, state, log)
                _store_cash(rule, book, state)
    _mark(prices.close, rule, account, book, queue)
    for turn in range(_order_symbols(0, firsts, prices.close, wishes, rule, account, book, queue)):
        symbol = queue.turns[turn]
        state = account[symbol]
        bar, last = state.cursor, firsts[symbol + 1] - 1
        _load_cash(rule, book, state)
        if one_by_one:
            queue.stopped[symbol] = within(bar, prices, wishes, rule, state, log)
        at_close(bar, last, queue.stopped[symbol], prices, wishes, rule, state, log)
        _store_cash(rule, book, state)


@kernel
def _mark(price: Floats, rule: Any, account: Any, book: Any, queue: _Queue) -> None:
    """Begin a moment: everything is worth its latest price."""
    book.worth = 0.0
    book.locked = 0.0
    for symbol in range(account.size):
        state = account[symbol]
        if queue.present[symbol]:
            state.mark = price[state.cursor]
        book.worth += state.quantity * state.mark
        book.locked += _locked(rule, state)
    book.equity = book.cash + book.worth


@kernel
def _locked(rule: Any, state: Any) -> float:
    """What a position short holds of cash: what it was sold for, and as much again."""
    locked: float = 0.0
    if state.quantity < 0.0:
        locked = -2.0 * state.quantity * (state.mark if rule.short_collateral else state.average_price)
    return locked


@kernel
def _load_cash(rule: Any, book: Any, state: Any) -> None:
    state.cash = book.cash
    state.equity = book.equity
    state.elsewhere = book.worth - state.quantity * state.mark
    state.locked = book.locked - _locked(rule, state)
    state.orders = book.orders
    state.positions = book.positions


@kernel
def _store_cash(rule: Any, book: Any, state: Any) -> None:
    book.cash = state.cash
    book.worth = state.elsewhere + state.quantity * state.mark
    book.locked = state.locked + _locked(rule, state)
    book.orders = state.orders
    book.positions = state.positions


@kernel
def _order_symbols(
    back: int, firsts: Integers, price: Floats, wishes: SignalColumns, rule: Any, account: Any, book: Any, queue: _Queue
) -> int:
    """Put the symbols that act into their order, by what the signals `back` bars ago ask for at `price`: the largest
    sale first, the largest purchase last, those alike as they were named. Returns how many there are."""
    count = 0
    for symbol in range(account.size):
        if not queue.acts[symbol]:
            continue
        key = 0.0
        state = account[symbol]
        bar = state.cursor - back
        if rule.sells_first and bar >= firsts[symbol]:
            key = _value_asked(bar, price[state.cursor], wishes, rule, state, book)
        place = count
        while place > 0 and queue.keys[place - 1] > key:
            queue.keys[place], queue.turns[place] = queue.keys[place - 1], queue.turns[place - 1]
            place -= 1
        queue.keys[place], queue.turns[place] = key, symbol
        count += 1
    return count


@kernel
def _value_asked(bar: int, price: float, wishes: SignalColumns, rule: Any, state: Any, book: Any) -> float:
    """About how much an order for what `bar` asks would be worth; negative is a sale. What has no bound is infinite."""
    flags, held = wishes.flags[bar], state.quantity * price
    value: float = 0.0
    if flags & TARGET != 0:
        value = wishes.targets[bar] * book.equity - held
    elif flags != 0:
        closes, opens = decide(flags, rule, state.quantity)
        if closes:
            value = -held
        if opens != 0 and rule.order_type == MARKET:
            if rule.size == UNITS:
                value += opens * rule.size_value * price
            elif rule.size == VALUE:
                value += opens * rule.size_value
            elif rule.size == FRACTION:
                free = book.cash - (book.locked if opens == SELL else 0.0)
                value += opens * rule.size_value * (free if rule.share_of_cash else book.equity)
            else:
                value = opens * np.inf
    return value
