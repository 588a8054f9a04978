"""Which task goes next: first by priority class, real-time before bulk, then by arrival. Bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from backtestr_protocol.errors import Busy
from backtestr_protocol.messages import PRIORITIES, Priority

# What a client is told to wait before it tries again.
RETRY_AFTER_MS = 1000


class TaskQueue:
    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._classes: dict[Priority, OrderedDict[str, None]] = {priority: OrderedDict() for priority in PRIORITIES}

    def __len__(self) -> int:
        return sum(map(len, self._classes.values()))

    def check_room(self, admitted: int = 0) -> None:
        """Raises `Busy` when a push would be refused, had those that are `admitted` already come."""
        if len(self) + admitted >= self._bound:
            raise Busy(
                f"{self._bound} tasks are queued, the most there can be; try again in {RETRY_AFTER_MS} ms",
                retryAfterMs=RETRY_AFTER_MS,
            )

    def push(self, task_id: str, priority: Priority) -> None:
        """Raises `Busy` when the queue is full."""
        self.check_room()
        self._classes[priority][task_id] = None

    def push_admitted(self, task_id: str, priority: Priority) -> None:
        """Add what was let in before, when there was room, or by an earlier broker: the bound does not refuse it."""
        self._classes[priority][task_id] = None

    def push_front(self, task_id: str, priority: Priority) -> None:
        """Put back what was taken before: it was counted when it came, so the bound does not refuse it."""
        self._classes[priority][task_id] = None
        self._classes[priority].move_to_end(task_id, last=False)

    def pop(self, may_go: Callable[[str], bool] = lambda _task_id: True) -> str | None:
        """Take the first that `may_go`; None when there is none."""
        for waiting in self._classes.values():
            for task_id in waiting:
                if may_go(task_id):
                    del waiting[task_id]
                    return task_id
        return None

    def remove(self, task_id: str) -> None:
        for waiting in self._classes.values():
            waiting.pop(task_id, None)

    def check_invariants(self) -> None:
        ids = [task_id for waiting in self._classes.values() for task_id in waiting]
        assert len(ids) == len(set(ids)), "a task is queued twice"
