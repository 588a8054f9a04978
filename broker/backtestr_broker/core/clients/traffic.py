"""What each client has asked for since it came: counters for people, bounded by forgetting who was quiet longest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from backtestr_protocol.message_types import PRIORITIES, Priority

# As many as may have a session. One that is forgotten and comes back is counted from zero.
MAX_COUNTED = 1024


class Counters:
    """One client's requests by priority class, duplicates among them, and those that were refused."""

    __slots__ = ("busy", "requests", "throttled")

    def __init__(self) -> None:
        self.requests: dict[Priority, int] = dict.fromkeys(PRIORITIES, 0)
        self.throttled = 0
        self.busy = 0

    @property
    def total(self) -> int:
        return sum(self.requests.values())


class Traffic:
    def __init__(self) -> None:
        self._clients: OrderedDict[str, Counters] = OrderedDict()  # the longest quiet first

    def of(self, client_id: str) -> Counters:
        """The counters of a client that asks for something now."""
        counters = self._clients.get(client_id)
        if counters is None:
            if len(self._clients) >= MAX_COUNTED:
                self._clients.popitem(last=False)
            counters = self._clients[client_id] = Counters()
        self._clients.move_to_end(client_id)
        return counters

    def __iter__(self) -> Iterator[tuple[str, Counters]]:
        return iter(self._clients.items())

    def check_invariants(self) -> None:
        assert len(self._clients) <= MAX_COUNTED
