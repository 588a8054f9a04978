"""The selector sleeps until a socket has a message, a command waits or the deadline comes, and misses none of them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import zmq

from backtestr.io.socket_selector import SocketSelector
from backtestr.io.turn import Turn

Pair = tuple[zmq.Socket[bytes], zmq.Socket[bytes]]


@pytest.fixture
def wires() -> Iterator[tuple[socket.socket, socket.socket]]:
    wake_up, waker = socket.socketpair()
    with wake_up, waker:
        wake_up.setblocking(False)
        yield wake_up, waker


@pytest.fixture
def pair() -> Iterator[Pair]:
    with zmq.Context() as context, ExitStack() as stack:
        pull, push = stack.enter_context(context.socket(zmq.PULL)), stack.enter_context(context.socket(zmq.PUSH))
        pull.bind("inproc://selector")
        push.connect("inproc://selector")
        yield pull, push


@pytest.fixture
def selector(wires: tuple[socket.socket, socket.socket]) -> Iterator[SocketSelector]:
    selector = SocketSelector(wires[0])
    yield selector
    selector.close()


def test_a_past_deadline_ends_the_sleep_at_once(selector: SocketSelector) -> None:
    selector.wait(time.monotonic() - 1.0)
    assert selector.unread == set()


def test_a_byte_wakes_and_is_taken(selector: SocketSelector, wires: tuple[socket.socket, socket.socket]) -> None:
    wires[1].send(b"\0\0")
    selector.wait(None)
    with pytest.raises(BlockingIOError):
        wires[0].recv(1)


def test_a_message_wakes_until_it_is_read(selector: SocketSelector, pair: Pair) -> None:
    pull, push = pair
    selector.watch([pull])
    push.send(b"one")
    push.send(b"two")
    for expected in (b"one", b"two"):
        while pull not in selector.unread or not pull.poll(0):
            selector.wait(None)
        assert pull.recv() == expected  # and the socket stays marked, as its descriptor may not report the second
        selector.unread.add(pull)
    selector.wait(time.monotonic())
    assert selector.unread == set()


def test_a_message_that_came_before_the_watch_is_seen(selector: SocketSelector, pair: Pair) -> None:
    pull, push = pair
    push.send(b"early")
    assert pull.poll(10_000)
    selector.watch([pull])
    selector.wait(None)
    assert selector.unread == {pull}


def test_a_sleep_without_deadline_ends_with_a_message_of_another_thread(selector: SocketSelector, pair: Pair) -> None:
    pull, push = pair
    selector.watch([pull])
    sender = threading.Thread(target=push.send, args=(b"late",))
    sender.start()
    while not pull.poll(0):
        selector.wait(None)
    sender.join()
    assert pull.recv() == b"late"


def test_a_forgotten_socket_does_not_wake(selector: SocketSelector, pair: Pair) -> None:
    pull, push = pair
    selector.watch([pull])
    selector.forget([pull])
    push.send(b"unread")
    assert pull.poll(10_000)
    selector.wait(time.monotonic())
    assert selector.unread == set()


def test_a_socket_that_is_left_out_does_not_wake_until_it_is_taken_in(selector: SocketSelector, pair: Pair) -> None:
    pull, push = pair
    selector.watch([pull])
    selector.wait(time.monotonic())
    selector.leave_out(pull)
    push.send(b"for another thread")
    assert pull.poll(10_000)
    selector.wait(time.monotonic())
    assert selector.unread == set()
    assert selector.is_left_out(pull)
    selector.take_in(pull)
    selector.wait(None)
    assert selector.unread == {pull}
    assert not selector.is_left_out(pull)


def test_a_socket_that_is_left_out_can_be_forgotten(selector: SocketSelector, pair: Pair) -> None:
    selector.watch([pair[0]])
    selector.leave_out(pair[0])
    selector.forget([pair[0]])
    assert not selector.is_left_out(pair[0])


def test_the_turn_is_let_go_during_the_sleep_alone(wires: tuple[socket.socket, socket.socket]) -> None:
    turn = Turn()
    selector = SocketSelector(wires[0], turn)
    turn.take()

    def step() -> None:
        with turn.next, turn.now:
            wires[1].send(b"\0")

    caller = threading.Thread(target=step)
    caller.start()
    selector.wait(None)
    caller.join()
    assert not turn.is_free
    deadline = time.monotonic()
    selector.wait(deadline)
    assert selector.sleeps_until == deadline
    assert not turn.is_free
    selector.close()
