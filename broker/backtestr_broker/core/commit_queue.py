"""Changes on their way to disk, and what waits for each of them.

    persist = commit_queue.issue(changes, pending)    # to the storage thread, in order
    commit_queue.committed(ticket)                    # -> what waited for that ticket and those before it
    commit_queue.failed(generation)                   # -> what waited for anything of that generation

A change may rest on one before it that is not on disk yet. So when a commit fails, every change issued before the core
learned of it fails too: it carries the same generation, and the storage thread refuses what is of a failed one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from backtestr_broker.core.clients.answers import Answer, RequestKey
from backtestr_protocol.errors import Busy

from .events import Persist
from .records import Change, StateRecord

# Tickets, and bytes of their changes, that may be on their way: a commit takes milliseconds, so this many means that
# the disk does not keep up, and memory must not make up for it.
MAX_UNCOMMITTED = 4096
MAX_UNCOMMITTED_BYTES = 64 << 20
# Milliseconds that a client is told to wait before it tries again.
RETRY_AFTER_MS = 100


class PendingBacktest(msgspec.Struct, frozen=True):
    """A backtest that is accepted once it is on disk."""

    backtest_id: str


class PendingAnswer(msgspec.Struct, frozen=True):
    """An answer that is sent once what it acknowledges is on disk."""

    request_key: RequestKey
    answer: Answer


class PendingState(msgspec.Struct, frozen=True):
    """A change of shared state, which takes effect, is published and is answered once it is on disk."""

    request_key: RequestKey
    answer: Answer
    record: StateRecord


class PendingSweep(msgspec.Struct, frozen=True):
    """A sweep that is accepted once it is on disk."""

    sweep_id: str


class SavedJobs(msgspec.Struct, frozen=True):
    """Jobs and sweeps whose records were written again.

    No request waits, but records that were not written are tried again.
    """

    backtest_ids: tuple[str, ...]
    sweep_ids: tuple[str, ...] = ()


class PendingPin(msgspec.Struct, frozen=True):
    """A pin or its end, which takes effect and is answered once it is on disk."""

    request_key: RequestKey
    answer: Answer
    backtest_id: str
    pinned: bool


class PendingDeletion(msgspec.Struct, frozen=True):
    """A batch of backtests, which are deleted once that is on disk."""

    batch: int


class DoneDeletions(msgspec.Struct, frozen=True):
    """Deletions whose files are gone; nothing waits, and the next start does again what was not written."""


Pending = (
    PendingBacktest
    | PendingSweep
    | PendingAnswer
    | PendingState
    | SavedJobs
    | PendingPin
    | PendingDeletion
    | DoneDeletions
)


_WITH_ANSWER = (PendingAnswer, PendingState, PendingPin)


class CommitQueue:
    """The answers and changes that wait for the disk, in the order in which they were issued."""

    def __init__(self) -> None:
        self.generation = 0
        self.fails = False  # the last commit did
        self._issued = 0
        self._done = 0
        self._pending: deque[tuple[int, int, Pending]] = deque()  # ticket, size, what waits for it
        self._bytes = 0

    def __len__(self) -> int:
        """Return the number of tickets and answers that wait."""
        return len(self._pending)

    def check_room(self, size: int = 0) -> None:
        """Raise `Busy` when no further change of that size may be issued."""
        if len(self._pending) >= MAX_UNCOMMITTED or (self._pending and self._bytes + size > MAX_UNCOMMITTED_BYTES):
            raise Busy(
                f"{len(self._pending)} changes are on their way to disk, as many as there can be; try again in "
                f"{RETRY_AFTER_MS} ms",
                retryAfterMs=RETRY_AFTER_MS,
            )

    def issue(self, changes: Sequence[Change], pending: Pending) -> Persist:
        """Send these changes to disk, all or none of them; `pending` is released when they are there."""
        self._issued += 1
        self._add(pending, sum(change.size for change in changes))
        return Persist(self._issued, self.generation, tuple(changes))

    def wait(self, pending: Pending) -> bool:
        """Release `pending` after everything that was issued before; return false when that is on disk already.

        Raises `Busy`.
        """
        if self._done == self._issued:
            return False
        self.check_room()
        self._add(pending, 0)
        return True

    def committed(self, ticket: int) -> list[Pending]:
        """Take the commit of everything up to that ticket; return what waited for it, in order."""
        self.fails = False
        self._done = max(self._done, ticket)
        return self._release(self._done)

    def failed(self, generation: int) -> list[Pending]:
        """Take the failure of a generation; return what waited for it, in order, or nothing if it is known."""
        if generation != self.generation:
            return []
        self.generation += 1
        self._done = self._issued
        released = self._release(self._issued)
        self.fails = self.fails or bool(released)
        return released

    def waiting_requests(self) -> list[RequestKey]:
        """Return the keys of the requests whose answers wait here; starts wait with the scheduler."""
        return [one.request_key for _, _, one in self._pending if isinstance(one, _WITH_ANSWER)]

    def pending(self) -> list[Pending]:
        """Return what waits, in order."""
        return [pending for _, _, pending in self._pending]

    def _add(self, pending: Pending, size: int) -> None:
        self._pending.append((self._issued, size, pending))
        self._bytes += size

    def _release(self, ticket: int) -> list[Pending]:
        released = []
        while self._pending and self._pending[0][0] <= ticket:
            _, size, pending = self._pending.popleft()
            self._bytes -= size
            released.append(pending)
        return released

    def check_invariants(self) -> None:
        assert 0 <= self._done <= self._issued
        assert self._bytes == sum(size for _, size, _ in self._pending)
        tickets = [ticket for ticket, _, _ in self._pending]
        assert tickets == sorted(tickets)
        assert set(tickets) == set(range(self._done + 1, self._issued + 1)), "a ticket is waited for by nothing"
