"""A resolver decides which value counts when two programs changed the same key of the shared state.

It gets `mine` (the value that this program wants to write), `theirs` (the current value) and `base` (the value from
which `mine` was made), each None where there is no such key, and returns the value to write. If it returns `theirs`,
nothing is written. It may raise `StateConflict` where people have to decide. It must depend on nothing else, since it
may be called several times for one update. The resolver of the longest prefix of a key is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from backtestr_protocol.errors import StateConflict
from backtestr_protocol.state_values import value_bytes

Resolver = Callable[[Any, Any, Any], Any]


def last_writer(mine: Any, theirs: Any, base: Any) -> Any:
    """Return `mine`, which is written last: `theirs` is there already, and is overwritten."""
    return mine


def later_update(mine: Any, theirs: Any, base: Any) -> Any:
    """Return the map whose field `lastUpdate` is the greater number; `theirs`, if they are equal.

    A value without such a number (no map, no field, not a number, NaN, a bool) is treated as earlier than one with it.
    If neither has one, the last writer wins.
    """
    my_time, their_time = _last_update(mine), _last_update(theirs)
    if their_time is None:
        return mine
    return mine if my_time is not None and my_time > their_time else theirs


def merge_fields(mine: Any, theirs: Any, base: Any) -> Any:
    """Return a map with both changes, if they are to different fields, at any depth.

    A field that both changed to the same value has that value. A field named `lastModified` has the later of both
    times, where both are numbers, texts (of ISO 8601) or timestamps. Any other field that both changed differently,
    also one that one of them removed, raises `StateConflict` with `details.fields`: to mix two half-applied edits is
    worse than an error, and to let the last writer win would lose the other change silently. Values that are not maps
    have no fields: they conflict unless one of them is unchanged.
    """
    conflicts: list[str] = []
    merged = _merged(mine, theirs, base, "", conflicts)
    if conflicts:
        raise StateConflict(
            f"changed by both, differently: {', '.join(conflicts)}; read it again, and decide", fields=conflicts
        )
    return None if merged is _NOTHING else merged


DEFAULTS: Mapping[str, Resolver] = {"backtest.": later_update, "algorithm.": merge_fields, "": last_writer}


def resolver_for(key: str, resolvers: Mapping[str, Resolver]) -> Resolver:
    """Return the resolver of the longest prefix of `key` in `resolvers`."""
    return resolvers[max((prefix for prefix in resolvers if key.startswith(prefix)), key=len)]


def _last_update(value: Any) -> float | None:
    at = value.get("lastUpdate") if isinstance(value, dict) else None
    if isinstance(at, bool) or not isinstance(at, int | float) or math.isnan(at):
        return None
    return at


_NOTHING = object()  # stands for a field that is not there

# The field of a time of change: two changes have two of them, and that is no conflict.
LAST_MODIFIED = "lastModified"


def _later(mine: Any, theirs: Any) -> Any:
    """Return the later of two times of one kind, the only one where the other is not there, else `_NOTHING`."""
    if mine is _NOTHING or theirs is _NOTHING:
        return theirs if mine is _NOTHING else mine
    if isinstance(mine, bool) or isinstance(theirs, bool):
        return _NOTHING
    if isinstance(mine, int | float) and isinstance(theirs, int | float):
        return mine if math.isnan(theirs) or mine > theirs else theirs
    if isinstance(mine, str) and isinstance(theirs, str):
        return max(mine, theirs)
    if isinstance(mine, datetime) and isinstance(theirs, datetime):
        return max(mine, theirs)
    return _NOTHING


def _merged(mine: Any, theirs: Any, base: Any, path: str, conflicts: list[str]) -> Any:
    if _same(mine, theirs) or _same(theirs, base):
        return mine
    if _same(mine, base):
        return theirs
    if path.rpartition(".")[2] == LAST_MODIFIED and (later := _later(mine, theirs)) is not _NOTHING:
        return later
    if not (isinstance(mine, dict) and isinstance(theirs, dict)):
        conflicts.append(path or "the whole value")
        return mine
    fields = base if isinstance(base, dict) else {}
    found = {
        name: _merged(
            mine.get(name, _NOTHING),
            theirs.get(name, _NOTHING),
            fields.get(name, _NOTHING),
            f"{path}.{name}" if path else name,
            conflicts,
        )
        for name in sorted({*mine, *theirs})
    }
    return {name: value for name, value in found.items() if value is not _NOTHING}


def _same(one: Any, other: Any) -> bool:
    """Compare two values as they are on the wire: 1, 1.0 and True are three values."""
    if one is _NOTHING or other is _NOTHING:
        return one is other
    return value_bytes(one) == value_bytes(other)
