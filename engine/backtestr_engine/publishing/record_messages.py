"""The messages of a backtest, made of its records: the same records make the same bytes, whoever asks for them.

A live subscriber and one that fetches later therefore get the same messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from backtestr_engine.data.arrays import Booleans, Records
from backtestr_engine.simulation.records import ORDER_TYPES, REASONS, SIDES, STATUSES
from backtestr_protocol.codec import encoded_payload
from backtestr_protocol.stream_messages import BacktestProgress

from .record_encoding import EncodedMaps, Field, Ids, Number, Text, encode_payloads


def order_messages(backtest_id: str, symbols: Sequence[str], orders: Records) -> EncodedMaps:
    """Return an OrderUpdate for each record of `ORDER`; `symbols` are those that the records index."""
    filled = orders["status"] == STATUSES.index("filled")
    return encode_payloads(
        "OrderUpdate",
        {
            "backtestId": backtest_id,
            "symbol": _symbol(symbols, orders),
            "side": Text((SIDES[1], SIDES[-1]), orders["side"] < 0),
            "quantity": Number(orders["quantity"]),
            "price": Number(orders["price"]),
            "orderType": Text(ORDER_TYPES, orders["order_type"]),
            "status": Text(STATUSES, orders["status"]),
            "timestamp": Number(orders["timestamp"] // 1000),
            "fillPrice": Number(orders["fill_price"], filled),
            "fillQuantity": Number(orders["fill_quantity"], filled),
            "reason": Text(REASONS, orders["reason"], orders["reason"] > 0),
        },
        len(orders),
        Ids("orderId", orders["order_id"]),
    )


def position_messages(
    backtest_id: str, symbols: Sequence[str], positions: Records, *, mark: bool = False
) -> EncodedMaps:
    """Return a PositionUpdate for each record of `POSITION`: a change, or with `mark` a position marked to market."""
    marked: dict[str, Field] = {"mark": True} if mark else {}
    return encode_payloads(
        "PositionUpdate",
        {
            "backtestId": backtest_id,
            "symbol": _symbol(symbols, positions),
            "quantity": Number(positions["quantity"]),
            "averagePrice": Number(positions["average_price"]),
            "currentPrice": Number(positions["current_price"]),
            "unrealizedPnL": Number(positions["unrealized"]),
            "realizedPnL": Number(positions["realized"]),
            "timestamp": Number(positions["timestamp"] // 1000),
            **marked,
        },
        len(positions),
        Ids("positionId", positions["position_id"]),
    )


def changes_and_marks(backtest_id: str, symbols: Sequence[str], positions: Records, is_mark: Booleans) -> EncodedMaps:
    """Return the messages of changes and marks that follow each other as `positions` do."""
    if not is_mark.any():
        return position_messages(backtest_id, symbols, positions)
    of_changes = position_messages(backtest_id, symbols, positions[~is_mark])
    of_marks = position_messages(backtest_id, symbols, positions[is_mark], mark=True)
    lengths = np.empty(len(positions), dtype=np.int64)
    lengths[~is_mark] = np.diff(of_changes.ends, prepend=0)
    lengths[is_mark] = np.diff(of_marks.ends, prepend=0)
    turns = [0, *(np.flatnonzero(is_mark[1:] != is_mark[:-1]) + 1).tolist(), len(positions)]
    parts: list[bytes] = []
    taken = {False: 0, True: 0}
    for first, stop in pairwise(turns):
        which = bool(is_mark[first])
        maps = of_marks if which else of_changes
        parts.append(maps.between(taken[which], taken[which] + stop - first))
        taken[which] += stop - first
    return EncodedMaps(b"".join(parts), np.cumsum(lengths))


def progress_messages(progress: Sequence[BacktestProgress]) -> EncodedMaps:
    """Return the messages of these."""
    payloads = [encoded_payload("BacktestProgress", one) for one in progress]
    return EncodedMaps(b"".join(payloads), np.cumsum([len(one) for one in payloads], dtype=np.int64))


def _symbol(symbols: Sequence[str], records: Records) -> Text | str:
    return symbols[0] if len(symbols) == 1 else Text(symbols, records["symbol"])
