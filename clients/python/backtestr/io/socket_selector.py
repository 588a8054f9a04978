"""Sleep until a ZeroMQ socket or a command needs the I/O thread.

Sleeping on file descriptors costs less than `zmq.Poller`, which asks every socket again around each sleep. A descriptor
reports changes only, and any call on its socket may use one up, so each socket that was touched is asked before the
next sleep (see `has_input`).
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterable

import zmq

from backtestr_protocol.zmq_frames import has_input


class SocketSelector:
    """The sockets for which one I/O thread wakes up.

    `unread` holds the sockets that may have something to read. A caller that touches a socket adds it.
    """

    def __init__(self, wake_up: socket.socket) -> None:
        """Wake up for `wake_up` as well; it is emptied here, because its bytes only end the sleep."""
        self.unread: set[zmq.Socket[bytes]] = set()
        self._wake_up = wake_up
        self._selector = selectors.DefaultSelector()
        self._selector.register(wake_up, selectors.EVENT_READ)

    def watch(self, opened: Iterable[zmq.Socket[bytes]]) -> None:
        """Wake up for these sockets too."""
        for one in opened:
            self._selector.register(_descriptor(one), selectors.EVENT_READ, one)
            self.unread.add(one)

    def forget(self, closing: Iterable[zmq.Socket[bytes]]) -> None:
        """Watch these sockets no more; they are all there are, and still open."""
        for one in closing:
            self._selector.unregister(_descriptor(one))
        self.unread.clear()

    def wait(self, deadline: float | None) -> None:
        """Sleep until a socket may have something to read, a command waits, or it is `deadline` (None is never)."""
        self.unread = {socket for socket in self.unread if has_input(socket)}
        if self.unread:
            timeout: float | None = 0.0
        else:
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                self._wake_up.recv(4096)
            else:
                self.unread.add(key.data)

    def close(self) -> None:
        """Close the selector, and no socket."""
        self._selector.close()


def _descriptor(socket: zmq.Socket[bytes]) -> int:
    return int(socket.getsockopt(zmq.FD))
