"""Cut a sweep into blocks: which units are left, how many a worker takes at a time, and what follows a lost worker.

What is left is a list of ranges of units, from whose front blocks are taken; a block that comes back goes there again.
A block whose worker was lost is halved, until the one unit is found that ends workers.

Where a cluster computes, blocks are spans: so many units that all its workers together have a second of work, for one
worker here to cut up for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from backtestr_protocol.sweep_messages import MAX_BLOCK
from backtestr_protocol.sweep_tasks import MAX_SPAN

# Seconds of work in a block: a task costs some 2 ms, and a backtest that a person starts waits for a block to end.
BLOCK_SECONDS = 0.25
# Of work of a whole cluster in a span: its workers have some blocks each, so that few of them wait for its end.
SPAN_SECONDS = 1.0
# Of the first block, whose speed is a guess, and by how much a block may be longer than the one before it.
FIRST_SECONDS = 0.05
# Of the blocks of a batch of trials, which all workers wait for: they share it, though a task costs some 2 ms.
BATCHED_SECONDS = 0.02
MAX_GROWTH = 4
# The weight of the latest block in the measured speed.
SMOOTHING = 0.3
# Losses by one unit alone that do not make it the one that ends workers yet; and kills of a block before it is halved.
MAX_LOSSES = 1
MAX_KILLED = 3
# A block may take so many times what was expected, and so many milliseconds at least, before it is ended with its
# worker: it may have to compile first. A unit alone has the time limit of a backtest.
PATIENCE = 40.0
LEAST_LIMIT_MS = 60_000


class Block:
    """A range of units for one worker, and the losses of workers by it so far."""

    __slots__ = ("count", "first", "killed", "losses", "reason")

    def __init__(self, first: int, count: int, losses: int = 0, killed: int = 0, reason: str | None = None) -> None:
        self.first = first
        self.count = count
        self.losses = losses
        self.killed = killed
        self.reason = reason  # for which its one unit is a failed row

    def lost(self, reason: str, *, killed: bool) -> list[Block]:
        """Return what takes its place after the loss of its worker: itself, its halves, or a row that has failed.

        A kill from outside says little of the block, so it is halved only when it is killed again and again.
        """
        losses, kills = self.losses + (not killed), self.killed + killed
        if self.reason is not None or (losses == 0 and kills < MAX_KILLED):
            return [Block(self.first, self.count, losses, kills, self.reason)]
        if self.count > 1:
            half = self.count // 2
            return [Block(self.first, half), Block(self.first + half, self.count - half)]
        if losses > MAX_LOSSES or kills >= MAX_KILLED:
            return [Block(self.first, 1, reason=f"it ended the worker that computed it: {reason}")]
        return [Block(self.first, 1, losses, kills)]


class BlockPlan:
    """The blocks of one sweep of `units`: those that are left, and by worker those that are being computed."""

    def __init__(
        self, units: int, unit_seconds: float, size: int | None, *, in_spans: bool = False, batch: int | None = None
    ) -> None:
        """Take how long a unit takes as a rule, and the `size` of blocks if it is not to follow from the speed.

        In spans a `size` is that of the blocks that they are cut into. Units that come in batches of `batch` are not
        known before their batch is proposed, which follows from all units before it.
        """
        self.units = units
        self.proposed = units if batch is None else 0  # units that are known
        self._batch = batch
        self.units_left = units  # those being computed included
        self.unit_seconds = max(unit_seconds, 1e-9)
        self.in_flight: dict[str, Block] = {}
        self._size = size
        self._left: deque[Block] = deque([Block(0, units)] if units else [])
        self._in_spans = in_spans
        self._most = MAX_SPAN if in_spans else MAX_BLOCK
        self._workers = 1  # that compute a span together
        self._largest = max(1, min(self._most, round(FIRST_SECONDS / self.unit_seconds)))
        self.is_measured = False

    def has_left(self) -> bool:
        """Return true if there is a block for a worker."""
        return bool(self._left) and self._left[0].first < self.proposed

    def next_batch(self) -> int | None:
        """Return the number of the batch that can be proposed now; None while others of its units are left."""
        if self._batch is None or self.proposed == self.units or self.units_left > self.units - self.proposed:
            return None
        return self.proposed // self._batch

    def take_proposed(self, units: int) -> None:
        """Take that so many units are known."""
        self.proposed = max(self.proposed, min(units, self.units))

    def take(self, worker_id: str) -> Block:
        """Return the next block, for that worker."""
        front = self._left[0]
        count = min(front.count, self._next_size(), self.proposed - front.first)
        if count == front.count:
            block = self._left.popleft()
        else:
            block = Block(front.first, count, front.losses, front.killed)
            self._left[0] = Block(front.first + count, front.count - count, front.losses, front.killed)
        self.in_flight[worker_id] = block
        return block

    def _next_size(self) -> int:
        seconds = SPAN_SECONDS * self._workers if self._in_spans else BLOCK_SECONDS
        if self._batch is not None:
            seconds = BATCHED_SECONDS
        by_speed = max(1, min(self._largest, self._most, round(seconds / self.unit_seconds)))
        if self._size is None:
            return by_speed
        return min(self._most, max(by_speed, self._size * self._workers)) if self._in_spans else self._size

    def limit_ms(self, block: Block) -> int | None:
        """Return how long a block may take; None for a unit alone."""
        if block.count == 1:
            return None
        return max(LEAST_LIMIT_MS, round(1000 * PATIENCE * self.unit_seconds * block.count))

    def finished(self, worker_id: str, seconds: float) -> None:
        """Take the end of the block that a worker had, on which it spent so many seconds."""
        block = self.in_flight.pop(worker_id)
        self.units_left -= block.count
        if block.reason is None:
            self._measure(block.count, seconds)

    def finished_but(self, worker_id: str, left: Iterable[tuple[int, int]], seconds: float, workers: int) -> None:
        """Take the end of a span, on which `workers` spent so many seconds added up, but for ranges that are `left`."""
        span = self.in_flight.pop(worker_id)
        again = [Block(first, count) for first, count in left]
        done = span.count - sum(block.count for block in again)
        self.units_left -= done
        self._left.extendleft(reversed(again))
        self._workers = max(1, workers)
        if span.reason is None and done:
            self._measure(done, seconds)

    def _measure(self, count: int, seconds: float) -> None:
        if seconds <= 0.0:
            return
        measured = max(seconds / count, 1e-9)
        self.unit_seconds += (SMOOTHING if self.is_measured else 1.0) * (measured - self.unit_seconds)
        self.is_measured = True
        self._largest = max(self._largest, min(self._most, MAX_GROWTH * count))

    def gave_back(self, worker_id: str) -> None:
        """Take back the block of a worker that could not compute it."""
        self._left.appendleft(self.in_flight.pop(worker_id))

    def lost(self, worker_id: str, reason: str, *, killed: bool) -> None:
        """Take the loss of a worker that had a block."""
        self._left.extendleft(reversed(self.in_flight.pop(worker_id).lost(reason, killed=killed)))

    def surveyed(self, done: Iterable[tuple[int, int]], seconds: float) -> None:
        """Take which ranges of units, as (first, count) in order, are done: what is left is between them."""
        assert not self.in_flight
        self._left.clear()
        self.units_left, at = 0, 0
        for first, count in (*done, (self.units, 1)):
            if at < min(first, self.units):
                self._left.append(Block(at, min(first, self.units) - at))
                self.units_left += self._left[-1].count
            at = max(at, first + count)
        if seconds > 0.0 and self.units > self.units_left:
            self.unit_seconds = max(seconds / (self.units - self.units_left), 1e-9)

    def check_invariants(self) -> None:
        blocks = sorted((*self._left, *self.in_flight.values()), key=lambda block: block.first)
        assert all(block.count >= 1 for block in blocks)
        ends = [block.first + block.count for block in blocks]
        starts = [block.first for block in blocks[1:]]
        assert all(end <= start for end, start in zip(ends, starts, strict=False)), "a unit is left twice"
        assert sum(block.count for block in blocks) == self.units_left, "a unit is neither done nor left"
        assert not ends or ends[-1] <= self.units
        assert all(block.first + block.count <= self.proposed for block in self.in_flight.values()), "not proposed"
