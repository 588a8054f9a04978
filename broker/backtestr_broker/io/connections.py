"""The connections to one bound socket are counted, and those that are too many or say nothing are ended.

ZeroMQ accepts whatever connects, and has no call that ends one connection. A monitor of the socket reports each
connection with its file descriptor when it is accepted, and again before it is closed; to end one, its descriptor is
shut down. ZeroMQ then finds it closed by the peer, and frees it. docs/decisions/0013 has what was tried besides.

A connection is silent until something came on it that only a client sends: a Hello, or a subscription.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket as sockets_of_the_system
import struct
from collections.abc import Iterator

import msgspec
import zmq

from backtestr_protocol.zmq_frames import Origin, receive

# Reports that are read from the monitor at once.
_BURST = 1_000

_EVENT = struct.Struct("=hi")  # number of the event, descriptor
_ACCEPTED = int(zmq.EVENT_ACCEPTED)
_DISCONNECTED = int(zmq.EVENT_DISCONNECTED)

_addresses = map("inproc://connections-{}".format, itertools.count(1))


class _Connection(msgspec.Struct, frozen=True):
    """An accepted connection. `identity` tells its descriptor from a later one of the same number."""

    identity: object
    since: float


class Connections:
    """The connections to one socket, from before it is bound until `close`."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        socket: zmq.Socket[bytes],
        limit: int,
        patience: float,
        *,
        are_workers: bool = False,
    ) -> None:
        """Watch a socket that will have `limit` connections at most, and none that is silent for `patience` seconds.

        `are_workers`: those that came first are the broker's own workers, and stay.
        """
        self._are_workers = are_workers
        self.limit = limit
        self._ended = 0
        self._socket = socket
        self._patience = patience
        self._silent: dict[int, _Connection] = {}  # by descriptor, in the order in which they were accepted
        self._known: dict[int, _Connection] = {}
        address = next(_addresses)
        socket.monitor(address, _ACCEPTED | _DISCONNECTED)
        self.monitor = context.socket(zmq.PAIR)
        self.monitor.set(zmq.LINGER, 0)
        # ZeroMQ's thread would wait for room, and with it all connections. Each report is of a connection that was
        # made, and the event loop reads them first.
        self.monitor.set(zmq.RCVHWM, 0)
        self.monitor.connect(address)

    def __len__(self) -> int:
        return len(self._silent) + len(self._known)

    def heard(self, origin: Origin, now: float) -> None:
        """Take note that a client has sent a message of that origin: its connection is no longer silent."""
        descriptor, _name = origin
        if descriptor < 0:  # it came from within this process
            return
        self._read(now)
        if (connection := self._silent.pop(descriptor, None)) is not None:
            self._known[descriptor] = connection

    def sweep(self, now: float) -> int:
        """End connections that are silent for too long, and those beyond the limit; return how many.

        Beyond the limit those are ended that were silent longest, so that silent peers cannot keep a client out; where
        none is silent, or those are workers, the latest.
        """
        self._read(now)
        before = self._ended
        while self._silent:
            eldest = next(iter(self._silent))
            if len(self) <= self.limit and now - self._silent[eldest].since < self._patience:
                break
            self._end(next(reversed(self._silent)) if self._are_workers else eldest)
        while len(self) > self.limit:
            self._end(next(reversed(self._known)))
        return self._ended - before

    def shed(self, count: int) -> None:
        """End up to `count` connections, since descriptors are needed elsewhere: silent ones, the latest first."""
        for descriptor in list(reversed(self._silent))[:count]:
            self._end(descriptor)

    def take_ended(self) -> int:
        """Return how many connections were ended since the last call."""
        ended, self._ended = self._ended, 0
        return ended

    def close(self) -> None:
        """Watch no longer. The socket is closed next, and with it all connections."""
        self._socket.monitor(None, 0)
        self.monitor.close()

    def _read(self, now: float) -> None:
        for event, descriptor in self._reports():
            self._known.pop(descriptor, None)
            self._silent.pop(descriptor, None)
            if event == _ACCEPTED and (identity := _identity(descriptor)) is not None:
                self._silent[descriptor] = _Connection(identity, now)

    def _reports(self) -> Iterator[tuple[int, int]]:
        while reports := receive(self.monitor, _BURST):
            for report in reports:
                yield _EVENT.unpack(report[0])

    def _end(self, descriptor: int) -> None:
        """Shut a connection down. It was not closed when its last report was read, a moment ago."""
        connection = self._silent.pop(descriptor, None) or self._known.pop(descriptor)
        if _identity(descriptor) != connection.identity:  # closed, and its number may be of something else
            return
        self._ended += 1
        with contextlib.suppress(OSError), _borrowed(descriptor) as connected:  # the peer has gone
            connected.shutdown(sockets_of_the_system.SHUT_RDWR)


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[sockets_of_the_system.socket]:
    """Use a connection of ZeroMQ's, which closes it. Raises `OSError` for one that is closed."""
    borrowed = sockets_of_the_system.socket(fileno=descriptor)
    try:
        yield borrowed
    finally:
        borrowed.detach()


def _identity(descriptor: int) -> object | None:
    """Return what no later connection with that descriptor has; None for one that is closed.

    That is the inode, and the addresses of both ends where a socket is no file, as on Windows.
    """
    if (inode := _inode(descriptor)) is not None:
        return inode
    try:
        with _borrowed(descriptor) as connected:
            return connected.getsockname(), connected.getpeername()
    except OSError:
        return None


def _inode(descriptor: int) -> int | None:
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return None
