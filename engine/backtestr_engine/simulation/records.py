"""The records of a simulation: orders, positions and trades, and the meaning of their codes.

The loops write these records; tables, results and streams read them.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from backtestr_engine.compiled import compiled
from backtestr_engine.data.arrays import Integers, Records

BUY, SELL = 1, -1
SIDES = {BUY: "buy", SELL: "sell"}

MARKET, LIMIT, STOP, STOP_LIMIT = range(4)
ORDER_TYPES = ("market", "limit", "stop", "stop_limit")

FILLED, REJECTED, PENDING, CANCELLED = range(4)
STATUSES = ("filled", "rejected", "pending", "cancelled")

NO_REASON, NO_CASH, TOO_SMALL, NO_NEXT_BAR, CUT, END_OF_DATA = range(6)
STOP_LOSS, TAKE_PROFIT, TRAILING_STOP, NO_STOP, LIQUIDATED = range(6, 11)
EXPIRED, REPLACED, WITHDRAWN, NO_PRICE, OPEN_AT_END = range(11, 16)
FEE_TOO_HIGH = 16
REASONS = (
    "",
    "not enough cash",
    "too small",
    "no next bar to fill at",
    "cut to the cash there was",
    "closed at the end of the data",
    "stop loss",
    "take profit",
    "trailing stop",
    "no stop loss to size the risk by",
    "liquidated at the maintenance margin",
    "not filled within its bars",
    "replaced by a later order",
    "withdrawn by an exit",
    "no price to wait for",
    "not filled before the data ended",
    "its fee is more than it brings",
)
"""The texts that `reason` of an order indexes. A rejected order always has one."""

ORDER = np.dtype(
    [
        ("order_id", "i8"),  # 1, 2, 3 …
        ("timestamp", "i8"),  # open time of the bar it was filled or rejected in, µs UTC
        ("quantity", "f8"),  # asked for; 0 where the order was rejected before it had a size
        ("price", "f8"),  # market: the open or close of the fill, before slippage; else the limit or stop price
        ("fill_price", "f8"),  # after slippage; NaN when rejected
        ("fill_quantity", "f8"),  # 0 when rejected
        ("fee", "f8"),
        ("symbol", "i4"),  # index into the symbols of the backtest
        ("side", "i1"),  # BUY, SELL
        ("order_type", "i1"),  # index into ORDER_TYPES
        ("status", "i1"),  # index into STATUSES
        ("reason", "i1"),  # index into REASONS
    ],
    align=True,
)


def final_states(orders: Records) -> Records:
    """Return the last record of every order, in the order of their ids."""
    if not len(orders) or (int(orders["order_id"][-1]) == len(orders) and not tally(orders)[PENDING].any()):
        return orders
    last = np.zeros(int(orders["order_id"].max()), dtype=np.int64)
    last[orders["order_id"] - 1] = np.arange(len(orders))
    final: Records = orders[last]
    return final


def tally(orders: Records) -> Integers:
    """Return the number of records by status and reason, of shape (statuses, reasons)."""
    counts = np.zeros((len(STATUSES), len(REASONS)), dtype=np.int64)
    _count(orders, counts)
    return counts


@compiled()
def _count(orders: Any, counts: Integers) -> None:
    for at in range(orders.size):
        counts[orders[at].status, orders[at].reason] += 1


def rejections(final: Records) -> dict[str, int]:
    """Return the number of rejected orders by reason, the most frequent first; `final` has each order once."""
    return rejections_of(tally(final))


def rejections_of(counts: Integers) -> dict[str, int]:
    """Return what `rejections` does, of a tally."""
    rejected = counts[REJECTED]
    order = np.argsort(-rejected, kind="stable")
    return {REASONS[at]: int(rejected[at]) for at in order if rejected[at]}


POSITION = np.dtype(
    [
        ("position_id", "i8"),  # 1, 2, 3 … over all symbols; a reversal ends one and begins the next
        ("timestamp", "i8"),  # as the order's, µs UTC
        ("quantity", "f8"),  # after the change; negative is short, 0 is closed
        ("average_price", "f8"),  # paid or received, without fees
        ("current_price", "f8"),  # the market's, as the order's price
        ("unrealized", "f8"),  # quantity · (current_price − average_price)
        ("realized", "f8"),  # of this position so far, after all its fees
        ("symbol", "i4"),
    ],
    align=True,
)

TRADE = np.dtype(
    [
        ("position_id", "i8"),
        ("entry_time", "i8"),  # µs UTC
        ("exit_time", "i8"),
        ("quantity", "f8"),  # always positive
        ("entry_price", "f8"),  # the average where there were several entries
        ("exit_price", "f8"),
        ("fees", "f8"),  # the trade's share of the entry's fees, and the exit's
        ("pnl", "f8"),  # after fees
        ("return", "f8"),  # pnl / (entry_price · quantity)
        ("mae", "f8"),  # the largest moves against and for its holder, fractions of entry_price;
        ("mfe", "f8"),  # `metrics/excursions.py` fills both in after the simulation
        ("symbol", "i4"),
        ("side", "i1"),  # of the entry
    ],
    align=True,
)


def _with_padding(kind: Any, *padding: tuple[str, str]) -> Any:
    """Return a kind of record with fields where it has padding."""
    return np.dtype([*((name, of.str) for name, (of, _) in kind.fields.items()), *padding], align=True)


WRITTEN_POSITION = _with_padding(POSITION, ("padding", "i4"))
WRITTEN_TRADE = _with_padding(TRADE, ("padding", "i1"), ("more_padding", "i2"))
"""Records as the loops write them, every byte: so their memory need not be cleared before, of which most is not used.

An order has no padding. Equal records are equal bytes, in memory and on disk.
"""


class Events(msgspec.Struct, frozen=True):
    """The events of some bars, in order: arrays of `ORDER`, `POSITION` and `TRADE` (closed trades)."""

    orders: Records
    positions: Records
    trades: Records
