"""What an order costs and how large it may be: the arithmetic of fees and sizes, for the kernel of `walk.py`.

With v the value traded, q the units: the fee of an order is max(minimum, fixed + commission · v + per_unit · q). An
order may have two parts, the close of one position and the opening of the next; it pays one fee. What the first part
was charged is credited to the second.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .account import FRACTION, RISK, UNITS, VALUE
from .numba_kernel import kernel
from .records import BUY, CUT, FEE_TOO_HIGH, NO_CASH, NO_REASON, NO_STOP, SELL, TOO_SMALL

FIRST_PART = -1.0
"""For the listed fee of the part before: there is none."""

_NEARLY_ALL = 1.0 - np.finfo(np.float64).eps

ROUNDING = 1e-12
"""Of a quantity: an order that cash falls short of by less is paid for."""

MINIMUM_QUANTITY = 1e-8
"""One satoshi: an order for less than this is rounding, not intent."""


@kernel
def slipped(side: int, price: float, rule: Any) -> float:
    """`price` after slippage, which is against whoever trades."""
    worse: float = price * (1.0 + side * rule.slippage)
    return worse


@kernel
def listed_fee(quantity: float, price: float, rule: Any) -> float:
    """The fee of an order before its minimum."""
    fee: float = quantity * price * rule.commission + rule.commission_fixed + quantity * rule.commission_per_unit
    return fee


@kernel
def fee_of(quantity: float, price: float, rule: Any) -> float:
    """The fee of an order of one part."""
    fee: float = max(listed_fee(quantity, price, rule), rule.commission_minimum)
    return fee


@kernel
def further_fee(quantity: float, price: float, fee_so_far: float, rule: Any) -> float:
    """The fee of a second part of an order that is listed at `fee_so_far` so far, or at `FIRST_PART`."""
    if fee_so_far == FIRST_PART:
        return fee_of(quantity, price, rule)
    together = fee_so_far + quantity * price * rule.commission + quantity * rule.commission_per_unit
    fee: float = max(together, rule.commission_minimum) - max(fee_so_far, rule.commission_minimum)
    return fee


@kernel
def affordable(cash: float, price: float, fee_so_far: float, leverage: float, rule: Any) -> float:
    """The most units that `cash` pays for at `price`, fee included; `fee_so_far` as for `further_fee`.

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
    """What backtesting.py takes a unit to cost in an order of `units`: its price and its share of a fee on `market`."""
    cost: float = price + rule.commission * market + rule.commission_per_unit + rule.commission_fixed / units
    return cost


@kernel
def free_cash(side: int, price: float, rule: Any, state: Any) -> float:
    """The cash that an order on `side` may draw on, given what positions on credit or short hold of it.

    A position takes 1 / leverage of its value; of one short that is held beside what it was sold for. Without
    `short_collateral` only the sales short are bound by it, and positions count at what they were sold for.
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
def brings_less_than_its_fee(quantity: float, price: float, fee_so_far: float, rule: Any) -> bool:
    """Whether selling would cost cash, which is refused where orders are cut to what cash allows; `fee_so_far` as for
    `further_fee`."""
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
    """The quantity wanted, what `free` cash pays for of it at `price`, and why less.

    `price` is the `market`'s after slippage. all_in: what free cash pays for, costs included; fraction: what size_value
    of `worth` does. units and value: size_value units, or money's worth of them; risk: as many as lose size_value of
    `worth` when the price goes `risked` (a fraction) the wrong way. Where `target_quantity` is not NaN, it is the
    quantity instead: the units that an algorithm's target asks for, which cash may cut. Of all these a buy needs its
    cost in cash; so does a sale short, when it needs collateral.
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
        if rule.share_of_cash and side == SELL:  # vectorbt's: a part of the units, not of the money
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
