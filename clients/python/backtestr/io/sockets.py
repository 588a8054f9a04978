"""The ZeroMQ sockets of one connection to one instance of the broker. The I/O thread alone uses them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import zmq
from zmq.utils.monitor import parse_monitor_message

from backtestr.core.handshakes import Outcome
from backtestr_protocol import topics
from backtestr_protocol.connection import Connection
from backtestr_protocol.keys import KeyPair
from backtestr_protocol.topics import Socket
from backtestr_protocol.zmq_frames import receive, send

# Answers carry tables: a year of minute bars with indicators takes some 50 MB. A larger answer is an error.
MAX_ANSWER_BYTES = 2 << 30
MAX_STREAM_BYTES = 64 << 20
# Stream messages that may queue while the I/O thread does other work; those beyond are found missing and repaired.
STREAM_QUEUE = 20_000
# Milliseconds in which a closing connection sends its last request (Goodbye).
CLOSING_MS = 200
# Messages that are read from one socket before the others are read.
BURST = 256

_OUTCOMES: dict[int, Outcome] = {
    zmq.Event.HANDSHAKE_SUCCEEDED: "succeeded",
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: "failed",
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: "failed",
    zmq.Event.HANDSHAKE_FAILED_AUTH: "denied",
}
_HANDSHAKES = sum(_OUTCOMES)


class Sockets:
    """A DEALER for requests with an identity of its own, and a SUB for each stream socket with a subscription.

    The DEALER has a monitor that reports a broken connection. With CURVE every socket has one that reports handshakes.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], connection: Connection, keys: KeyPair | None = None
    ) -> None:
        """Open the socket for requests. `keys` is this client's own pair, for a broker with CURVE."""
        self._context = context
        self._endpoints = connection.endpoints
        self._curve = connection.curve
        self._keys = keys
        self._is_up = connection.curve is None  # without CURVE no handshake is reported
        self._monitors: dict[zmq.Socket[bytes], zmq.Socket[bytes]] = {}  # by the socket that is watched
        self.requests = self._open(zmq.DEALER, self._endpoints.requests, MAX_ANSWER_BYTES)
        self.streams: dict[Socket, zmq.Socket[bytes]] = {}

    def send(self, frames: list[bytes]) -> bool:
        """Send a request. Returns False if the queue to an absent broker is full."""
        try:
            send(self.requests, frames)
        except zmq.Again:
            return False
        return True

    def connection_events(self) -> Iterator[tuple[Outcome | Literal["lost"], bool]]:
        """Yield outcomes of handshakes and losses since the last call, each with True if it is of the DEALER.

        Only the DEALER's loss is reported, because the session is bound to that connection. ZeroMQ itself reconnects
        silently.
        """
        for socket, monitor in list(self._monitors.items()):
            for frames in receive(monitor, BURST):
                event = int(parse_monitor_message(frames)["event"])
                if event in _OUTCOMES:
                    self._is_up = self._is_up or (socket is self.requests and _OUTCOMES[event] == "succeeded")
                    yield _OUTCOMES[event], socket is self.requests
                elif self._is_up:  # otherwise it is a failed handshake, which was reported as such
                    self._is_up = self._curve is None
                    yield "lost", True

    def subscribe(self, prefix: str) -> list[zmq.Socket[bytes]]:
        """Subscribe to `prefix`, and return the sockets that were opened for it, with their monitors."""
        return [one for name in topics.sockets_for(prefix) for one in self.subscribe_on(name, prefix)]

    def subscribe_on(self, name: Socket, prefix: str) -> list[zmq.Socket[bytes]]:
        """Subscribe to `prefix` on one socket, and return that with its monitor if it was opened for it."""
        opened: list[zmq.Socket[bytes]] = []
        if name not in self.streams:
            stream = self.streams[name] = self._open(zmq.SUB, self._endpoints.of(name), MAX_STREAM_BYTES)
            opened = [stream, self._monitors[stream]] if stream in self._monitors else [stream]
        self.streams[name].subscribe(prefix)
        return opened

    def unsubscribe(self, prefix: str) -> None:
        """End the subscription to `prefix`."""
        for name in topics.sockets_for(prefix):
            self.streams[name].unsubscribe(prefix)

    @property
    def all(self) -> list[zmq.Socket[bytes]]:
        """All sockets, with their monitors."""
        return [self.requests, *self.streams.values(), *self._monitors.values()]

    @property
    def monitors(self) -> list[zmq.Socket[bytes]]:
        """The monitors, which are readable when there are `connection_events`."""
        return list(self._monitors.values())

    def close(self) -> None:
        """Close all sockets. The DEALER may still send for `CLOSING_MS`."""
        for socket, monitor in self._monitors.items():
            socket.disable_monitor()
            monitor.close(linger=0)
        self.requests.close(linger=CLOSING_MS)
        for socket in self.streams.values():
            socket.close(linger=0)

    def _open(self, kind: int, endpoint: str, max_bytes: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.setsockopt(zmq.MAXMSGSIZE, max_bytes)
        if kind == zmq.SUB:
            socket.rcvhwm = STREAM_QUEUE
        if self._curve is not None:
            assert self._keys is not None, "a client of a broker with CURVE has keys"
            socket.setsockopt(zmq.CURVE_SERVERKEY, self._curve.server_public_key.encode())
            socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public.encode())
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret.reveal())
        if watched := (zmq.EVENT_DISCONNECTED if kind == zmq.DEALER else 0) | (_HANDSHAKES if self._curve else 0):
            self._monitors[socket] = socket.get_monitor_socket(watched)
        socket.connect(endpoint)
        return socket
