"""Touches: whether a bar reaches a level that was computed, and not given.

A level is a product of rounded numbers: 100 · (1 + 0.1) is 110.00000000000001, and a bar with a high of 110 touches the
10 % that a person asked for. So a price that differs from a level by rounding touches it (convention `touch`). A tick
of a market is larger than the tolerance by many orders of magnitude, so that no price beside a level touches it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .numba_kernel import kernel

TOLERANCE = 4 * float(np.finfo(np.float64).eps)
"""The largest relative difference that is rounding, 8.9e-16: four to eight units in the last place.

It is twice the largest error of a level among 300,000 drawn ones (prices, fractions and slippage of few decimals). The
difference is relative to the level or to the price from which it counts, whichever is larger: a short position's profit
of 99 % inherits the rounding of the larger.
"""


@kernel
def tolerance(level: float, base: float, rule: Any) -> float:
    """Return how far a price may be from `level`, which counts from the price `base`, and touch it."""
    if rule.touches_exactly or np.isinf(level):
        return 0.0
    apart: float = TOLERANCE * max(level, base)
    return apart


@kernel
def touched(level: float, extreme: float, base: float, rule: Any) -> float:
    """Return the price at which a bar that goes as far as `extreme` trades at `level`: the extreme at a touch."""
    price: float = extreme if abs(extreme - level) <= tolerance(level, base, rule) else level
    return price
