"""Remember the Hellos that were taken, so that a message replay of one opens no session.

A Hello has no counter yet: it is known by its signature, which covers its id and its time. That time must be near the
broker's own, on both sides, so that only the Hellos of some minutes have to be remembered. Each client has a window of
its own. A window forgets by the time at which a Hello was made or came, whichever is earlier: one from the future
stays no longer than others, and no window ever refuses what was made after the latest Hello that it has forgotten.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict

from backtestr_protocol.errors import ReplayDetected, ValidationError

# Milliseconds by which the time of a Hello may differ from the broker's clock, as between the machines of a Kerberos
# realm. A client on the broker's machine has the same clock.
MAX_DIFFERENCE_MS = 300_000
# Hellos of one client that are remembered: of one that connects again three times a second, those of five minutes.
MAX_OF_CLIENT = 1024
# Hellos of all clients, some 15 MB. Beyond it the client that said Hello least recently is forgotten.
MAX_HELLOS = 65_536


class _Window:
    """The latest Hellos of one client, the earliest first."""

    __slots__ = ("_earliest", "_seen", "forgotten", "newest")

    def __init__(self, forgotten: float) -> None:
        self.forgotten = forgotten  # the time up to which Hellos were forgotten
        self.newest = forgotten
        self._seen: set[bytes] = set()
        self._earliest: list[tuple[float, bytes]] = []  # a heap

    def __len__(self) -> int:
        return len(self._seen)

    def __contains__(self, signature: bytes) -> bool:
        return signature in self._seen

    def add(self, signature: bytes, made: float) -> bool:
        """Remember a Hello; return True if another had to be forgotten for it."""
        self.newest = max(self.newest, made)
        self._seen.add(signature)
        heapq.heappush(self._earliest, (made, signature))
        if len(self._seen) <= MAX_OF_CLIENT:
            return False
        self.forgotten, forgotten = heapq.heappop(self._earliest)
        self._seen.remove(forgotten)
        return True

    def check_invariants(self) -> None:
        assert self._seen == {signature for _, signature in self._earliest}
        assert 0 < len(self._seen) <= MAX_OF_CLIENT
        assert self._earliest[0][0] >= self.forgotten
        assert self.newest == max(made for made, _ in self._earliest)


class Hellos:
    """The windows of all clients. Times are in milliseconds since the Unix epoch."""

    def __init__(self) -> None:
        self._windows: OrderedDict[str, _Window] = OrderedDict()  # the client that said Hello least recently first
        self._count = 0
        self._forgotten = -math.inf  # the latest of the Hellos of clients that were forgotten

    def take(self, client_id: str, signature: bytes, timestamp: float, wall_ms: int) -> None:
        """Take a Hello made at `timestamp`, at `wall_ms`.

        Raises `ReplayDetected` for one that was taken before, or that is too old to tell, and `ValidationError` for one
        from the future.
        """
        if timestamp > wall_ms + MAX_DIFFERENCE_MS:
            raise ValidationError(
                f"$.timestamp: this Hello is from {(timestamp - wall_ms) / 1000:.0f} s ahead of the broker's clock, "
                f"and {MAX_DIFFERENCE_MS // 1000} s are tolerated; set the clock of the client's or of the broker's "
                "machine",
                path="$.timestamp",
            )
        window = self._windows.get(client_id)
        forgotten = self._forgotten if window is None else window.forgotten
        seen = window is not None and signature in window
        if seen or timestamp <= forgotten or timestamp < wall_ms - MAX_DIFFERENCE_MS:
            raise ReplayDetected(
                "this Hello was taken before, or its timestamp is older than those that are remembered; "
                "make a new one, with a new id and the time it is now",
                timestamp=timestamp,
            )
        if window is None:
            window = self._windows[client_id] = _Window(self._forgotten)
        self._windows.move_to_end(client_id)
        if not window.add(signature, max(forgotten, min(timestamp, wall_ms))):
            self._count += 1
        if self._count > MAX_HELLOS:
            _, dropped = self._windows.popitem(last=False)
            self._count -= len(dropped)
            self._forgotten = max(self._forgotten, dropped.newest)

    def check_invariants(self) -> None:
        assert self._count == sum(len(window) for window in self._windows.values()) <= MAX_HELLOS
        for window in self._windows.values():
            window.check_invariants()
