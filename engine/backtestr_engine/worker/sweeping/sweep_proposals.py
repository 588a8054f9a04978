"""The proposals of sweeps that learn from their rows, on disk: what was proposed once stays so.

    <data directory>/sweeps/<sweep>/
        batch-000000.msgpack    the first batch of trials, mode 0600

A batch is stored before a block of it is computed. Trials are numbered through all batches; the number is their unit.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from backtestr_engine.data.arrays import Integers
from backtestr_engine.data.atomic_files import replace_file
from backtestr_engine.research.sweep_samplers import Proposal, Proposer, Sampling
from backtestr_engine.research.sweep_space import Space
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import DataError
from backtestr_protocol.private_files import make_private
from backtestr_protocol.sweep_messages import DEFAULT_BATCH, StartSweep
from backtestr_protocol.sweep_tasks import CheckedSweep
from backtestr_protocol.system.durable_files import sync_folder

from .sweep_store import SweepStore, rows_of

_FILE = "batch-{:06}.msgpack"
_decoder = msgspec.msgpack.Decoder(Proposal)


class _Known:
    """One sweep as a worker remembers it: its batches, their cells, the rows that it has read, and what was learnt."""

    def __init__(self, key: tuple[str, bytes]) -> None:
        self.key = key
        self.batches: list[Proposal] = []
        self.cells: Integers = np.empty(0, dtype=np.int64)
        self.values: dict[int, float | None] = {}  # the objective by cell
        self.blocks: set[tuple[Path, int]] = set()  # whose rows are among the values
        self.proposer: Proposer | None = None


class SweepProposals:
    """The stored batches of sweeps; those of the latest one are kept in memory."""

    def __init__(self, store: SweepStore) -> None:
        self._store = store
        self._latest = _Known(("", b""))

    def proposed(self, sweep_id: str, checked: CheckedSweep) -> int:
        """Return how many trials of a sweep are proposed."""
        return len(self._known(sweep_id, checked).cells)

    def cells(self, sweep_id: str, checked: CheckedSweep, first: int, count: int) -> Integers:
        """Return the cells of trials [first, first + count), which are proposed. Raises `DataError`."""
        cells = self._known(sweep_id, checked).cells
        if first + count > len(cells):
            raise DataError(
                f"trials {first:,} to {first + count - 1:,} of sweep {sweep_id} are not proposed: files of it are "
                "missing; start it again under another id"
            )
        return cells[first : first + count]

    def propose(self, sweep_id: str, checked: CheckedSweep, space: Space, batch: int) -> int:
        """Store a batch unless it is stored, and return how many trials are proposed up to its end.

        All earlier ones are stored, and all their rows. Raises `DataError` and `OSError`.
        """
        known = self._known(sweep_id, checked)
        if batch < len(known.batches):
            return sum(len(one.cells) for one in known.batches[: batch + 1])
        self._read_values(sweep_id, checked.sweep.objective, known)
        lacking = sum(cell not in known.values for cell in known.cells.tolist())
        if batch > len(known.batches) or lacking:
            raise DataError(
                f"batch {batch:,} of sweep {sweep_id} cannot be proposed: {lacking:,} rows before it are missing; "
                "start it again under another id"
            )
        if known.proposer is None:
            known.proposer = Proposer(space, sampling_of(checked.sweep))
        count = min(batch_size_of(checked.sweep), checked.units - len(known.cells))
        found = known.proposer.propose(known.batches, known.values, count)
        folder = self._store.folder(sweep_id)
        make_private(folder.parent)
        make_private(folder)
        sync_folder(folder.parent)
        with replace_file(folder / _FILE.format(batch)) as file:
            file.write(encode(found))
        return len(self._known(sweep_id, checked).cells)

    def _known(self, sweep_id: str, checked: CheckedSweep) -> _Known:
        """Return what is known of a sweep, with the batches that another worker has stored meanwhile."""
        folder, key = self._store.folder(sweep_id), (sweep_id, encode(checked))
        last = len(self._latest.batches) - 1
        if self._latest.key != key or (last >= 0 and not (folder / _FILE.format(last)).exists()):
            self._latest = _Known(key)
        known = self._latest
        read = [known.cells]
        while (path := folder / _FILE.format(len(known.batches))).exists():
            known.batches.append(_read(path))
            read.append(np.array(known.batches[-1].cells, dtype=np.int64))
        known.cells = np.concatenate(read)
        return known

    def _read_values(self, sweep_id: str, objective: str, known: _Known) -> None:
        """Read the objective of rows that were stored meanwhile: None where it is no finite number."""
        blocks = [one for one in self._store.blocks(sweep_id) if (one.path, one.offset) not in known.blocks]
        for part in rows_of(blocks, ["cell", objective]):
            column = part[objective].cast(pl.Float64)
            values = column.set(~column.is_finite(), None).to_list()
            known.values.update(zip(part["cell"].to_list(), values, strict=True))
        known.blocks.update((one.path, one.offset) for one in blocks)


def sampling_of(sweep: StartSweep) -> Sampling:
    """Return how a checked sweep learns from its rows."""
    assert sweep.method == "tpe" or sweep.method == "cmaes"
    return Sampling(
        method=sweep.method,
        seed=sweep.seed,
        maximize=sweep.direction == "maximize",
        batch_size=batch_size_of(sweep),
    )


def batch_size_of(sweep: StartSweep) -> int:
    """Return how many trials are proposed together."""
    return sweep.batch_size or DEFAULT_BATCH[sweep.method]


def _read(path: Path) -> Proposal:
    try:
        return _decoder.decode(path.read_bytes())
    except msgspec.MsgspecError as error:
        raise DataError(f"{path.name} of a sweep cannot be read: {error}; start it again under another id") from error
