"""Multipart messages are sent and received without waiting: whole, in order, and up to a bound."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from backtestr_protocol.zmq_frames import Frames, Origin
from support.protocol.implementations import EVERY_FRAMES

WAIT_MS = 10_000
LARGE = bytes(100_000)  # sent without a copy

WITHIN_THE_PROCESS: Origin = (-1, "")

Socket = zmq.Socket[bytes]


@pytest.fixture(params=EVERY_FRAMES)
def frames(request: pytest.FixtureRequest) -> Frames:
    found: Frames = request.param
    return found


@pytest.fixture
def context() -> Iterator[zmq.Context[Socket]]:
    one: zmq.Context[Socket] = zmq.Context()
    yield one
    one.destroy(linger=0)


@pytest.fixture
def ends(context: zmq.Context[Socket]) -> tuple[Socket, Socket]:
    """Return a sender and a receiver with queues of two messages each."""
    sender, receiver = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    sender.sndhwm, receiver.rcvhwm = 2, 2
    receiver.bind("inproc://frames")
    sender.connect("inproc://frames")
    return sender, receiver


def test_messages_arrive_whole_and_in_order(frames: Frames, ends: tuple[Socket, Socket]) -> None:
    sender, receiver = ends
    messages = [[b"a", b"", LARGE], [b"b"]]
    for message in messages:
        frames.send(sender, message)

    assert receiver.poll(WAIT_MS)
    assert frames.receive(receiver, 10) == messages
    assert frames.receive(receiver, 10) == []
    assert frames.receive(receiver, 10, expecting=True) == []


def test_no_more_messages_are_received_than_asked_for(frames: Frames, ends: tuple[Socket, Socket]) -> None:
    sender, receiver = ends
    for number in range(3):
        frames.send(sender, [b"%d" % number])

    assert receiver.poll(WAIT_MS)
    assert frames.receive(receiver, 2) == [[b"0"], [b"1"]]
    assert frames.receive(receiver, 2) == [[b"2"]]


def test_a_full_queue_refuses_a_message_as_a_whole(frames: Frames, ends: tuple[Socket, Socket]) -> None:
    sender, receiver = ends
    accepted = fill(frames, sender)

    assert receiver.poll(WAIT_MS)
    assert frames.receive(receiver, 100) == [[b"%d" % number, b"last"] for number in range(accepted)]


def fill(frames: Frames, sender: Socket) -> int:
    """Send messages until the queue is full, and return how many it accepted."""
    for number in range(100):
        try:
            frames.send(sender, [b"%d" % number, b"last"])
        except zmq.Again:
            return number
    raise AssertionError("the queue is never full")


def test_input_is_reported_until_it_is_received(frames: Frames, ends: tuple[Socket, Socket]) -> None:
    sender, receiver = ends
    assert not frames.has_input(receiver)
    frames.send(sender, [b"one"])
    assert receiver.poll(WAIT_MS)
    assert frames.has_input(receiver)
    frames.receive(receiver, 1)
    assert not frames.has_input(receiver)


def test_a_message_of_a_peer_without_a_name_is_not_accepted(frames: Frames, ends: tuple[Socket, Socket]) -> None:
    """Only a ZAP handler names peers; without one, no message has a name."""
    sender, receiver = ends
    frames.send(sender, [b"one"])
    frames.send(sender, [b"two"])
    names: list[str] = []

    def accept(name: str) -> bool:
        names.append(name)
        return True

    assert receiver.poll(WAIT_MS)
    assert frames.receive(receiver, 1, accept) == []
    assert names == []
    assert frames.receive(receiver, 1) == [[b"two"]], "a message that was not accepted counts"


# --- the messages of one peer ---


@pytest.fixture
def peers(context: zmq.Context[Socket]) -> tuple[Socket, list[Socket]]:
    """Return a ROUTER and two peers, `one` and `two`."""
    router = context.socket(zmq.ROUTER)
    router.bind("inproc://router")
    dealers = []
    for name in (b"one", b"two"):
        dealer = context.socket(zmq.DEALER)
        dealer.routing_id = name
        dealer.connect("inproc://router")
        dealers.append(dealer)
    return router, dealers


def test_the_messages_of_one_peer_end_with_the_first_of_another(
    frames: Frames, peers: tuple[Socket, list[Socket]]
) -> None:
    router, (one, two) = peers
    for number in range(5):
        frames.send(one, [b"%d" % number])
    frames.send(two, [b"mine"])
    assert router.poll(WAIT_MS)
    found = []
    while messages := frames.receive(router, 16, of_one=True):
        found.append(messages)
    assert sum(map(len, found)) == 6
    for messages in found:
        assert len({peer for peer, _ in messages[:-1]}) <= 1
    before = [message for messages in found for message in messages]
    assert before.index([b"two", b"mine"]) <= 2, "it waits for one message of another peer, and for what is at hand"
    assert [body for peer, body in before if peer == b"one"] == [b"0", b"1", b"2", b"3", b"4"]


def test_up_to_so_many_messages_of_one_peer_are_received_each_with_its_origin(
    frames: Frames,
    peers: tuple[Socket, list[Socket]],
) -> None:
    router, (one, _) = peers
    for number in range(5):
        frames.send(one, [b"%d" % number])
    assert router.poll(WAIT_MS)
    origins: list[Origin] = []
    assert frames.receive(router, 3, of_one=True, origins=origins) == [[b"one", b"0"], [b"one", b"1"], [b"one", b"2"]]
    assert origins == [WITHIN_THE_PROCESS] * 3


def test_a_large_message_ends_those_of_one_peer(frames: Frames, peers: tuple[Socket, list[Socket]]) -> None:
    router, (one, _) = peers
    for body in (b"small", LARGE, b"next"):
        frames.send(one, [body])
    assert router.poll(WAIT_MS)
    assert frames.receive(router, 16, of_one=True) == [[b"one", b"small"], [b"one", LARGE]]
    assert frames.receive(router, 16) == [[b"one", b"next"]]
