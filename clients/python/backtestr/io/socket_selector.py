"""Sleep until a ZeroMQ socket or a command needs the I/O thread.

Sleeping on file descriptors costs less than `zmq.Poller`, which asks every socket again around each sleep. A descriptor
reports changes only, and any call on its socket may use one up, so each socket that was touched is asked before the
next sleep (see `has_input`).
"""

from __future__ import annotations

import contextlib
import math
import selectors
import socket
import time
from collections.abc import Iterable

import zmq

from backtestr_protocol.zmq_frames import has_input

from .turn import Turn


class SocketSelector:
    """The sockets for which one I/O thread wakes up.

    `unread` holds the sockets that may have something to read. A caller that touches a socket adds it.
    `sleeps_until` is the time in monotonic seconds at which the present or last sleep ends at the latest.
    """

    def __init__(self, wake_up: socket.socket, turn: Turn | None = None) -> None:
        """Wake up for `wake_up` as well; it is emptied here, because its bytes only end the sleep.

        `turn` is let go during each sleep, and only then.
        """
        self.unread: set[zmq.Socket[bytes]] = set()
        self.sleeps_until = math.inf
        self._turn = turn
        self._left_out: set[zmq.Socket[bytes]] = set()
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
            # A caller that was interrupted may have come to only one half of `leave_out` or `take_in`.
            with contextlib.suppress(*((KeyError,) if one in self._left_out else ())):
                self._selector.unregister(_descriptor(one))
        self._left_out.clear()
        self.unread.clear()

    def leave_out(self, one: zmq.Socket[bytes]) -> None:
        """Do not wake up for this watched socket until `take_in`: another thread reads it."""
        self._left_out.add(one)
        self._selector.unregister(_descriptor(one))

    def take_in(self, one: zmq.Socket[bytes]) -> None:
        """Wake up again for a socket that was left out."""
        self.watch([one])
        self._left_out.discard(one)

    def is_left_out(self, one: zmq.Socket[bytes]) -> bool:
        """Return True between `leave_out` and `take_in`."""
        return one in self._left_out

    def wait(self, deadline: float | None) -> None:
        """Sleep until a socket may have something to read, a command waits, or it is `deadline` (None is never)."""
        self.unread = {socket for socket in self.unread if has_input(socket)}
        if self.unread:
            timeout: float | None = 0.0
        else:
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        self.sleeps_until = math.inf if deadline is None else deadline
        for key, _ in self._sleep(timeout):
            if key.data is None:
                self._wake_up.recv(4096)
            else:
                self.unread.add(key.data)

    def _sleep(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._turn is None:
            return self._selector.select(timeout)
        self._turn.leave()
        try:
            return self._selector.select(timeout)
        finally:
            self._turn.take()

    def close(self) -> None:
        """Close the selector, and no socket."""
        self._selector.close()


def _descriptor(socket: zmq.Socket[bytes]) -> int:
    return int(socket.getsockopt(zmq.FD))
