"""The anatomy of an object is everything that it holds, at any depth, as plain data that can be compared."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

_PLAIN = (bytes, str, int, float, bool, type(None))


def anatomy(thing: Any, *, seen: dict[int, int] | None = None) -> Any:
    """Return the anatomy of `thing`: two objects with the same anatomy will behave the same.

    What is compared by identity only (a keyed hash, a function) is left out. A machine that several others hold is
    described where it is found first, and is named by its number, `seen`, everywhere else.
    """
    seen = {} if seen is None else seen
    if isinstance(thing, _PLAIN):
        return thing
    if isinstance(thing, Mapping):
        return [(anatomy(key, seen=seen), anatomy(value, seen=seen)) for key, value in thing.items()]
    if isinstance(thing, list | tuple | deque):
        return [anatomy(one, seen=seen) for one in thing]
    if isinstance(thing, set | frozenset):
        return sorted(thing)
    if isinstance(thing, msgspec.Struct):
        return {name: anatomy(getattr(thing, name), seen=seen) for name in thing.__struct_fields__}
    if not type(thing).__module__.startswith("backtestr"):
        return type(thing).__name__
    if id(thing) in seen:
        return f"{type(thing).__name__} {seen[id(thing)]}"
    seen[id(thing)] = len(seen)
    names = [name for cls in type(thing).__mro__ for name in getattr(cls, "__slots__", ())] + list(
        getattr(thing, "__dict__", {})
    )
    return {type(thing).__name__: {name: anatomy(getattr(thing, name), seen=seen) for name in names}}
