"""Decorators that compile the functions of the simulation loops, and a prefetch for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from backtestr_engine.compiled import compiled

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Nothing in a loop allocates, so references need not be counted: on a busy backtest counting took a third of the time,
# as every record is written through arrays inside a tuple.
_OPTIONS: dict[str, Any] = {"_nrt": False}


def kernel(function: _Function) -> _Function:
    """Compile a part of a loop. It must not allocate: arrays come in, records and numbers go out."""
    part: _Function = njit(nogil=True, **_OPTIONS)(function)
    return part


def inlined_kernel(function: _Function) -> _Function:
    """Compile a part of a loop into its callers: passing tuples of arrays costs more than the work itself."""
    part: _Function = njit(nogil=True, forceinline=True, **_OPTIONS)(function)
    return part


def cached_kernel(function: _Function) -> _Function:
    """Compile a loop, and keep it on disk with all its parts: a part cached by itself would outlive a change of it."""
    return compiled(**_OPTIONS)(function)


def _prefetch(_typing_context: Any, array: Any, index: Any) -> Any:
    """Hint that `array[index]` will be read soon. No result changes, and `index` may be out of bounds."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        own = context.make_array(kind)(context, builder, arguments[0])
        at = cgutils.get_item_pointer(context, builder, kind, own, [arguments[1]], wraparound=False)
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        hint = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        reads, stays, data = number(0), number(3), number(1)  # the operands of LLVM's llvm.prefetch
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], hint)
        builder.call(function, [builder.bitcast(at, byte), reads, stays, data])
        return context.get_dummy_value()

    return types.void(array, index), generate


MARKED_TOGETHER = 32


def _mark(_typing_context: Any, equity: Any, close: Any, first: Any, cash: Any, quantity: Any) -> Any:
    """Set `equity` to cash + quantity · close on 32 bars from `first` on, which both arrays have."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.DoubleType(), MARKED_TOGETHER)
        pointers = []
        for kind, array in zip(signature.args[:2], arguments[:2], strict=True):
            own = context.make_array(kind)(context, builder, array)
            pointer = cgutils.get_item_pointer(context, builder, kind, own, [arguments[2]], wraparound=False)
            pointers.append(builder.bitcast(pointer, vector.as_pointer()))
        cash_of_all, quantity_of_all = (_repeated(builder, value, vector) for value in arguments[3:])
        price = builder.load(pointers[1], align=8)
        builder.store(builder.fadd(cash_of_all, builder.fmul(quantity_of_all, price)), pointers[0], align=8)
        return context.get_dummy_value()

    return types.void(equity, close, types.intp, types.float64, types.float64), generate


def _repeated(builder: Any, value: Any, vector: Any) -> Any:
    """Return a vector with `value` in each place."""
    empty = ir.Constant(vector, ir.Undefined)
    places = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(builder.insert_element(empty, value, ir.IntType(32)(0)), empty, places)


mark_together = cast("Callable[[Any, Any, int, float, float], None]", intrinsic(_mark))
prefetch = cast("Callable[[Any, int], None]", intrinsic(_prefetch))
