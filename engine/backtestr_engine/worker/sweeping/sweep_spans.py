"""The tasks of sweeps on a cluster: a span of units, which this worker cuts into blocks for the workers of the cluster.

The rows of a block are stored here as it comes back, before it counts. What becomes of which block, `cluster.dispatch`
says; this file asks the cluster, and waits.
"""

from __future__ import annotations

import inspect
import io
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec
import polars as pl

from backtestr_engine.algorithms.algorithm import Algorithm, version_of
from backtestr_engine.cluster.dispatch import Dispatch, Give, Greet
from backtestr_engine.cluster.fingerprint import differences, digest
from backtestr_engine.cluster.io.dask_link import (
    DaskLink,
    Function,
    Killed,
    LinkEvent,
    LinkLost,
    Returned,
    Vanished,
    check_reachable,
)
from backtestr_engine.cluster.io.process_facts import process_facts
from backtestr_engine.cluster.messages import (
    ClusterBlock,
    ComputedBlock,
    Greeted,
    Greeting,
    SentBars,
    SentSource,
    Supplies,
)
from backtestr_engine.data.bars import COLUMNS
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.errors import AlgorithmError, BacktestrError, ClusterUnavailable, SystemFault, from_data
from backtestr_protocol.stream_messages import Column
from backtestr_protocol.sweep_messages import MAX_BLOCK, MAX_REFUSED, SweepBest
from backtestr_protocol.sweep_tasks import BlockDone, CheckedSweep, SpanDone, SweepBlock, SweepSpan
from backtestr_protocol.texts import bounded

from . import cluster_blocks
from .sweep_store import BlockFacts
from .sweep_tasks import Frames, SweepTasks

# Seconds of work in a block: what a block costs besides, some 10 ms, is little of that.
BLOCK_SECONDS = 0.25
# Of a block while the speed is a guess: the first one tells it.
_PROBE_SHARE = 16
# Seconds after which a span gives out no further block: its speed may have been a wrong guess, and progress is told at
# its end, for which a backtest waits.
SPAN_SECONDS = 2.0
# Seconds for which a span waits for a worker that may compute, and for a scheduler to come back: a restart of either.
WAIT_SECONDS = 30.0
RECONNECT_SECONDS = 10.0
# Seconds that a worker may take to answer and to warm its kernels; without a cache it compiles for 40 s and more.
GREETING_SECONDS = 300.0
# Seconds between two looks at which workers there are.
_LOOK_SECONDS = 0.25
# A block may take so many times what is expected, and so long at least; then its worker ends itself.
_PATIENCE = 40.0
_LEAST_LIMIT_MS = 60_000
_REFUSAL_BYTES = 1_000

_span_decoder = msgspec.msgpack.Decoder(SweepSpan)
_checked_decoder = msgspec.msgpack.Decoder(CheckedSweep)
_greeted_decoder = msgspec.msgpack.Decoder(Greeted)
_computed_decoder = msgspec.msgpack.Decoder(ComputedBlock)
_done_decoder = msgspec.msgpack.Decoder(BlockDone)

_log = logging.getLogger(__name__)


class Link(Protocol):
    """The connection to a cluster, as `cluster.io.dask_link.DaskLink` is."""

    def addresses(self) -> set[str]: ...
    def call(self, key: str, function: Function, address: str, data: bytes) -> None: ...
    def cancel(self, key: str) -> None: ...
    def events(self, seconds: float) -> list[LinkEvent]: ...
    def close(self) -> None: ...


class SweepSpans:
    """The spans of one worker. It keeps the connection to the scheduler of the latest one."""

    def __init__(
        self,
        tasks: SweepTasks,
        conventions: Conventions,
        catalog_root: Path,
        connect: Callable[[str], Link] = DaskLink,
        clock: Callable[[], float] = time.monotonic,
        facts: Callable[[], dict[str, str]] = process_facts,
        reachable: Callable[[str], None] = check_reachable,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the tasks that store rows, and where workers with the same folders find the bars."""
        self.tasks = tasks
        self.conventions = conventions
        self.catalog_root = catalog_root
        self.clock = clock
        self.facts = facts
        self.wait = wait
        self._connect = connect
        self._reachable = reachable
        self._link: tuple[str, Link] | None = None
        self.known: dict[str, list[str]] = {}  # by worker of that scheduler, what differs on it

    def check(self, data: bytes) -> Frames:
        """Check a sweep; one on a cluster only where its scheduler answers.

        Raises what `SweepTasks.check` does, and `ClusterUnavailable`.
        """
        frames = self.tasks.check(data)
        if scheduler := decode(_checked_decoder, frames[0]).sweep.scheduler:
            self._reachable(scheduler)
        return frames

    def run(self, data: bytes) -> Frames:
        """Have a cluster compute a span of units, store its rows, and say what they are and what is left.

        Raises `DataError` where the bars are others than when the sweep was checked, and `OSError`.
        """
        task = decode(_span_decoder, data)
        algorithm = self.tasks.algorithm_of(task.checked)
        return [encode(_Span(self, task, algorithm).run())]

    def link(self, address: str) -> Link:
        """Return the connection to a scheduler. Raises `ClusterUnavailable`."""
        if self._link is not None and self._link[0] == address:
            return self._link[1]
        self.drop_link()
        self._link = address, self._connect(address)
        return self._link[1]

    def cancel(self, keys: list[str]) -> None:
        """Cancel calls that were not answered, if the connection is still there."""
        if self._link is not None:
            for key in keys:
                self._link[1].cancel(key)

    def drop_link(self) -> None:
        """Close the connection; the next one greets all workers anew."""
        self.known.clear()
        if self._link is not None:
            self._link[1].close()
            self._link = None


class _Halt(Exception):
    """The span cannot go on: the sweep fails for `problem`, or is paused."""

    def __init__(self, problem: BacktestrError, *, pauses: bool) -> None:
        super().__init__()
        self.problem = problem
        self.pauses = pauses


class _Span:
    """One span while it is computed."""

    def __init__(self, spans: SweepSpans, task: SweepSpan, algorithm: Algorithm) -> None:
        self._spans = spans
        self._task = task
        self._sweep = task.checked.sweep
        self._algorithm = algorithm
        self._address = self._sweep.scheduler or ""
        self._facts = spans.facts()
        by_speed = _size_of(task.unit_seconds)
        probe = by_speed if task.is_measured else max(1, by_speed // _PROBE_SHARE)
        self._dispatch = Dispatch(task.first, task.count, self._sweep.block_size or probe)
        self._close_at: float | None = None
        self._greeted_at: dict[str, float] = {}
        self._supplied: dict[str, str] = {}  # by the key of a call that supplies, the worker
        self._look_at = -1.0
        self._had_worker = spans.clock()
        self._workers = 0
        self._rows = self._failed = 0
        self._seconds = 0.0
        self._best: SweepBest | None = None
        self._cells: dict[str, tuple[str, list[bytes]]] = {}

    def run(self) -> SpanDone:
        """Compute the span, and return what became of it."""
        problem: BacktestrError | None = None
        pauses = False
        try:
            self._compute()
        except _Halt as halt:
            problem, pauses = halt.problem, halt.pauses
        finally:
            self._take_back()
        for piece in self._dispatch.fatal:
            self._store_fatal(piece.first, piece.losses)
        told = None if problem is None else problem.to_data(component="engine", timestamp=time.time_ns() // 1_000_000)
        return SpanDone(
            first=self._task.first,
            count=self._task.count,
            rows=self._rows,
            failed=self._failed,
            seconds=self._seconds,
            best=self._best,
            cells_done=_joined(self._cells),
            left=self._dispatch.left(),
            problem=told,
            pauses=pauses,
            workers=self._workers,
            refused=self._refusals()[:MAX_REFUSED],
        )

    # --- the loop ---

    def _compute(self) -> None:
        link = self._connected(self._spans.clock() + RECONNECT_SECONDS, patient=False)
        while not self._dispatch.is_done:
            try:
                self._step(link)
            except LinkLost as lost:
                _log.warning("the connection to the scheduler at %s was lost: %s", self._address, lost)
                self._dispatch.forget_workers()
                self._greeted_at.clear()
                self._supplied.clear()
                self._look_at = -1.0
                self._spans.drop_link()
                link = self._connected(self._spans.clock() + RECONNECT_SECONDS, patient=True)
                self._had_worker = self._spans.clock()

    def _connected(self, deadline: float, *, patient: bool) -> Link:
        """Return the connection, which a restart of the scheduler may take until `deadline`."""
        while True:
            try:
                return self._spans.link(self._address)
            except ClusterUnavailable as error:
                if not patient or self._spans.clock() >= deadline:
                    raise _Halt(error, pauses=True) from error
                self._spans.wait(_LOOK_SECONDS)
            except BacktestrError as error:  # Dask is not installed
                raise _Halt(error, pauses=True) from error

    def _step(self, link: Link) -> None:
        now = self._spans.clock()
        if now >= self._look_at:
            self._look(link, now)
        for order in self._dispatch.take():
            match order:
                case Greet(address):
                    self._greeted_at[address] = now
                    greeting = encode(Greeting(self._facts, self._spans.conventions))
                    link.call(f"greet-{address}", cluster_blocks.greet, address, greeting)
                case Give():
                    link.call(f"block-{order.key}", cluster_blocks.compute, order.address, self._block(order))
        self._workers = max(self._workers, self._dispatch.accepted)
        if self._dispatch.accepted and self._close_at is None:
            self._close_at = now + SPAN_SECONDS
        if self._close_at is not None and now >= self._close_at:
            self._dispatch.close()
            if self._dispatch.is_done:
                return
        for event in link.events(_LOOK_SECONDS):
            self._take(link, event)

    def _look(self, link: Link, now: float) -> None:
        """See which workers there are; without one that may compute the span waits for so long, and halts."""
        self._look_at = now + _LOOK_SECONDS
        addresses = link.addresses()
        for key in self._dispatch.seen(addresses, self._spans.known):
            link.cancel(f"block-{key}")
        for address in [one for one in self._spans.known if one not in addresses]:
            del self._spans.known[address]
        for address in [one for one in self._greeted_at if one not in addresses]:
            del self._greeted_at[address]
            link.cancel(f"greet-{address}")
        for address, began in list(self._greeted_at.items()):
            if now - began > GREETING_SECONDS:
                link.cancel(f"greet-{address}")
                self._answered(address, [f"it did not answer within {GREETING_SECONDS:g} s"])
        if self._dispatch.accepted or self._dispatch.is_greeting:
            self._had_worker = now
        elif now - self._had_worker > WAIT_SECONDS:
            raise _Halt(self._no_worker(), pauses=True)

    def _no_worker(self) -> ClusterUnavailable:
        refused = self._refusals()
        if refused:
            listed = "; ".join(refused[:3])
            more = f", and {len(refused) - 3} more" if len(refused) > 3 else ""
            reason = f"each of its workers would compute other bits than the broker's: {listed}{more}"
        else:
            reason = f"it has no worker: dask worker {self._address} --nthreads 1"
        return ClusterUnavailable(
            bounded(f"nothing is computed by the scheduler at {self._address}: {reason}; then resume the sweep"),
            scheduler=self._address,
        )

    def _refusals(self) -> list[str]:
        return [
            bounded(f"{address}: {'; '.join(problems)}", _REFUSAL_BYTES)
            for address, problems in self._dispatch.refused.items()
        ]

    # --- what comes back ---

    def _take(self, link: Link, event: LinkEvent) -> None:
        kind, _, name = event.key.partition("-")
        if kind == "greet":
            self._take_greeting(name, event)
        elif kind == "supply":
            self._supplied.pop(event.key, None)  # a block that lacks it still says so again
        elif (given := self._dispatch.given(int(name))) is not None:
            self._take_block(link, int(name), given[0], event)

    def _take_greeting(self, address: str, event: LinkEvent) -> None:
        if isinstance(event, Vanished):  # with its worker, unless that is asked again
            self._greeted_at.pop(address, None)
            self._dispatch.not_greeted(address)
            return
        if not isinstance(event, Returned):
            reason = getattr(event, "message", "it ends when it is asked")
            self._answered(address, [f"backtestr does not run there: {reason}"])
            return
        try:
            there = decode(_greeted_decoder, event.data).facts
        except BacktestrError as error:
            self._answered(address, [f"its answer is none: {error.message}"])
            return
        self._answered(address, differences(self._facts, there))

    def _answered(self, address: str, problems: list[str]) -> None:
        self._greeted_at.pop(address, None)
        self._spans.known[address] = problems
        if problems:
            _log.warning("the worker %s of the cluster gets no block: %s", address, "; ".join(problems))
        self._dispatch.greeted(address, problems)

    def _take_block(self, link: Link, key: int, address: str, event: LinkEvent) -> None:
        match event:
            case Killed():
                self._dispatch.killed(key)
                return
            case Vanished():
                self._return(key)
                return
            case Returned():
                computed = decode(_computed_decoder, event.data)
            case _:
                raise _Halt(SystemFault(f"{address} failed: {event.message}"), pauses=False)
        match computed.state:
            case "computed" if computed.done is not None:
                self._store(computed.done, computed.rows)
                self._dispatch.done(key)
            case "needs":
                self._return(key)
                self._supply(link, address, bars=computed.bars, source=computed.source)
            case "refused":
                problems = differences(self._facts, computed.facts)
                self._spans.known[address] = problems
                for one in self._dispatch.refuse(address, problems):
                    if one != key:
                        link.cancel(f"block-{one}")
            case _:
                raise _Halt(_error_of(computed), pauses=False)

    def _return(self, key: int) -> None:
        if not self._dispatch.returned(key):
            raise _Halt(SystemFault("a block of a sweep came back from the cluster again and again"), pauses=False)

    def _supply(self, link: Link, address: str, *, bars: bool, source: bool) -> None:
        """Send what a worker lacks, once: the blocks behind come back until it has it."""
        key = f"supply-{address}-{'bars' if bars else 'source'}"
        if key in self._supplied:
            return
        self._supplied[key] = address
        supplies = Supplies(
            data_version=self._task.checked.data_version,
            bars=self._sent_bars() if bars else None,
            source=_source_of(self._algorithm) if source else None,
        )
        link.call(key, cluster_blocks.supply, address, encode(supplies))

    def _sent_bars(self) -> list[SentBars]:
        return [
            SentBars(
                symbol=bars.symbol,
                timeframe=bars.timeframe,
                zone=bars.zone,
                columns=[getattr(bars, name).tobytes() for name in COLUMNS],
            )
            for bars in self._spans.tasks.bars_of(self._task.checked).series
        ]

    def _block(self, order: Give) -> bytes:
        block = SweepBlock(
            sweep_id=self._task.sweep_id,
            checked=self._task.checked,
            first=order.first,
            count=order.count,
            stride=self._task.stride,
            limit_ms=self._limit_ms(order.count),
        )
        folder = str(self._spans.catalog_root)
        return encode(ClusterBlock(digest(self._facts), self._spans.conventions, folder, block))

    def _limit_ms(self, count: int) -> int:
        if count == 1:
            return self._spans.conventions.time_limit_ms
        return max(_LEAST_LIMIT_MS, round(1000 * _PATIENCE * self._task.unit_seconds * count))

    # --- rows ---

    def _store(self, done: BlockDone, rows: bytes) -> None:
        facts = BlockFacts(
            first=done.first,
            count=done.count,
            rows=done.rows,
            failed=done.failed,
            seconds=done.seconds,
            best=done.best,
        )
        frame = pl.read_ipc_stream(io.BytesIO(rows))
        self._spans.tasks.store_block(self._task.sweep_id, self._task.checked, facts, frame)
        if self._sweep.block_size is None and done.seconds > 0.0:
            self._dispatch.resize(_size_of(done.seconds / done.count))
        self._count(done)

    def _store_fatal(self, unit: int, losses: int) -> None:
        """Store a unit that ends workers as a failed row."""
        reason = f"it ended the worker of the cluster that computed it, {losses} times in a row"
        block = SweepBlock(
            sweep_id=self._task.sweep_id,
            checked=self._task.checked,
            first=unit,
            count=1,
            stride=self._task.stride,
            reason=reason,
        )
        [answer] = self._spans.tasks.run_block(encode(block))
        self._count(decode(_done_decoder, answer))

    def _count(self, done: BlockDone) -> None:
        self._rows += done.rows
        self._failed += done.failed
        self._seconds += done.seconds
        bests = [one for one in (self._best, done.best) if one is not None]
        sign = 1.0 if self._sweep.direction == "maximize" else -1.0
        self._best = max(bests, key=lambda one: (sign * one.value, -one.cell), default=None)
        for name, column in done.cells_done.items():
            self._cells.setdefault(name, (column.dtype, []))[1].append(column.data)

    def _take_back(self) -> None:
        """Cancel what is still being computed: the span is over."""
        self._spans.cancel([f"block-{key}" for key in self._dispatch.given_keys()])
        self._spans.cancel([f"greet-{address}" for address in self._greeted_at])
        self._spans.cancel(list(self._supplied))


def _size_of(unit_seconds: float) -> int:
    """Return the units of a block."""
    return max(1, min(MAX_BLOCK, round(BLOCK_SECONDS / max(unit_seconds, 1e-9))))


def _source_of(algorithm: Algorithm) -> SentSource:
    """Return the text that an algorithm was loaded from. Halts where it is not that of its version."""
    text = inspect.getsource(inspect.getmodule(algorithm.function) or algorithm.function)
    if version_of(text) != algorithm.version:
        raise _Halt(
            AlgorithmError(
                f"the source of {algorithm.algorithm_id} has changed since it was loaded; restart the broker"
            ),
            pauses=False,
        )
    return SentSource(algorithm.algorithm_id, algorithm.name, text)


def _error_of(computed: ComputedBlock) -> BacktestrError:
    return SystemFault("a worker of the cluster gave no rows") if computed.error is None else from_data(computed.error)


def _joined(cells: dict[str, tuple[str, list[bytes]]]) -> dict[str, Column]:
    """Return columns of all blocks."""
    return {
        name: Column(dtype="<f8" if dtype == "<f8" else "<i8", data=b"".join(parts))
        for name, (dtype, parts) in cells.items()
    }
