"""Comparisons of 64 bars at once, for compiled loops: a bit a bar.

A loop that looks at bars one by one takes a branch for each, and where it cannot be foreseen, it costs more than the
bar. The bits of 64 bars are one number: it is 0 where nothing happens, and otherwise names the bars, lowest bit first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from backtestr_engine.data.arrays import Floats

BARS_PER_MASK = 64

_Function = TypeVar("_Function", bound=Callable[..., Any])


def inlined(function: _Function) -> _Function:
    part: _Function = njit(nogil=True, forceinline=True)(function)
    return part


_LANES = 8
_MASK = ir.IntType(BARS_PER_MASK)
_VECTOR = ir.VectorType(ir.DoubleType(), _LANES)


def _sides(_typing_context: Any, over: Any, under: Any, first: Any) -> Any:
    """Return three masks of the bars from `first` on: where `over` is above, below, and the same as `under`.

    Both arrays are contiguous float64 with at least 64 values from `first` on. A NaN has no bit in any of the masks.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        masks = [_MASK(0)] * 3
        for lane in range(0, BARS_PER_MASK, _LANES):
            at = builder.add(arguments[2], arguments[2].type(lane))
            values = []
            for kind, array in zip(signature.args[:2], arguments[:2], strict=True):
                own = context.make_array(kind)(context, builder, array)
                pointer = cgutils.get_item_pointer(context, builder, kind, own, [at], wraparound=False)
                values.append(builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=8))
            for place, operator in enumerate((">", "<", "==")):
                found = builder.bitcast(builder.fcmp_ordered(operator, *values), ir.IntType(_LANES))
                masks[place] = builder.or_(masks[place], builder.shl(builder.zext(found, _MASK), _MASK(lane)))
        return context.make_tuple(builder, signature.return_type, masks)

    return types.UniTuple(types.uint64, 3)(over, under, types.intp), generate


def _lowest_bit(_typing_context: Any, mask: Any) -> Any:
    """Return the place of the lowest bit of a mask that is not 0."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(types.uint64), generate


def _reaching(_typing_context: Any, values: Any, level: Any, first: Any) -> Any:
    """Return a mask of the bars from `first` on whose value is at or above `level`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        mask = _MASK(0)
        levels = repeated(builder, arguments[1], _VECTOR)
        for lane in range(0, BARS_PER_MASK, _LANES):
            at = builder.add(arguments[2], arguments[2].type(lane))
            own = context.make_array(signature.args[0])(context, builder, arguments[0])
            pointer = cgutils.get_item_pointer(context, builder, signature.args[0], own, [at], wraparound=False)
            value = builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=8)
            found = builder.bitcast(builder.fcmp_ordered(">=", value, levels), ir.IntType(_LANES))
            mask = builder.or_(mask, builder.shl(builder.zext(found, _MASK), _MASK(lane)))
        return mask

    return types.uint64(values, types.float64, types.intp), generate


def repeated(builder: Any, value: Any, vector: Any) -> Any:
    empty = ir.Constant(vector, ir.Undefined)
    places = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(builder.insert_element(empty, value, ir.IntType(32)(0)), empty, places)


def _falls_of(bars: int) -> Any:
    def falls(_typing_context: Any, equity: Any, first: Any, per_peak: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            per = repeated(builder, arguments[2], _VECTOR)
            ones = ir.Constant(_VECTOR, [1.0] * _LANES)
            own = context.make_array(signature.args[0])(context, builder, arguments[0])
            lowest = squares = None
            for lane in range(0, bars, _LANES):
                at = builder.add(arguments[1], arguments[1].type(lane))
                pointer = cgutils.get_item_pointer(context, builder, signature.args[0], own, [at], wraparound=False)
                value = builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=8)
                fall = builder.fsub(ones, builder.fmul(value, per))
                square = builder.fmul(fall, fall)
                squares = square if squares is None else builder.fadd(squares, square)
                lowest = value if lowest is None else _less(builder, lowest, value)
            width = _LANES
            while width > 1:
                width //= 2
                squares = builder.fadd(*_halves(builder, squares, width))
                lowest = _less(builder, *_halves(builder, lowest, width))
            parts = [builder.extract_element(one, ir.IntType(32)(0)) for one in (lowest, squares)]
            return context.make_tuple(builder, signature.return_type, parts)

        return types.UniTuple(types.float64, 2)(equity, types.intp, types.float64), generate

    return intrinsic(falls)


def _less(builder: Any, one: Any, other: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", one, other), one, other)


def _halves(builder: Any, vector: Any, width: int) -> list[Any]:
    kind = ir.VectorType(ir.IntType(32), width)
    return [
        builder.shuffle_vector(vector, vector, ir.Constant(kind, list(range(begin, begin + width))))
        for begin in (0, width)
    ]


falls_of_64, falls_of_8 = _falls_of(64), _falls_of(8)
reaching = cast("Callable[[Floats, float, int], Any]", intrinsic(_reaching))
_sides_of_64 = cast("Callable[[Floats, Floats, int], tuple[int, int, int]]", intrinsic(_sides))
lowest_bit = cast("Callable[[Any], int]", intrinsic(_lowest_bit))

_ONE = np.uint64(1)
_ALL = ~np.uint64(0)


@inlined
def sides_of(over: Floats, under: Floats, first: int) -> tuple[Any, Any, Any]:
    """Return masks of up to 64 bars from `first` on: where `over` is above, below, and the same as `under`.

    Both lines are contiguous. Where one is NaN, or behind their end, there is no bit in any mask.
    """
    if first + BARS_PER_MASK <= over.size:
        return _sides_of_64(over, under, first)
    above = below = same = np.uint64(0)
    for at in range(over.size - first):
        bit = _ONE << np.uint64(at)
        if over[first + at] > under[first + at]:
            above |= bit
        elif over[first + at] < under[first + at]:
            below |= bit
        elif over[first + at] == under[first + at]:
            same |= bit
    return above, below, same


@inlined
def changes(mask: Any, before: Any) -> Any:
    """Return a mask of the bars whose bit is another than that of the bar before; `before` is the mask before."""
    return mask ^ ((mask << _ONE) | (before >> np.uint64(BARS_PER_MASK - 1)))


@inlined
def has_bit(mask: Any, at: int) -> bool:
    """Return whether the bar `at` has a bit."""
    there: bool = (mask >> np.uint64(at)) & _ONE != 0
    return there


@inlined
def first_bits(count: int) -> Any:
    """Return a mask of the first `count` bars, from 1 to 64."""
    return _ALL >> np.uint64(BARS_PER_MASK - count)


@inlined
def without_lowest_bit(mask: Any) -> Any:
    """Return a mask without its lowest bit."""
    return mask & (mask - _ONE)
