"""The arithmetic of fees and sizes: what an order costs, and how large it may be.

With v the value traded and q the units, the fee of an order is max(minimum, fixed + commission · v + per_unit · q). An
order may have two parts, the close of one position and the opening of the next, and pays one fee: the fee of the first
part is credited to the second.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .account import ALL_IN, FRACTION, RISK, UNITS, VALUE
from .numba_kernel import kernel
from .records import BUY, CUT, FEE_TOO_HIGH, NO_CASH, NO_REASON, NO_STOP, SELL, TOO_SMALL

FIRST_PART = -1.0
"""The listed fee of the part before, where there is no part before."""

_NEARLY_ALL = 1.0 - np.finfo(np.float64).eps

ROUNDING = 1e-12
"""A fraction of a quantity: an order for which cash is short by less than this is filled."""

MINIMUM_QUANTITY = 1e-8
"""One satoshi: an order for less than this is rounding, not intent."""


@kernel
def slipped(side: int, price: float, rule: Any) -> float:
    """Return `price` after slippage, which is always against the account."""
    worse: float = price * (1.0 + side * rule.slippage)
    return worse


@kernel
def listed_fee(quantity: float, price: float, rule: Any) -> float:
    """Return the fee of an order before its minimum."""
    fee: float = quantity * price * rule.commission + rule.commission_fixed + quantity * rule.commission_per_unit
    return fee


@kernel
def fee_of(quantity: float, price: float, rule: Any) -> float:
    """Return the fee of an order of one part."""
    fee: float = max(listed_fee(quantity, price, rule), rule.commission_minimum)
    return fee


@kernel
def further_fee(quantity: float, price: float, fee_so_far: float, rule: Any) -> float:
    """Return the fee of a second part of an order whose first part is listed at `fee_so_far`, or is `FIRST_PART`."""
    if fee_so_far == FIRST_PART:
        return fee_of(quantity, price, rule)
    together = fee_so_far + quantity * price * rule.commission + quantity * rule.commission_per_unit
    fee: float = max(together, rule.commission_minimum) - max(fee_so_far, rule.commission_minimum)
    return fee


@kernel
def affordable(cash: float, price: float, fee_so_far: float, leverage: float, rule: Any) -> float:
    """Return the most units that `cash` pays for at `price`, fee included; `fee_so_far` as for `further_fee`.

    q · price / leverage + fee ≤ cash holds when it holds with the listed fee and with the minimum: the smaller of two
    bounds.
    """
    base, charged = rule.commission_fixed, 0.0
    if fee_so_far != FIRST_PART:
        base, charged = fee_so_far, max(fee_so_far, rule.commission_minimum)
    quantity = (cash - base + charged) / ((1.0 / leverage + rule.commission) * price + rule.commission_per_unit)
    if rule.commission_minimum > 0.0:
        quantity = min(quantity, (cash - rule.commission_minimum + charged) * leverage / price)
    most: float = max(quantity, 0.0)
    return most


@kernel
def _unit_cost(units: float, price: float, market: float, rule: Any) -> float:
    """Return the cost of a unit in an order of `units` as backtesting.py counts it: price, and a share of the fee."""
    cost: float = price + rule.commission * market + rule.commission_per_unit + rule.commission_fixed / units
    return cost


@kernel
def free_cash(side: int, price: float, rule: Any, state: Any) -> float:
    """Return the cash that an order on `side` may use, without what positions on credit or short positions bind.

    A position binds 1 / leverage of its value; a short position binds in addition what it was sold for. Without
    `short_collateral` only short sales are limited by this, and positions count at what they were sold for.
    """
    bound = side == SELL or rule.short_collateral
    free: float = state.cash
    if bound:
        free -= state.locked
    if state.quantity > 0.0 and rule.leverage != 1.0:
        free += state.quantity * price * (1.0 - 1.0 / rule.leverage)
    elif state.quantity < 0.0 and bound:
        value = -state.quantity * (price if rule.short_collateral else state.average_price)
        free -= value * (1.0 + 1.0 / rule.leverage)
    return free


@kernel
def own_share(free: float, rule: Any, state: Any) -> float:
    """Return the part of free cash that the size all_in may spend: equal parts for all symbols without a position.

    The symbol itself is one of them; a position that is on its way to be reversed is closed by now.
    """
    part: float = free
    if rule.equal_shares and rule.size == ALL_IN:
        part = free / (state.flat_elsewhere + 1)
    return part


@kernel
def brings_less_than_its_fee(quantity: float, price: float, fee_so_far: float, rule: Any) -> bool:
    """Return whether selling would cost cash, which is rejected where orders are cut to the cash at hand.

    `fee_so_far` is as for `further_fee`.
    """
    costs: bool = rule.cut and quantity * price < further_fee(quantity, price, fee_so_far, rule)
    return costs


@kernel
def size_of(
    side: int,
    price: float,
    market: float,
    free: float,
    worth: float,
    fee_so_far: float,
    risked: float,
    target_quantity: float,
    rule: Any,
) -> tuple[float, float, int]:
    """Return the quantity wanted, the part of it that `free` cash pays for at `price`, and the reason for less.

    `price` is `market` after slippage. all_in: what free cash pays for, costs included; fraction: what size_value of
    `worth` pays for. units and value: size_value units, or units worth that much money; risk: as many units as lose
    size_value of `worth` when the price moves by `risked` (a fraction) against the position. Where `target_quantity` is
    not NaN, it is the quantity instead: the units that an algorithm's target asks for, which may be cut to the cash at
    hand. A purchase needs its cost in cash; so does a short sale that needs collateral.
    """
    budget = max(free, 0.0)
    most = affordable(budget, price, fee_so_far, rule.leverage, rule)
    cut = rule.cut
    if not np.isnan(target_quantity):
        wanted = target_quantity
        cut = True
    elif rule.size == UNITS:
        wanted = rule.size_value
    elif rule.size == VALUE:
        wanted = rule.size_value / market
    elif rule.size == RISK:
        if risked <= 0.0:
            return 0.0, 0.0, NO_STOP
        wanted = max(worth, 0.0) * rule.size_value / (risked * price)
    elif rule.cost_per_unit:
        share = min(rule.size_value, _NEARLY_ALL)
        wanted = most = (budget * rule.leverage * share) // _unit_cost(share, price, market, rule)
    elif rule.size == FRACTION:
        if rule.share_of_cash and side == SELL:  # as vectorbt: a part of the units, not of the money
            wanted = rule.size_value * most
        else:
            wanted = affordable(rule.size_value * max(worth, 0.0), price, fee_so_far, rule.leverage, rule)
    else:
        wanted = most
    if rule.cost_per_unit and rule.size > FRACTION and wanted >= 1.0:
        most = budget * rule.leverage / _unit_cost(np.floor(wanted), price, market, rule)
    if rule.whole_units:
        wanted = np.floor(wanted)
        most = np.floor(most)
    needs_cash = side == BUY or rule.short_collateral
    if free < MINIMUM_QUANTITY * price and (needs_cash or (np.isnan(target_quantity) and rule.size <= FRACTION)):
        return wanted, 0.0, NO_CASH
    quantity = wanted
    reason = NO_REASON
    if wanted > most and needs_cash:
        if not cut and wanted - most > ROUNDING * wanted:
            return wanted, 0.0, NO_CASH
        quantity = most
        reason = CUT
    if quantity < MINIMUM_QUANTITY:
        return wanted, 0.0, NO_CASH if reason == CUT else TOO_SMALL
    if side == SELL and brings_less_than_its_fee(quantity, price, fee_so_far, rule):
        return wanted, 0.0, FEE_TOO_HIGH
    return wanted, quantity, reason
