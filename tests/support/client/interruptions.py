"""This module interrupts a call as Ctrl-C does: at its first instruction, then at its second, and so on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

# More instructions than any call has that is interrupted here.
_ENOUGH = 100_000


# An interrupt comes at each of these; Python itself lets one in where a function begins and where a call has returned,
# and not between the two ends of a `with` and its block.
INSTRUCTIONS = ("opcode",)
CALLS = ("call", "return")


def interrupted_anywhere(
    make: Callable[[], T], call: Callable[[T], object], events: tuple[str, ...] = INSTRUCTIONS
) -> Iterator[T]:
    """Yield what `make` made after `call` on it was interrupted: at its first event, then at its second, ….

    The last one yielded was not interrupted.
    """
    for at in range(1, _ENOUGH):
        made, seen = make(), [0]

        def trace(frame: FrameType, event: str, _: object, at: int = at, seen: list[int] = seen) -> Any:
            frame.f_trace_opcodes = True
            if event in events:
                seen[0] += 1
                if seen[0] == at:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        try:
            sys.settrace(trace)
            try:
                call(made)
            finally:
                sys.settrace(before)
        except KeyboardInterrupt:
            yield made
        else:
            yield made
            return
    raise AssertionError(f"the call has more than {_ENOUGH} instructions")
