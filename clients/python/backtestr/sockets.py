"""The ZeroMQ sockets of one connection to one start of the broker. Used by the I/O thread alone."""

from __future__ import annotations

import zmq

from backtestr_protocol import topics
from backtestr_protocol.connection import Connection
from backtestr_protocol.frames import has_input, receive, send
from backtestr_protocol.topics import Socket

# Answers carry tables: a year of minute bars with indicators is some 50 MB. Beyond this something is wrong.
MAX_ANSWER_BYTES = 2 << 30
MAX_STREAM_BYTES = 64 << 20
# Stream messages that may queue between two turns of the I/O thread; what overflows is found missing and repaired.
STREAM_QUEUE = 20_000
# How long a closing connection may take to get its last request (Goodbye) out.
CLOSING_MS = 200
# Messages taken from one socket before the others have their turn.
BURST = 256


class Sockets:
    """A DEALER for requests with an identity of its own, and a SUB for each stream socket that is listened to."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], connection: Connection) -> None:
        self._context = context
        self._endpoints = connection.endpoints
        self.requests = self._open(zmq.DEALER, self._endpoints.requests, MAX_ANSWER_BYTES)
        self.streams: dict[Socket, zmq.Socket[bytes]] = {}
        # ZeroMQ connects again silently, while the session is bound to the connection that is gone.
        self._losses = self.requests.get_monitor_socket(zmq.EVENT_DISCONNECTED)

    def lost_broker(self) -> bool:
        """Whether the connection for requests broke since this was last asked."""
        return any([True for _ in receive(self._losses, BURST)])

    def send(self, frames: list[bytes]) -> bool:
        """Send a request; False when the queue to an absent broker is full."""
        try:
            send(self.requests, frames)
        except zmq.Again:
            return False
        return True

    def listen(self, prefix: str) -> list[zmq.Socket[bytes]]:
        """Subscribe to `prefix`; returns the sockets that were opened for it."""
        names = topics.sockets_for(prefix)
        opened = {
            name: self._open(zmq.SUB, self._endpoints.of(name), MAX_STREAM_BYTES)
            for name in names
            if name not in self.streams
        }
        self.streams |= opened
        for name in names:
            self.streams[name].subscribe(prefix)
        return list(opened.values())

    def unlisten(self, prefix: str) -> None:
        for name in topics.sockets_for(prefix):
            self.streams[name].unsubscribe(prefix)

    @property
    def all(self) -> list[zmq.Socket[bytes]]:
        return [self.requests, self._losses, *self.streams.values()]

    def have_input(self) -> bool:
        """Whether a message waits: to be asked before sleeping on the sockets' file descriptors (see `has_input`)."""
        return any(has_input(socket) for socket in self.all)

    def close(self) -> None:
        self.requests.disable_monitor()
        self._losses.close(linger=0)
        self.requests.close(linger=CLOSING_MS)
        for socket in self.streams.values():
            socket.close(linger=0)

    def _open(self, kind: int, endpoint: str, max_bytes: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.setsockopt(zmq.MAXMSGSIZE, max_bytes)
        if kind == zmq.SUB:
            socket.rcvhwm = STREAM_QUEUE
        socket.connect(endpoint)
        return socket
