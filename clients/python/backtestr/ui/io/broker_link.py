"""The sockets of one page to the broker, read by the loop of the server.

ZeroMQ's descriptors report changes only, and any call on a socket may use one up. So a socket that was touched is read
again at the next turn of the loop, until it has nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import zmq

from backtestr.core.handshakes import Handshakes, locked_out
from backtestr.io.sockets import Sockets
from backtestr_protocol.connection import Connection
from backtestr_protocol.keys import KeyPair
from backtestr_protocol.topics import Socket
from backtestr_protocol.zmq_frames import has_input, receive

# Messages that are read from one socket before the loop does other work, such as that of other pages.
BURST = 64


class BrokerLink:
    """One connection for requests and one for each socket of streams, from its construction to `close`."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        connection: Connection,
        keys: KeyPair | None,
        *,
        on_answer: Callable[[list[bytes]], None],
        on_stream: Callable[[list[bytes]], None],
        on_lost: Callable[[str], None],
    ) -> None:
        """Connect. The functions are called in the loop, with the frames of a message as they travel."""
        self._loop = asyncio.get_running_loop()
        self._on_answer, self._on_stream, self._on_lost = on_answer, on_stream, on_lost
        self._public_key = None if keys is None else keys.public
        self._handshakes = Handshakes()
        self._is_closed = False
        self._due: set[zmq.Socket[bytes]] = set()
        self._sockets = Sockets(context, connection, keys)
        self._watch(self._sockets.all)

    def send(self, frames: list[bytes]) -> bool:
        """Send a request. Returns False if the queue to an absent broker is full."""
        is_sent = self._sockets.send(frames)
        self._read_soon(self._sockets.requests)
        return is_sent

    def subscribe(self, socket: Socket, prefix: str) -> None:
        """Subscribe to a prefix on one socket, which is connected with its first subscription."""
        self._watch(self._sockets.subscribe_on(socket, prefix))
        self._read_soon(self._sockets.streams[socket])

    def unsubscribe(self, socket: Socket, prefix: str) -> None:
        """End such a subscription."""
        self._sockets.streams[socket].unsubscribe(prefix)
        self._read_soon(self._sockets.streams[socket])

    def close(self) -> None:
        """Close the sockets; the last request may still leave for a moment."""
        if self._is_closed:
            return
        self._is_closed = True
        for one in self._sockets.all:
            self._loop.remove_reader(_descriptor(one))
        self._sockets.close()

    def _watch(self, opened: Iterable[zmq.Socket[bytes]]) -> None:
        for one in opened:
            self._loop.add_reader(_descriptor(one), self._read, one)
            self._read_soon(one)

    def _read_soon(self, socket: zmq.Socket[bytes]) -> None:
        if socket not in self._due:
            self._due.add(socket)
            self._loop.call_soon(self._read, socket)

    def _read(self, socket: zmq.Socket[bytes]) -> None:
        self._due.discard(socket)
        if self._is_closed:
            return
        if socket in self._sockets.monitors:
            self._take_connection_events()
        else:
            take = self._on_answer if socket is self._sockets.requests else self._on_stream
            for frames in receive(socket, BURST):
                take(frames)
        if not self._is_closed and has_input(socket):
            self._read_soon(socket)

    def _take_connection_events(self) -> None:
        for event, of_requests in self._sockets.connection_events():
            if event == "lost":
                self._on_lost("the connection to the broker was lost")
                return
            verdict = self._handshakes.ended(event, of_requests=of_requests)
            if verdict is not None:
                is_out = verdict == "locked out"
                self._on_lost(str(locked_out(self._public_key)) if is_out else "the broker was connected anew")
                return


def _descriptor(socket: zmq.Socket[bytes]) -> int:
    return int(socket.getsockopt(zmq.FD))
