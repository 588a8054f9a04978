"""The broker's sockets have their bounds, and without an answer from the allow-list no peer connects."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator

import pytest
import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from backtestr_broker.config import load_config
from backtestr_broker.io import sockets as broker_sockets
from backtestr_broker.io.sockets import Sockets
from backtestr_broker.io.zap import DOMAIN, decide
from backtestr_protocol.keys import KeyPair
from backtestr_protocol.secret import Secret
from backtestr_protocol.topics import SOCKETS
from backtestr_protocol.zmq_frames import receive
from support.harness import short_directory, wait_until

WAIT_MS = 10_000
CLIENT_SOCKETS = ("requests", *SOCKETS)


def pair() -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), Secret(secret))


SERVER, CLIENT = pair(), pair()


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    one: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield one
    one.destroy(linger=0)


@pytest.fixture
def outside() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """Make a second context, which for ZeroMQ is like another process."""
    one: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield one
    one.destroy(linger=0)


def bound(context: zmq.Context[zmq.Socket[bytes]], curve: KeyPair | None) -> Sockets:
    options = load_config(None).sockets
    return Sockets(
        context, lambda name: "inproc://engine" if name == "engine" else "tcp://127.0.0.1:*", options, 1 << 20, curve
    )


class Peer:
    """A peer with the right keys at one of the sockets."""

    def __init__(self, outside: zmq.Context[zmq.Socket[bytes]], sockets: Sockets, name: str) -> None:
        self.socket = outside.socket(zmq.DEALER if name == "requests" else zmq.SUB)
        self.socket.linger = 0
        self.socket.curve_serverkey = SERVER.public.encode()
        self.socket.curve_publickey, self.socket.curve_secretkey = CLIENT.public.encode(), CLIENT.secret.reveal()
        self._monitor = self.socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_DISCONNECTED
        )
        self.socket.connect(getattr(sockets.endpoints, name))
        if name == "requests":
            self.socket.send(b"a first message")
        else:
            self.socket.subscribe(b"")

    def event(self) -> str:
        """Return the name of the next event of its connection."""
        assert self._monitor.poll(WAIT_MS), "nothing happened"
        return zmq.Event(parse_monitor_message(self._monitor.recv_multipart())["event"]).name or ""

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.disable_monitor()
        self._monitor.close()
        self.socket.close()


def of(sockets: Sockets, name: str) -> zmq.Socket[bytes]:
    named: dict[str, zmq.Socket[bytes]] = {"requests": sockets.requests, "engine": sockets.engine}
    for stream, one in sockets.streams.items():
        named[stream] = one
    return named[name]


@pytest.mark.parametrize("name", CLIENT_SOCKETS)
@pytest.mark.parametrize("handler", ["closed", "never served"])
def test_without_an_answer_from_the_allow_list_no_peer_connects(
    context: zmq.Context[zmq.Socket[bytes]],
    outside: zmq.Context[zmq.Socket[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    handler: str,
    name: str,
) -> None:
    monkeypatch.setattr(broker_sockets, "_HANDSHAKE_MS", 100)
    with contextlib.closing(bound(context, SERVER)) as sockets, Peer(outside, sockets, name) as peer:
        assert sockets.zap is not None
        if handler == "closed":
            sockets.zap.close()
        assert peer.event() in ("HANDSHAKE_FAILED_NO_DETAIL", "DISCONNECTED")
        assert not of(sockets, name).poll(0), "a message of the peer has arrived"
        if name != "requests":
            of(sockets, name).send(b"a message")
            assert not peer.socket.poll(0)


def answer(sockets: Sockets, allowed: dict[bytes, str]) -> None:
    """Decide on one handshake, as the event loop does."""
    assert sockets.zap is not None
    assert sockets.zap.poll(WAIT_MS)
    [[peer, _, *frames]] = receive(sockets.zap, 1)
    decision = decide(frames, {DOMAIN: lambda key, _address: allowed.get(key)})
    assert decision.frames is not None
    sockets.zap.send_multipart([peer, b"", *decision.frames])


ALLOWED = {z85.decode(CLIENT.public): "ann"}


def test_messages_have_the_name_of_the_key_of_their_sender(
    context: zmq.Context[zmq.Socket[bytes]], outside: zmq.Context[zmq.Socket[bytes]]
) -> None:
    with contextlib.closing(bound(context, SERVER)) as sockets, Peer(outside, sockets, "requests") as peer:
        answer(sockets, ALLOWED)
        assert peer.event() == "HANDSHAKE_SUCCEEDED"
        assert sockets.requests.poll(WAIT_MS)
        assert receive(sockets.requests, 5, frozenset({"bob"}).__contains__) == [], "its key was revoked since"
        peer.socket.send(b"again")
        assert sockets.requests.poll(WAIT_MS)
        [[_, frame]] = receive(sockets.requests, 5, frozenset({"ann"}).__contains__)
        assert frame == b"again"


def test_without_curve_no_message_has_a_name(
    context: zmq.Context[zmq.Socket[bytes]], outside: zmq.Context[zmq.Socket[bytes]]
) -> None:
    with contextlib.closing(bound(context, None)) as sockets, outside.socket(zmq.DEALER) as peer:
        assert sockets.zap is None
        peer.connect(sockets.endpoints.requests)
        peer.send(b"hello")
        assert sockets.requests.poll(WAIT_MS)
        assert receive(sockets.requests, 5, frozenset({"ann", "", "None"}).__contains__) == []


def test_a_message_whose_last_frame_looks_like_a_subscription_does_not_stop_the_reading(
    context: zmq.Context[zmq.Socket[bytes]], outside: zmq.Context[zmq.Socket[bytes]]
) -> None:
    """ZeroMQ does not deliver that frame, and the frame before it announces another."""
    with contextlib.closing(bound(context, None)) as sockets, outside.socket(zmq.XSUB) as peer:
        peer.connect(sockets.endpoints.prices)
        stream = sockets.streams["prices"]
        for _ in range(3):
            peer.send_multipart([b"a message", b"\1prefix"])
            assert stream.poll(WAIT_MS)
            assert receive(stream, 5)
        peer.send(b"the end")
        while [b"the end"] not in (received := receive(stream, 5)):
            assert received or stream.poll(WAIT_MS)


def test_dropped_clients_connect_again_to_the_same_ports_and_need_an_allowed_key_again(
    context: zmq.Context[zmq.Socket[bytes]], outside: zmq.Context[zmq.Socket[bytes]]
) -> None:
    with contextlib.closing(bound(context, SERVER)) as sockets, Peer(outside, sockets, "requests") as peer:
        answer(sockets, ALLOWED)
        assert peer.event() == "HANDSHAKE_SUCCEEDED"
        sockets.drop_clients()
        where = [one.get_string(zmq.LAST_ENDPOINT) for one in sockets.of_clients.values()]
        assert where == [getattr(sockets.endpoints, name) for name in CLIENT_SOCKETS]
        answer(sockets, {})  # the old connection ends once a handshake is decided, too
        assert peer.event() == "DISCONNECTED"
        assert peer.event() == "HANDSHAKE_FAILED_AUTH"


@pytest.mark.parametrize("name", [*CLIENT_SOCKETS, "engine"])
def test_every_bound_socket_has_its_bounds(context: zmq.Context[zmq.Socket[bytes]], name: str) -> None:
    sockets = bound(context, SERVER)
    one = of(sockets, name)
    largest = {"requests": 2 << 20, "engine": 2 << 30}.get(name, 512)
    assert one.get(zmq.MAXMSGSIZE) == largest
    assert 0 < int(one.get(zmq.HANDSHAKE_IVL)) <= 5000
    assert 0 < int(one.get(zmq.BACKLOG)) <= 128
    assert int(one.get(zmq.RCVHWM)) > 0
    assert int(one.get(zmq.SNDHWM)) > 0
    assert one.get(zmq.MECHANISM) == (zmq.NULL if name == "engine" else zmq.CURVE)
    sockets.close()
    assert one.closed


@pytest.mark.parametrize("name", CLIENT_SOCKETS)
def test_the_connections_of_every_socket_are_bounded_also_after_clients_were_dropped(
    context: zmq.Context[zmq.Socket[bytes]], name: str
) -> None:
    bounds = broker_sockets.ConnectionBounds(limit=2, patience=30.0)
    options = load_config(None).sockets
    sockets = Sockets(
        context,
        lambda name: "inproc://engine" if name == "engine" else "tcp://127.0.0.1:*",
        options,
        1 << 20,
        bounds=bounds,
    )
    assert set(sockets.connections) == set(CLIENT_SOCKETS), "within one process there are none"
    host, port = getattr(sockets.endpoints, name).removeprefix("tcp://").split(":")
    with contextlib.closing(sockets), contextlib.ExitStack() as stack:
        for _ in range(2):
            for _ in range(5):
                stack.enter_context(socket.create_connection((host, int(port))))

            def has_its_bound() -> bool:
                sockets.sweep()
                return len(sockets.connections[name]) == 2

            wait_until(has_its_bound, 10.0)
            sockets.drop_clients()
            assert len(sockets.connections[name]) == 0


def test_a_socket_is_bound_again_as_soon_as_there_are_descriptors(
    context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZeroMQ's thread closes the connections of a closed socket a moment later."""
    with contextlib.closing(bound(context, None)) as sockets:
        failures = [errno.EMFILE, errno.ENFILE, errno.EMFILE]
        dup = socket.socket.dup

        def fail(listener: socket.socket) -> socket.socket:
            if failures:
                raise OSError(failures.pop(), "Too many open files")
            return dup(listener)

        monkeypatch.setattr(socket.socket, "dup", fail)
        sockets.drop_clients()
        assert failures == []
        where = [one.get_string(zmq.LAST_ENDPOINT) for one in sockets.of_clients.values()]
        assert where == [getattr(sockets.endpoints, name) for name in CLIENT_SOCKETS]


def test_unix_sockets_can_be_hidden_from_further_peers(
    context: zmq.Context[zmq.Socket[bytes]], outside: zmq.Context[zmq.Socket[bytes]]
) -> None:
    """ZeroMQ would end the process if it accepted a connection to one of them without a free descriptor."""
    with short_directory() as folder:
        sockets = Sockets(context, lambda name: f"ipc://{folder}/{name}", load_config(None).sockets, 1 << 20)
        names = {*CLIENT_SOCKETS, "engine"}

        def found() -> set[str]:
            return {one.name for one in folder.iterdir()}

        assert found() == names
        first, second = outside.socket(zmq.DEALER), outside.socket(zmq.DEALER)
        first.connect(sockets.endpoints.requests)
        first.send(b"before")
        assert sockets.requests.poll(WAIT_MS)
        assert sockets.requests.recv_multipart()[1] == b"before"
        assert (sockets.hide(), sockets.hide()) == (True, False)
        assert found() == {f"{name}.hidden" for name in names}
        with pytest.raises(FileNotFoundError), socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(folder / "requests"))
        first.send(b"meanwhile")
        assert sockets.requests.poll(WAIT_MS)
        assert sockets.requests.recv_multipart()[1] == b"meanwhile"
        second.connect(sockets.endpoints.requests)
        second.send(b"afterwards")
        sockets.show()
        assert found() == names
        assert sockets.requests.poll(WAIT_MS), "it has connected by itself"
        assert sockets.requests.recv_multipart()[1] == b"afterwards"
        sockets.hide()
        sockets.close()
        for one in (first, second):
            one.close(linger=0)
        assert found() <= names, "what is left has the names that the next start removes"
