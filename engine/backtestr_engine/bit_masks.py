"""Masks of 64 bars for compiled loops: a bit a bar, the first bar lowest.

A loop that looks at bars one by one takes a branch for each, and where it cannot be foreseen, it costs more than the
bar. A mask is one number: it is 0 where nothing happens, and otherwise names the bars, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from backtestr_engine.data.arrays import Floats, Integers

from .vectors import BARS_PER_MASK, sides_of_64

_Function = TypeVar("_Function", bound=Callable[..., Any])

_ONE = np.uint64(1)
_ALL = ~np.uint64(0)


def _inlined(function: _Function) -> _Function:
    return cast("_Function", njit(nogil=True, forceinline=True)(function))


@_inlined
def sides_of(over: Floats, under: Floats, first: int) -> tuple[Any, Any, Any]:
    """Return masks of up to 64 bars from `first` on: where `over` is above, below, and the same as `under`.

    Where one is NaN, and behind their end, there is no bit in any of them.
    """
    if first + BARS_PER_MASK <= over.size:
        return sides_of_64(over, under, first)
    above = below = same = np.uint64(0)
    for bar in range(first, over.size):
        bit = _ONE << np.uint64(bar - first)
        if over[bar] > under[bar]:
            above |= bit
        elif over[bar] < under[bar]:
            below |= bit
        elif over[bar] == under[bar]:
            same |= bit
    return above, below, same


@_inlined
def changes(mask: Any, before: Any) -> Any:
    """Return a mask of the bars whose bit is not that of the bar before; `before` is the mask of the 64 bars before."""
    return mask ^ ((mask << _ONE) | (before >> np.uint64(BARS_PER_MASK - 1)))


@_inlined
def has_bit(mask: Any, at: int) -> bool:
    """Return whether the bar at a place has a bit."""
    there: bool = (mask >> np.uint64(at)) & _ONE != 0
    return there


@_inlined
def bits_from(mask: Any, at: int, count: int) -> Any:
    """Return a mask of `count` bars, from 1 to 64, of which the first is at the place `at`."""
    return (mask >> np.uint64(at)) & (_ALL >> np.uint64(BARS_PER_MASK - count))


@_inlined
def without_lowest_bit(mask: Any) -> Any:
    """Return a mask without its lowest bit."""
    return mask & (mask - _ONE)


def _lowest_bit(_typing_context: Any, _mask: Any) -> Any:
    """Return the place of the lowest bit of a mask that is not 0."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        is_never_zero = ir.IntType(1)(1)
        return builder.cttz(arguments[0], is_never_zero)

    return types.int64(types.uint64), generate


lowest_bit = cast("Callable[[Any], int]", intrinsic(_lowest_bit))


@_inlined
def put_bars(mask: Any, first: int, bars: Integers, count: int) -> int:
    """Write the bars of a mask, whose lowest bit is the bar `first`, to `bars` from `count` on; return the count."""
    while mask != 0:
        bars[count] = first + lowest_bit(mask)
        count += 1
        mask = without_lowest_bit(mask)
    return count
