"""A topic with a listener is sent, whatever messages other peers send, and a late listener loses nothing."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_broker.core.events import ListenersFound, Publish, Subscribed, SubscribersDropped
from backtestr_broker.core.streams import listeners as listeners_module
from backtestr_broker.core.streams.listeners import Listeners
from backtestr_protocol.topics import Socket
from support.broker.link import Link
from support.broker.steps import MakeLink, start
from support.harness import messages

TOPICS = (b"orders.a", b"orders.ab", b"orders.b", b"orders.")
PREFIXES = (b"", b"orders.", b"orders.a", b"orders.ab", b"orders.b", b"price", b"o")
ORDERS: Socket = "orders"

subscription_messages = st.tuples(
    st.sampled_from(("ann", "bob", "hostile")), st.sampled_from(PREFIXES), st.sampled_from((1, -1))
)
steps = st.lists(st.one_of(subscription_messages, st.just("ask"), st.just("drop")), max_size=60)


class Xpub:
    """An XPUB like that of libzmq: it has the prefixes of each peer, and passes on every message, also a false one."""

    def __init__(self) -> None:
        self.held: set[tuple[str, bytes]] = set()
        self.machine = Listeners()

    def say(self, peer: str, prefix: bytes, delta: int) -> None:
        (self.held.add if delta > 0 else self.held.discard)((peer, prefix))
        self.machine.take(Subscribed(ORDERS, prefix, delta, 0))

    def ask(self) -> None:
        for asked in self.machine.to_ask():
            prefixes = {prefix for _, prefix in self.held}
            held = [one for one in asked.prefixes if one in prefixes]
            unheld = [one for one in asked.prefixes if one not in prefixes]
            if asked.in_doubt or unheld:
                self.machine.take(ListenersFound(asked.socket, held, unheld, 0))

    def drop(self) -> None:
        self.held.clear()
        self.machine.take(SubscribersDropped(ORDERS, 0))

    def wanted(self, topic: bytes) -> bool:
        return any(topic.startswith(prefix) for _, prefix in self.held)

    def run(self, taken: list[tuple[str, bytes, int] | str]) -> None:
        for step in taken:
            match step:
                case (str(peer), bytes(prefix), int(delta)):
                    self.say(peer, prefix, delta)
                case "ask":
                    self.ask()
                case _:
                    self.drop()
            self.machine.check_invariants()
            for topic in TOPICS:
                assert self.machine.wants(ORDERS, topic) or not self.wanted(topic), f"{topic!r} is wanted, not sent"


@given(steps)
def test_a_topic_with_a_listener_is_sent_whatever_messages_peers_send(
    taken: list[tuple[str, bytes, int] | str],
) -> None:
    Xpub().run(taken)


@given(steps)
def test_a_topic_without_a_listener_is_not_sent_once_zeromq_is_asked(taken: list[tuple[str, bytes, int] | str]) -> None:
    xpub = Xpub()
    xpub.run(taken)
    for _ in PREFIXES:  # one round for each prefix
        xpub.ask()
    for topic in TOPICS:
        assert xpub.machine.wants(ORDERS, topic) == xpub.wanted(topic)
        assert (xpub.machine.count(ORDERS, topic) > 0) == xpub.wanted(topic)


@given(steps.map(lambda taken: [one for one in taken if one != "ask" and one[0] != "hostile"]))
def test_counts_are_right_where_each_peer_subscribes_once(taken: list[tuple[str, bytes, int] | str]) -> None:
    xpub = Xpub()
    for step in taken:
        if step == "drop":
            xpub.drop()
        elif isinstance(step, tuple) and ((step[0], step[1]) in xpub.held) == (step[2] < 0):
            xpub.say(*step)
        counted = Counter(prefix for _, prefix in xpub.held)
        for topic in TOPICS:
            true = sum(count for prefix, count in counted.items() if topic.startswith(prefix))
            assert xpub.machine.count(ORDERS, topic) == true
    assert xpub.machine.totals()[ORDERS] == len(xpub.held)


def test_every_topic_is_sent_where_there_are_more_prefixes_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners_module, "MAX_PREFIXES", 3)
    xpub = Xpub()
    for number in range(3):
        xpub.say("ann", b"%d" % number, 1)
    assert not xpub.machine.is_crowded(ORDERS)
    assert not xpub.machine.wants(ORDERS, b"orders.a")
    xpub.say("ann", b"orders.a", 1)
    assert xpub.machine.is_crowded(ORDERS)
    xpub.machine.check_invariants()
    assert xpub.machine.wants(ORDERS, b"anything")
    xpub.drop()
    assert not xpub.machine.wants(ORDERS, b"anything")


def test_a_bounded_number_of_topics_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners_module, "MAX_REMEMBERED", 2)
    xpub = Xpub()
    xpub.say("ann", b"orders.1", 1)
    for number in range(20):
        assert xpub.machine.wants(ORDERS, b"orders.%d" % number) == (number == 1 or number >= 10)
        xpub.machine.check_invariants()


# --- in the core ---


def published(link: Link) -> list[bytes]:
    return [effect.frames[0] for effects in link.effects for effect in effects if isinstance(effect, Publish)]


def test_a_topic_without_a_listener_is_retained_and_not_sent(make_link: MakeLink) -> None:
    link = make_link(listening=False)
    ann = link.client()
    start(ann, "b1")
    link.worker("compute-1").publish("orders.b1", 1, 2, 3)
    assert published(link) == []
    assert ann.ask("FetchMissed", {"topic": "orders.b1", "fromSeq": 1})["toSeq"] == 3
    link.subscribe("ann", "orders", b"orders.b1")
    link.worker("compute-1").publish("orders.b1", 4)
    link.worker("compute-1").publish("progress.b1", 1)
    assert published(link) == [b"orders.b1"]
    streams = ann.ask("GetSystemStatus")["streams"]
    assert streams["subscriptions"] == {"orders": 1}
    assert {"topic": "orders.b1", "messages": 4, "subscribers": 1} in streams["perTopic"]
    assert {"topic": "progress.b1", "messages": 1, "subscribers": 0} in streams["perTopic"]
    of_orders = streams["byClass"]["orders"]
    assert (of_orders["messages"], of_orders["unheard"], of_orders["fetches"], of_orders["fetched"]) == (4, 3, 1, 3)


def test_the_status_lists_a_bounded_number_of_the_latest_topics(link: Link) -> None:
    ann = link.client()
    for number in range(30):
        ann.ask("UpdateState", {"key": f"k{number}", "value": number})
    streams = ann.ask("GetSystemStatus")["streams"]
    assert streams["topics"] >= 30
    assert len(streams["perTopic"]) == 20
    assert streams["perTopic"][0]["topic"] == "state.k29"


def test_dropped_clients_have_no_subscriptions(make_link: MakeLink) -> None:
    link = make_link(listening=False)
    link.subscribe("ann", "system", b"system.")
    link.advance(2.0)
    before = len(published(link))
    assert before
    link.drop_clients()
    link.advance(2.0)
    assert len(published(link)) == before


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=20),
    st.data(),
)
def test_a_late_joiner_has_every_message_once(batches: list[int], data: st.DataObject) -> None:
    """This holds for any time of subscription, any lost messages, and any messages of a hostile peer."""
    link = Link(listening=False)
    ann = link.client()
    start(ann, "b1")
    worker = link.worker("compute-1")
    positions = st.integers(0, len(batches))
    known, false_at = data.draw(positions), data.draw(positions)
    lost = data.draw(st.sets(positions))
    live: dict[int, int] = {}
    sent = heard = 0
    for index, size in enumerate(batches):
        if index == false_at:
            link.unsubscribe("a hostile peer", "orders", b"orders.b1")
        if index == known:  # ZeroMQ may have had the subscription earlier; the core reads it only now
            link.subscribe("ann", "orders", b"orders.b1")
        before = len(link.streams["orders.b1"])
        worker.publish("orders.b1", *range(sent + 1, sent + size + 1))
        sent += size
        new = link.streams["orders.b1"][before:]
        assert len(new) == (index >= known), "exactly the subscribed topics are sent"
        for seq, payload in new:
            heard += size
            if index not in lost:
                live |= {one: body["data"]["n"] for one, body in messages({"seq": seq, "payload": payload})}
    link.subscribe("ann", "system", b"system.watermarks")
    link.advance(1.0)
    watermark = link.streams["system.watermarks"][-1][1]["data"]["topics"].get("orders.b1", sent)
    assert watermark == sent
    repaired = ann.ask("FetchMissed", {"topic": "orders.b1", "fromSeq": 1, "toSeq": watermark})["messages"]
    for one in repaired:
        for seq, body in messages(one):
            assert live.setdefault(seq, body["data"]["n"]) == body["data"]["n"], (
                "the same number has two different messages"
            )
    assert live == {number: number for number in range(1, sent + 1)}
    assert heard == sum(batches[known:])
    link.core.check_invariants()


def test_changes_are_counted_only_where_another_topic_may_be_sent() -> None:
    listeners = Listeners()
    before = listeners.changes

    def changes(event: Subscribed | ListenersFound | SubscribersDropped) -> int:
        nonlocal before
        listeners.take(event)
        changed, before = listeners.changes - before, listeners.changes
        return changed

    assert changes(Subscribed("orders", b"orders.", 1, 0)) == 1
    assert changes(Subscribed("orders", b"orders.", 1, 0)) == 0
    assert changes(Subscribed("orders", b"orders.", -1, 0)) == 0
    assert changes(ListenersFound("orders", [b"orders."], [], 0)) == 0
    assert changes(ListenersFound("orders", [], [b"orders."], 0)) == 1
    assert changes(ListenersFound("orders", [], [b"orders."], 0)) == 0
    assert changes(SubscribersDropped("orders", 0)) == 1
    listeners.clear()
    assert listeners.changes == before + 1
