"""Complaints about messages that cannot be attributed to a request: so many, and no more, for each connection."""

from __future__ import annotations

from collections import OrderedDict

# Seconds between two about one connection (PROTOCOL.md, section 5).
INTERVAL = 1.0
# Connections whose last one is remembered; one that is forgotten may be complained about once more.
MAX_PEERS = 1024


class Complaints:
    def __init__(self) -> None:
        self._last: OrderedDict[bytes, float] = OrderedDict()  # by connection; who sent something bad last is last

    def may(self, peer: bytes, now: float) -> bool:
        """Whether the last complaint about this connection is long enough ago: then this is one, in answers and log."""
        last = self._last.pop(peer, None)
        due = last is None or now - last >= INTERVAL
        self._last[peer] = now if due or last is None else last
        if len(self._last) > MAX_PEERS:
            self._last.popitem(last=False)
        return due

    def check_invariants(self) -> None:
        assert len(self._last) <= MAX_PEERS
