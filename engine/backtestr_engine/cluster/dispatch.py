"""Decide which worker of a cluster gets which block of a span: a function of events, without clocks and connections.

    dispatch = Dispatch(first, count, size)
    dispatch.seen(addresses)                 # the workers that the scheduler has now
    for order in dispatch.take(): ...        # greet a worker, or give it a block
    dispatch.greeted(address, problems)      # one with problems gets no block
    dispatch.done(key)                       # the rows of a block are on disk
    dispatch.returned(key)                   # a block was not computed, for a reason that is not its own
    dispatch.killed(key)                     # it ended the worker that computed it

Each block goes to a certain worker, which has up to two: it computes one, and the next is on its way. So it is known
which block a lost worker was at. That one is halved, until the one unit is found that ends workers; the block behind it
is given to another worker as it is. A cluster does not say why a worker is gone, and one that was switched off is gone,
too; so a unit alone has more tries than on the broker's own workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

# The blocks that a worker has at a time.
DEPTH = 2
# The losses of workers by one unit alone after which it is a failed row.
MAX_LOSSES = 3
# How often a block may come back for want of bars or code before the sweep fails: they were sent each time.
MAX_RETURNS = 20


class UnitRange(msgspec.Struct):
    """A range of units, and what became of it so far."""

    first: int
    count: int
    losses: int = 0
    returns: int = 0
    is_suspect: bool = False
    """True if a worker was lost at it, or at a range that it is a half of."""


class Greet(msgspec.Struct, frozen=True):
    """The order to ask a worker what its results depend on."""

    address: str


class Give(msgspec.Struct, frozen=True):
    """The order to have a worker compute a block."""

    key: int
    address: str
    first: int
    count: int


Order = Greet | Give
Standing = Literal["new", "greeting", "accepted", "refused"]


class Dispatch:
    """One span: units [first, first + count), cut into blocks of `size` units for the workers of a cluster."""

    def __init__(self, first: int, count: int, size: int) -> None:
        self._size = size
        self._is_closed = False
        self._later: list[UnitRange] = []  # what a closed span does not give out any more
        self._left: deque[UnitRange] = deque([UnitRange(first, count)] if count else [])
        self._standing: dict[str, Standing] = {}
        self._queues: dict[str, deque[int]] = {}  # by accepted worker, its blocks in their order
        self._given: dict[int, tuple[str, UnitRange]] = {}
        self._numbered = 0
        self.refused: dict[str, list[str]] = {}
        self.fatal: list[UnitRange] = []  # units that end workers, whose rows are to be stored as failed

    # --- what the loop asks ---

    @property
    def is_done(self) -> bool:
        """True once every unit is done, or is in `fatal`, or belongs to a later span."""
        return not self._given and not self._left

    @property
    def accepted(self) -> int:
        """The number of workers that compute."""
        return sum(standing == "accepted" for standing in self._standing.values())

    @property
    def is_greeting(self) -> bool:
        """True while a worker has not answered yet whether it may compute."""
        return any(standing in ("new", "greeting") for standing in self._standing.values())

    def given(self, key: int) -> tuple[str, UnitRange] | None:
        """Return the worker and the units of a block; None for one that was taken back."""
        return self._given.get(key)

    def given_keys(self) -> list[int]:
        """Return the blocks that workers have."""
        return list(self._given)

    def left(self) -> list[tuple[int, int]]:
        """Return the ranges of units that are not done, in order, those being computed included."""
        ranges: list[tuple[int, int]] = []
        for piece in sorted(self._pieces(), key=lambda one: one.first):
            if ranges and sum(ranges[-1]) == piece.first:
                ranges[-1] = ranges[-1][0], ranges[-1][1] + piece.count
            else:
                ranges.append((piece.first, piece.count))
        return ranges

    def resize(self, size: int) -> None:
        """Cut blocks of so many units from now on."""
        self._size = size

    def close(self) -> None:
        """Give out no further block, but for those at which a worker was lost: what is left belongs to a later span.

        A later span would not know of the losses, and would never find the unit that ends workers.
        """
        self._is_closed = True
        self._later += [one for one in self._left if not one.is_suspect]
        self._left = deque(one for one in self._left if one.is_suspect)

    def _put_back(self, one: UnitRange) -> None:
        if self._is_closed and not one.is_suspect:
            self._later.append(one)
        else:
            self._left.appendleft(one)

    def take(self) -> list[Order]:
        """Return what is to be done now: each order once."""
        orders: list[Order] = []
        for address, standing in self._standing.items():
            if standing == "new":
                self._standing[address] = "greeting"
                orders.append(Greet(address))
        for depth in range(DEPTH):  # every worker has one before any has two
            for address, queue in self._queues.items():
                if self._left and len(queue) == depth and (depth == 0 or self._may_follow(queue)):
                    orders.append(self._give(address, queue))
        return orders

    def _may_follow(self, queue: deque[int]) -> bool:
        """Return false where the next block, or one of the queue, has lost a worker alone: it is tried with no other.

        A worker may end before it has said that the block before was done, and that one would be blamed.
        """
        return not self._left[0].losses and not any(self._given[key][1].losses for key in queue)

    def _give(self, address: str, queue: deque[int]) -> Give:
        front = self._left[0]
        if front.count <= self._size:
            piece = self._left.popleft()
        else:
            piece = UnitRange(front.first, self._size, is_suspect=front.is_suspect)
            rest = UnitRange(front.first + self._size, front.count - self._size, is_suspect=front.is_suspect)
            self._left[0] = rest
        self._numbered += 1
        self._given[self._numbered] = address, piece
        queue.append(self._numbered)
        return Give(self._numbered, address, piece.first, piece.count)

    # --- what comes back ---

    def seen(self, addresses: Iterable[str], known: Mapping[str, list[str]] | None = None) -> list[int]:
        """Take which workers there are; of those in `known` an answer is known. Return the blocks of those that left.

        The block that such a worker was at is halved.
        """
        there = set(addresses)
        taken_back: list[int] = []
        for address in [one for one in self._standing if one not in there]:
            del self._standing[address]
            self.refused.pop(address, None)
            for place, key in reversed(list(enumerate(self._queues.pop(address, ())))):
                taken_back.append(key)
                _, piece = self._given.pop(key)
                if place == 0:
                    self._lost(piece)
                else:
                    self._put_back(piece)
        for address in sorted(there - self._standing.keys()):
            self._standing[address] = "new"
            if known is not None and address in known:
                self._standing[address] = "greeting"
                self.greeted(address, known[address])
        return taken_back

    def greeted(self, address: str, problems: list[str]) -> None:
        """Take the answer of a worker: with `problems` it gets no block. One that has left meanwhile has none."""
        if self._standing.get(address) != "greeting":
            return
        if problems:
            self._standing[address] = "refused"
            self.refused[address] = problems
        else:
            self._standing[address] = "accepted"
            self._queues[address] = deque()

    def not_greeted(self, address: str) -> None:
        """Take that the answer of a worker is lost: if it is still there, it is greeted again."""
        if self._standing.get(address) == "greeting":
            self._standing[address] = "new"

    def refuse(self, address: str, problems: list[str]) -> list[int]:
        """Give a worker no further block, and return those that it has: they are given to others."""
        if address not in self._standing:
            return []
        self._standing[address] = "refused"
        self.refused[address] = problems
        keys = list(self._queues.pop(address, ()))
        for key in reversed(keys):
            self._put_back(self._given.pop(key)[1])
        return keys

    def done(self, key: int) -> None:
        """Take that the rows of a block are on disk."""
        self._take_back(key)

    def returned(self, key: int) -> bool:
        """Take back a block that was not computed; return false if that has happened to it too often."""
        piece = self._take_back(key)
        piece.returns += 1
        self._put_back(piece)
        return piece.returns <= MAX_RETURNS

    def killed(self, key: int) -> None:
        """Take that a block ended the worker that it was given to."""
        self._lost(self._take_back(key))

    def _take_back(self, key: int) -> UnitRange:
        address, piece = self._given.pop(key)
        if address in self._queues:
            self._queues[address].remove(key)
        return piece

    def _lost(self, piece: UnitRange) -> None:
        if piece.count > 1:
            half = piece.count // 2
            self._put_back(UnitRange(piece.first + half, piece.count - half, is_suspect=True))
            self._put_back(UnitRange(piece.first, half, is_suspect=True))
            return
        piece.losses += 1
        piece.is_suspect = True
        if piece.losses >= MAX_LOSSES:
            self.fatal.append(piece)
        else:
            self._put_back(piece)

    def forget_workers(self) -> None:
        """Take back all blocks, and forget all workers: the scheduler was lost, and says of none of them any more."""
        for _, piece in reversed(self._given.values()):
            self._put_back(piece)
        self._given.clear()
        self._queues.clear()
        self._standing.clear()
        self.refused.clear()

    def _pieces(self) -> list[UnitRange]:
        return [*self._left, *self._later, *(piece for _, piece in self._given.values())]

    def check_invariants(self) -> None:
        queued = [key for queue in self._queues.values() for key in queue]
        assert sorted(queued) == sorted(self._given), "a block is at no worker, or at two"
        assert all(len(queue) <= DEPTH for queue in self._queues.values())
        assert {address for address, one in self._standing.items() if one == "accepted"} == self._queues.keys()
        pieces = sorted([*self._pieces(), *self.fatal], key=lambda one: one.first)
        ends = [one.first + one.count for one in pieces]
        assert all(end <= one.first for end, one in zip(ends, pieces[1:], strict=False)), "a unit is left twice"
