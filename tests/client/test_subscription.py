"""Subscriptions to a scripted broker on real sockets, and messages that are fetched from it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import backtestr
from backtestr_protocol.errors import (
    TimedOut,
)
from support.client.answers import PRICE, connect, order
from support.client.peer import Peer


def test_a_subscription_yields_the_published_messages(home: Path) -> None:
    with Peer(home) as peer, connect(peer) as client, client.subscribe("prices.") as prices:
        peer.wait_for_subscription("prices.")
        for _ in range(3):
            peer.publish("prices.S.1m", "PriceUpdate", PRICE)
        found = [prices.next(timeout=10) for _ in range(3)]
        assert [one.seq for one in found if isinstance(one, backtestr.Update)] == [1, 2, 3]
        assert found[0].data.symbol == "S"  # type: ignore[union-attr]
        with pytest.raises(TimedOut):
            prices.next(timeout=0.01)
        prices.close()
        assert list(prices) == []


def test_a_filter_leaves_messages_out_and_states_gaps(home: Path) -> None:
    def lost(data: dict[str, Any]) -> dict[str, Any]:
        return {"topic": data["topic"], "fromSeq": data["fromSeq"], "toSeq": 4, "oldestSeq": 5, "messages": []}

    with Peer(home, {"FetchMissed": lost}) as peer, connect(peer) as client:
        orders = client.subscribe("orders.", side="sell", min_quantity=2)
        peer.wait_for_subscription("orders.")
        for seq, quantity in ((1, 1.0), (2, 3.0), (5, 1.0), (6, 4.0)):
            peer.publish("orders.b1", "OrderUpdate", {**order(seq), "side": "sell", "quantity": quantity}, seq=seq)
        found = [orders.next(timeout=10) for _ in range(3)]
        assert [one.seq if isinstance(one, backtestr.Update) else one for one in found] == [
            2,
            backtestr.Gap("orders.b1", 3, 4),
            6,
        ]
        with pytest.raises(TimedOut):
            orders.next(timeout=0.01)


def test_one_symbol_of_all_prices_is_all_that_the_broker_sends(home: Path) -> None:
    with Peer(home) as peer, connect(peer) as client, client.subscribe("prices.", symbol="S") as prices:
        peer.wait_for_subscription("prices.S.")
        peer.publish("prices.S.B.1m", "PriceUpdate", {**PRICE, "symbol": "S.B"})
        peer.publish("prices.S.1m", "PriceUpdate", PRICE)
        update = prices.next(timeout=10)
        assert isinstance(update, backtestr.Update)
        assert update.topic == "prices.S.1m"
        peer.publish("prices.S.B.1m", "PriceUpdate", {**PRICE, "symbol": "S.B"})
        peer.publish("prices.S.1m", "PriceUpdate", PRICE)
        [table] = itertools.islice(prices.frames(), 1)
        assert isinstance(table, pl.DataFrame)
        assert table["symbol"].to_list() == ["S"]


def test_a_message_of_an_unknown_type_is_a_map(home: Path) -> None:
    with Peer(home) as peer, connect(peer) as client, client.subscribe("system.backtests") as events:
        peer.wait_for_subscription("system.backtests")
        peer.publish("system.backtests", "SweepStatus", {"done": 1})
        update = events.next(timeout=10)
        assert isinstance(update, backtestr.Update)
        assert (update.type, update.data) == ("SweepStatus", {"done": 1})


@pytest.mark.parametrize("wrong", ["price.", "prices", "", "orders", "state"])
def test_text_that_is_no_topic_is_refused_at_once(home: Path, wrong: str) -> None:
    with Peer(home) as peer, connect(peer) as client, pytest.raises(ValueError, match="neither a topic"):
        client.subscribe(wrong)


def test_a_restart_is_stated_to_subscribers(home: Path) -> None:
    with Peer(home) as first:
        client = connect(first)
        prices = client.subscribe("prices.")
        first.wait_for_subscription("prices.")
        first.publish("prices.S.1m", "PriceUpdate", PRICE)
        assert prices.next(timeout=10) is not None
    with Peer(home) as second, client:
        assert prices.next(timeout=10) == backtestr.Restarted(second.connection.instance_id)
        second.wait_for_subscription("prices.")
        second.publish("prices.S.1m", "PriceUpdate", PRICE)
        assert prices.next(timeout=10).seq == 1  # type: ignore[union-attr]


def test_fetch_missed_pages_and_states_gaps(home: Path) -> None:
    def two_at_a_time(data: dict[str, Any]) -> dict[str, Any]:
        first = max(3, data["fromSeq"])
        kept = [
            {"seq": seq, "payload": {"type": "PriceUpdate", "data": PRICE}} for seq in range(first, min(first + 2, 8))
        ]
        last = kept[-1]["seq"] if kept else 7
        return {"topic": data["topic"], "fromSeq": data["fromSeq"], "toSeq": last, "oldestSeq": 3, "messages": kept}

    with Peer(home, {"FetchMissed": two_at_a_time}) as peer, connect(peer) as client:
        gap, *updates = client.fetch_missed("prices.S.1m")
        assert gap == backtestr.Gap("prices.S.1m", 1, 2)
        assert [one.seq for one in updates if isinstance(one, backtestr.Update)] == [3, 4, 5, 6, 7]
        assert len(client.fetch_missed("prices.S.1m", 4, 5)) == 2
