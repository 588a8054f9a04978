"""The tasks of sweeps: check one, compute and store a block of it, survey what is stored, and open a row as a backtest.

Each returns the frames of its answer. A block's rows are on disk before its answer is sent.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np
import polars as pl

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.backtest.plan import prepare
from backtestr_engine.data.arrays import AnyArray, Integers
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.instants import parse_instant
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.timeframes import parse_timeframe
from backtestr_engine.metrics.figures import NOT_COMPUTED
from backtestr_engine.research.sweep_blocks import Block, SweepWork
from backtestr_engine.research.sweep_kernels import new_rows
from backtestr_engine.research.sweep_plan import ALL_METRICS, SweepPlan, checked_metrics, plan_sweep
from backtestr_engine.research.sweep_space import Combinations, Space
from backtestr_engine.research.sweeps import frame_of
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.errors import DataError, InvalidConfiguration, ValidationError, did_you_mean
from backtestr_protocol.messages import BacktestConfig
from backtestr_protocol.metrics import METRICS
from backtestr_protocol.stream_messages import Column
from backtestr_protocol.sweep_messages import DEFAULT_TRIALS, MAX_COMBINATIONS, StartSweep, SweepBest
from backtestr_protocol.sweep_tasks import BlockDone, CheckedSweep, SurveyedSweep, SweepBlock, SweepRow, SweepSurvey

from .sweep_draws import drawn_cells
from .sweep_store import BlockFacts, SweepStore, rows_of

Frames = list[bytes]

# Draws that are made to find the trials of a sweep whose constraint leaves out most cells: half a second of them.
MAX_DRAWS = 20_000_000
# Cells of a grid whose constraint leaves out most of them: to look at each takes a worker twenty minutes.
MAX_GRID_CELLS = 10_000_000_000
# Draws, and cells, that are looked at together: 1 MB a column.
_TOGETHER = 1 << 17
_VERSION_BYTES = 16

_start = msgspec.msgpack.Decoder(StartSweep)
_block = msgspec.msgpack.Decoder(SweepBlock)
_survey = msgspec.msgpack.Decoder(SweepSurvey)
_row = msgspec.msgpack.Decoder(SweepRow)


class _Ready(msgspec.Struct, frozen=True):
    """A sweep that this worker has computed blocks of: its plan, its work, and which bars these are."""

    plan: SweepPlan
    work: SweepWork
    data_version: str


class SweepTasks:
    """The tasks of sweeps, on the catalogue, library and rows of one worker. It keeps the bars of the latest sweep."""

    def __init__(
        self,
        catalog: Catalog,
        conventions: Conventions,
        find: Callable[[str], Algorithm],
        store: SweepStore,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._catalog = catalog
        self._conventions = conventions
        self._find = find
        self._store = store
        self._clock = clock
        self._ready: dict[bytes, _Ready] = {}  # by the checked sweep; one at most

    # --- checks ---

    def check(self, data: bytes) -> Frames:
        """Check a sweep, count its combinations, and return it as its blocks get it.

        Raises what `prepare` raises for a single backtest, what `plan_sweep` does, and `InvalidConfiguration` for more
        combinations than a sweep may have, and for a constraint that leaves none.
        """
        asked = decode(_start, data)
        algorithm = self._find(asked.config.algorithm_id)
        objective = _checked_objective(asked.objective)
        metrics = _metrics(asked, objective)
        plan = self._plan(algorithm, asked, metrics)
        space, notes = plan.space, list[str]()
        count = space.count()
        method, trials = asked.method, asked.trials
        if method == "random":
            trials = min(trials or DEFAULT_TRIALS, count.cells)
            if count.exact and trials >= count.admissible:
                notes.append(f"all {count.admissible:,} combinations are run: there are no more than the trials")
                method, trials = "grid", None
        elif trials is not None:
            raise InvalidConfiguration(
                "trials are those of method random; a grid runs every combination", paths=["$.trials", "$.method"]
            )
        if method == "grid" and (count.admissible > MAX_COMBINATIONS or count.cells > MAX_GRID_CELLS):
            raise InvalidConfiguration(
                f"the grid has {count}, and a sweep runs up to {MAX_COMBINATIONS:,} of {MAX_GRID_CELLS:,}: take "
                'fewer values, or larger steps, or a sample of them with method "random" and trials',
                paths=["$.space", "$.method"],
                combinations=count.admissible,
                cells=count.cells,
            )
        units = count.cells if method == "grid" else _draws_of(space, asked.seed, trials or 0)
        config = self._resolved(asked.config, algorithm, plan)
        config = msgspec.structs.replace(config, parameters=dict(asked.config.parameters))
        sweep = msgspec.structs.replace(
            asked,
            config=config,
            method=method,
            trials=trials,
            objective=objective,
            metrics=list(metrics),
            dry_run=False,
        )
        tested, seen = self._load(config)
        checked = CheckedSweep(
            sweep=sweep,
            cells=count.cells,
            combinations=count.admissible if method == "grid" else trials or 0,
            exact=count.exact or method == "random",
            units=units,
            bars=sum(len(bars) for bars in tested.series),
            path=plan.path.name,
            path_reason=plan.path.reason,
            data_version=_version_of(seen),
            notes=notes,
        )
        return [encode(checked)]

    def _plan(self, algorithm: Algorithm, asked: StartSweep, metrics: tuple[str, ...]) -> SweepPlan:
        return plan_sweep(
            asked.config, algorithm, asked.space, self._conventions, where=asked.where, metrics=list(metrics)
        )

    def _resolved(self, config: BacktestConfig, algorithm: Algorithm, plan: SweepPlan) -> BacktestConfig:
        """Return the configuration with symbols, dates and price spelled out, as that of its first backtest.

        A test that begins where the stored bars begin has no warm-up, also when earlier ones are imported later.
        """
        first = _first_admissible(plan.space)
        single = msgspec.structs.replace(config, parameters=plan.space.values(first))
        resolved = prepare(single, self._catalog, self._conventions, self._find).config
        warmup = 0 if config.warmup is None and config.start_date is None else config.warmup
        return msgspec.structs.replace(resolved, algorithm_id=algorithm.algorithm_id, warmup=warmup)

    def open_row(self, data: bytes) -> Frames:
        """Return the checked configuration of the backtest of one row."""
        asked = decode(_row, data)
        sweep = asked.checked.sweep
        plan = self._plan(self._find(sweep.config.algorithm_id), sweep, tuple(sweep.metrics or ()))
        try:
            values = plan.space.values(asked.row)
        except IndexError as error:
            raise ValidationError(f"$.row: {error}", path="$.row") from None
        config = msgspec.structs.replace(sweep.config, backtest_id=asked.backtest_id, parameters=values)
        return [encode(prepare(config, self._catalog, self._conventions, self._find).config)]

    # --- blocks ---

    def run_block(self, data: bytes) -> Frames:
        """Compute the rows of a block, store them, and say what they are. Raises `OSError` where the disk is full."""
        task = decode(_block, data)
        ready, is_new = self._get_ready(task.checked)
        found = _combinations(ready.plan.space, task.checked, task.first, task.count, ready.work)
        if is_new and task.reason is None:  # kernels are loaded, which says nothing of the speed of further blocks
            _computed(ready, _first_of(found))
        began = self._clock()
        block = _failed_block(ready.plan, found, task.reason) if task.reason else _computed(ready, found)
        frame = frame_of(block)
        sweep = task.checked.sweep
        best = _best(frame, sweep.objective, list(found.columns), lowest=sweep.direction == "minimize")
        seconds = 0.0 if task.reason else self._clock() - began
        facts = BlockFacts(
            first=task.first,
            count=task.count,
            rows=frame.height,
            failed=len(block.failures),
            seconds=seconds,
            best=best,
        )
        self._store.append(task.sweep_id, facts, frame)
        done = BlockDone(
            first=facts.first,
            count=facts.count,
            rows=facts.rows,
            failed=facts.failed,
            seconds=0.0 if task.reason else self._clock() - began,  # with the storing, which a backtest waits for too
            best=best,
            cells_done=_live_columns(ready.plan.space, frame, sweep.objective, task.stride),
        )
        return [encode(done)]

    def _get_ready(self, checked: CheckedSweep) -> tuple[_Ready, bool]:
        """Return the work of a sweep, and whether it was made now.

        Raises `DataError` where its bars are others than when the sweep was checked.
        """
        key = encode(checked)
        if (ready := self._ready.get(key)) is not None:
            return ready, False
        self._ready.clear()
        sweep = checked.sweep
        algorithm = self._find(sweep.config.algorithm_id)
        plan = self._plan(algorithm, sweep, tuple(sweep.metrics or ()))
        tested, seen = self._load(sweep.config)
        version = _version_of(seen)
        if version != checked.data_version:
            raise DataError(
                f"the bars of {', '.join(tested.symbols)} {tested.timeframe} have changed since this sweep was "
                "started, and its other rows are of the earlier ones; start it again under another id"
            )
        ready = self._ready[key] = _Ready(plan, SweepWork(plan, algorithm, tested, seen), version)
        return ready, True

    def _load(self, config: BacktestConfig) -> tuple[Panel, Panel]:
        """Return the bars that are tested, and those with all earlier stored ones in front if any may be seen."""
        timeframe = parse_timeframe(config.timeframe)
        symbols = config.symbols or [config.symbol or ""]
        assert config.start_date is not None
        assert config.end_date is not None
        start, end = (
            parse_instant(config.start_date, path="$.startDate"),
            parse_instant(config.end_date, path="$.endDate"),
        )
        tested = Panel.of([self._catalog.load(one, timeframe, start, end, price=config.price) for one in symbols])
        if config.warmup == 0:
            return tested, tested
        longer = [self._catalog.load(one, timeframe, None, end, price=config.price) for one in symbols]
        series = [bars[int(np.searchsorted(bars.timestamp, start)) :] for bars in longer]
        return Panel.of(series), Panel.of(longer)

    # --- what is stored ---

    def survey(self, data: bytes) -> Frames:
        """Say which units of a sweep are stored, and what their rows are."""
        task = decode(_survey, data)
        blocks = self._store.blocks(task.sweep_id)
        facts = [block.facts for block in blocks]
        rows, failed = sum(one.rows for one in facts), sum(one.failed for one in facts)
        ends = [one.first + one.count for one in facts]
        if any(one.first < end for one, end in zip(facts[1:], ends, strict=False)):  # some units are stored twice
            once = pl.concat(rows_of(blocks, ["cell", "failure"])).unique("cell")
            rows, failed = once.height, once["failure"].count()
        sign = 1.0 if task.checked.sweep.direction == "maximize" else -1.0
        bests = [one.best for one in facts if one.best is not None]
        found = SurveyedSweep(
            done=_joined([(one.first, one.count) for one in facts]),
            rows=rows,
            failed=failed,
            seconds=sum(one.seconds for one in facts),
            best=max(bests, key=lambda one: (sign * one.value, -one.cell), default=None),
        )
        return [encode(found)]


def _checked_objective(name: str) -> str:
    """Return the name in Python of the objective. Raises `ValidationError`."""
    known: dict[str, str] = {one.wire_name: one.name for one in METRICS} | {one: one for one in ALL_METRICS}
    if name not in known:
        raise ValidationError(
            f"$.objective: there is no metric {name!r}{did_you_mean(name, known)}; docs/metrics.md has all of them",
            path="$.objective",
            expected=list(ALL_METRICS),
            got=name,
        )
    return known[name]


def _metrics(asked: StartSweep, objective: str) -> tuple[str, ...]:
    """Return the metrics of each row, the objective among them."""
    names = checked_metrics("all" if asked.metrics == ["all"] else asked.metrics)
    return names if objective in names else (*names, objective)


def _first_admissible(space: Space) -> int:
    """Return a cell that the constraint admits: the first one, or one of those that are looked at."""
    constraints, cells = space.constraints(), space.cells
    for first in range(0, min(cells, MAX_DRAWS), _TOGETHER):
        if len(found := space.combinations(first, _TOGETHER, constraints)):
            return int(found.cells[0])
    for first in range(0, min(cells, MAX_DRAWS), _TOGETHER):
        drawn = drawn_cells(0, cells, first, _TOGETHER)
        if (admissible := space._admissible(drawn, constraints)).any():
            return int(drawn[admissible][0])
    raise InvalidConfiguration(
        f"the constraint leaves none of {2 * MAX_DRAWS:,} combinations that were looked at, of {cells:,}: widen it",
        paths=["$.where"],
    )


def _draws_of(space: Space, seed: int, trials: int) -> int:
    """Return how many draws it takes to find so many admissible cells. Raises `InvalidConfiguration`."""
    constraints, cells = space.constraints(), space.cells
    if not constraints:
        return trials
    found = 0
    for first in range(0, min(cells, MAX_DRAWS), _TOGETHER):
        admissible = space._admissible(drawn_cells(seed, cells, first, _TOGETHER), constraints)
        before, found = found, found + int(np.count_nonzero(admissible))
        if found >= trials:
            return first + int(np.flatnonzero(admissible)[trials - before - 1]) + 1
    raise InvalidConfiguration(
        f"the constraint leaves {found:,} of {min(cells, MAX_DRAWS):,} combinations that were drawn, fewer than the "
        f"{trials:,} trials: ask for fewer trials, or widen the constraint",
        paths=["$.where", "$.trials"],
    )


def _combinations(space: Space, checked: CheckedSweep, first: int, count: int, work: SweepWork) -> Combinations:
    """Return the combinations of a range of units, those of draws in the order of their cells."""
    if checked.sweep.method == "grid":
        return space.combinations(first, count, work._constraints)
    drawn = drawn_cells(checked.sweep.seed, checked.cells, first, count)
    return _at_cells(space, np.sort(drawn), work)


def _at_cells(space: Space, cells: Integers, work: SweepWork) -> Combinations:
    kept = cells[space._admissible(cells, work._constraints)]
    return Combinations(kept, space._columns(kept, space.axes))


def _first_of(found: Combinations) -> Combinations:
    return Combinations(found.cells[:1], {name: values[:1] for name, values in found.columns.items()})


def _computed(ready: _Ready, found: Combinations) -> Block:
    rows = new_rows(len(found))
    failures = ready.work.evaluate(found, rows)
    failed = list(failures)
    rows.codes[failed], rows.block_sums[failed] = NOT_COMPUTED, np.nan
    return _block_of(ready.plan, found, rows, failures)


def _failed_block(plan: SweepPlan, found: Combinations, reason: str) -> Block:
    """Return rows that have all failed for one reason."""
    rows = new_rows(len(found))
    rows.codes[:], rows.block_sums[:], rows.values[:] = NOT_COMPUTED, np.nan, np.nan
    return _block_of(plan, found, rows, dict.fromkeys(range(len(found)), reason))


def _block_of(plan: SweepPlan, found: Combinations, rows: Any, failures: dict[int, str]) -> Block:
    places = {one.name: place for place, one in enumerate(METRICS)}
    return Block(
        first=int(found.cells[0]) if len(found) else 0,
        count=len(found),
        cells=found.cells,
        parameters=found.columns,
        metrics={name: rows.values[:, places[name]].copy() for name in plan.metrics},
        codes={name: rows.codes[:, places[name]].copy() for name in plan.metrics},
        return_sums=rows.block_sums[:, 0].copy(),
        square_sums=rows.block_sums[:, 1].copy(),
        failures=failures,
    )


def _best(frame: pl.DataFrame, objective: str, parameters: list[str], *, lowest: bool) -> SweepBest | None:
    """Return the best row of a block: of equal ones that of the lowest cell. None where no row has a value."""
    values = frame[objective].cast(pl.Float64).to_numpy()
    if not len(values) or np.isnan(values).all():
        return None
    row = int(np.nanargmin(values) if lowest else np.nanargmax(values))  # the first of equal ones
    named = {name: frame[name][row] for name in parameters}
    return SweepBest(cell=int(frame["cell"][row]), value=float(values[row]), parameters=named)


def _live_columns(space: Space, frame: pl.DataFrame, objective: str, stride: int) -> dict[str, Column]:
    """Return the cells of a block as columns for progress: every `stride`th cell, its parameters and its objective."""
    named = frame.filter(pl.col("cell") % stride == 0)
    columns = {"cell": _column(named["cell"].to_numpy())}
    for name in space.axes:
        values = named[name]
        if values.dtype == pl.String:
            listed = list(getattr(space.axes[name], "values", ()))
            columns[name] = _column(np.array([listed.index(one) for one in values], dtype=np.int64))
        else:
            columns[name] = _column(values.to_numpy())
    columns["value"] = _column(named[objective].cast(pl.Float64).to_numpy())
    return columns


def _column(values: AnyArray) -> Column:
    kind: Literal["<f8", "<i8"] = "<f8" if values.dtype.kind == "f" else "<i8"
    return Column(dtype=kind, data=np.ascontiguousarray(values, dtype=kind).tobytes())


def _version_of(panel: Panel) -> str:
    """Return a checksum of the bars of a panel."""
    checksum = hashlib.blake2b(digest_size=_VERSION_BYTES)
    for bars in panel.series:
        checksum.update(f"{bars.symbol}/{bars.timeframe}/{len(bars)}\n".encode())
        for name in ("timestamp", "open", "high", "low", "close", "volume"):
            checksum.update(np.ascontiguousarray(getattr(bars, name)).data)
    return checksum.hexdigest()


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges of units in order, with those that follow each other as one."""
    found: list[tuple[int, int]] = []
    for first, count in ranges:
        if found and first <= (end := sum(found[-1])):
            found[-1] = found[-1][0], max(end, first + count) - found[-1][0]
        else:
            found.append((first, count))
    return found
