"""A raw subscriber speaks ZMTP 3.0 over TCP without libzmq, and can send messages that libzmq would not send.

It can end a subscription that it never made, or make one twice.
"""

from __future__ import annotations

import socket as sockets_of_the_system
from urllib.parse import urlsplit

_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_READY = b"\x05READY" + b"\x0bSocket-Type" + (3).to_bytes(4, "big") + b"SUB"


class RawSubscriber:
    def __init__(self, endpoint: str) -> None:
        """Connect to `endpoint`, which is `tcp://host:port`."""
        url = urlsplit(endpoint)
        self._socket = sockets_of_the_system.create_connection((url.hostname, url.port))
        self._socket.sendall(_GREETING)
        self._receive(len(_GREETING))
        self._socket.sendall(bytes((4, len(_READY))) + _READY)
        self._receive(self._receive(2)[1])

    def say(self, prefix: bytes, delta: int) -> None:
        message = (b"\1" if delta > 0 else b"\0") + prefix
        self._socket.sendall(bytes((0, len(message))) + message)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> RawSubscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            assert part, "the broker hung up"
            data += part
        return data
