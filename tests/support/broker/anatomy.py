"""All that an object holds, however deep, as plain data that can be compared: every slot, every attribute, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

_PLAIN = (bytes, str, int, float, bool, type(None))


def anatomy(thing: Any, *, within: tuple[int, ...] = ()) -> Any:
    """Two objects with the same anatomy will behave the same. What is compared by identity only (a keyed hash, a bound
    method) is left out, and an object inside itself is named by how far up it is."""
    if isinstance(thing, _PLAIN):
        return thing
    if id(thing) in within:
        return f"{len(within) - within.index(id(thing))} up"
    inside = (*within, id(thing))
    if isinstance(thing, Mapping):
        return [(anatomy(key, within=inside), anatomy(value, within=inside)) for key, value in thing.items()]
    if isinstance(thing, list | tuple | deque):
        return [anatomy(one, within=inside) for one in thing]
    if isinstance(thing, set | frozenset):
        return sorted(thing)
    if isinstance(thing, msgspec.Struct):
        return {name: anatomy(getattr(thing, name), within=inside) for name in thing.__struct_fields__}
    names = [name for cls in type(thing).__mro__ for name in getattr(cls, "__slots__", ())] + list(
        getattr(thing, "__dict__", {})
    )
    if type(thing).__module__.startswith("backtestr"):
        return {type(thing).__name__: {name: anatomy(getattr(thing, name), within=inside) for name in names}}
    return type(thing).__name__
