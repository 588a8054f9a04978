"""Connections are counted as the system has them; those that are too many or silent are ended, and no others."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import zmq

from backtestr_broker.io import connections as connections_module
from backtestr_broker.io.connections import Connections
from backtestr_protocol.zmq_frames import Origin, receive
from support.harness import short_directory, wait_until

Context = zmq.Context[zmq.Socket[bytes]]


@pytest.fixture
def context() -> Iterator[Context]:
    one: Context = zmq.Context()
    yield one
    one.destroy(linger=0)


@pytest.fixture
def outside() -> Iterator[Context]:
    """Make a second context, which for ZeroMQ is like another process."""
    one: Context = zmq.Context()
    yield one
    one.destroy(linger=0)


@pytest.fixture(params=["ipc", "tcp"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    with short_directory() as folder:
        yield f"ipc://{folder}/socket" if request.param == "ipc" else "tcp://127.0.0.1:*"


class Watched:
    """A bound ROUTER or XPUB whose connections are watched."""

    def __init__(
        self,
        context: Context,
        address: str,
        kind: int,
        limit: int,
        patience: float = math.inf,
        *,
        are_workers: bool = False,
    ) -> None:
        self.socket = context.socket(kind)
        self.socket.set(zmq.HANDSHAKE_IVL, 60_000)
        self.connections = Connections(context, self.socket, limit, patience, are_workers=are_workers)
        self.socket.bind(address)
        self.endpoint = self.socket.get_string(zmq.LAST_ENDPOINT)
        self.ended = 0

    def sweep(self, later: float = 0.0) -> int:
        """Sweep, `later` seconds from now; return how many connections there are."""
        self.ended += self.connections.sweep(time.monotonic() + later)
        return len(self.connections)

    def close(self) -> None:
        self.connections.close()
        self.socket.close(linger=0)

    def silent_peer(self) -> socket.socket:
        """Connect and say nothing, not even ZeroMQ's greeting."""
        if self.endpoint.startswith("ipc://"):
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(self.endpoint.removeprefix("ipc://"))
            return peer
        url = urlsplit(self.endpoint)
        return socket.create_connection((url.hostname, url.port))

    def read(self) -> list[list[bytes]]:
        """Read what clients sent, as the event loop does, and note that they were heard."""
        origins: list[Origin] = []
        messages = receive(self.socket, 1, origins=origins)
        if messages:
            self.connections.heard(origins[0], time.monotonic())
        return messages


def is_ended(peer: socket.socket) -> bool:
    """Return True if the other end has closed the connection; ZeroMQ's greeting may come before."""
    peer.settimeout(0.01)
    try:
        while peer.recv(1000):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


MakeWatched = Callable[..., Watched]


@pytest.fixture
def make(context: Context, address: str) -> Iterator[MakeWatched]:
    with contextlib.ExitStack() as stack:

        def one(limit: int = 1000, patience: float = math.inf, kind: int = zmq.ROUTER) -> Watched:
            return stack.enter_context(contextlib.closing(Watched(context, address, kind, limit, patience)))

        yield one


@pytest.fixture
def make_tcp(context: Context) -> Iterator[MakeWatched]:
    with contextlib.ExitStack() as stack:

        def one(limit: int, *, are_workers: bool = False) -> Watched:
            watched = Watched(context, "tcp://127.0.0.1:*", zmq.ROUTER, limit, are_workers=are_workers)
            return stack.enter_context(contextlib.closing(watched))

        yield one


@pytest.fixture
def _sockets_are_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this be a system on which the descriptor of a socket is not one of a file."""
    monkeypatch.setattr(connections_module, "_inode", lambda _descriptor: None)


def test_connections_are_counted_while_they_last(make: MakeWatched) -> None:
    watched = make()
    peers = [watched.silent_peer() for _ in range(30)]
    wait_until(lambda: watched.sweep() == 30, 10.0)
    for peer in peers[:20]:
        peer.close()
    wait_until(lambda: watched.sweep() == 10, 10.0)
    for peer in peers[20:]:
        peer.close()
    wait_until(lambda: watched.sweep() == 0, 10.0)
    assert watched.ended == 0


def test_beyond_the_limit_those_are_ended_that_were_silent_longest(make: MakeWatched) -> None:
    watched = make(limit=10)
    first = [watched.silent_peer() for _ in range(25)]
    wait_until(lambda: watched.sweep() == 10 and watched.ended == 15, 10.0)
    wait_until(lambda: all(map(is_ended, first[:15])), 10.0)
    assert not any(map(is_ended, first[15:]))
    first.pop().close()
    wait_until(lambda: watched.sweep() == 9, 10.0)
    with watched.silent_peer() as peer:
        wait_until(lambda: watched.sweep() == 10, 10.0)
        assert watched.ended == 15, "there was room"
        assert not is_ended(peer)
    for peer in first:
        peer.close()


def test_at_the_limit_silent_peers_make_room_for_a_client_and_clients_for_nobody(
    make: MakeWatched, outside: Context
) -> None:
    watched = make(limit=5)
    client = outside.socket(zmq.DEALER)
    client.connect(watched.endpoint)
    client.send(b"Hello")
    assert watched.socket.poll(10_000)
    assert watched.read()
    silent = [watched.silent_peer() for _ in range(4)]
    wait_until(lambda: watched.sweep() == 5, 10.0)
    second = outside.socket(zmq.DEALER)
    second.set(zmq.RECONNECT_IVL, -1)
    second.connect(watched.endpoint)
    second.send(b"Hello")
    assert watched.socket.poll(10_000)
    watched.sweep()
    assert watched.ended == 1
    wait_until(lambda: is_ended(silent[0]), 10.0)
    assert not any(map(is_ended, silent[1:]))
    assert watched.read()
    for _ in range(20):
        silent.append(watched.silent_peer())
    wait_until(lambda: watched.sweep() == 5 and watched.ended == 21, 10.0)
    for one in (client, second):
        one.send(b"again")
        assert watched.socket.poll(10_000)
        assert watched.read()
        one.close(linger=0)
    for peer in silent:
        peer.close()


@pytest.mark.parametrize("kind", [zmq.ROUTER, zmq.XPUB])
def test_a_connection_that_says_nothing_is_ended_in_time_and_one_that_spoke_is_not(
    make: MakeWatched, outside: Context, kind: int
) -> None:
    watched = make(patience=30.0, kind=kind)
    speaks, shakes_hands = (outside.socket(zmq.DEALER if kind == zmq.ROUTER else zmq.SUB) for _ in range(2))
    for one in (speaks, shakes_hands):
        one.set(zmq.RECONNECT_IVL, -1)
        one.connect(watched.endpoint)
    if kind == zmq.ROUTER:
        speaks.send(b"Hello")
    else:
        speaks.subscribe(b"prices.")
    assert watched.socket.poll(10_000)
    assert watched.read()
    with watched.silent_peer() as silent:
        wait_until(lambda: watched.sweep() == 3, 10.0)
        watched.sweep(later=29.0)
        assert watched.ended == 0
        watched.sweep(later=31.0)
        assert watched.ended == 2
        wait_until(lambda: is_ended(silent), 10.0)
        wait_until(lambda: watched.sweep(later=1000.0) == 1, 10.0)
    if kind == zmq.ROUTER:
        speaks.send(b"again")
        assert watched.socket.poll(10_000)
    else:
        watched.socket.send(b"prices.X")
        assert speaks.poll(10_000)
    for one in (speaks, shakes_hands):
        one.close(linger=0)


def test_descriptors_are_freed_for_what_needs_them_by_ending_silent_connections(
    make: MakeWatched, outside: Context
) -> None:
    watched = make()
    client = outside.socket(zmq.DEALER)
    client.connect(watched.endpoint)
    client.send(b"Hello")
    assert watched.socket.poll(10_000)
    assert watched.read()
    silent = [watched.silent_peer() for _ in range(10)]
    wait_until(lambda: watched.sweep() == 11, 10.0)
    watched.connections.shed(4)
    wait_until(lambda: sum(map(is_ended, silent)) == 4, 10.0)
    watched.connections.shed(100)
    wait_until(lambda: all(map(is_ended, silent)), 10.0)
    assert watched.sweep() == 1, "the client stays"
    client.close(linger=0)
    for peer in silent:
        peer.close()


def test_a_descriptor_that_belongs_to_something_else_by_now_is_left_alone(
    make: MakeWatched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = make(limit=1)
    with watched.silent_peer(), watched.silent_peer() as second:
        real = os.fstat

        def both_are_known() -> bool:
            watched.connections._read(time.monotonic())
            return len(watched.connections) == 2

        wait_until(both_are_known, 10.0)
        with open(tmp_path / "file", "wb") as file:
            other = real(file.fileno())
            monkeypatch.setattr(os, "fstat", lambda _descriptor: other)
            watched.sweep()
            monkeypatch.undo()
        assert watched.ended == 0
        assert not is_ended(second)


@pytest.mark.usefixtures("_sockets_are_no_files")
def test_where_a_socket_is_no_file_its_addresses_tell_connections_apart(make_tcp: MakeWatched) -> None:
    watched = make_tcp(limit=2)
    peers = [watched.silent_peer() for _ in range(5)]
    wait_until(lambda: watched.sweep() == 2 and watched.ended == 3, 10.0)
    wait_until(lambda: all(map(is_ended, peers[:3])), 10.0)
    assert not any(map(is_ended, peers[3:]))
    for peer in peers:
        peer.close()
    wait_until(lambda: watched.sweep() == 0, 10.0)
    assert watched.ended == 3


def test_workers_that_came_first_stay_however_many_others_connect(make_tcp: MakeWatched) -> None:
    watched = make_tcp(limit=3, are_workers=True)
    workers = [watched.silent_peer() for _ in range(3)]
    wait_until(lambda: watched.sweep() == 3, 10.0)
    others = [watched.silent_peer() for _ in range(5)]
    wait_until(lambda: watched.sweep() == 3 and watched.ended == 5, 10.0)
    wait_until(lambda: all(map(is_ended, others)), 10.0)
    assert not any(map(is_ended, workers))
    for peer in (*workers, *others):
        peer.close()
