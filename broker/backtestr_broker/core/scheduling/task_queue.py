"""A bounded queue of tasks: by priority, then from each client in turn, then by arrival.

    A A A A A A B C C   →   A B C A C A A A A

So a thousand tasks of one client delay another client's one task by one task. A priority that was passed over for
`MAX_PASSED` tasks of higher ones is next, so that interactive work slows background work and never stops it. The bound
leaves space for clients that have few tasks queued. A backtest that is to be paused before its first bar needs room to
park, and one with a pace needs room to lend its worker: each goes only to a worker that has that.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Collection
from typing import Literal, NamedTuple

from backtestr_protocol.errors import Busy
from backtestr_protocol.message_types import PRIORITIES, Priority

# Milliseconds that a client is told to wait before it tries again.
RETRY_AFTER_MS = 1000
# A client may queue while it has fewer tasks than this many times the free space: alone it gets four fifths of the
# queue, two that want all get four ninths each, and space is left for a client that has nothing queued (Choudhury and
# Hahne's dynamic thresholds, as packet switches share their memory).
SHARE = 4
# Tasks of higher priorities that are taken while one of a lower priority waits: then that has its turn. So a flood of
# interactive work leaves a ninth of the turns to a lower priority, and a task of it waits for a known number of tasks.
# A time would bound nothing: tasks have any length.
MAX_PASSED = 8

# The room that a task needs beside the tasks that its worker has: none, room to park, or room to lend the worker.
Room = Literal["none", "to park", "to lend"]
ROOMS: tuple[Room, ...] = ("none", "to park", "to lend")


class _QueuedTask(NamedTuple):
    priority: Priority
    client_id: str
    order: int  # of arrival; below zero for a task that came back
    to_park: bool
    paced: bool

    @property
    def room(self) -> Room:
        """The room that it needs; one that is to be parked takes no other until it is resumed."""
        return "to park" if self.to_park else "to lend" if self.paced else "none"


class _ClientQueue:
    """One client's tasks of one priority: for each room that they need a list of (order, task id), each in order.

    A list of ten thousand moves up in a microsecond or two when its first leaves.
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[Room, list[tuple[int, str]]] = {room: [] for room in ROOMS}

    def __bool__(self) -> bool:
        return any(self._entries.values())

    def of(self, room: Room) -> list[tuple[int, str]]:
        return self._entries[room]

    def first(self, rooms: Collection[Room]) -> str | None:
        """Return the first task that needs one of these rooms."""
        firsts = [entries[0] for room in rooms if (entries := self._entries[room])]
        return min(firsts)[1] if firsts else None


class TaskQueue:
    """The tasks that wait for a worker, at most `bound` of them."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self._tasks: dict[str, _QueuedTask] = {}
        self._counts: dict[str, int] = {}  # by client, of all classes
        # The client that is first in turn stands first.
        self._turns: dict[Priority, OrderedDict[str, _ClientQueue]] = {
            priority: OrderedDict() for priority in PRIORITIES
        }
        # Tasks of higher priorities that were taken since one of this priority was, while one could have been.
        self._passed: dict[Priority, int] = dict.fromkeys(PRIORITIES, 0)
        self._arrived = 0
        self._came_back = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def waiting(self, client_id: str) -> int:
        """Return the number of queued tasks of that client."""
        return self._counts.get(client_id, 0)

    def check_room(self, client_id: str, admitted: int = 0, own: int = 0) -> None:
        """Raise `Busy` when a push would be refused, had the `admitted` tasks come, `own` of them of this client."""
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
        """Add a task. Raises `Busy` when the queue is full, or the client has its share of it."""
        self.check_room(client_id)
        self.push_admitted(task_id, priority, client_id)

    def push_admitted(
        self, task_id: str, priority: Priority, client_id: str, to_park: bool = False, paced: bool = False
    ) -> None:
        """Add a task that was admitted before, also by an earlier broker: the bound does not refuse it."""
        self._arrived += 1
        self._add(task_id, _QueuedTask(priority, client_id, self._arrived, to_park, paced))

    def push_front(
        self, task_id: str, priority: Priority, client_id: str, to_park: bool = False, paced: bool = False
    ) -> None:
        """Put back a task that was taken before: it is the first of its client, and the client is first in turn.

        The bound does not refuse it: it was counted before.
        """
        self._came_back += 1
        self._add(task_id, _QueuedTask(priority, client_id, -self._came_back, to_park, paced))
        self._turns[priority].move_to_end(client_id, last=False)

    def _add(self, task_id: str, task: _QueuedTask) -> None:
        assert task_id not in self._tasks, f"{task_id} is queued twice"
        self._tasks[task_id] = task
        self._counts[task.client_id] = self.waiting(task.client_id) + 1
        queue = self._turns[task.priority].setdefault(task.client_id, _ClientQueue())
        insort(queue.of(task.room), (task.order, task_id))

    def pop(self, can_park: bool = True, can_lend: bool = True) -> str | None:
        """Take the next task, or None; without `can_park`, the next that does not need room to park.

        Without `can_lend` it is the next that does not need room to lend its worker. Only the first tasks of each
        client are looked at, and no client of a priority after the first that has one.
        """
        has: dict[Room, bool] = {"none": True, "to park": can_park, "to lend": can_lend}
        rooms = [room for room in ROOMS if has[room]]
        able = [one for priority in PRIORITIES if (one := self._first(priority, rooms)) is not None]
        if not able:
            return None
        priority, client_id, task_id = able[0]
        longest = max((one[0] for one in able), key=self._passed.__getitem__)
        if self._passed[longest] >= MAX_PASSED:
            priority, client_id, task_id = next(one for one in able if one[0] == longest)
        for lower, *_ in able:
            if PRIORITIES.index(lower) > PRIORITIES.index(priority):
                self._passed[lower] += 1
        self._passed[priority] = 0
        turns = self._turns[priority]
        self.remove(task_id)
        if client_id in turns:
            turns.move_to_end(client_id)
        return task_id

    def _first(self, priority: Priority, rooms: Collection[Room]) -> tuple[Priority, str, str] | None:
        """Return a priority, the client that is first in turn among its tasks that could be taken, and that task."""
        for client_id, queue in self._turns[priority].items():
            if (task_id := queue.first(rooms)) is not None:
                return priority, client_id, task_id
        return None

    def set_to_park(self, task_id: str, to_park: bool) -> None:
        """Have a queued task need room to park, or not; it keeps its position."""
        task = self._tasks[task_id]
        if task.to_park == to_park:
            return
        queue = self._turns[task.priority][task.client_id]
        _take(queue.of(task.room), (task.order, task_id))
        task = self._tasks[task_id] = task._replace(to_park=to_park)
        insort(queue.of(task.room), (task.order, task_id))

    def is_to_park(self, task_id: str) -> bool:
        """Return true if the task needs room to park."""
        return self._tasks[task_id].to_park

    def room(self, task_id: str) -> Room:
        """Return the room that a queued task needs."""
        return self._tasks[task_id].room

    def remove(self, task_id: str) -> None:
        """Remove a task, if it is queued."""
        task = self._tasks.pop(task_id, None)
        if task is None:
            return
        turns = self._turns[task.priority]
        queue = turns[task.client_id]
        _take(queue.of(task.room), (task.order, task_id))
        if not queue:
            del turns[task.client_id]
        if not turns:
            self._passed[task.priority] = 0  # whoever comes next has not waited
        self._counts[task.client_id] -= 1
        if not self._counts[task.client_id]:
            del self._counts[task.client_id]

    def check_invariants(self) -> None:
        counts: dict[str, int] = {}
        found = 0
        for priority, turns in self._turns.items():
            for client_id, queue in turns.items():
                assert queue, f"{client_id} is in turn and has no task"
                for room in ROOMS:
                    entries = queue.of(room)
                    assert entries == sorted(entries), "a client's tasks are out of order"
                    for order, task_id in entries:
                        task = self._tasks[task_id]
                        assert (task.priority, task.client_id, task.order, task.room) == (
                            *(priority, client_id, order),
                            room,
                        )
                        counts[client_id] = counts.get(client_id, 0) + 1
                    assert len({task_id for _, task_id in entries}) == len(entries), "a task is queued twice"
                    found += len(entries)
            assert turns or not self._passed[priority], f"{priority} was passed over and has no task"
            assert self._passed[priority] < MAX_PASSED + len(PRIORITIES), f"{priority} starves"
        assert found == len(self._tasks), "a task is in no queue, or in two"
        assert counts == self._counts


def _take(entries: list[tuple[int, str]], entry: tuple[int, str]) -> None:
    """Remove an entry of the list."""
    index = bisect_left(entries, entry)
    assert entries[index] == entry
    del entries[index]
