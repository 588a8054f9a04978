"""Filters of a subscription: which of the messages that arrive a program wants to read.

No I/O. A filter is applied to what was received, put in order and repaired, so it hides no gap: a message that does not
pass has its sequence number all the same. What the broker need not send at all is left to the topic (`narrowed`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

import msgspec

from backtestr_protocol import topics
from backtestr_protocol.errors import did_you_mean
from backtestr_protocol.messages import BacktestState, OrderStatus, Side
from backtestr_protocol.price_messages import ReplayState

Texts = str | Iterable[str]

_FIELDS: dict[str, tuple[str, ...]] = {
    "prices.": ("symbol",),
    "orders.": ("symbol", "side", "status", "min_quantity"),
    "positions.": ("symbol", "side", "min_quantity"),
    "system.backtests": ("symbol", "status"),
    "system.replays": ("symbol", "status"),
}
"""The fields by which messages of a topic class can be told apart."""

_STATUSES: dict[str, tuple[str, ...]] = {
    "orders.": get_args(OrderStatus),
    "system.backtests": get_args(BacktestState),
    "system.replays": get_args(ReplayState),
}


class UpdateFilter(msgspec.Struct, frozen=True):
    """The wanted values of each field; None passes everything.

    The side of a position is `buy` for a long and `sell` for a short one; a closed position has no side and no
    quantity, and passes the side and quantity of its filter, so that a reader learns of the end.
    """

    symbols: frozenset[str] | None = None
    sides: frozenset[str] | None = None
    statuses: frozenset[str] | None = None
    min_quantity: float | None = None

    def passes(self, data: Any) -> bool:
        """Return whether a message with these data is wanted; one of a type that is not known here always is."""
        if isinstance(data, dict):
            return True
        if self.symbols is not None and self.symbols.isdisjoint(_symbols_of(data)):
            return False
        if self.statuses is not None and data.status not in self.statuses:
            return False
        quantity = getattr(data, "quantity", None)
        is_closed = quantity == 0.0 and not hasattr(data, "side")
        if quantity is None or is_closed:
            return True
        if self.min_quantity is not None and abs(quantity) < self.min_quantity:
            return False
        side = getattr(data, "side", "buy" if quantity > 0 else "sell")
        return self.sides is None or side in self.sides


def _symbols_of(data: Any) -> tuple[str, ...]:
    return (data.symbol, *getattr(data, "symbols", ()))


def update_filter(
    prefix: str,
    *,
    symbol: Texts | None = None,
    side: Texts | None = None,
    status: Texts | None = None,
    min_quantity: float | None = None,
) -> UpdateFilter | None:
    """Return the filter of a subscription to `prefix`, None where nothing is asked for.

    Raises `ValueError` for a field that messages of that topic do not have, and for a value that no message has.
    """
    given = {"symbol": symbol, "side": side, "status": status, "min_quantity": min_quantity}
    asked = {name: value for name, value in given.items() if value is not None}
    if not asked:
        return None
    topic_class = next((name for name in _FIELDS if prefix.startswith(name)), prefix)
    possible = _FIELDS.get(topic_class, ())
    for name in asked:
        if name not in possible:
            having = ", ".join(one for one, fields in _FIELDS.items() if name in fields)
            raise ValueError(f"messages of {prefix!r} cannot be filtered by {name}; those of these can: {having}")
    if min_quantity is not None and not (isinstance(min_quantity, int | float) and 0 <= min_quantity < float("inf")):
        raise ValueError(f"min_quantity: expected a number, 0 or more; {min_quantity!r} came")
    return UpdateFilter(
        symbols=_texts("symbol", symbol),
        sides=_texts("side", side, get_args(Side)),
        statuses=_texts("status", status, _STATUSES.get(topic_class, ())),
        min_quantity=None if min_quantity is None else float(min_quantity),
    )


def narrowed(prefix: str, wanted: UpdateFilter | None) -> str:
    """Return the longest prefix of all wanted topics: what does not begin so is not sent by the broker at all."""
    if wanted is not None and prefix == "prices." and wanted.symbols is not None and len(wanted.symbols) == 1:
        (symbol,) = wanted.symbols
        of_symbol = f"prices.{symbol}."
        return of_symbol if topics.sockets_for(of_symbol) else prefix
    return prefix


def _texts(name: str, given: Texts | None, known: tuple[str, ...] = ()) -> frozenset[str] | None:
    if given is None:
        return None
    texts = frozenset([given] if isinstance(given, str) else given)
    for text in sorted(map(str, texts)):
        if known and text not in known:
            listed = ", ".join(known)
            raise ValueError(f"{name}: expected one of {listed}; {text!r} came{did_you_mean(text, known)}")
    if not texts:
        raise ValueError(f"{name}: an empty filter would pass nothing; leave it out to pass all")
    return texts
