"""The simulation of one symbol: a loop over its bars that fills orders and keeps the account.

The loop is one numba kernel over a small account record. Everything that a later bar needs of an earlier one is in that
record, so chunks of any size give bit for bit what one chunk gives: this makes progress, pause and stop exact.
`bar_step.py` has what one bar does. Between the bars that do something only prices move, and a short loop marks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backtestr_engine.algorithms.signals import TIED, Signals
from backtestr_engine.data.arrays import Bytes, Floats, Integers, Records
from backtestr_engine.data.bars import Bars

from .account import ACCOUNT, new_account
from .bar_step import Prices, SignalColumns, at_close, at_open, within
from .execution import EventBuffers
from .numba_kernel import cached_kernel, inlined_kernel, kernel, prefetch
from .pending_orders import pending_levels
from .protective_exits import set_levels
from .records import MARKET, ORDER, POSITION, TRADE, Events

_BARS_AHEAD = 64
"""Some fifty nanoseconds of simulation: the time that memory takes."""


class EventLog:
    """Space for all events of `bars` bars, of which `busy` have signals; memory is taken page by page as it fills.

    A bar's signals make at most two orders and two changes of position (a close, and a rejected or new opening). Every
    position can be stopped once, and the end of the data adds one event per symbol. An exit that is cut to the cash at
    hand may be tried on every bar.
    """

    def __init__(self, busy: int, bars: int, symbols: int, rules: Records) -> None:
        further = symbols + (bars if rules["cut"][0] else 0)
        orders = np.zeros((3 if rules["order_type"][0] == MARKET else 6) * busy + further, dtype=ORDER)
        positions = np.zeros(3 * busy + further, dtype=POSITION)
        trades = np.zeros(2 * busy + further, dtype=TRADE)
        self.log = EventBuffers(orders, positions, trades, np.zeros(3, dtype=np.int64))
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
        for buffer, records in zip(self.log[:3], (events.orders, events.positions, events.trades), strict=True):
            buffer[: len(records)] = records
        self.log.counts[:] = len(events.orders), len(events.positions), len(events.trades)
        self._returned = self.log.counts.copy()

    def since(self, first: Integers) -> Events:
        """Return the events behind the first `first` of each kind: orders, positions and trades."""
        orders, positions, trades, counts = self.log
        return Events(orders[first[0] : counts[0]], positions[first[1] : counts[1]], trades[first[2] : counts[2]])


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
        self._events = EventLog(int(np.count_nonzero(signals.flags)), len(bars), 1, rules)

    def advance(self, max_bars: int) -> Events:
        """Simulate up to `max_bars` more bars, and return their events."""
        stop = min(self.bars_simulated + max_bars, len(self.equity))
        _simulate(
            self._prices,
            self._signals,
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


@cached_kernel
def _simulate(
    prices: Prices,
    signals: SignalColumns,
    equity: Floats,
    rules: Any,
    account: Any,
    log: EventBuffers,
    start: int,
    stop: int,
) -> None:
    """Simulate bars [start, stop)."""
    rule = rules[0]
    state = account[0]
    open, close, flags = prices.open, prices.close, signals.flags
    last = close.size - 1
    delay = 0 if rule.fill_at_close else 1
    bar = start
    while bar < stop:
        state.equity = state.cash + state.quantity * (close[bar - 1] if rule.books_next_bar and bar > 0 else open[bar])
        at_open(bar, 0, prices, signals, rule, state, log)
        stopped = within(bar, prices, signals, rule, state, log)
        state.equity = state.cash + state.quantity * close[bar]
        at_close(bar, last, stopped, prices, signals, rule, state, log)
        # From here to the next bar that does something, only prices move.
        first = bar
        quiet_until = min(stop, max(last, bar + 1))
        if state.armed or rule.order_type != MARKET:
            bar = _to_next_event(bar, quiet_until, prices, flags, equity, rule, state)
        else:
            cash, quantity = state.cash, state.quantity
            while True:
                equity[bar] = cash + quantity * close[bar]
                bar += 1
                _prefetch(bar, prices)
                if bar >= quiet_until or flags[bar - delay] != 0:
                    break
        if state.quantity != 0.0:
            state.bars_exposed += bar - first
    if stop > start:
        state.mark = close[stop - 1]


@kernel
def _to_next_event(bar: int, until: int, prices: Prices, flags: Bytes, equity: Floats, rule: Any, state: Any) -> int:
    """Mark bars from `bar` on, move the trailing stop, and return the first later bar that may do something."""
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
    delay = 0 if rule.fill_at_close else 1
    waits = rule.order_type != MARKET
    equity[bar] = cash + quantity * close[bar]
    bar += 1
    while bar < until and flags[bar - delay] == 0 and low[bar] > floor and high[bar] < ceiling:
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
        _prefetch(bar, prices)
    return bar


@inlined_kernel
def _prefetch(bar: int, prices: Prices) -> None:
    """Prefetch the open and timestamp that a later fill will read.

    Between fills nothing else reads these columns, and the loop waited for memory: a million bars took 18.6 ms without
    the prefetch and take 12 ms with it.
    """
    prefetch(prices.open, bar + _BARS_AHEAD)
    prefetch(prices.timestamp, bar + _BARS_AHEAD)
