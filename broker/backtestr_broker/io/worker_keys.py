"""The CURVE keys with which the broker's own workers connect to it over TCP; new at every start.

Without Unix sockets the workers' socket is a port that every user of the machine can reach. A worker gets its pair
where it gets the signing key, on its lifeline, and nobody else has one.
"""

from __future__ import annotations

from zmq.utils import z85

from backtestr_protocol.keys import KeyPair, new_pair
from backtestr_protocol.worker_channel import WorkerCurve

_NAME = "(worker)"


class WorkerKeys:
    """The pair of the socket, and the pair that all workers of this start share."""

    def __init__(self) -> None:
        self.pair: KeyPair = new_pair()
        self._workers = new_pair()
        self._allowed = z85.decode(self._workers.public)

    def name_of(self, key: bytes, _address: str) -> str | None:
        """Return a name for the workers' key (32 bytes), and None for any other."""
        return _NAME if key == self._allowed else None

    def for_workers(self) -> WorkerCurve:
        """Return what a worker needs to connect."""
        return WorkerCurve(
            server_public_key=self.pair.public, public_key=self._workers.public, secret_key=self._workers.secret
        )
