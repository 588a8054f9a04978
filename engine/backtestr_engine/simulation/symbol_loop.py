"""The simulation of one symbol: a loop over its bars that fills orders and keeps the account.

The loop is one numba kernel over a small account record. Everything that a later bar needs of an earlier one is in that
record, so chunks of any size give bit for bit what one chunk gives: this makes progress, pause and stop exact.
`bar_step.py` has what one bar does. The loop goes from one bar that does something to the next: between them only
prices move, and all of them are marked at once.

Sweeps simulate with the same loop (`research/sweep_kernels.py`), so that a row's figures are those of a single run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backtestr_engine.algorithms.signals import TIED, Signals
from backtestr_engine.bit_masks import put_bars
from backtestr_engine.data.arrays import Bytes, Floats, Integers, Records
from backtestr_engine.data.bars import Bars
from backtestr_engine.vectors import BARS_PER_MASK, MARKED_TOGETHER, flagged, mark_together

from .account import ACCOUNT, new_account
from .bar_step import Prices, SignalColumns, at_close, at_open, within
from .execution import EventBuffers
from .numba_kernel import cached_kernel, inlined_kernel, kernel, prefetch
from .pending_orders import pending_levels
from .protective_exits import set_levels
from .records import MARKET, ORDER, POSITION, TRADE, WRITTEN_POSITION, WRITTEN_TRADE, Events

_FILLS_AHEAD = 3
"""Some hundred nanoseconds of simulation: the time that memory takes."""


class EventLog:
    """Space for all events of `bars` bars, of which `busy` have signals; memory is taken as it fills.

    A bar's signals make at most two orders and two changes of position (a close, and a rejected or new opening). Every
    position can be stopped once, and the end of the data adds one event per symbol. An exit that is cut to the cash at
    hand may be tried on every bar.
    """

    def __init__(self, busy: int, bars: int, symbols: int, rules: Records) -> None:
        further = symbols + (bars if rules["cut"][0] else 0)
        orders = np.empty((3 if rules["order_type"][0] == MARKET else 6) * busy + further, dtype=ORDER)
        positions = np.empty(3 * busy + further, dtype=WRITTEN_POSITION)
        trades = np.empty(2 * busy + further, dtype=WRITTEN_TRADE)
        self.log = EventBuffers(orders, positions, trades, np.zeros(3, dtype=np.int64), True)
        self._records = orders, positions.view(POSITION), trades.view(TRADE)
        self._returned = np.zeros(3, dtype=np.int64)

    def since_last(self) -> Events:
        """Return the events since the last call."""
        first, self._returned = self._returned, self.log.counts.copy()
        return self.since(first)

    def all(self) -> Events:
        """Return all events so far."""
        return self.since(np.zeros(3, dtype=np.int64))

    def restore(self, events: Events) -> None:
        """Take `events` for all events so far, which were returned. Raises `ValueError` for more than there is room."""
        for buffer, records in zip(self._records, (events.orders, events.positions, events.trades), strict=True):
            restored = buffer[: len(records)]
            restored.view(np.uint8)[:] = 0  # padding, which is no field, included
            restored[:] = records
        self.log.counts[:] = len(events.orders), len(events.positions), len(events.trades)
        self._returned = self.log.counts.copy()

    def since(self, first: Integers) -> Events:
        """Return the events behind the first `first` of each kind: orders, positions and trades."""
        (orders, positions, trades), counts = self._records, self.log.counts
        return Events(orders[first[0] : counts[0]], positions[first[1] : counts[1]], trades[first[2] : counts[2]])


def trades_alone(bars: int, rules: Records) -> EventBuffers:
    """Return buffers for a simulation of `bars` bars of one symbol that keeps its trades, and no other record."""
    trades = np.empty(2 * bars + 1 + (bars if rules["cut"][0] else 0), dtype=WRITTEN_TRADE)
    no_orders, no_positions = np.empty(0, dtype=ORDER), np.empty(0, dtype=WRITTEN_POSITION)
    return EventBuffers(no_orders, no_positions, trades, np.zeros(3, dtype=np.int64), False)


class SymbolSimulation:
    """A simulation of `bars` with their `signals`: `advance` it by any number of bars, any number of times.

    `equity` holds cash + quantity · close for every simulated bar; the rest of it is not yet written.
    """

    def __init__(self, bars: Bars, signals: Signals, rules: Records, initial_capital: float) -> None:
        self.account = new_account(initial_capital)
        self.equity: Floats = np.empty(len(bars), dtype=np.float64)
        self.bars_simulated = 0
        self._prices = Prices(bars.timestamp, bars.open, bars.high, bars.low, bars.close)
        self._signals = SignalColumns(kept_flags(signals, rules), levels(signals, rules), targets(signals))
        self._rules = rules
        self._busy: Integers = np.empty(len(bars), dtype=np.int64)
        self._busy_count = busy_bars(self._signals.flags, self._busy)
        self._events = EventLog(self._busy_count, len(bars), 1, rules)

    def advance(self, max_bars: int) -> Events:
        """Simulate up to `max_bars` more bars, and return their events."""
        stop = min(self.bars_simulated + max_bars, len(self.equity))
        simulate(
            self._prices,
            self._signals,
            self._busy,
            self._busy_count,
            self.equity,
            self._rules,
            self.account,
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
        """Return all that later bars need of the simulated ones, besides their number."""
        return {"account": self.account.tobytes()}

    def restore(self, equity: Floats, events: Events, state: Mapping[str, bytes]) -> None:
        """Go on where another simulation was, with its equity, events and state.

        Raises `ValueError` and `KeyError` for what no simulation of these bars and signals has.
        """
        self.account[:] = np.frombuffer(state["account"], dtype=ACCOUNT)
        self._events.restore(events)
        self.equity[: len(equity)] = equity
        self.bars_simulated = len(equity)


def kept_flags(signals: Signals, rules: Records) -> Bytes:
    """Return the flags without the crosses that the convention does not count."""
    if rules["strict_crosses"][0]:
        return np.where(signals.flags & np.uint8(TIED), np.uint8(0), signals.flags)
    return signals.flags


def levels(signals: Signals, rules: Records) -> Floats:
    """Return `SignalColumns.levels`: those of the signals, and those of the options where the signals give none."""
    given = [
        (signals.stop_loss, float(rules["stop_loss"][0])),
        (signals.take_profit, float(rules["take_profit"][0])),
        (signals.trailing_stop, float(rules["trailing_stop"][0])),
        (signals.limit_price, np.nan),
        (signals.stop_price, np.nan),
    ]
    columns = max((len(own) for own, _ in given if own is not None), default=1)
    rows = np.empty((len(given), columns))
    for row, (own, option) in zip(rows, given, strict=True):
        row[:] = option if own is None else np.where(np.isnan(own), option, own)
    return rows


def targets(signals: Signals) -> Floats:
    """Return `SignalColumns.targets`."""
    return np.empty(0) if signals.target is None else signals.target


_TOGETHER = 32
"""Bars that are looked at without a branch."""


@cached_kernel
def busy_bars(flags: Bytes, busy: Integers) -> int:
    """Write the bars with signals to the begin of `busy`, which has room for all bars; return their number."""
    count = 0
    whole = flags.size // BARS_PER_MASK * BARS_PER_MASK
    for first in range(0, whole, BARS_PER_MASK):
        count = put_bars(flagged(flags, first), first, busy, count)
    for bar in range(whole, flags.size):
        busy[count] = bar  # it is overwritten unless the count grows
        count += flags[bar] != 0
    return count


@cached_kernel
def simulate(
    prices: Prices,
    signals: SignalColumns,
    busy: Integers,
    busy_count: int,
    equity: Floats,
    rules: Any,
    account: Any,
    log: EventBuffers,
    start: int,
    stop: int,
) -> None:
    """Simulate bars [start, stop). The first `busy_count` values of `busy` are the bars with signals, in order."""
    rule = rules[0]
    state = account[0]
    open, close = prices.open, prices.close
    last = close.size - 1
    delay = 0 if rule.fill_at_close else 1
    bar = start
    after = _first_after(start - delay, busy, busy_count)
    while bar < stop:
        state.equity = state.cash + state.quantity * (close[bar - 1] if rule.books_next_bar and bar > 0 else open[bar])
        at_open(bar, 0, prices, signals, rule, state, log)
        stopped = within(bar, prices, signals, rule, state, log)
        state.equity = state.cash + state.quantity * close[bar]
        at_close(bar, last, stopped, prices, signals, rule, state, log)
        # From here to the next bar that does something, only prices move.
        first = bar
        until = min(stop, max(last, bar + 1))
        while after < busy_count and busy[after] + delay <= bar:
            after += 1
            _prefetch(after + _FILLS_AHEAD, busy, busy_count, prices)
        if after < busy_count:
            until = min(until, busy[after] + delay)
        if rule.order_type != MARKET or (state.armed and state.trailing_stop > 0.0):
            bar = _to_next_event(bar, until, prices, signals.flags, equity, rule, state)
        else:
            if state.armed:
                until = _first_reached(bar + 1, until, prices, state.floor, state.ceiling)
            _mark(bar, until, close, equity, state.cash, state.quantity)
            bar = until
        if state.quantity != 0.0:
            state.bars_exposed += bar - first
    if stop > start:
        state.mark = close[stop - 1]


@kernel
def _first_after(bar: int, busy: Integers, count: int) -> int:
    """Return the place in `busy` of the first bar that is later than `bar`."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if busy[middle] > bar:
            high = middle
        else:
            low = middle + 1
    return low


@inlined_kernel
def _prefetch(place: int, busy: Integers, count: int, prices: Prices) -> None:
    """Prefetch the open and timestamp that a later fill will read: between fills nothing else reads these columns."""
    if place < count:
        prefetch(prices.open, busy[place] + 1)
        prefetch(prices.timestamp, busy[place] + 1)


@inlined_kernel
def _mark(bar: int, until: int, close: Floats, equity: Floats, cash: float, quantity: float) -> None:
    """Set the equity of bars [bar, until). Bars behind `until` may be set too; they are not simulated yet."""
    while bar < until and bar + MARKED_TOGETHER <= equity.size:
        mark_together(equity, close, bar, cash, quantity)
        bar += MARKED_TOGETHER
    while bar < until:
        equity[bar] = cash + quantity * close[bar]
        bar += 1


@inlined_kernel
def _first_reached(bar: int, until: int, prices: Prices, floor: float, ceiling: float) -> int:
    """Return the first bar in [bar, until) whose low or high reaches a level, or `until`."""
    while bar < until:
        end = min(bar + _TOGETHER, until)
        low, high = prices.low[bar:end], prices.high[bar:end]
        reached = False
        for at in range(low.size):
            reached |= (low[at] <= floor) | (high[at] >= ceiling)
        if reached:
            while prices.low[bar] > floor and prices.high[bar] < ceiling:
                bar += 1
            return bar
        bar = end
    return until


@kernel
def _to_next_event(bar: int, until: int, prices: Prices, flags: Bytes, equity: Floats, rule: Any, state: Any) -> int:
    """Mark bars from `bar` on, move the trailing stop, and return the first later bar that may do something.

    Without pending orders that is `until` or earlier.
    """
    high, low, close = prices.high, prices.low, prices.close
    cash, quantity = state.cash, state.quantity
    floor, ceiling = -np.inf, np.inf
    trails = False
    if state.armed:
        floor, ceiling, trails = state.floor, state.ceiling, state.trailing_stop > 0.0
    if state.pending_side != 0:
        below, above = pending_levels(rule, state)
        floor, ceiling = max(floor, below), min(ceiling, above)
        if rule.valid_bars > 0:
            until = min(until, max(state.pending_bar + rule.valid_bars, bar + 1))
    waits = rule.order_type != MARKET
    equity[bar] = cash + quantity * close[bar]
    bar += 1
    while bar < until and low[bar] > floor and high[bar] < ceiling:
        if waits and flags[bar] != 0:
            break
        if trails:
            best = high[bar] if quantity > 0.0 else low[bar]
            if (best - state.trailing_reference) * quantity > 0.0:
                state.trailing_reference = best
                set_levels(rule, state)
                floor, ceiling = max(floor, state.floor), min(ceiling, state.ceiling)
        equity[bar] = cash + quantity * close[bar]
        bar += 1
    return bar
