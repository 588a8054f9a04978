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
from backtestr_engine.data.bar_source import BarSource
from backtestr_engine.data.instants import parse_instant
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.timeframes import parse_timeframe
from backtestr_engine.metrics.figures import NOT_COMPUTED
from backtestr_engine.research.sweep_blocks import Block, SweepWork
from backtestr_engine.research.sweep_draws import drawn_cells
from backtestr_engine.research.sweep_kernels import new_rows
from backtestr_engine.research.sweep_plan import ALL_METRICS, SweepPlan, checked_metrics, plan_sweep
from backtestr_engine.research.sweep_space import Combinations, Space
from backtestr_engine.research.sweeps import frame_of
from backtestr_engine.research.trials import TrialData, row_keys, trial_data
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.errors import DataError, ValidationError, did_you_mean
from backtestr_protocol.messages import BacktestConfig
from backtestr_protocol.metrics import METRICS
from backtestr_protocol.stream_messages import Column
from backtestr_protocol.sweep_messages import StartSweep, SweepBest
from backtestr_protocol.sweep_tasks import (
    BlockDone,
    CheckedSweep,
    ProposedBatch,
    SurveyedSweep,
    SweepBlock,
    SweepProposal,
    SweepRow,
    SweepSurvey,
)

from .sweep_methods import choose_method, first_admissible
from .sweep_proposals import SweepProposals
from .sweep_store import BlockFacts, SweepStore, rows_of
from .trial_store import TrialStore

Frames = list[bytes]

# The column of the trials of a sweep that learns from its rows.
TRIAL = "trial"
_VERSION_BYTES = 16

_start = msgspec.msgpack.Decoder(StartSweep)
_block = msgspec.msgpack.Decoder(SweepBlock)
_survey = msgspec.msgpack.Decoder(SweepSurvey)
_row = msgspec.msgpack.Decoder(SweepRow)
_proposal = msgspec.msgpack.Decoder(SweepProposal)


class _Ready(msgspec.Struct, frozen=True):
    """A sweep that this worker has computed blocks of: its plan, its work, and the trials that its rows count among."""

    plan: SweepPlan
    algorithm: Algorithm
    work: SweepWork
    trials: TrialData


class SweepTasks:
    """The tasks of sweeps, on the catalogue, library and rows of one worker. It keeps the bars of the latest sweep."""

    def __init__(
        self,
        catalog: BarSource,
        conventions: Conventions,
        find: Callable[[str], Algorithm],
        store: SweepStore,
        trials: TrialStore,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._catalog = catalog
        self._conventions = conventions
        self._find = find
        self._store = store
        self._trials = trials
        self._clock = clock
        self._proposals = SweepProposals(store)
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
        count = plan.space.count()
        config = self._resolved(asked.config, algorithm, plan)
        config = msgspec.structs.replace(config, parameters=dict(asked.config.parameters))
        tested, seen = self._load(config)
        bars = sum(len(one) for one in tested.series)
        chosen = choose_method(asked, plan, count, bars)
        sweep = msgspec.structs.replace(
            asked,
            config=config,
            method=chosen.method,
            trials=chosen.trials,
            batch_size=chosen.batch_size,
            scheduler=chosen.scheduler,
            objective=objective,
            metrics=list(metrics),
            dry_run=False,
        )
        group = trial_data(algorithm, tested).group
        checked = CheckedSweep(
            sweep=sweep,
            cells=count.cells,
            combinations=count.admissible if chosen.trials is None else chosen.trials,
            exact=count.exact or chosen.trials is not None,
            units=chosen.units,
            bars=bars,
            path=plan.path.name,
            path_reason=plan.path.reason,
            data_version=_version_of(seen),
            notes=chosen.notes,
            trial_group=group,
            trials_before=self._trials.count(group),
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
        first = first_admissible(plan.space)
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
        found, trials = self._combinations(task, ready)
        if is_new and task.reason is None:  # kernels are loaded, which says nothing of the speed of further blocks
            _computed(ready, _first_of(found))
        began = self._clock()
        block = _failed_block(ready.plan, found, task.reason) if task.reason else _computed(ready, found)
        frame = frame_of(block)
        if trials is not None:
            frame.insert_column(1, pl.Series(TRIAL, trials))
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
        self.store_block(task.sweep_id, task.checked, facts, frame)
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

    def store_block(self, sweep_id: str, checked: CheckedSweep, facts: BlockFacts, frame: pl.DataFrame) -> None:
        """Enter the trials of a block that was computed here, or by a worker of a cluster, then store its rows.

        In this order a row that counts is in the ledger, whenever this worker is killed. Raises `OSError`.
        """
        ready, _ = self._get_ready(checked)
        found = ready.plan.space.at(frame["cell"].to_numpy(), [])
        self._trials.append(ready.trials, row_keys(ready.work, ready.algorithm, found))
        self._store.append(sweep_id, facts, frame)

    def algorithm_of(self, checked: CheckedSweep) -> Algorithm:
        """Return the algorithm of a sweep that blocks can be computed of.

        Raises `DataError` where the bars are others than when the sweep was checked.
        """
        self._get_ready(checked)
        return self._find(checked.sweep.config.algorithm_id)

    def bars_of(self, checked: CheckedSweep) -> Panel:
        """Return all bars that combinations of a sweep may see, which its `data_version` is about."""
        return self._load(checked.sweep.config)[1]

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
        ready = self._ready[key] = _Ready(
            plan, algorithm, SweepWork(plan, algorithm, tested, seen), trial_data(algorithm, tested)
        )
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

    # --- proposals ---

    def propose(self, data: bytes) -> Frames:
        """Propose the next batch of trials from the rows of all earlier ones, store it, and say how many there are.

        Raises `DataError` where rows are missing, and `OSError` where the disk is full.
        """
        task = decode(_proposal, data)
        sweep = task.checked.sweep
        algorithm = self._find(sweep.config.algorithm_id)
        space = self._plan(algorithm, sweep, tuple(sweep.metrics or ())).space
        proposed = self._proposals.propose(task.sweep_id, task.checked, space, task.batch)
        return [encode(ProposedBatch(proposed=proposed))]

    def _combinations(self, task: SweepBlock, ready: _Ready) -> tuple[Combinations, Integers | None]:
        """Return the combinations of a block in the order of their cells, and the trials that they are, if any.

        Draws are in that order too.
        """
        checked, space, constraints = task.checked, ready.plan.space, ready.work.constraints
        match checked.sweep.method:
            case "grid":
                return space.combinations(task.first, task.count, constraints), None
            case "random":
                drawn = drawn_cells(checked.sweep.seed, checked.cells, task.first, task.count)
                return space.at(np.sort(drawn), constraints), None
            case "tpe" | "cmaes":
                cells = self._proposals.cells(task.sweep_id, checked, task.first, task.count)
                order = np.argsort(cells)
                return space.at(cells[order], []), task.first + order

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
            proposed=self._proposals.proposed(task.sweep_id, task.checked),
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
    columns = {name: _column(named[name].to_numpy()) for name in ("cell", TRIAL) if name in named.columns}
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
