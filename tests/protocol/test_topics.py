"""Every topic has a class, and a subscription has the sockets on which it can match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_protocol import topics
from backtestr_protocol.topics import CLASSES, SOCKETS, Socket, class_of, sockets_for
from support.protocol.strategies import laws

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
some_topics = st.one_of(
    names.map(topics.progress),
    names.map(topics.orders),
    names.map(topics.positions),
    names.map(lambda name: topics.prices(name, "1m")),
    names.map(lambda name: f"state.{name}"),
    st.sampled_from([topics.STATUS, topics.ERRORS, topics.BACKTESTS, topics.WATERMARKS]),
)


@pytest.mark.parametrize(
    ("topic", "socket", "message_type", "retained"),
    [
        ("prices.EURUSD.1m", "prices", "Stream", 10_000),
        ("prices.BRK.B.1d", "prices", "Stream", 10_000),
        ("progress.x", "progress", "Stream", 1_000),
        ("orders.x", "orders", "Stream", 5_000),
        ("positions.x", "positions", "Stream", 1_000),
        ("system.status", "system", "Heartbeat", 1),
        ("system.errors", "system", "Error", 100),
        ("system.backtests", "system", "Event", 1_000),
        ("system.watermarks", "system", "Event", 1),
        ("state.ui.theme", "system", "Event", 1_000),
    ],
)
def test_classes_are_those_of_the_protocol_page(topic: str, socket: str, message_type: str, retained: int) -> None:
    found = class_of(topic)
    assert found is not None
    assert (found.socket, found.message_type, found.retained) == (socket, message_type, retained)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        ".",
        "prices",
        "prices.",
        "progress.",
        "system",
        "system.",
        "system.statusX",
        "system.status.x",
        "Orders.x",
        "x",
    ],
)
def test_names_that_are_no_topics(topic: str) -> None:
    assert class_of(topic) is None


@laws
@given(topic=some_topics)
def test_every_topic_has_a_class_and_one_socket(topic: str) -> None:
    found = class_of(topic)
    assert found is not None
    assert sockets_for(topic) == (found.socket,)


@laws
@given(topic=some_topics, data=st.data())
def test_a_prefix_of_a_topic_includes_its_socket(topic: str, data: st.DataObject) -> None:
    found = class_of(topic)
    assert found is not None
    assert found.socket in sockets_for(topic[: data.draw(st.integers(0, len(topic)))])


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", SOCKETS),
        ("p", ("prices", "progress", "positions")),
        ("pro", ("progress",)),
        ("s", ("system",)),
        ("state.ui", ("system",)),
        ("orders.5f", ("orders",)),
        ("system.statusX", ()),
        ("nothing", ()),
    ],
)
def test_subscriptions_use_the_sockets_on_which_they_can_match(prefix: str, expected: tuple[Socket, ...]) -> None:
    assert sockets_for(prefix) == expected


def test_no_topic_has_two_classes() -> None:
    for one in CLASSES:
        for other in CLASSES:
            assert one is other or not one.prefix.startswith(other.prefix)


def test_the_topics_of_a_backtest() -> None:
    assert topics.of_backtest("b") == ("progress.b", "orders.b", "positions.b")


def test_the_backtest_and_the_socket_of_a_topic() -> None:
    for topic in topics.of_backtest("a.b"):
        assert topics.backtest_of(topic) == "a.b"
        assert topics.socket_of(topic) == topic.partition(".")[0]
    for other in ("prices.S.1m", "system.errors", "state.k", "orders.", "orders", ""):
        assert topics.backtest_of(other) is None
    with pytest.raises(ValueError, match="is no topic"):
        topics.socket_of("nothing")
