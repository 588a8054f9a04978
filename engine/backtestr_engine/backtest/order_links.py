"""Links between orders, positions and trades, and the times of the signals behind the orders.

A simulation records the changes of positions and the orders that made them in two logs, each in its order. An order
makes one change, or two where it reverses a position: it closes one and opens the next. So the logs can be joined.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from backtestr_engine.compiled import compiled
from backtestr_engine.data.arrays import Floats, Integers, Records
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
    made = np.zeros(len(positions), dtype=np.int64)
    _join(orders, positions, np.zeros(int(positions["symbol"].max(initial=0)) + 1), made)
    return made


def signal_times(orders: Records, panel: Panel, *, fills_at_close: bool) -> Integers:
    """Return, for each final state of an order, the open time of the bar whose close gave its signal, µs UTC.

    `orders` is the log with the pending states. An order without a signal, such as a stop loss, has `NONE`. A pending
    order has the signal of the bar before that on which it began to wait.
    """
    final = final_states(orders)
    began = final["timestamp"].copy()
    if final is not orders:
        waiting = orders[orders["status"] == PENDING][::-1]  # backwards: the first of several states of an order counts
        began[waiting["order_id"] - 1] = waiting["timestamp"]
    times = np.full(len(final), NONE, dtype=np.int64)
    for symbol, bars in enumerate(panel.series):
        _set_signal_times(final, began, symbol, bars.timestamp, fills_at_close, times)
    return times


@compiled()
def _set_signal_times(
    final: Any, began: Integers, symbol: int, timestamp: Integers, fills_at_close: bool, times: Integers
) -> None:
    bar = 0
    for at in range(final.size):
        order = final[at]
        if order.symbol != symbol or order.reason in WITHOUT_SIGNAL:
            continue
        if bar > 0 and timestamp[bar - 1] >= began[at]:
            bar = np.searchsorted(timestamp, began[at])
        while bar < timestamp.size and timestamp[bar] < began[at]:  # a search that jumps would wait for memory
            bar += 1
        signal_bar = bar - (0 if fills_at_close or order.reason == NO_NEXT_BAR else 1)
        if 0 <= signal_bar < timestamp.size:
            times[at] = timestamp[signal_bar]


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
def _join(orders: Any, positions: Any, held: Floats, made: Integers) -> None:
    change = 0
    for at in range(orders.size):
        order = orders[at]
        if order.status != FILLED:
            continue
        if change >= made.size or positions[change].symbol != order.symbol:
            return  # logs of another kind: what is not joined stays 0
        symbol = order.symbol
        before = held[symbol]
        made[change] = order.order_id
        held[symbol] = positions[change].quantity
        change += 1
        if before == 0.0 or held[symbol] != 0.0 or change >= made.size or positions[change].symbol != symbol:
            continue
        closed = abs(before)
        opened = abs(positions[change].quantity)
        if abs(order.fill_quantity - closed - opened) < abs(order.fill_quantity - closed):
            made[change] = order.order_id
            held[symbol] = positions[change].quantity
            change += 1
