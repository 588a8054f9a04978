"""The broker's sockets and their options: how they are bound, bounded and closed."""

from __future__ import annotations

from collections.abc import Callable

import zmq

from backtestr_protocol.connection import Endpoints
from backtestr_protocol.topics import SOCKETS, Socket

from .config import SocketOptions

# A frame this much over the limit is still received, to be answered with MESSAGE_TOO_LARGE; a larger one ends the
# connection before it costs memory.
_TOLERANCE = 2
# Tables of results: one frame each. Nobody but workers, which the broker started itself, is connected there.
_MAX_WORKER_FRAME = 2 << 30
# A peer that does not finish ZeroMQ's handshake in this time is let go.
_HANDSHAKE_MS = 5_000
# How long the last messages may take to get out when the broker ends.
_LINGER_MS = 200
_WORKER_QUEUE = 10_000

NAMES: tuple[str, ...] = ("requests", *SOCKETS, "engine")


class Sockets:
    """`requests` and `engine` are ROUTERs, the streams XPUBs. All belong to the thread that runs the shell."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: Callable[[str], str],
        options: SocketOptions,
        max_message_bytes: int,
    ) -> None:
        """Bind all; `address` gives each socket's by its name. Raises `zmq.ZMQError`, naming the address."""
        self._opened: list[zmq.Socket[bytes]] = []
        bound: dict[str, str] = {}

        def bind(name: str, kind: int, queue: int, max_frame: int) -> zmq.Socket[bytes]:
            socket = context.socket(kind)
            self._opened.append(socket)
            socket.set(zmq.LINGER, _LINGER_MS)
            socket.set(zmq.SNDHWM, queue)
            socket.set(zmq.RCVHWM, queue)
            socket.set(zmq.MAXMSGSIZE, max_frame)
            socket.set(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
            if kind == zmq.ROUTER:
                socket.set(zmq.ROUTER_MANDATORY, 1)
            wanted = address(name)
            try:
                socket.bind(wanted)
            except zmq.ZMQError as error:
                raise zmq.ZMQError(error.errno, f"cannot bind {name} to {wanted}: {error.strerror}") from error
            bound[name] = socket.get_string(zmq.LAST_ENDPOINT)
            return socket

        try:
            self.requests = bind("requests", zmq.ROUTER, options.reply_queue, max_message_bytes * _TOLERANCE)
            self.engine = bind("engine", zmq.ROUTER, _WORKER_QUEUE, _MAX_WORKER_FRAME)
            self.streams: dict[Socket, zmq.Socket[bytes]] = {
                # Subscribers send nothing but subscriptions, which are topic prefixes.
                name: bind(name, zmq.XPUB, options.stream_queue, 4096)
                for name in SOCKETS
            }
        except BaseException:  # whatever happens, Ctrl-C included, no socket stays bound
            self.close()
            raise
        self.engine_endpoint = bound.pop("engine")
        self.endpoints = Endpoints(**bound)

    def close(self) -> None:
        for socket in self._opened:
            socket.close()
