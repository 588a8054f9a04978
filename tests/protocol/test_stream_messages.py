"""Stream messages have the names of fields that the protocol page gives, and leave absent fields out."""

from __future__ import annotations

from typing import Any

import msgpack
import msgspec

from backtestr_protocol.codec import encode
from backtestr_protocol.stream_messages import (
    BacktestProgress,
    Batch,
    EquityCurvePoint,
    PositionUpdate,
    PriceUpdate,
    StateUpdate,
)


def fields_of(message: msgspec.Struct) -> dict[str, Any]:
    """Return the fields on the wire."""
    fields: dict[str, Any] = msgpack.unpackb(encode(message))
    return fields


def test_profit_and_loss_keep_their_spelling() -> None:
    point = EquityCurvePoint(timestamp=1, equity=2.0, drawdown=0.0, returns=0.0)
    progress = BacktestProgress(
        backtest_id="b",
        current_time=1,
        progress_percent=50.0,
        orders_executed=0,
        positions_opened=0,
        positions_closed=0,
        unrealized_pnl=1.5,
        realized_pnl=2.5,
        equity_curve_point=point,
    )
    position = PositionUpdate(
        position_id="1",
        backtest_id="b",
        symbol="X",
        quantity=-1.0,
        average_price=1.0,
        current_price=1.0,
        unrealized_pnl=1.5,
        realized_pnl=2.5,
        timestamp=1,
    )
    for one in (progress, position):
        fields = fields_of(one)
        assert (fields["unrealizedPnL"], fields["realizedPnL"]) == (1.5, 2.5)


def test_a_price_of_a_feed_names_no_origin() -> None:
    price = PriceUpdate(symbol="X", timestamp=1, bid=1.0, ask=1.0, last=1.0, volume=0.0, timeframe="tick")
    assert set(fields_of(price)) == {"symbol", "timestamp", "bid", "ask", "last", "volume", "timeframe"}
    replayed = msgspec.structs.replace(price, replay_id="r")
    assert fields_of(replayed)["replayId"] == "r"


def test_a_batch_has_messages_or_columns() -> None:
    batch = Batch(count=1, compression="none", raw_bytes=1, messages=[msgspec.Raw(b"\xc0")])
    assert set(fields_of(batch)) == {"count", "compression", "rawBytes", "messages"}
    columns = Batch(count=1, compression="none", raw_bytes=1, type="PriceUpdate", columns={"symbol": "X"})
    assert set(fields_of(columns)) == {"count", "compression", "rawBytes", "type", "columns"}


def test_only_a_deletion_says_that_a_key_was_deleted() -> None:
    update = StateUpdate(key="a", value=1, version=1, checksum="0" * 16, timestamp=1, revision=1)
    assert "deleted" not in fields_of(update)
    assert fields_of(msgspec.structs.replace(update, deleted=True))["deleted"] is True
