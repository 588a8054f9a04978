"""The functions that workers of a cluster call: say what results depend on here, and compute blocks of sweeps.

Dask calls `greet`, `supply` and `compute`, with bytes. Blocks are computed as a worker of the broker computes them, one
at a time in a process, whatever the number of its threads: algorithms may keep state in their modules.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from backtestr_engine.algorithms.algorithm import Algorithm, version_of
from backtestr_engine.backtest.tables import arrow_stream
from backtestr_engine.built_in import find_algorithm
from backtestr_engine.cluster.fingerprint import differences, digest
from backtestr_engine.cluster.io.process_facts import process_facts
from backtestr_engine.cluster.messages import ClusterBlock, ComputedBlock, Greeted, Greeting, SentSource, Supplies
from backtestr_engine.data.bar_source import BarSource
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.kernel_cache import check_kernel_cache
from backtestr_engine.library.source_files import load_source, named_in
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.worker.warm_up import warm, warm_sweeps
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import BacktestrError, DataError, NotFound
from backtestr_protocol.messages import TickPrice
from backtestr_protocol.sweep_tasks import BlockDone, CheckedSweep

from .sweep_store import BlockFacts, SweepStore
from .sweep_tasks import SweepTasks
from .trial_store import TrialStore

# The bars of so many sweeps are kept in a process, the latest: sweeps of several brokers take turns.
_MAX_BARS = 2
_MAX_SOURCES = 16
# The exit code of a worker whose block does not come back: what runs an algorithm cannot be interrupted otherwise.
_EXIT_LATE = 4

_greeting = msgspec.msgpack.Decoder(Greeting)
_block = msgspec.msgpack.Decoder(ClusterBlock)
_supplies = msgspec.msgpack.Decoder(Supplies)
_done = msgspec.msgpack.Decoder(BlockDone)


class _Sent:
    """Bars that were sent, by symbol, as a source of bars."""

    def __init__(self, series: Mapping[str, Bars]) -> None:
        self._series = series

    def load(
        self,
        symbol: str,
        timeframe: str,
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        price: TickPrice | None = None,
    ) -> Bars:
        """Return the bars that open in [start, end). They were read where the sweep was started, with its `price`."""
        return self._series[symbol].between(start_us, end_us)

    def tick_price(self, symbol: str, timeframe: str, price: TickPrice | None) -> TickPrice | None:
        """Return the price that was asked for."""
        return price


class _Tasks(SweepTasks):
    """The tasks of a worker that stores nothing: the rows of a block go back with the answer."""

    def __init__(self, bars: BarSource, conventions: Conventions, find: Callable[[str], Algorithm]) -> None:
        super().__init__(bars, conventions, find, SweepStore(Path()), TrialStore(Path()))
        self.rows = b""

    def store_block(self, sweep_id: str, checked: CheckedSweep, facts: BlockFacts, frame: pl.DataFrame) -> None:
        """Keep the rows of the latest block."""
        self.rows = arrow_stream(frame)


class _SweepAtHand(msgspec.Struct, frozen=True):
    """The tasks of the sweep that blocks were computed of last."""

    of: tuple[bytes, bytes]
    tasks: _Tasks


class _Lacks(Exception):
    """A block needs what this worker does not have: `bars`, or the `source` of its algorithm."""

    def __init__(self, *, bars: bool = False, source: bool = False) -> None:
        super().__init__()
        self.bars = bars
        self.source = source


class ClusterWorker:
    """The blocks of one process: its bars and algorithms, and the memory that rows are computed in."""

    def __init__(
        self, facts: Callable[[], dict[str, str]] = process_facts, end: Callable[[int], object] = os._exit
    ) -> None:
        """Take what tells the facts of the process, and what ends it."""
        self._facts = facts
        self._end = end
        self._one_at_a_time = threading.Lock()
        self._bars: OrderedDict[str, _Sent] = OrderedDict()
        self._sources: OrderedDict[str, SentSource] = OrderedDict()
        self._loaded: OrderedDict[str, Algorithm] = OrderedDict()
        self._ready: _SweepAtHand | None = None
        self._is_warm = False

    def greet(self, data: bytes) -> bytes:
        """Say what results depend on here. If they are the same, warm the kernels first."""
        asked = _greeting.decode(data)
        facts = self._facts()
        with self._one_at_a_time:
            if not self._is_warm and not differences(asked.facts, facts):
                check_kernel_cache()
                warm(asked.conventions)
                warm_sweeps(asked.conventions)
                self._is_warm = True
        return encode(Greeted(facts))

    def supply(self, data: bytes) -> bytes:
        """Keep bars and the source of an algorithm for blocks to come."""
        supplies = _supplies.decode(data)
        if supplies.bars is not None:
            series = {}
            for one in supplies.bars:
                timestamp, *prices = one.columns
                floats = [np.frombuffer(column, np.float64) for column in prices]
                times = np.frombuffer(timestamp, np.int64)
                series[one.symbol] = Bars(one.symbol, one.timeframe, times, *floats, zone=one.zone)
            self._bars[supplies.data_version] = _Sent(series)
            while len(self._bars) > _MAX_BARS:
                self._bars.popitem(last=False)
        if supplies.source is not None:
            self._sources[supplies.source.algorithm_id] = supplies.source
            while len(self._sources) > _MAX_SOURCES:
                self._sources.popitem(last=False)
        return b""

    def compute(self, data: bytes) -> bytes:
        """Compute the rows of a block, or say why that is not possible."""
        asked = _block.decode(data)
        if digest(self._facts()) != asked.facts:
            return encode(ComputedBlock(state="refused", facts=self._facts()))
        limit = threading.Timer((asked.block.limit_ms or 0) / 1000, self._late)
        limit.daemon = True
        with self._one_at_a_time:
            if asked.block.limit_ms is not None:
                limit.start()
            try:
                ready = self._get_ready(asked)
                [answer] = ready.tasks.run_block(encode(asked.block))
                return encode(ComputedBlock(state="computed", done=_done.decode(answer), rows=ready.tasks.rows))
            except _Lacks as lacks:
                return encode(ComputedBlock(state="needs", bars=lacks.bars, source=lacks.source))
            except BacktestrError as error:
                told = error.to_data(component="engine", timestamp=0)
                return encode(ComputedBlock(state="failed", error=told))
            finally:
                limit.cancel()

    def _late(self) -> None:
        print("backtestr: a block did not come back within its time, and ends this worker", file=sys.stderr, flush=True)
        self._end(_EXIT_LATE)

    def _get_ready(self, asked: ClusterBlock) -> _SweepAtHand:
        """Return the tasks of the block's sweep. Raises `_Lacks`, and what an algorithm raises that does not load."""
        of = encode(asked.block.checked), encode(asked.conventions)
        if self._ready is not None and self._ready.of == of:
            return self._ready
        self._ready = None
        checked = asked.block.checked
        self._find(checked.sweep.config.algorithm_id)  # first, since bars are the larger part to send
        for source in (self._shared(asked.catalog), self._bars.get(checked.data_version)):
            ready = None if source is None else self._with_bars(of, source, checked, asked.conventions)
            if ready is not None:
                self._ready = ready
                return ready
        raise _Lacks(bars=True)

    def _shared(self, folder: str) -> Catalog | None:
        """Return the catalogue of the broker, where this machine has the same folder."""
        path = Path(folder)
        return Catalog(path, cache_bytes=0) if path.is_dir() else None

    def _with_bars(
        self, of: tuple[bytes, bytes], source: BarSource, checked: CheckedSweep, conventions: Conventions
    ) -> _SweepAtHand | None:
        """Return the tasks of a sweep on the bars of `source`; None where these are others."""
        tasks = _Tasks(source, conventions, self._find)
        try:
            tasks.algorithm_of(checked)
        except DataError:
            return None
        return _SweepAtHand(of, tasks)

    def _find(self, algorithm_id: str) -> Algorithm:
        try:
            return find_algorithm(algorithm_id)
        except NotFound:
            pass
        if (loaded := self._loaded.get(algorithm_id)) is not None:
            return loaded
        source = self._sources.get(algorithm_id)
        if source is None:
            raise _Lacks(source=True)
        if algorithm_id != f"{source.name}@{version_of(source.text)}":
            raise DataError(f"the source of {algorithm_id} that was sent is that of another version")
        found = named_in(load_source(source.text, f"{algorithm_id}.py", algorithm_id), source.name)
        self._loaded[algorithm_id] = found
        while len(self._loaded) > _MAX_SOURCES:
            self._loaded.popitem(last=False)
        return found


_process = ClusterWorker()


def greet(data: bytes) -> bytes:
    """Call `ClusterWorker.greet` of this process."""
    return _process.greet(data)


def supply(data: bytes) -> bytes:
    """Call `ClusterWorker.supply` of this process."""
    return _process.supply(data)


def compute(data: bytes) -> bytes:
    """Call `ClusterWorker.compute` of this process."""
    return _process.compute(data)
