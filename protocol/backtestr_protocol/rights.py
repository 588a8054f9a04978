"""The rights of client keys: which requests the broker executes for a client, by the key that it connects with.

With CURVE every client has a key. A key on the allow-list has one right, and each right includes those before it:
`read` has the queries and subscriptions, `run` has backtests, sweeps, evaluations and price replays too, and `all` also
has what changes stored things: market data, algorithms, shared state, results, and feeds of prices. The table of
requests (`message_types.REQUESTS`) says which right each needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from .errors import NotPermitted

Right = Literal["read", "run", "all"]

RIGHTS: Mapping[Right, str] = {
    "read": "queries and subscriptions",
    "run": "queries, subscriptions, backtests, sweeps, evaluations and price replays",
    "all": "every request",
}
"""The rights, from the least to the most, and what each includes."""

_RANK = {right: rank for rank, right in enumerate(RIGHTS)}


def includes(held: Right, needed: Right) -> bool:
    """Return true if a key that has the right `held` may do what needs the right `needed`."""
    return _RANK[held] >= _RANK[needed]


def check_right(request_type: str, needed: Right, held: Right, key: str) -> None:
    """Raise `NotPermitted` if the right of the key named `key` does not include a request that needs `needed`."""
    if not includes(held, needed):
        raise NotPermitted(
            f"{request_type} needs the right {needed!r}, and the key {key!r} has {held!r} ({RIGHTS[held]}); to change "
            f"that, on the broker's machine: backtestr keys allow {key} --rights {needed}",
            key=key,
            right=held,
            needed=needed,
        )
