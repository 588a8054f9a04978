"""Which task goes next: by priority class, real-time before bulk; within a class from each client in turn; within a
client by arrival. Bounded, with room kept for who has little in it.

    A A A A A A B C C   →   A B C A C A A A A

So one client's thousand tasks delay another's one by one task. A task may be held: it goes only to who has room for it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from typing import NamedTuple

from backtestr_protocol.errors import Busy
from backtestr_protocol.message_types import PRIORITIES, Priority

# What a client is told to wait before it tries again.
RETRY_AFTER_MS = 1000
# A client may queue while it has fewer than this many times what is free: alone it gets four fifths of the queue, two
# that want all get four ninths each, and a place is left for whoever comes with nothing in it (Choudhury and Hahne's
# dynamic thresholds, as packet switches share their memory).
SHARE = 4


class _Place(NamedTuple):
    priority: Priority
    client_id: str
    order: int  # of arrival; below zero for what came back
    held: bool


class _Line:
    """One client's tasks of one class, each list in order: (order, task id). A list of ten thousand moves up in a
    microsecond or two when its first leaves."""

    __slots__ = ("free", "held")

    def __init__(self) -> None:
        self.free: list[tuple[int, str]] = []
        self.held: list[tuple[int, str]] = []

    def of(self, held: bool) -> list[tuple[int, str]]:
        return self.held if held else self.free

    def first(self, with_held: bool) -> str | None:
        if with_held and self.held and (not self.free or self.held[0] < self.free[0]):
            return self.held[0][1]
        return self.free[0][1] if self.free else None


class TaskQueue:
    def __init__(self, bound: int) -> None:
        self.bound = bound
        self._places: dict[str, _Place] = {}
        self._counts: dict[str, int] = {}  # by client, of all classes
        # The client whose turn it is first.
        self._turns: dict[Priority, OrderedDict[str, _Line]] = {priority: OrderedDict() for priority in PRIORITIES}
        self._arrived = 0
        self._came_back = 0

    def __len__(self) -> int:
        return len(self._places)

    def waiting(self, client_id: str) -> int:
        """How many tasks of that client are queued."""
        return self._counts.get(client_id, 0)

    def check_room(self, client_id: str, admitted: int = 0, own: int = 0) -> None:
        """Raises `Busy` when a push would be refused, had those that are `admitted` already come, `own` of them of this
        client."""
        taken = len(self) + admitted
        if taken >= self.bound:
            raise Busy(
                f"{self.bound} tasks are queued, the most there can be; try again in {RETRY_AFTER_MS} ms",
                retryAfterMs=RETRY_AFTER_MS,
            )
        own += self.waiting(client_id)
        if own >= SHARE * (self.bound - taken):
            raise Busy(
                f"{own} of the {taken} queued tasks are this client's, and the {self.bound - taken} places left are "
                f"kept for others; try again in {RETRY_AFTER_MS} ms",
                retryAfterMs=RETRY_AFTER_MS,
            )

    def push(self, task_id: str, priority: Priority, client_id: str) -> None:
        """Raises `Busy` when the queue is full, or the client has its share of it."""
        self.check_room(client_id)
        self.push_admitted(task_id, priority, client_id)

    def push_admitted(self, task_id: str, priority: Priority, client_id: str, held: bool = False) -> None:
        """Add what was let in before, when there was room, or by an earlier broker: the bound does not refuse it."""
        self._arrived += 1
        self._add(task_id, _Place(priority, client_id, self._arrived, held))

    def push_front(self, task_id: str, priority: Priority, client_id: str, held: bool = False) -> None:
        """Put back what was taken before: it had been counted and had its turn, so the bound does not refuse it, it is
        the first of its client, and the next turn is that client's."""
        self._came_back += 1
        self._add(task_id, _Place(priority, client_id, -self._came_back, held))
        self._turns[priority].move_to_end(client_id, last=False)

    def _add(self, task_id: str, place: _Place) -> None:
        assert task_id not in self._places, f"{task_id} is queued twice"
        self._places[task_id] = place
        self._counts[place.client_id] = self.waiting(place.client_id) + 1
        line = self._turns[place.priority].setdefault(place.client_id, _Line())
        insort(line.of(place.held), (place.order, task_id))

    def pop(self, with_held: bool = True) -> str | None:
        """Take the next task, or the next that is not held; None when there is none. Looks at no task but the first of
        each client, and at no further client than the first that has one."""
        for turns in self._turns.values():
            for client_id, line in turns.items():
                if (task_id := line.first(with_held)) is not None:
                    self.remove(task_id)
                    if client_id in turns:
                        turns.move_to_end(client_id)
                    return task_id
        return None

    def hold(self, task_id: str, held: bool) -> None:
        """Hold a queued task, or let it go; it keeps its place."""
        place = self._places[task_id]
        if place.held == held:
            return
        line = self._turns[place.priority][place.client_id]
        _take(line.of(place.held), (place.order, task_id))
        insort(line.of(held), (place.order, task_id))
        self._places[task_id] = place._replace(held=held)

    def is_held(self, task_id: str) -> bool:
        return self._places[task_id].held

    def remove(self, task_id: str) -> None:
        place = self._places.pop(task_id, None)
        if place is None:
            return
        turns = self._turns[place.priority]
        line = turns[place.client_id]
        _take(line.of(place.held), (place.order, task_id))
        if not line.free and not line.held:
            del turns[place.client_id]
        self._counts[place.client_id] -= 1
        if not self._counts[place.client_id]:
            del self._counts[place.client_id]

    def check_invariants(self) -> None:
        counts: dict[str, int] = {}
        found: dict[str, _Place] = {}
        for priority, turns in self._turns.items():
            for client_id, line in turns.items():
                assert line.free or line.held, f"{client_id} has a turn and nothing to do in it"
                for held in (False, True):
                    entries = line.of(held)
                    assert entries == sorted(entries), "a client's tasks are out of order"
                    for order, task_id in entries:
                        assert task_id not in found, "a task is queued twice"
                        found[task_id] = _Place(priority, client_id, order, held)
                        counts[client_id] = counts.get(client_id, 0) + 1
        assert found == self._places
        assert counts == self._counts


def _take(entries: list[tuple[int, str]], entry: tuple[int, str]) -> None:
    """Remove an entry that is there."""
    index = bisect_left(entries, entry)
    assert entries[index] == entry
    del entries[index]
