"""libzmq passes on subscription messages as these tests found, and a probe finds the prefixes that are held."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import zmq

from backtestr_broker.io import subscriber_probe as subscriber_probe_module
from backtestr_broker.io.subscriber_probe import ProbeResult, SubscriberProbe, SubscriptionChange
from support.broker.zmtp import RawSubscriber
from support.harness import wait_until


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


class Stream:
    """An XPUB as the broker has it, with its probe."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.context = context
        self.xpub = context.socket(zmq.XPUB)
        self.xpub.set(zmq.XPUB_VERBOSER, 1)
        self.probe = SubscriberProbe(context, self.xpub)
        self.xpub.bind("tcp://127.0.0.1:*")
        self.endpoint = self.xpub.get_string(zmq.LAST_ENDPOINT)

    def subscriber(self, *prefixes: bytes) -> zmq.Socket[bytes]:
        socket = self.context.socket(zmq.SUB)
        socket.connect(self.endpoint)
        for prefix in prefixes:
            socket.subscribe(prefix)
        return socket

    def changes(self, count: int) -> list[SubscriptionChange]:
        """Wait for the next `count` changes that peers send."""
        found: list[SubscriptionChange] = []

        def came() -> bool:
            found.extend(self.probe.read(100))
            return len(found) >= count

        wait_until(came, 10.0)
        return found

    def holds(self, prefix: bytes) -> bool:
        result = self.probe.find((prefix,))
        assert result in (ProbeResult([prefix], [], []), ProbeResult([], [prefix], []))
        return result.held == [prefix]


@pytest.fixture
def stream(context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[Stream]:
    stream = Stream(context)
    with contextlib.closing(stream.probe):
        yield stream


def test_each_of_several_peers_with_the_same_prefix_is_passed_on(stream: Stream) -> None:
    with stream.subscriber(b"X") as one, stream.subscriber(b"X"):
        assert stream.changes(2) == [(b"X", 1), (b"X", 1)]
        one.unsubscribe(b"X")
        assert stream.changes(1) == [(b"X", -1)]
        assert stream.holds(b"X")
    assert stream.changes(1) == [(b"X", -1)]
    assert not stream.holds(b"X")


def test_a_peer_that_vanishes_gives_up_each_prefix_that_it_held(stream: Stream) -> None:
    with stream.subscriber(b"X", b"Y", b""):
        assert stream.changes(3) == [(b"X", 1), (b"Y", 1), (b"", 1)]
    assert sorted(stream.changes(3)) == [(b"", -1), (b"X", -1), (b"Y", -1)]
    assert not any(map(stream.holds, (b"", b"X", b"Y")))


def test_a_subscription_made_twice_is_passed_on_twice_and_ended_once(stream: Stream) -> None:
    with stream.subscriber(b"X", b"X"):
        assert stream.changes(2) == [(b"X", 1), (b"X", 1)]
    assert stream.changes(1) == [(b"X", -1)]
    assert not stream.holds(b"X"), "although the messages leave a count of 1"


def test_a_false_unsubscription_is_passed_on_and_does_not_end_the_subscription_of_another_peer(stream: Stream) -> None:
    with stream.subscriber(b"X") as subscriber, RawSubscriber(stream.endpoint) as hostile:
        assert stream.changes(1) == [(b"X", 1)]
        for _ in range(3):
            hostile.say(b"X", -1)
        hostile.say(b"never held", -1)
        assert stream.changes(4) == [(b"X", -1), (b"X", -1), (b"X", -1), (b"never held", -1)]
        assert stream.holds(b"X")
        assert not stream.holds(b"never held")
        stream.xpub.send(b"X is sent")
        assert subscriber.poll(10_000)
        assert subscriber.recv() == b"X is sent"


def test_a_probe_is_about_exactly_that_prefix(stream: Stream) -> None:
    with stream.subscriber(b"orders.a", b""):
        stream.changes(2)
        held = {prefix: stream.holds(prefix) for prefix in (b"", b"orders.", b"orders.a", b"orders.ab")}
        assert held == {b"": True, b"orders.": False, b"orders.a": True, b"orders.ab": False}
        assert stream.probe.read(100) == [], "a probe leaves no change behind"


def test_several_prefixes_are_probed_at_once(stream: Stream) -> None:
    with stream.subscriber(b"X", b"Y"):
        stream.changes(2)
        assert stream.probe.find((b"X", b"Z", b"Y", b"")) == ProbeResult([b"X", b"Y"], [b"Z", b""], [])


def test_peers_that_have_left_do_not_change_the_result(stream: Stream) -> None:
    for _ in range(3):
        with stream.subscriber(b"X", b"Y"):
            stream.changes(2)
        stream.changes(2)
    with stream.subscriber(b"Y"):
        stream.changes(1)
        assert stream.probe.find((b"X", b"Y")) == ProbeResult([b"Y"], [b"X"], [])


def test_without_the_count_of_prefixes_no_prefix_is_unheld(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber_probe_module, "_TOPICS_COUNT", 9_999)
    assert stream.probe.find((b"X",)) == ProbeResult([], [], [])


def test_changes_that_were_not_read_yet_come_first(stream: Stream) -> None:
    with stream.subscriber(b"X"):
        wait_until(lambda: bool(stream.xpub.poll(0)), 10.0)
        assert stream.probe.find((b"Y",)) == ProbeResult([], [], [(b"X", 1)])
