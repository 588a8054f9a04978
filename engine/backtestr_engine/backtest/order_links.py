"""Links between orders, positions and trades, and the times of the signals behind the orders.

A simulation records the changes of positions and the orders that made them in two logs, each in its order. An order
makes one change, or two where it reverses a position: it closes one and opens the next. So the logs can be joined.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from backtestr_engine.compiled import compiled
from backtestr_engine.data.arrays import Integers, Records
from backtestr_engine.data.panel import Panel
from backtestr_engine.simulation.records import (
    END_OF_DATA,
    FILLED,
    LIQUIDATED,
    NO_NEXT_BAR,
    PENDING,
    STOP_LOSS,
    TAKE_PROFIT,
    TRAILING_STOP,
    final_states,
)

NONE = np.iinfo(np.int64).min
"""In place of a time that does not exist."""

WITHOUT_SIGNAL = (STOP_LOSS, TAKE_PROFIT, TRAILING_STOP, LIQUIDATED, END_OF_DATA)
"""The reasons of orders that the engine makes without a signal of the algorithm."""


def orders_of_changes(orders: Records, positions: Records) -> Integers:
    """Return, for each change of a position, the id of the order that made it; both logs as they were written."""
    filled = orders[orders["status"] == FILLED]
    made = np.zeros(len(positions), dtype=np.int64)
    symbols = int(positions["symbol"].max(initial=0)) + 1
    _join(
        np.ascontiguousarray(filled["order_id"]),
        np.ascontiguousarray(filled["fill_quantity"]),
        np.ascontiguousarray(filled["symbol"]),
        np.ascontiguousarray(positions["quantity"]),
        np.ascontiguousarray(positions["symbol"]),
        np.zeros(symbols),
        made,
    )
    return made


def signal_times(orders: Records, panel: Panel, *, fills_at_close: bool) -> Integers:
    """Return, for each final state of an order, the open time of the bar whose close gave its signal, µs UTC.

    `orders` is the log with the pending states. An order without a signal, such as a stop loss, has `NONE`. A pending
    order has the signal of the bar before that on which it began to wait.
    """
    final = final_states(orders)
    began = final["timestamp"].copy()
    waiting = orders[orders["status"] == PENDING][::-1]  # backwards: the first of several states of an order counts
    began[waiting["order_id"] - 1] = waiting["timestamp"]
    from_signal = ~np.isin(final["reason"], WITHOUT_SIGNAL)
    bars_before = np.where((final["reason"] == NO_NEXT_BAR) | fills_at_close, 0, 1)
    times = np.full(len(final), NONE, dtype=np.int64)
    for symbol, bars in enumerate(panel.series):
        ours = np.flatnonzero((final["symbol"] == symbol) & from_signal)
        at = np.searchsorted(bars.timestamp, began[ours]) - bars_before[ours]
        known = (at >= 0) & (at < len(bars))
        times[ours[known]] = bars.timestamp[at[known]]
    return times


class Links(NamedTuple):
    """Links of closed and open trades and of orders, as arrays along those tables; 0 and `NONE` where there is none."""

    entry_orders: Integers
    exit_orders: Integers
    positions: Integers


def links_of(positions: Records, changed_by: Integers, closed: Records, still_open: Records, orders: int) -> Links:
    """Return the orders of each trade, and the position of each of `orders` orders.

    The first order of a position is its entry. Each change that makes a position smaller is the exit of a trade; both
    logs have these in the same order. An order that reverses has the position that it opened.
    """
    ids, quantity = positions["position_id"], np.abs(positions["quantity"])
    entry = np.zeros(int(ids.max(initial=0)) + 1, dtype=np.int64)
    entry[ids[::-1]] = changed_by[::-1]
    by_symbol = np.argsort(positions["symbol"], kind="stable")
    before = np.zeros(len(positions))
    same = ids[by_symbol][1:] == ids[by_symbol][:-1]
    before[by_symbol[1:][same]] = quantity[by_symbol[:-1][same]]
    exits = changed_by[quantity < before]
    if len(exits) != len(closed):  # a log of another kind: no exit can be told
        exits = np.zeros(len(closed), dtype=np.int64)
    position_of = np.zeros(orders + 1, dtype=np.int64)
    position_of[changed_by] = ids  # of two changes by one order the later counts
    entries = np.concatenate((closed["position_id"], still_open["position_id"]))
    return Links(
        entry[np.minimum(entries, len(entry) - 1)],
        np.concatenate((exits, np.zeros(len(still_open), dtype=np.int64))),
        position_of[1:],
    )


@compiled()
def _join(ids: Any, fills: Any, order_symbols: Any, quantities: Any, symbols: Any, held: Any, made: Any) -> None:
    change = 0
    for order in range(len(ids)):
        if change >= len(made) or symbols[change] != order_symbols[order]:
            return  # logs of another kind: what is not joined stays 0
        symbol = symbols[change]
        before = held[symbol]
        made[change] = ids[order]
        held[symbol] = quantities[change]
        change += 1
        if before == 0.0 or held[symbol] != 0.0 or change >= len(made) or symbols[change] != symbol:
            continue
        closed = abs(before)
        opened = abs(quantities[change])
        if abs(fills[order] - closed - opened) < abs(fills[order] - closed):
            made[change] = ids[order]
            held[symbol] = quantities[change]
            change += 1
