"""Multipart messages are sent and received without waiting: whole, in order, and up to a bound."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from backtestr_protocol.zmq_frames import has_input, receive, send

WAIT_MS = 10_000
LARGE = bytes(100_000)  # sent without a copy

Socket = zmq.Socket[bytes]


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


def test_messages_arrive_whole_and_in_order(ends: tuple[Socket, Socket]) -> None:
    sender, receiver = ends
    messages = [[b"a", b"", LARGE], [b"b"]]
    for message in messages:
        send(sender, message)

    assert receiver.poll(WAIT_MS)
    assert receive(receiver, 10) == messages
    assert receive(receiver, 10) == []
    assert receive(receiver, 10, expecting=True) == []


def test_no_more_messages_are_received_than_asked_for(ends: tuple[Socket, Socket]) -> None:
    sender, receiver = ends
    for number in range(3):
        send(sender, [b"%d" % number])

    assert receiver.poll(WAIT_MS)
    assert receive(receiver, 2) == [[b"0"], [b"1"]]
    assert receive(receiver, 2) == [[b"2"]]


def test_a_full_queue_refuses_a_message_as_a_whole(ends: tuple[Socket, Socket]) -> None:
    sender, receiver = ends
    accepted = fill(sender)

    assert receiver.poll(WAIT_MS)
    assert receive(receiver, 100) == [[b"%d" % number, b"last"] for number in range(accepted)]


def fill(sender: Socket) -> int:
    """Send messages until the queue is full, and return how many it accepted."""
    for number in range(100):
        try:
            send(sender, [b"%d" % number, b"last"])
        except zmq.Again:
            return number
    raise AssertionError("the queue is never full")


def test_input_is_reported_until_it_is_received(ends: tuple[Socket, Socket]) -> None:
    sender, receiver = ends
    assert not has_input(receiver)
    send(sender, [b"one"])
    assert receiver.poll(WAIT_MS)
    assert has_input(receiver)
    receive(receiver, 1)
    assert not has_input(receiver)


def test_a_message_of_a_peer_without_a_name_is_not_accepted(ends: tuple[Socket, Socket]) -> None:
    """Only a ZAP handler names peers; without one, no message has a name."""
    sender, receiver = ends
    send(sender, [b"one"])
    send(sender, [b"two"])
    names: list[str] = []

    def accept(name: str) -> bool:
        names.append(name)
        return True

    assert receiver.poll(WAIT_MS)
    assert receive(receiver, 1, accept) == []
    assert names == []
    assert receive(receiver, 1) == [[b"two"]], "a message that was not accepted counts"
