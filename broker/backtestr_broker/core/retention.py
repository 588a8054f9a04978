"""Decide which stored things are deleted, by age, number and size: a function of what is stored and the time.

    due(items, rules, now_ms)   # -> the oldest items that have to go, with the rule by which each goes

The oldest go first, and no more of them than the rules ask for. What is kept for a reason (it is pinned, or in use) and
the newest ones never go, though they count; so there may be more left than the rules allow.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

_DAY_MS = 86_400_000


class RetentionRules(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one kind of stored things: 0 is no bound. The `keep_newest` newest never go."""

    max_age_ms: int = 0
    max_count: int = 0
    max_bytes: int = 0
    keep_newest: int = 0


class StoredItem(msgspec.Struct, frozen=True):
    """Something stored: its name, its bytes, when it was stored in milliseconds, and whether to keep it."""

    name: str
    size: int
    stored_ms: int
    is_kept: bool = False


class DueItem(msgspec.Struct, frozen=True):
    """Something that has to go, and by which rule."""

    name: str
    size: int
    reason: str


def due(items: Iterable[StoredItem], rules: RetentionRules, now_ms: int) -> list[DueItem]:
    """Return what has to go, the oldest first."""
    stored = list(items)
    count, size = len(stored), sum(one.size for one in stored)
    if not (
        (rules.max_count and count > rules.max_count)
        or (rules.max_bytes and size > rules.max_bytes)
        or (rules.max_age_ms and any(now_ms - one.stored_ms > rules.max_age_ms for one in stored))
    ):
        return []
    oldest_first = sorted(stored, key=lambda one: (one.stored_ms, one.name))
    found: list[DueItem] = []
    for one in oldest_first[: max(0, count - rules.keep_newest)]:
        if one.is_kept:
            continue
        if rules.max_age_ms and now_ms - one.stored_ms > rules.max_age_ms:
            reason = f"older than {_days(rules.max_age_ms)}"
        elif rules.max_count and count > rules.max_count:
            reason = f"more than {rules.max_count:,} are stored"
        elif rules.max_bytes and size > rules.max_bytes:
            reason = f"more than {rules.max_bytes:,} bytes are stored"
        else:
            break
        found.append(DueItem(one.name, one.size, reason))
        count -= 1
        size -= one.size
    return found


def _days(milliseconds: int) -> str:
    days = milliseconds / _DAY_MS
    return "1 day" if days == 1 else f"{days:g} days"
