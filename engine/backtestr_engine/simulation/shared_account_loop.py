"""The simulation of several symbols that share an account: one loop over the rows of a panel.

At every row the symbols that have a bar there make their bar steps (`bar_step.py`), moment by moment: first the fills
at the open of all symbols, then everything within the bar, then the fills at the close. Cash and the numbers of orders
and positions are copied into the record of a symbol for its bar step, and back. The order of the symbols at a moment is
a convention (`symbol_order`).

An account that falls to its maintenance margin is liquidated. Within a bar the price at which it does is that of each
symbol, while the others stand at their latest prices: which prices within the bars of two symbols came together is not
known. At the close it is, and there all positions end if the account has nothing left.

As in `symbol_loop.py`, everything that a later row needs is in the records: chunks of any size give bit for bit what
one chunk gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtestr_engine.algorithms.signals import TARGET, Signals
from backtestr_engine.data.arrays import Booleans, Floats, Integers, Records
from backtestr_engine.data.panel import Panel

from .account import ACCOUNT, FRACTION, UNITS, VALUE, new_account
from .bar_step import Prices, SignalColumns, at_close, at_open, close_at_market, decide, within
from .execution import IMMATERIAL, EventBuffers
from .numba_kernel import cached_kernel, inlined_kernel, kernel
from .protective_exits import set_levels
from .records import LIQUIDATED, MARKET, SELL, Events
from .symbol_loop import EventLog, kept_flags, levels

_NEARLY_NOTHING = 1e-9
"""A fraction of the value of all positions, far above the rounding of a liquidation price."""

SHARED = np.dtype(
    [
        ("cash", "f8"),
        ("equity", "f8"),  # at the present moment, before its orders
        ("worth", "f8"),  # of all positions at their marks
        ("locked", "f8"),  # by short positions, as in `ACCOUNT`
        ("flat", "i8"),  # symbols without a position that still have bars
        ("orders", "i8"),
        ("positions", "i8"),
    ],
    align=True,
)


class _Row(NamedTuple):
    """The symbols in a row of the panel.

    `present`: the symbol has a bar; `acts`: the bar may do something; `order`: the symbols that act, in their order;
    `keys`: the values by which they are ordered; `stopped`: a protective exit was hit.
    """

    present: Booleans
    acts: Booleans
    order: Integers
    keys: Floats
    stopped: Booleans


class SharedAccountSimulation:
    """A simulation of a panel with the signals of each symbol, like `SymbolSimulation`; its bars are rows."""

    def __init__(self, panel: Panel, signals: Sequence[Signals], rules: Records, initial_capital: float) -> None:
        symbols = len(panel.series)
        self.account = new_account(initial_capital, symbols)
        self.equity: Floats = np.empty(len(panel), dtype=np.float64)
        self.bars_simulated = 0
        self._shared = np.zeros(1, dtype=SHARED)
        self._shared["cash"] = initial_capital
        self._times = panel.timestamp
        names = ("timestamp", "open", "high", "low", "close")
        self._prices = Prices(*(np.concatenate([getattr(bars, name) for bars in panel.series]) for name in names))
        self._firsts = np.cumsum([0, *(len(bars) for bars in panel.series)])
        self.account["cursor"] = self._firsts[:-1]
        flags = np.concatenate([kept_flags(one, rules) for one in signals])
        self._signals = SignalColumns(flags, _levels(signals, rules), _targets(signals))
        self._rules = rules
        self._events = EventLog(int(np.count_nonzero(flags)), len(flags), symbols, rules)
        self._row = _Row(
            np.zeros(symbols, dtype=np.bool_),
            np.zeros(symbols, dtype=np.bool_),
            np.zeros(symbols, dtype=np.int64),
            np.zeros(symbols),
            np.zeros(symbols, dtype=np.bool_),
        )

    def advance(self, max_bars: int) -> Events:
        """Simulate up to `max_bars` more rows, and return their events."""
        stop = min(self.bars_simulated + max_bars, len(self.equity))
        _simulate_rows(
            self._times,
            self._firsts,
            self._prices,
            self._signals,
            self.equity,
            self._rules,
            self.account,
            self._shared,
            self._row,
            self._events.log,
            self.bars_simulated,
            stop,
        )
        self.bars_simulated = stop
        return self._events.since_last()

    def events(self) -> Events:
        """Return all events so far."""
        return self._events.all()

    def events_since(self, first: Integers) -> Events:
        """Return the events behind the first `first` orders, positions and trades."""
        return self._events.since(first)

    def state(self) -> dict[str, bytes]:
        """Return all that later rows need of the simulated ones, besides their number."""
        return {"account": self.account.tobytes(), "shared": self._shared.tobytes()}

    def restore(self, equity: Floats, events: Events, state: Mapping[str, bytes]) -> None:
        """Go on where another simulation was, as that of one symbol does."""
        self.account[:] = np.frombuffer(state["account"], dtype=ACCOUNT)
        self._shared[:] = np.frombuffer(state["shared"], dtype=SHARED)
        self._events.restore(events)
        self.equity[: len(equity)] = equity
        self.bars_simulated = len(equity)


def _levels(signals: Sequence[Signals], rules: Records) -> Floats:
    """Return `SignalColumns.levels` of all symbols' bars, or one column where all have the same."""
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
def _simulate_rows(
    times: Integers,
    firsts: Integers,
    prices: Prices,
    signals: SignalColumns,
    equity: Floats,
    rules: Any,
    account: Any,
    shared_account: Any,
    row_state: _Row,
    log: EventBuffers,
    start: int,
    stop: int,
) -> None:
    """Simulate rows [start, stop)."""
    rule = rules[0]
    shared = shared_account[0]
    for row in range(start, stop):
        time = times[row]
        busy = False
        for symbol in range(account.size):
            state = account[symbol]
            bar, end = state.cursor, firsts[symbol + 1]
            present = bar < end and prices.timestamp[bar] == time
            acts = present and _does_anything(bar, firsts[symbol], end - 1, prices, signals, state)
            row_state.present[symbol], row_state.acts[symbol] = present, acts
            busy = busy or acts
        if busy or (rule.liquidates and _endangered(prices, account, shared, row_state)):
            _step_symbols(firsts, prices, signals, rule, account, shared, row_state, log)
        worth = 0.0
        held = False
        for symbol in range(account.size):
            state = account[symbol]
            if row_state.present[symbol]:
                state.mark = prices.close[state.cursor]
                state.cursor += 1
            if state.quantity != 0.0:
                worth += state.quantity * state.mark
                held = True
        equity[row] = shared.cash + worth
        if held:
            account[0].bars_exposed += 1


@inlined_kernel
def _does_anything(bar: int, first: int, last: int, prices: Prices, signals: SignalColumns, state: Any) -> bool:
    """Return whether a bar may do more than move its mark."""
    if (
        signals.flags[bar] != 0
        or bar == last
        or state.pending_side != 0
        or (bar > first and signals.flags[bar - 1] != 0)
    ):
        return True
    reached: bool = state.armed and (
        prices.low[bar] <= state.floor or prices.high[bar] >= state.ceiling or state.trailing_stop > 0.0
    )
    return reached


@kernel
def _step_symbols(
    firsts: Integers,
    prices: Prices,
    signals: SignalColumns,
    rule: Any,
    account: Any,
    shared: Any,
    row_state: _Row,
    log: EventBuffers,
) -> None:
    """Make the bar steps of the symbols whose bars may do something, moment by moment."""
    if not rule.fill_at_close:
        _mark(firsts, prices.open, rule, account, shared, row_state)
        for index in range(_order_symbols(1, firsts, prices.open, signals, rule, account, shared, row_state)):
            symbol = row_state.order[index]
            state = account[symbol]
            _load_cash(rule, shared, state)
            at_open(state.cursor, firsts[symbol], prices, signals, rule, state, log)
            _store_cash(rule, shared, state)
    # vectorbt finishes the bar of a symbol before it begins the bar of the next. With fills at the open the result is
    # the same. Pending orders would be sized by later prices, and targets need the equity after all protective exits.
    # A liquidation needs the prices of all symbols at one moment.
    allowed = rule.fill_at_close and rule.order_type == MARKET and signals.targets.size == 0
    one_by_one = allowed and not rule.sells_first and not rule.liquidates
    if not one_by_one:
        if rule.fill_at_close:
            _mark(firsts, prices.open, rule, account, shared, row_state)
        endangered = rule.liquidates and _endangered(prices, account, shared, row_state)
        for symbol in range(account.size):
            state = account[symbol]
            row_state.stopped[symbol] = False
            if row_state.acts[symbol] or (endangered and row_state.present[symbol] and state.quantity != 0.0):
                _load_cash(rule, shared, state)
                if rule.liquidates and state.quantity != 0.0:
                    state.armed = state.armed or endangered
                    if state.armed:
                        set_levels(rule, state)
                row_state.stopped[symbol] = within(state.cursor, prices, signals, rule, state, log)
                _store_cash(rule, shared, state)
    _mark(firsts, prices.close, rule, account, shared, row_state)
    if rule.liquidates and account.size > 1 and shared.equity <= 0.0:
        _liquidate(prices, rule, account, shared, row_state, log)
    for index in range(_order_symbols(0, firsts, prices.close, signals, rule, account, shared, row_state)):
        symbol = row_state.order[index]
        state = account[symbol]
        bar, last = state.cursor, firsts[symbol + 1] - 1
        _load_cash(rule, shared, state)
        if one_by_one:
            row_state.stopped[symbol] = within(bar, prices, signals, rule, state, log)
        at_close(bar, last, row_state.stopped[symbol], prices, signals, rule, state, log)
        _store_cash(rule, shared, state)


@kernel
def _endangered(prices: Prices, account: Any, shared: Any, row_state: _Row) -> bool:
    """Return whether the account may fall to nothing on this row: the worst prices of all bars together.

    Without short positions and debt it cannot. The levels of the symbols decide, so this may be true too often.
    """
    exposed = shared.cash < 0.0
    for symbol in range(account.size):
        exposed = exposed or account[symbol].quantity < 0.0
    if not exposed:
        return False
    worst, gross = shared.cash, 0.0
    for symbol in range(account.size):
        state = account[symbol]
        if state.quantity != 0.0:
            price = state.mark
            if row_state.present[symbol]:
                price = prices.low[state.cursor] if state.quantity > 0.0 else prices.high[state.cursor]
            worst += state.quantity * price
            gross += abs(state.quantity) * price
    endangered: bool = worst <= _NEARLY_NOTHING * gross
    return endangered


@kernel
def _liquidate(prices: Prices, rule: Any, account: Any, shared: Any, row_state: _Row, log: EventBuffers) -> None:
    """Close all positions at the close, sales first, so that their proceeds can pay for the covers.

    The position in a symbol without a bar ends at its next one, unless the account has recovered.
    """
    for sells in (True, False):
        for symbol in range(account.size):
            state = account[symbol]
            if row_state.present[symbol] and state.quantity != 0.0 and (state.quantity > 0.0) == sells:
                close, time = prices.close[state.cursor], prices.timestamp[state.cursor]
                _load_cash(rule, shared, state)
                close_at_market(close, time, LIQUIDATED, rule, state, log)
                _store_cash(rule, shared, state)


@kernel
def _mark(firsts: Integers, price: Floats, rule: Any, account: Any, shared: Any, row_state: _Row) -> None:
    """Begin a moment: value every position at its latest price."""
    shared.worth = 0.0
    shared.locked = 0.0
    shared.flat = 0
    for symbol in range(account.size):
        state = account[symbol]
        if state.quantity == 0.0 and state.cursor < firsts[symbol + 1]:
            shared.flat += 1
        if row_state.present[symbol]:
            state.mark = price[state.cursor]
        shared.worth += state.quantity * state.mark
        shared.locked += _locked(rule, state)
    shared.equity = shared.cash + shared.worth


@kernel
def _locked(rule: Any, state: Any) -> float:
    """Return the cash that a short position binds: what it was sold for, and as much again."""
    locked: float = 0.0
    if state.quantity < 0.0:
        locked = -2.0 * state.quantity * (state.mark if rule.short_collateral else state.average_price)
    return locked


@kernel
def _load_cash(rule: Any, shared: Any, state: Any) -> None:
    state.cash = shared.cash
    state.equity = shared.equity
    state.elsewhere = shared.worth - state.quantity * state.mark
    state.locked = shared.locked - _locked(rule, state)
    state.flat_elsewhere = shared.flat - (1 if state.quantity == 0.0 else 0)
    state.orders = shared.orders
    state.positions = shared.positions


@kernel
def _store_cash(rule: Any, shared: Any, state: Any) -> None:
    shared.cash = state.cash
    shared.worth = state.elsewhere + state.quantity * state.mark
    shared.locked = state.locked + _locked(rule, state)
    shared.flat = state.flat_elsewhere + (1 if state.quantity == 0.0 else 0)
    shared.orders = state.orders
    shared.positions = state.positions


@kernel
def _order_symbols(
    back: int,
    firsts: Integers,
    price: Floats,
    signals: SignalColumns,
    rule: Any,
    account: Any,
    shared: Any,
    row_state: _Row,
) -> int:
    """Put the symbols that act into their order, and return their number.

    The order follows from what the signals `back` bars ago ask for at `price`: the largest sale is first, the largest
    purchase last. Those that are equal, or differ by rounding, stand in the order of the panel.
    """
    count = 0
    same = IMMATERIAL * abs(shared.equity)
    for symbol in range(account.size):
        if not row_state.acts[symbol]:
            continue
        key = 0.0
        state = account[symbol]
        bar = state.cursor - back
        if rule.sells_first and bar >= firsts[symbol]:
            key = _value_asked(bar, price[state.cursor], signals, rule, state, shared)
        place = count
        while place > 0 and row_state.keys[place - 1] - key > same:
            row_state.keys[place], row_state.order[place] = row_state.keys[place - 1], row_state.order[place - 1]
            place -= 1
        row_state.keys[place], row_state.order[place] = key, symbol
        count += 1
    return count


@kernel
def _value_asked(bar: int, price: float, signals: SignalColumns, rule: Any, state: Any, shared: Any) -> float:
    """Return the approximate value of the order that `bar` asks for; a sale is negative, no bound infinite."""
    flags, held = signals.flags[bar], state.quantity * price
    value: float = 0.0
    if flags & TARGET != 0:
        value = signals.targets[bar] * shared.equity - held
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
                free = shared.cash - (shared.locked if opens == SELL else 0.0)
                value += opens * rule.size_value * (free if rule.share_of_cash else shared.equity)
            else:
                value = opens * np.inf
    return value
