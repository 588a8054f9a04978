"""The broker's sockets: how they are bound, bounded, encrypted and closed."""

from __future__ import annotations

import contextlib
import errno
import math
import socket as sockets_of_the_system
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import zmq

from backtestr_broker.config import SocketOptions
from backtestr_protocol.connection import Endpoints
from backtestr_protocol.keys import KeyPair
from backtestr_protocol.system.ports import own_port
from backtestr_protocol.topics import SOCKETS, Socket
from backtestr_protocol.worker_channel import MAX_ON_THE_WAY
from backtestr_protocol.zmq_frames import Origin

from . import zap
from .allow_list import AllowList
from .connections import Connections
from .subscriber_probe import SubscriberProbe
from .worker_keys import WorkerKeys

# A frame of up to so many times the limit is still received, to be answered with MESSAGE_TOO_LARGE; a larger one ends
# the connection before it costs memory.
_TOLERANCE = 2
# A table of results is one frame. Only workers, which the broker started itself, connect there.
_MAX_WORKER_FRAME = 2 << 30
# Subscribers send nothing but subscriptions to prefixes. ZeroMQ keeps every character of a prefix.
_MAX_SUBSCRIPTION = 512
# A peer that does not finish ZeroMQ's handshake in this time is disconnected.
_HANDSHAKE_MS = 5_000
# Connections that wait to be accepted, per socket.
_BACKLOG = 128
# Milliseconds that the last messages may take to be sent when the broker ends.
_LINGER_MS = 200
# Worker messages that wait for one worker: it has one task at a time, and gets what changes that.
_WORKER_QUEUE = 1_000
# Handshakes that wait for a decision. ZeroMQ lets each wait no longer than _HANDSHAKE_MS.
_HANDSHAKES = 1_000

# Seconds that ZeroMQ's thread may take to close thousands of connections.
_FREEING_SECONDS = 2.0

NAMES: tuple[str, ...] = ("requests", *SOCKETS, "engine")


class ConnectionBounds(msgspec.Struct, frozen=True):
    """The most connections to one socket, and the seconds after which one that said nothing is ended."""

    limit: int
    patience: float


UNBOUNDED = ConnectionBounds(limit=sys.maxsize, patience=math.inf)


class Sockets:
    """`requests` and `engine` are ROUTERs, the streams XPUBs. All belong to the thread of the event loop.

    With `curve`, those of the clients (all but `engine`) are encrypted. Over TCP `engine` is so in any case, with the
    `worker_keys`. `zap` gets a request for every handshake of an encrypted socket. `connections` are bounded by
    socket; within one process there are none.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: Callable[[str], str],
        options: SocketOptions,
        max_message_bytes: int,
        curve: KeyPair | None = None,
        bounds: ConnectionBounds = UNBOUNDED,
    ) -> None:
        """Bind all sockets; `address` returns the address for a name. Raises `zmq.ZMQError`, naming the address."""
        self._context = context
        self._bounds = bounds
        self._options = options
        self._max_message_bytes = max_message_bytes
        self._curve = curve
        self._address = address
        self._opened: list[zmq.Socket[bytes]] = []
        self._listeners: dict[str, sockets_of_the_system.socket] = {}
        self.streams: dict[Socket, zmq.Socket[bytes]] = {}
        self.probes: dict[str, SubscriberProbe] = {}  # by stream
        self.connections: dict[str, Connections] = {}  # by the socket's name
        self._hidden: dict[Path, Path] = {}
        self.zap: zmq.Socket[bytes] | None = None
        try:
            engine_address = address("engine")
            self.worker_keys = WorkerKeys() if engine_address.startswith("tcp://") else None
            if curve is not None or self.worker_keys is not None:  # before there is a socket to connect to
                self.zap = self._open("the allow-list", zmq.ROUTER, _HANDSHAKES, 4096, zap.ADDRESS)
            self.engine = self._open(
                "engine", zmq.ROUTER, _WORKER_QUEUE, _MAX_WORKER_FRAME, engine_address, taken=MAX_ON_THE_WAY
            )
            self._bind_requests()
            for name in SOCKETS:
                self._bind_stream(name)
        except BaseException:  # no socket stays bound, also after Ctrl-C
            self.close()
            raise
        self.engine_endpoint = _endpoint(self.engine)
        self.endpoints = Endpoints(
            requests=_endpoint(self.requests), **{name: _endpoint(one) for name, one in self.streams.items()}
        )

    @property
    def of_clients(self) -> dict[str, zmq.Socket[bytes]]:
        """The sockets to which clients connect, by name."""
        sockets: dict[str, zmq.Socket[bytes]] = {"requests": self.requests}
        sockets.update(self.streams.items())
        return sockets

    @property
    def can_drop_clients(self) -> bool:
        """True where the listening sockets are our own and outlive ZeroMQ's, which is so with TCP."""
        return bool(self._listeners)

    def drop_clients(self) -> None:
        """End every connection of clients, and bind new sockets to the same ports.

        The ports are listened to all the while: clients that are allowed connect again by themselves. Messages under
        way are lost, and clients repair that as after any lost connection.
        """
        self._drop("requests", self.requests)
        _when_there_are_descriptors(self._bind_requests)
        for name in SOCKETS:
            self.drop_subscribers(name)

    def drop_subscribers(self, name: Socket) -> None:
        """End every connection to one stream, in the same way."""
        self.probes[name].close()
        self._drop(name, self.streams[name])
        _when_there_are_descriptors(partial(self._bind_stream, name))

    def _drop(self, name: str, socket: zmq.Socket[bytes]) -> None:
        assert self.can_drop_clients
        self.connections.pop(name).close()
        socket.close(linger=0)
        self._opened.remove(socket)

    def _bind_requests(self) -> None:
        most = self._max_message_bytes * _TOLERANCE
        self.requests = self._bind("requests", zmq.ROUTER, self._options.reply_queue, most)

    def _bind_stream(self, name: Socket) -> None:
        self.streams[name] = self._bind(name, zmq.XPUB, self._options.stream_queue, _MAX_SUBSCRIPTION)

    def names_of_keys(self, allow_list: AllowList | None) -> dict[bytes, zap.FindName]:
        """Return, by ZAP domain, who knows the keys that may connect."""
        names: dict[bytes, zap.FindName] = {}
        if allow_list is not None:
            names[zap.DOMAIN] = allow_list.name_of
        if self.worker_keys is not None:
            names[zap.WORKERS_DOMAIN] = self.worker_keys.name_of
        return names

    def _bind(self, name: str, kind: int, queue: int, max_frame: int) -> zmq.Socket[bytes]:
        """Bind a socket for clients on which `queue` messages wait for one peer, and as many from one peer."""
        listener = self._listeners.get(name)
        address = _address_of(listener) if listener else self._address(name)
        if listener is None and address.startswith("tcp://"):
            listener = self._listeners[name] = _listen(name, address)
            address = _address_of(listener)
        return self._open(name, kind, queue, max_frame, address, listener)

    def _open(
        self,
        name: str,
        kind: int,
        queue: int,
        max_frame: int,
        address: str,
        listener: sockets_of_the_system.socket | None = None,
        *,
        taken: int | None = None,
    ) -> zmq.Socket[bytes]:
        """Open a socket on which `queue` messages wait for one peer, and `taken` (or as many) wait from one peer."""
        socket = self._context.socket(kind)
        self._opened.append(socket)
        try:
            self._set_up(name, socket, kind, queue, max_frame, address, taken=taken)
            pair, domain = self._keys_of(name)
            if pair is not None:
                socket.set(zmq.CURVE_SERVER, 1)
                socket.set(zmq.CURVE_SECRETKEY, pair.secret.reveal())
                socket.set(zmq.ZAP_DOMAIN, domain)
                # Without this, ZeroMQ accepts every connection while no handler for the domain is bound.
                socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
            if listener is not None:
                socket.set(zmq.USE_FD, listener.dup().detach())  # ZeroMQ closes it with its socket
            socket.bind(address)
        except BaseException as error:  # no half-made socket stays, also after Ctrl-C
            self._opened.remove(socket)
            if (watched := self.connections.pop(name, None)) is not None:
                watched.close()
            socket.close(linger=0)
            if not isinstance(error, zmq.ZMQError):
                raise
            raise zmq.ZMQError(error.errno, f"cannot bind {name} to {address}: {error.strerror}") from error
        return socket

    def _keys_of(self, name: str) -> tuple[KeyPair | None, bytes]:
        """Return the pair of an encrypted socket and the domain of the keys that may connect; None for a plain one."""
        if name == "engine":
            return (None if self.worker_keys is None else self.worker_keys.pair), zap.WORKERS_DOMAIN
        if name not in NAMES:  # the allow-list itself
            return None, b""
        return self._curve, zap.DOMAIN

    def _set_up(
        self,
        name: str,
        socket: zmq.Socket[bytes],
        kind: int,
        queue: int,
        max_frame: int,
        address: str,
        *,
        taken: int | None,
    ) -> None:
        """Set what has to be set before the socket is bound."""
        socket.set(zmq.LINGER, _LINGER_MS)
        socket.set(zmq.SNDHWM, queue)
        socket.set(zmq.RCVHWM, queue if taken is None else taken)
        socket.set(zmq.MAXMSGSIZE, max_frame)
        socket.set(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        socket.set(zmq.BACKLOG, _BACKLOG)
        if kind == zmq.ROUTER:
            socket.set(zmq.ROUTER_MANDATORY, 1)
        if not address.startswith("inproc://"):
            # Workers say nothing until their kernels are compiled.
            are_workers = name == "engine"
            patience = math.inf if are_workers else self._bounds.patience
            limit = self._bounds.limit
            self.connections[name] = Connections(self._context, socket, limit, patience, are_workers=are_workers)
        if kind == zmq.XPUB:
            socket.set(zmq.XPUB_VERBOSER, 1)  # every peer's subscriptions, not only the first of each
            # Before the socket is bound, so that its last endpoint is the one for peers.
            self.probes[name] = SubscriberProbe(self._context, socket, partial(self.heard, name))

    def hide(self) -> bool:
        """Give Unix sockets names that no peer knows, until `show`: connections stay, and nobody can make another.

        libzmq 4.3.5 ends the process when it has no descriptor left for a connection to a Unix socket (EMFILE). Return
        False if they are hidden already.
        """
        if self._hidden:
            return False
        for socket in self._opened:
            kind, _, name = _endpoint(socket).partition("://")
            if kind == "ipc":
                path = Path(name)
                with contextlib.suppress(OSError):  # something has removed it: then nobody can connect, too
                    self._hidden[path] = path.rename(hidden(path))
        return True

    def show(self) -> None:
        """Give Unix sockets their names again."""
        for path, elsewhere in self._hidden.items():
            with contextlib.suppress(OSError):
                elsewhere.rename(path)
        self._hidden.clear()

    def sweep(self) -> None:
        """End connections that are too many, or that say nothing."""
        now = time.monotonic()
        for watched in self.connections.values():
            watched.sweep(now)

    def heard(self, name: str, origin: Origin | None) -> None:
        """Take note that a client has sent something to the socket: its connection is no longer silent."""
        if origin is not None and (watched := self.connections.get(name)) is not None:
            watched.heard(origin, time.monotonic())

    def close(self) -> None:
        """Close the sockets of clients first, so that handshakes are decided as long as peers can connect."""
        self.show()
        for watched in self.connections.values():
            watched.close()
        self.connections.clear()
        for probe in self.probes.values():
            probe.close()
        for socket in reversed(self._opened):
            socket.close()
        for listener in self._listeners.values():
            listener.close()


def hidden(path: Path) -> Path:
    """Return the path of a Unix socket while it is hidden."""
    return path.with_name(f"{path.name}.hidden")


def _when_there_are_descriptors(bind: Callable[[], None]) -> None:
    """Bind a socket in place of one that was closed: ZeroMQ's thread closes its connections a moment later."""
    deadline = time.monotonic() + _FREEING_SECONDS
    while True:
        try:
            return bind()
        except (zmq.ZMQError, OSError) as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or time.monotonic() >= deadline:
                raise
            time.sleep(_FREEING_SECONDS / 100)


def _endpoint(socket: zmq.Socket[bytes]) -> str:
    return socket.get_string(zmq.LAST_ENDPOINT)


def _listen(name: str, address: str) -> sockets_of_the_system.socket:
    """Return a TCP socket that listens at `address`: `tcp://host:port`, or `*` for any port."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    listener = sockets_of_the_system.socket(sockets_of_the_system.AF_INET, sockets_of_the_system.SOCK_STREAM)
    try:
        own_port(listener)
        listener.bind((host, 0 if port == "*" else int(port)))
        listener.listen(_BACKLOG)
        listener.setblocking(False)  # ZeroMQ's thread must not wait for a peer that connected and left
    except OSError as error:
        listener.close()
        raise zmq.ZMQError(error.errno, f"cannot bind {name} to {address}: {error.strerror}") from error
    return listener


def _address_of(listener: sockets_of_the_system.socket) -> str:
    host, port = listener.getsockname()
    return f"tcp://{host}:{port}"
