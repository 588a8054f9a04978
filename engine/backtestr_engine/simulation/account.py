"""The account of a simulation and the rules for it, as small records that the kernel can read.

The account is all that a later bar needs of the earlier ones: one record per symbol. Cash and the numbers of orders and
positions belong to all symbols; `shared_account_loop.py` copies them into the record of a symbol for its bar step.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtestr_engine.algorithms.signals import (
    ENTRY,
    REPEATED_ENTRY,
    REPEATED_SHORT_ENTRY,
    SHORT_ENTRY,
)
from backtestr_engine.data.arrays import Records

from .conventions import Conventions
from .records import ORDER_TYPES, POSITION

RULES = np.dtype(
    [
        ("size_value", "f8"),
        ("leverage", "f8"),
        ("maintenance_margin", "f8"),
        ("commission", "f8"),
        ("commission_fixed", "f8"),
        ("commission_per_unit", "f8"),
        ("commission_minimum", "f8"),
        ("slippage", "f8"),
        ("stop_loss", "f8"),  # fractions where the signals give none; 0 is none
        ("take_profit", "f8"),
        ("trailing_stop", "f8"),
        ("size", "i1"),
        ("on_opposite", "i1"),
        ("stop_base", "i1"),
        ("entry_flags", "u1"),
        ("short_entry_flags", "u1"),
        ("fill_at_close", "?"),
        ("books_next_bar", "?"),  # a fill at the close is executed with the next bar: then fill_at_close is false
        ("cut", "?"),
        ("short_collateral", "?"),
        ("whole_units", "?"),
        ("close_at_end", "?"),
        ("same_bar", "?"),  # exits act on the bar of an entry at its open
        ("same_bar_within", "?"),  # and on the bar of an entry within it
        ("touches_exactly", "?"),
        ("liquidates", "?"),  # also without leverage
        ("equal_shares", "?"),
        ("slip_stops", "?"),
        ("skip_after_stop", "?"),
        ("slip_exits", "?"),
        ("order_type", "i1"),
        ("valid_bars", "i8"),
        ("two_orders", "?"),
        ("cost_per_unit", "?"),
        ("end_at_open", "?"),
        ("end_at_previous_close", "?"),
        ("strict_crosses", "?"),
        ("share_of_cash", "?"),
        ("sells_first", "?"),
    ],
    align=True,
)

ACCOUNT = np.dtype(
    [
        ("cash", "f8"),
        ("equity", "f8"),  # before the first order of the present moment
        ("elsewhere", "f8"),  # the value of the positions of other symbols
        ("locked", "f8"),  # cash bound by short positions of other symbols: what they were sold for, and as much again
        ("flat_elsewhere", "i8"),  # other symbols without a position that still have bars
        ("mark", "f8"),  # the latest price
        ("quantity", "f8"),  # signed; 0 is flat
        ("average_price", "f8"),
        ("stop_loss", "f8"),  # of the open position, as fractions; 0 is none
        ("take_profit", "f8"),
        ("trailing_stop", "f8"),
        ("stop_base", "f8"),  # the price from which they count
        ("trailing_reference", "f8"),  # the best price since
        ("liquidation", "f8"),  # the price at which equity is down to the maintenance margin; 0 is none
        ("stop_level", "f8"),  # the nearest level against the position; infinite where there is none
        ("profit_level", "f8"),
        ("floor", "f8"),  # where armed: a low at or below it, or a high at or above the ceiling, closes the position
        ("ceiling", "f8"),
        ("entry_fees", "f8"),  # paid on the open quantity, not yet charged to a trade
        ("position_realized", "f8"),
        ("realized", "f8"),  # of all positions, all fees paid: capital + realized + unrealized = equity
        ("fees", "f8"),
        ("slippage", "f8"),  # Σ |fill_price − price| · fill_quantity
        ("traded_value", "f8"),  # Σ fill_price · fill_quantity
        ("entry_time", "i8"),
        ("armed_from", "i8"),  # the first bar on which the protective exits act
        ("liquidates_from", "i8"),  # the first bar on which the liquidation price does
        ("trails_from", "i8"),  # the first bar whose high or low moves the trailing reference
        ("orders", "i8"),  # the latest order's id
        ("orders_filled", "i8"),
        ("positions", "i8"),  # the latest position's id
        ("position_id", "i8"),  # of the open one, or the last
        ("positions_opened", "i8"),
        ("positions_closed", "i8"),
        ("bars_exposed", "i8"),  # bars that ended with a position; of several symbols the first record counts for all
        ("pending_id", "i8"),
        ("pending_bar", "i8"),  # of its signal
        ("pending_limit", "f8"),
        ("pending_stop", "f8"),
        ("pending_quantity", "f8"),  # its quantity at its price, when it was placed
        ("pending_side", "i1"),  # 0: no order is pending
        ("pending_triggered", "?"),  # a stop-limit order whose stop was reached
        ("armed", "?"),  # the position has a floor or a ceiling
        ("stop_reason", "i1"),  # the exit to which the nearer of the levels against the position belongs
        ("symbol", "i4"),
        ("cursor", "i8"),  # the index of its next bar
    ],
    align=True,
)

ALL_IN, FRACTION, UNITS, VALUE, RISK = range(5)
_SIZES = {"all_in": ALL_IN, "fraction": FRACTION, "units": UNITS, "value": VALUE, "risk": RISK}
FILL_PRICE, ENTRY_CLOSE, SIGNAL_CLOSE = range(3)
_STOP_BASES = {"fill_price": FILL_PRICE, "entry_close": ENTRY_CLOSE, "signal_close": SIGNAL_CLOSE}
REVERSE, CLOSE, IGNORE = range(3)
_ON_OPPOSITE = {"reverse": REVERSE, "close": CLOSE, "ignore": IGNORE}


def kernel_rules(conventions: Conventions, *, commission: float, slippage: float) -> Records:
    """Return the conventions as the kernel reads them: one record of `RULES`."""
    repeated = conventions.cross_ties == "fire"
    record = np.zeros(1, dtype=RULES)
    record["size_value"] = 1.0 if conventions.size == "all_in" else conventions.size_value
    record["leverage"] = conventions.leverage
    record["maintenance_margin"] = conventions.maintenance_margin
    record["commission"] = commission
    record["commission_fixed"] = conventions.commission_fixed
    record["commission_per_unit"] = conventions.commission_per_unit
    record["commission_minimum"] = conventions.commission_minimum
    record["slippage"] = slippage
    record["stop_loss"] = conventions.stop_loss
    record["take_profit"] = conventions.take_profit
    record["trailing_stop"] = conventions.trailing_stop
    record["stop_base"] = _STOP_BASES[conventions.stop_base]
    record["same_bar"] = conventions.stop_active != "next_bar"
    record["same_bar_within"] = conventions.stop_active == "same_bar"
    record["touches_exactly"] = conventions.touch == "exact"
    record["liquidates"] = conventions.liquidation == "always" or conventions.leverage != 1.0
    record["equal_shares"] = conventions.cash_shares == "equal"
    record["slip_stops"] = conventions.slippage_on == "market_and_stops"
    record["order_type"] = ORDER_TYPES.index(conventions.order_type)
    record["valid_bars"] = conventions.valid_bars
    record["slip_exits"] = conventions.slippage_on != "entries"
    record["two_orders"] = conventions.reversal == "two_orders"
    record["cost_per_unit"] = conventions.size_costs == "per_unit"
    record["end_at_open"] = conventions.end_price == "open"
    record["end_at_previous_close"] = conventions.end_price == "previous_close"
    record["strict_crosses"] = conventions.cross_ties == "strict"
    record["skip_after_stop"] = conventions.after_stop == "skip"
    record["size"] = _SIZES[conventions.size]
    record["on_opposite"] = _ON_OPPOSITE[conventions.on_opposite]
    if conventions.direction != "short":
        record["entry_flags"] = ENTRY | (REPEATED_ENTRY if repeated else 0)
    if conventions.direction != "long":
        record["short_entry_flags"] = SHORT_ENTRY | (REPEATED_SHORT_ENTRY if repeated else 0)
    at_close, books_next_bar = conventions.fill_at == "close", conventions.close_booked == "next_bar"
    record["fill_at_close"] = at_close and not books_next_bar
    record["books_next_bar"] = at_close and books_next_bar
    record["cut"] = conventions.short_of_cash == "cut"
    record["short_collateral"] = conventions.short_collateral
    record["whole_units"] = conventions.whole_units
    record["close_at_end"] = conventions.close_at_end
    record["share_of_cash"] = conventions.size_base == "cash"
    record["sells_first"] = conventions.symbol_order == "sells_first"
    return record


def new_account(initial_capital: float, symbols: int = 1) -> Records:
    """Return an account without positions: one record of `ACCOUNT` per symbol."""
    records = np.zeros(symbols, dtype=ACCOUNT)
    records["cash"] = initial_capital
    records["symbol"] = np.arange(symbols)
    return records


def marked_positions(account: Records, timestamp: int) -> Records:
    """Return the open positions of an account at its latest marks, one `POSITION` each; `timestamp` is in µs UTC."""
    held = account[account["quantity"] != 0.0]
    positions = np.zeros(len(held), dtype=POSITION)
    positions["timestamp"] = timestamp
    for name, field in (
        ("position_id", "position_id"),
        ("quantity", "quantity"),
        ("average_price", "average_price"),
        ("current_price", "mark"),
        ("realized", "position_realized"),
        ("symbol", "symbol"),
    ):
        positions[name] = held[field]
    positions["unrealized"] = held["quantity"] * (held["mark"] - held["average_price"])
    return positions


class Totals(NamedTuple):
    """An account summed up over its symbols."""

    orders_filled: int
    positions_opened: int
    positions_closed: int
    open_positions: int
    realized: float
    unrealized: float
    fees: float
    slippage: float
    traded_value: float
    bars_exposed: int


def totals(account: Records) -> Totals:
    """Return the sums of an account at its latest marks."""
    held = account["quantity"] != 0.0
    unrealized = account["quantity"][held] * (account["mark"][held] - account["average_price"][held])
    return Totals(
        orders_filled=int(account["orders_filled"].sum()),
        positions_opened=int(account["positions_opened"].sum()),
        positions_closed=int(account["positions_closed"].sum()),
        open_positions=int(held.sum()),
        realized=float(account["realized"].sum()),
        unrealized=float(unrealized.sum()),
        fees=float(account["fees"].sum()),
        slippage=float(account["slippage"].sum()),
        traded_value=float(account["traded_value"].sum()),
        bars_exposed=int(account["bars_exposed"].sum()),
    )
