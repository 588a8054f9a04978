"""Changes on their way to disk, and what waits for them. Nothing waits elsewhere, and nothing is released early.

    persist = ledger.issue(changes, held)     # to the storage thread, in order
    ledger.committed(ticket)                  # -> what waited for that ticket and those before it
    ledger.failed(generation)                 # -> what waited for anything of that generation

A change may rest on one before it that is not on disk yet. So when a commit fails, every change issued before the core
heard of it fails too: it carries the same generation, and the storage thread refuses what is of a failed one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from backtestr_broker.core.clients.idempotency import Answer, RequestKey
from backtestr_protocol.errors import Busy

from .events import Persist
from .records import Change, StateRecord

# Tickets, and bytes of their changes, that may be on their way: a commit takes milliseconds, so this many means that
# the disk does not keep up, and memory must not make up for it.
MAX_UNCOMMITTED = 4096
MAX_UNCOMMITTED_BYTES = 64 << 20
# What a client is told to wait before it tries again.
RETRY_AFTER_MS = 100


class PendingBacktest(msgspec.Struct, frozen=True):
    """A backtest that is accepted once it is on disk."""

    backtest_id: str


class PendingAnswer(msgspec.Struct, frozen=True):
    """An answer that is given once what it says is on disk."""

    request_key: RequestKey
    answer: Answer


class PendingState(msgspec.Struct, frozen=True):
    """A change of shared state, which takes effect, is published and is answered once it is on disk."""

    request_key: RequestKey
    answer: Answer
    record: StateRecord


class SavedJobs(msgspec.Struct, frozen=True):
    """Backtests whose records were written again; nobody waits, but what could not be written is to be tried again."""

    backtest_ids: tuple[str, ...]


Pending = PendingBacktest | PendingAnswer | PendingState | SavedJobs


class CommitQueue:
    def __init__(self) -> None:
        self.generation = 0
        self.fails = False  # the last commit did
        self._issued = 0
        self._done = 0
        self._held: deque[tuple[int, int, Pending]] = deque()  # ticket, size, what waits for it
        self._bytes = 0

    def __len__(self) -> int:
        """How much is held."""
        return len(self._held)

    def check_room(self, size: int = 0) -> None:
        """Raises `Busy` when no further change of that size may be issued."""
        if len(self._held) >= MAX_UNCOMMITTED or (self._held and self._bytes + size > MAX_UNCOMMITTED_BYTES):
            raise Busy(
                f"{len(self._held)} changes are on their way to disk, as many as there can be; try again in "
                f"{RETRY_AFTER_MS} ms",
                retryAfterMs=RETRY_AFTER_MS,
            )

    def issue(self, changes: Sequence[Change], held: Pending) -> Persist:
        """Send these changes to disk, all or none of them; `held` is released when they are there."""
        self._issued += 1
        self._hold(held, sum(change.size for change in changes))
        return Persist(self._issued, self.generation, tuple(changes))

    def wait(self, held: Pending) -> bool:
        """Release `held` after everything that was issued before; False when all of that is on disk already. Raises
        `Busy`."""
        if self._done == self._issued:
            return False
        self.check_room()
        self._hold(held, 0)
        return True

    def committed(self, ticket: int) -> list[Pending]:
        """Everything up to that ticket is on disk: what waited for it, in order."""
        self.fails = False
        self._done = max(self._done, ticket)
        return self._release(self._done)

    def failed(self, generation: int) -> list[Pending]:
        """Nothing of that generation will get to disk any more: what waited for it, in order; nothing for old news."""
        if generation != self.generation:
            return []
        self.generation += 1
        self._done = self._issued
        released = self._release(self._issued)
        self.fails = self.fails or bool(released)
        return released

    def _hold(self, held: Pending, size: int) -> None:
        self._held.append((self._issued, size, held))
        self._bytes += size

    def _release(self, ticket: int) -> list[Pending]:
        released = []
        while self._held and self._held[0][0] <= ticket:
            _, size, held = self._held.popleft()
            self._bytes -= size
            released.append(held)
        return released

    def check_invariants(self) -> None:
        assert 0 <= self._done <= self._issued
        assert self._bytes == sum(size for _, size, _ in self._held)
        tickets = [ticket for ticket, _, _ in self._held]
        assert tickets == sorted(tickets)
        assert all(self._done < ticket <= self._issued for ticket in tickets), "something waits for what is done"
