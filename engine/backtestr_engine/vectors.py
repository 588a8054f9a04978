"""Steps of compiled loops that take several bars at once, where the compiler takes them one by one.

A loop that may end at any bar, or has few bars, is compiled to one value and one branch a bar. Here such steps are said
in the compiler's own vectors (LLVM's), which it translates for any processor. Each computes the same bits, since the
order of every sum is part of its step. Arrays are contiguous, and float64 unless a step says another type; a step reads
and writes all of its bars, so they have to be there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from backtestr_engine.data.arrays import Bytes, Floats

BARS_PER_MASK = 64
"""The bars of a mask, which has a bit for each."""

MARKED_TOGETHER = 32
FALLS_TOGETHER = 8

_LANES = 8
_MASK, _PLACE = ir.IntType(BARS_PER_MASK), ir.IntType(32)


def _vector(bars: int) -> Any:
    return ir.VectorType(ir.DoubleType(), bars)


class _Column:
    """A column of bars in code that is being generated: it can be read and written several bars at once."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any) -> None:
        self._context, self._builder, self._kind = context, builder, kind
        self._array = context.make_array(kind)(context, builder, array)

    def _pointer(self, first: Any, bars: int) -> Any:
        values = ir.VectorType(self._context.get_data_type(self._kind.dtype), bars)
        one = cgutils.get_item_pointer(self._context, self._builder, self._kind, self._array, [first], wraparound=False)
        return self._builder.bitcast(one, values.as_pointer())

    def read(self, first: Any, bars: int) -> Any:
        return self._builder.load(self._pointer(first, bars), align=self._kind.dtype.bitwidth // 8)

    def write(self, values: Any, first: Any) -> None:
        self._builder.store(values, self._pointer(first, values.type.count), align=self._kind.dtype.bitwidth // 8)


def _is_column(kind: Any) -> bool:
    return isinstance(kind, types.Array) and kind.dtype == types.float64 and kind.layout == "C"


def _repeated(builder: Any, value: Any, bars: int) -> Any:
    """Return a vector that has `value` in each place."""
    empty = ir.Constant(_vector(bars), ir.Undefined)
    places = ir.Constant(ir.VectorType(_PLACE, bars), [0] * bars)
    return builder.shuffle_vector(builder.insert_element(empty, value, _PLACE(0)), empty, places)


def _less(builder: Any, one: Any, other: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", one, other), one, other)


def _reduced(builder: Any, combine: Callable[[Any, Any], Any], vector: Any) -> Any:
    """Return all places of a vector combined: each half with the other, until one is left."""
    width = vector.type.count
    while width > 1:
        width //= 2
        kind = ir.VectorType(_PLACE, width)
        halves = [ir.Constant(kind, list(range(begin, begin + width))) for begin in (0, width)]
        vector = combine(*(builder.shuffle_vector(vector, vector, half) for half in halves))
    return builder.extract_element(vector, _PLACE(0))


def _sides(_typing_context: Any, over: Any, under: Any, first: Any) -> Any:
    """Return masks of the 64 bars from `first` on: where `over` is above, below, and the same as `under`.

    A NaN has no bit in any of them.
    """
    if not (_is_column(over) and _is_column(under)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        columns = [_Column(context, builder, signature.args[at], arguments[at]) for at in range(2)]
        values = [column.read(arguments[2], BARS_PER_MASK) for column in columns]
        masks = [builder.bitcast(builder.fcmp_ordered(operator, *values), _MASK) for operator in (">", "<", "==")]
        return context.make_tuple(builder, signature.return_type, masks)

    return types.UniTuple(types.uint64, 3)(over, under, types.intp), generate


def _reaching(_typing_context: Any, values: Any, level: Any, first: Any) -> Any:
    """Return a mask of the 64 bars from `first` on: where a value is at or above `level`."""
    if not _is_column(values):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = _Column(context, builder, signature.args[0], arguments[0]).read(arguments[2], BARS_PER_MASK)
        level = _repeated(builder, arguments[1], BARS_PER_MASK)
        return builder.bitcast(builder.fcmp_ordered(">=", value, level), _MASK)

    return types.uint64(values, types.float64, types.intp), generate


def _against_before(operator: str) -> Any:
    """Return a step that takes a column, a first bar and a factor: it returns a mask of the 64 bars from there on.

    A bar has a bit where its value is, by the operator, beyond the value of the bar before times the factor.
    """

    def against_before(_typing_context: Any, values: Any, first: Any, factor: Any) -> Any:
        if not _is_column(values):
            return None

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            column, first = _Column(context, builder, signature.args[0], arguments[0]), arguments[1]
            now = column.read(first, BARS_PER_MASK)
            before = column.read(builder.sub(first, first.type(1)), BARS_PER_MASK)
            level = builder.fmul(before, _repeated(builder, arguments[2], BARS_PER_MASK))
            return builder.bitcast(builder.fcmp_ordered(operator, now, level), _MASK)

        return types.uint64(values, types.intp, types.float64), generate

    return intrinsic(against_before)


def _flagged(_typing_context: Any, flags: Any, first: Any) -> Any:
    """Return a mask of the 64 bars from `first` on: where the flags, a contiguous uint8 column, are not 0."""
    if not (isinstance(flags, types.Array) and flags.dtype == types.uint8 and flags.layout == "C"):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        some = _Column(context, builder, signature.args[0], arguments[0]).read(arguments[1], BARS_PER_MASK)
        return builder.bitcast(builder.icmp_unsigned("!=", some, ir.Constant(some.type, [0] * BARS_PER_MASK)), _MASK)

    return types.uint64(flags, types.intp), generate


def _falls(bars: int) -> Any:
    """Return a step that takes equity, a first bar and 1 / peak, for this number of bars.

    It returns the lowest equity, and the sum of the squares of the falls from the peak.
    """

    def falls(_typing_context: Any, equity: Any, first: Any, per_peak: Any) -> Any:
        if not _is_column(equity):
            return None

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            column = _Column(context, builder, signature.args[0], arguments[0])
            per_peaks, ones = _repeated(builder, arguments[2], _LANES), ir.Constant(_vector(_LANES), [1.0] * _LANES)
            lowest = squares = None
            for lane in range(0, bars, _LANES):
                value = column.read(builder.add(arguments[1], arguments[1].type(lane)), _LANES)
                fall = builder.fsub(ones, builder.fmul(value, per_peaks))
                square = builder.fmul(fall, fall)
                squares = square if squares is None else builder.fadd(squares, square)
                lowest = value if lowest is None else _less(builder, lowest, value)
            found = (
                _reduced(builder, lambda *both: _less(builder, *both), lowest),
                _reduced(builder, builder.fadd, squares),
            )
            return context.make_tuple(builder, signature.return_type, found)

        return types.UniTuple(types.float64, 2)(equity, types.intp, types.float64), generate

    return intrinsic(falls)


def _mark(_typing_context: Any, equity: Any, close: Any, first: Any, cash: Any, quantity: Any) -> Any:
    """Set equity to cash + quantity · close on `MARKED_TOGETHER` bars from `first` on."""
    if not (_is_column(equity) and _is_column(close)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        marked, price = (_Column(context, builder, signature.args[at], arguments[at]) for at in range(2))
        first = arguments[2]
        cash_of_each, quantity_of_each = (_repeated(builder, value, MARKED_TOGETHER) for value in arguments[3:])
        worth = builder.fmul(quantity_of_each, price.read(first, MARKED_TOGETHER))
        marked.write(builder.fadd(cash_of_each, worth), first)
        return context.get_dummy_value()

    return types.void(equity, close, types.intp, types.float64, types.float64), generate


sides_of_64 = cast("Callable[[Floats, Floats, int], tuple[Any, Any, Any]]", intrinsic(_sides))
reaching = cast("Callable[[Floats, float, int], Any]", intrinsic(_reaching))
fallen = cast("Callable[[Floats, int, float], Any]", _against_before("<"))
risen = cast("Callable[[Floats, int, float], Any]", _against_before(">"))
flagged = cast("Callable[[Bytes, int], Any]", intrinsic(_flagged))
falls_of_64 = cast("Callable[[Floats, int, float], tuple[float, float]]", _falls(BARS_PER_MASK))
falls_of_few = cast("Callable[[Floats, int, float], tuple[float, float]]", _falls(FALLS_TOGETHER))
mark_together = cast("Callable[[Floats, Floats, int, float, float], None]", intrinsic(_mark))
