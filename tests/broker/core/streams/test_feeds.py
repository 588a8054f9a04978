"""A feed publishes all prices of a request or none, each topic in order, and a resent request publishes nothing."""

from __future__ import annotations

import math
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_broker.core.streams import feeds
from backtestr_protocol.price_messages import MAX_PRICES
from backtestr_protocol.ranges import MAX_NUMBER
from support.broker.clients import Client
from support.broker.link import Link
from support.harness import messages
from support.protocol.independent import Fields

symbols = st.sampled_from(["EURUSD", "BRK.B", "日経", "a b"])
finite = st.floats(-MAX_NUMBER, MAX_NUMBER)


def price(**changes: Any) -> Fields:
    return {
        **{"symbol": "EURUSD", "timestamp": 1_700_000_000_000, "bid": 1.0, "ask": 1.2, "last": 1.1},
        **{"volume": 0.0, "timeframe": "tick", **changes},
    }


def published(link: Link, topic: str) -> list[Fields]:
    """Return every message of the topic, and check that its numbers have no gap."""
    sent = link.streams[topic]
    found = [one for seq, payload in sent for one in messages({"seq": seq, "payload": payload})]
    assert [seq for seq, _ in found] == list(range(1, len(found) + 1))
    return [payload["data"] for _, payload in found]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.builds(
            lambda symbol, last, volume, timeframe: price(symbol=symbol, last=last, volume=volume, timeframe=timeframe),
            symbols,
            finite,
            st.floats(0, MAX_NUMBER),
            st.sampled_from(["tick", "1m"]),
        ),
        max_size=20,
    )
)
def test_every_topic_gets_its_prices_in_order_as_one_message(prices: list[Fields]) -> None:
    link = Link()
    assert link.client().ask("PublishPrices", {"prices": prices}) == {"published": len(prices)}
    by_topic = sorted(prices, key=topic_of)
    for topic, wanted in groupby(by_topic, topic_of):
        assert published(link, topic) == list(wanted)
        assert len(link.streams[topic]) == 1
    assert {topic for topic in link.streams if topic.startswith("prices.")} == {topic_of(one) for one in prices}
    link.core.check_invariants()


def topic_of(one: Fields) -> str:
    return f"prices.{one['symbol']}.{one['timeframe']}"


@pytest.mark.parametrize(
    ("wrong", "path", "message"),
    [
        ({"bid": math.nan}, "$.prices[1].bid", "a finite number, from -1e300 to 1e300"),
        ({"ask": -math.inf}, "$.prices[1].ask", "a finite number, from -1e300 to 1e300"),
        ({"volume": -1.0}, "$.prices[1].volume", "a finite number, 0 or more"),
        ({"symbol": ""}, "$.prices[1].symbol", "1 to 64 printable characters"),
        ({"symbol": "x" * 65}, "$.prices[1].symbol", "1 to 64 printable characters"),
        ({"symbol": "a\nb"}, "$.prices[1].symbol", "1 to 64 printable characters"),
        ({"timeframe": "2y"}, "$.prices[1].timeframe", "tick, or the length of a bar"),
        ({"last": "1"}, "$.prices[1].last", "expected `float`"),
        ({"timestamp": 1.5}, "$.prices[1].timestamp", ""),
    ],
)
def test_one_wrong_price_refuses_all_and_is_named(
    link: Link, ann: Client, wrong: Fields, path: str, message: str
) -> None:
    error = ann.refused("PublishPrices", {"prices": [price(), price(**wrong), price(symbol="a\nb")]})
    assert (error["code"], error["details"]["path"]) == ("VALIDATION_ERROR", path)
    assert message in error["message"]
    assert not [topic for topic in link.streams if topic.startswith("prices.")]
    assert ann.refused("FetchMissed", {"topic": "prices.EURUSD.tick", "fromSeq": 1})["code"] == "NOT_FOUND"


def test_the_largest_numbers_are_prices(link: Link, ann: Client) -> None:
    largest = price(bid=MAX_NUMBER, ask=MAX_NUMBER, last=-MAX_NUMBER)
    assert ann.ask("PublishPrices", {"prices": [largest]}) == {"published": 1}
    assert published(link, "prices.EURUSD.tick")[0]["bid"] == MAX_NUMBER


def test_a_request_sent_again_publishes_nothing_again(link: Link, ann: Client) -> None:
    for _ in range(2):
        assert ann.ask("PublishPrices", {"prices": [price(), price()]}, message_id="once") == {"published": 2}
    assert len(published(link, "prices.EURUSD.tick")) == 2


def test_a_whole_number_as_a_float_is_a_time(link: Link, ann: Client) -> None:
    ann.ask("PublishPrices", {"prices": [price(timestamp=1.7e12)]})
    ((_, payload),) = link.streams["prices.EURUSD.tick"]
    assert type(payload["data"]["timestamp"]) is int


def test_the_prices_of_a_request_are_bounded(link: Link, ann: Client) -> None:
    ann.ask("PublishPrices", {"prices": [price()] * MAX_PRICES})
    error = ann.refused("PublishPrices", {"prices": [price()] * (MAX_PRICES + 1)})
    assert (error["code"], error["details"]) == ("VALIDATION_ERROR", {"path": "$.prices"})
    assert "<= 1000" in error["message"]
    assert ann.ask("PublishPrices", {"prices": []}) == {"published": 0}


def test_topics_that_feeds_begin_are_bounded(link: Link, ann: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "MAX_TOPICS", 3)
    ann.ask("PublishPrices", {"prices": [price(symbol="A"), price(symbol="B"), price(symbol="A")]})
    too_many = {"prices": [price(symbol="A"), price(symbol="C"), price(symbol="D")]}
    error = ann.refused("PublishPrices", too_many)
    assert error["details"] == {"path": "$.prices[2].symbol"}
    assert "feeds have begun 3 topics" in error["message"]
    ann.ask("PublishPrices", {"prices": [price(symbol="A"), price(symbol="C")]})
    assert ann.refused("PublishPrices", {"prices": [price(symbol="D")]})["code"] == "VALIDATION_ERROR"
    assert len(published(link, "prices.A.tick")) == 3
