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


prefetch = cast("Callable[[Any, int], None]", intrinsic(_prefetch))
