"""The state of a run as records of a checkpoint, and a run that goes on from them.

A run that goes on gives bit for bit what the first one would have given: it has the same signals, records and account,
and the loops give the same in chunks of any size.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec
import numpy as np

from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.data.arrays import Floats, Integers
from backtestr_engine.data.block_sums import checksum
from backtestr_engine.kernel_cache import kernels_version
from backtestr_engine.simulation.records import ORDER, POSITION, TRADE, Events

from .checkpoint_format import Chunk, Computed, Contents, SavedSignals
from .plan import Plan
from .run import Run

_ARRAYS = ("stop_loss", "take_profit", "trailing_stop", "limit_price", "stop_price", "target")
_COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")


class Unfit(Exception):
    """A checkpoint that cannot be gone on from, with the reason."""


def fingerprint(plan: Plan) -> bytes:
    """Return a hash of everything that decides what a backtest gives: its config, its bars, and the engine."""
    content = sha256(kernels_version().encode())
    content.update(msgspec.msgpack.encode(plan.resolved_config()))
    content.update(str(len(plan.panel)).encode())
    for bars in plan.seen.series:
        content.update(f"{bars.symbol} {bars.timeframe} {bars.zone} {len(bars)}".encode())
        for name in _COLUMNS:
            column = np.ascontiguousarray(getattr(bars, name))
            content.update(checksum(column.view(np.uint8).data).to_bytes(4))
    return content.digest()


class SavedUpTo:
    """The part of a run that is saved: its bars, and its orders, positions and trades."""

    def __init__(self) -> None:
        self.bars = 0
        self._counts: Integers = np.zeros(3, dtype=np.int64)

    def next_chunk(self, run: Run, log: bytes) -> Chunk:
        """Return what the run has come to since, and its `log`; it is saved then."""
        simulation = run.simulation
        events = simulation.events_since(self._counts)
        equity = simulation.equity[self.bars : simulation.bars_simulated]
        self.take(simulation.bars_simulated, events)
        return Chunk(
            equity=equity.tobytes(),
            orders=events.orders.tobytes(),
            positions=events.positions.tobytes(),
            trades=events.trades.tobytes(),
            state=simulation.state(),
            log=log,
        )

    def take(self, bars: int, further: Events) -> None:
        """Count bars, and further events, as saved."""
        self.bars = bars
        self._counts = self._counts + np.array([len(further.orders), len(further.positions), len(further.trades)])


def computed(run: Run) -> Computed:
    """Return the signals of a run that has started, without the series that are only shown."""
    return Computed([_saved(one) for one in run.signals])


def go_on(run: Run, found: Contents) -> SavedUpTo:
    """Have a run go on from a checkpoint: from its signals, and behind its last bar. Raises `Unfit`."""
    saved = SavedUpTo()
    if found.computed is None:
        return saved
    try:
        signals = tuple(map(_signals, found.computed.signals))
        lengths = [len(one) for one in signals]
        if lengths != [len(bars) for bars in run.plan.panel.series]:
            raise Unfit("its signals are of other bars")
        run.start_with(*signals)
        if found.chunks:
            events = Events(
                *(
                    np.frombuffer(b"".join(getattr(one, name) for one in found.chunks), dtype=kind)
                    for name, kind in (("orders", ORDER), ("positions", POSITION), ("trades", TRADE))
                )
            )
            equity = _floats(b"".join(one.equity for one in found.chunks))
            run.simulation.restore(equity, events, found.chunks[-1].state)
            saved.take(len(equity), events)
    except (ValueError, KeyError) as error:
        raise Unfit(f"its arrays have other sizes: {error}") from error
    return saved


def _saved(signals: Signals) -> SavedSignals:
    arrays = (getattr(signals, name) for name in _ARRAYS)
    return SavedSignals(signals.flags.tobytes(), *(None if one is None else one.tobytes() for one in arrays))


def _signals(saved: SavedSignals) -> Signals:
    flags = np.frombuffer(saved.flags, dtype=np.uint8).copy()  # kernels are compiled for arrays that can be written
    return Signals(
        flags,
        _array(saved.stop_loss),
        _array(saved.take_profit),
        _array(saved.trailing_stop),
        _array(saved.limit_price),
        _array(saved.stop_price),
        _array(saved.target),
    )


def _array(content: bytes | None) -> Floats | None:
    return None if content is None else _floats(content)


def _floats(content: bytes) -> Floats:
    return np.frombuffer(content, dtype=np.float64).copy()
