"""What libzmq passes on about subscribers, found out by trial, and that it can be asked who is there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import zmq

from backtestr_broker.io import subscriber_probe as audience_module
from backtestr_broker.io.subscriber_probe import Answers, Audience, Said
from support.broker.zmtp import RawSubscriber
from support.harness import wait_until


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


class Stream:
    """An XPUB as the broker has them."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.context = context
        self.xpub = context.socket(zmq.XPUB)
        self.xpub.set(zmq.XPUB_VERBOSER, 1)
        self.audience = Audience(context, self.xpub)
        self.xpub.bind("tcp://127.0.0.1:*")
        self.endpoint = self.xpub.get_string(zmq.LAST_ENDPOINT)

    def subscriber(self, *prefixes: bytes) -> zmq.Socket[bytes]:
        socket = self.context.socket(zmq.SUB)
        socket.connect(self.endpoint)
        for prefix in prefixes:
            socket.subscribe(prefix)
        return socket

    def said(self, count: int) -> list[Said]:
        """The next `count` things that peers say."""
        found: list[Said] = []

        def came() -> bool:
            found.extend(self.audience.read(100))
            return len(found) >= count

        wait_until(came, 10.0)
        return found

    def holds(self, prefix: bytes) -> bool:
        answers = self.audience.ask((prefix,))
        assert answers in (Answers([prefix], [], []), Answers([], [prefix], []))
        return answers.held == [prefix]


@pytest.fixture
def stream(context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[Stream]:
    stream = Stream(context)
    with contextlib.closing(stream.audience):
        yield stream


def test_each_of_several_peers_with_the_same_prefix_is_told_of(stream: Stream) -> None:
    with stream.subscriber(b"X") as one, stream.subscriber(b"X"):
        assert stream.said(2) == [(b"X", 1), (b"X", 1)]
        one.unsubscribe(b"X")
        assert stream.said(1) == [(b"X", -1)]
        assert stream.holds(b"X")
    assert stream.said(1) == [(b"X", -1)]
    assert not stream.holds(b"X")


def test_a_peer_that_vanishes_is_done_with_each_prefix_that_it_held(stream: Stream) -> None:
    with stream.subscriber(b"X", b"Y", b""):
        assert stream.said(3) == [(b"X", 1), (b"Y", 1), (b"", 1)]
    assert sorted(stream.said(3)) == [(b"", -1), (b"X", -1), (b"Y", -1)]
    assert not any(map(stream.holds, (b"", b"X", b"Y")))


def test_a_subscription_made_twice_is_passed_on_twice_and_ended_once(stream: Stream) -> None:
    with stream.subscriber(b"X", b"X"):
        assert stream.said(2) == [(b"X", 1), (b"X", 1)]
    assert stream.said(1) == [(b"X", -1)]
    assert not stream.holds(b"X"), "though by what was said somebody might"


def test_a_peer_can_say_that_it_is_done_with_what_others_hold_and_they_go_on_to_hold_it(stream: Stream) -> None:
    with stream.subscriber(b"X") as honest, RawSubscriber(stream.endpoint) as liar:
        assert stream.said(1) == [(b"X", 1)]
        for _ in range(3):
            liar.say(b"X", -1)
        liar.say(b"never heard of", -1)
        assert stream.said(4) == [(b"X", -1), (b"X", -1), (b"X", -1), (b"never heard of", -1)]
        assert stream.holds(b"X")
        assert not stream.holds(b"never heard of")
        stream.xpub.send(b"X is sent")
        assert honest.poll(10_000)
        assert honest.recv() == b"X is sent"


def test_what_is_asked_about_is_exactly_that_prefix(stream: Stream) -> None:
    with stream.subscriber(b"orders.a", b""):
        stream.said(2)
        held = {prefix: stream.holds(prefix) for prefix in (b"", b"orders.", b"orders.a", b"orders.ab")}
        assert held == {b"": True, b"orders.": False, b"orders.a": True, b"orders.ab": False}
        assert stream.audience.read(100) == [], "asking leaves nothing behind"


def test_several_are_asked_about_at_once(stream: Stream) -> None:
    with stream.subscriber(b"X", b"Y"):
        stream.said(2)
        assert stream.audience.ask((b"X", b"Z", b"Y", b"")) == Answers([b"X", b"Y"], [b"Z", b""], [])


def test_who_left_before_does_not_confuse_who_is_there(stream: Stream) -> None:
    for _ in range(3):
        with stream.subscriber(b"X", b"Y"):
            stream.said(2)
        stream.said(2)
    with stream.subscriber(b"Y"):
        stream.said(1)
        assert stream.audience.ask((b"X", b"Y")) == Answers([b"Y"], [b"X"], [])


def test_a_libzmq_that_cannot_tell_is_believed_to_have_everyone(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audience_module, "_TOPICS_COUNT", 9_999)
    assert stream.audience.ask((b"X",)) == Answers([], [], [])


def test_what_was_not_read_yet_is_said_first(stream: Stream) -> None:
    with stream.subscriber(b"X"):
        wait_until(lambda: bool(stream.xpub.poll(0)), 10.0)
        assert stream.audience.ask((b"Y",)) == Answers([], [], [(b"X", 1)])
