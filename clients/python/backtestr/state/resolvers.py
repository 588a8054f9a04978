"""Who wins when two programs changed the same key of the shared state: resolvers, found by the longest matching prefix.

A resolver gets `mine` (what this program wanted to write), `theirs` (what is there now) and `base` (what was there when
`mine` was made), each None where there is no such key, and returns what is to be there. Returning `theirs` writes
nothing. It may raise `StateConflict` where people have to decide. It must not depend on anything else, as it may be
asked several times for one update.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from backtestr_protocol.errors import StateConflict
from backtestr_protocol.state_values import value_bytes

Resolver = Callable[[Any, Any, Any], Any]


def last_writer(mine: Any, theirs: Any, base: Any) -> Any:
    """The one who writes last: `mine`, as `theirs` is there already. What they wrote is overwritten."""
    return mine


def later_update(mine: Any, theirs: Any, base: Any) -> Any:
    """The map whose field `lastUpdate` is the greater number; `theirs`, which is there already, when they are equal.

    A value that has no such number (no map, no field, not a number, NaN, a bool) cannot show that it is later, and
    loses against one that has. When neither has one, the last writer wins.
    """
    my_time, their_time = _last_update(mine), _last_update(theirs)
    if their_time is None:
        return mine
    return mine if my_time is not None and my_time > their_time else theirs


def merge_fields(mine: Any, theirs: Any, base: Any) -> Any:
    """Both changes, where they are to different fields of a map, at any depth.

    Fields that both changed alike are as they say. Those that both changed differently are a conflict that is raised
    (`StateConflict`, `details.fields`), a removed field and a changed one included: half of somebody's settings beside
    half of somebody else's would be what nobody wanted, and to let the last writer win is to lose the other's without a
    word. Values that are no maps have no fields: they conflict unless one of them is unchanged.
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
    """That of the longest prefix of `key` in `resolvers`."""
    return resolvers[max((prefix for prefix in resolvers if key.startswith(prefix)), key=len)]


def _last_update(value: Any) -> float | None:
    at = value.get("lastUpdate") if isinstance(value, dict) else None
    if isinstance(at, bool) or not isinstance(at, int | float) or math.isnan(at):
        return None
    return at


_NOTHING = object()  # a field that is not there


def _merged(mine: Any, theirs: Any, base: Any, path: str, conflicts: list[str]) -> Any:
    if _same(mine, theirs) or _same(theirs, base):
        return mine
    if _same(mine, base):
        return theirs
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
    """Equal as values on the wire are: 1, 1.0 and True are three."""
    if one is _NOTHING or other is _NOTHING:
        return one is other
    return value_bytes(one) == value_bytes(other)
