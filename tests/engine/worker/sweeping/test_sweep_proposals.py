"""Batches of trials are proposed from stored rows, stored before they are computed, and the same after any end."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from backtestr_engine.built_in import find_algorithm
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.research.sweep_draws import drawn_cells
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.worker.sweeping.sweep_store import SweepStore, rows_of
from backtestr_engine.worker.sweeping.sweep_tasks import SweepTasks
from backtestr_engine.worker.sweeping.trial_store import TrialStore
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.errors import DataError
from backtestr_protocol.messages import BacktestConfig
from backtestr_protocol.sweep_messages import StartSweep
from backtestr_protocol.sweep_tasks import (
    BlockDone,
    CheckedSweep,
    ProposedBatch,
    SurveyedSweep,
    SweepBlock,
    SweepProposal,
    SweepSurvey,
)

CONFIG = BacktestConfig(
    algorithm_id="bollinger_reversion",
    symbol="SYNTH",
    initial_capital=10_000.0,
    timeframe="1d",
    commission=0.001,
    slippage=0.0005,
    parameters={},
)
SPACE = {
    "timeperiod": {"low": 5, "high": 200, "distribution": "log_uniform"},
    "deviations": {"low": 0.5, "high": 3.0, "distribution": "uniform"},
}
TRIALS, BATCH = 24, 8


class Bench:
    """A catalogue and a store, and workers that come and go."""

    def __init__(self, root: Path, conventions: Conventions) -> None:
        self.root = root
        self.conventions = conventions
        self.catalog = Catalog(root / "catalog", cache_bytes=0)
        self.catalog.write(synthetic_bars("1d", 300))
        self.stored = SweepStore(root / "sweeps")

    def worker(self) -> SweepTasks:
        store, trials = SweepStore(self.root / "sweeps"), TrialStore(self.root / "trials")
        return SweepTasks(self.catalog, self.conventions, find_algorithm, store, trials)

    def check(self, **changes: Any) -> CheckedSweep:
        how = {"config": CONFIG, "space": SPACE, "method": "tpe", "trials": TRIALS, "batch_size": BATCH, "seed": 3}
        asked = StartSweep(**{**how, "objective": "total_return", **changes})
        return decode(msgspec.msgpack.Decoder(CheckedSweep), self.worker().check(encode(asked))[0])

    def table(self, sweep_id: str = "s1") -> pl.DataFrame:
        return pl.concat(rows_of(self.stored.blocks(sweep_id))).unique("cell").sort("trial")


@pytest.fixture
def bench(tmp_path: Path, conventions: Conventions) -> Bench:
    return Bench(tmp_path, conventions)


def propose(tasks: SweepTasks, checked: CheckedSweep, batch: int, sweep_id: str = "s1") -> int:
    data = encode(SweepProposal(sweep_id=sweep_id, checked=checked, batch=batch))
    return decode(msgspec.msgpack.Decoder(ProposedBatch), tasks.propose(data)[0]).proposed


def run(tasks: SweepTasks, checked: CheckedSweep, first: int, count: int, **how: Any) -> BlockDone:
    block = SweepBlock(**{"sweep_id": "s1", "checked": checked, "first": first, "count": count, **how})
    return decode(msgspec.msgpack.Decoder(BlockDone), tasks.run_block(encode(block))[0])


def survey(tasks: SweepTasks, checked: CheckedSweep) -> SurveyedSweep:
    data = encode(SweepSurvey(sweep_id="s1", checked=checked))
    return decode(msgspec.msgpack.Decoder(SurveyedSweep), tasks.survey(data)[0])


def run_whole(bench: Bench, checked: CheckedSweep, sweep_id: str) -> pl.DataFrame:
    tasks = bench.worker()
    for batch in range(3):
        assert propose(tasks, checked, batch, sweep_id) == (batch + 1) * BATCH
        run(tasks, checked, batch * BATCH, BATCH, sweep_id=sweep_id)
    return bench.table(sweep_id)


@pytest.mark.parametrize("method", ["tpe", "cmaes"])
def test_trials_are_the_same_on_any_workers_in_any_blocks_and_after_any_end(bench: Bench, method: str) -> None:
    checked = bench.check(method=method)
    assert (checked.units, checked.combinations, checked.sweep.batch_size) == (TRIALS, TRIALS, BATCH)
    whole = run_whole(bench, checked, "whole")
    one, other = bench.worker(), bench.worker()
    propose(one, checked, 0)
    run(other, checked, 5, 3)
    run(one, checked, 0, 5)
    other = bench.worker()  # the first one has ended
    assert propose(other, checked, 1) == 2 * BATCH
    assert propose(bench.worker(), checked, 1) == 2 * BATCH, "it is stored, and stays what it is"
    for trial in (15, 8, 12, 9, 11, 10, 13, 14):
        run(one, checked, trial, 1)
    run(one, checked, 8, 8)  # a block that was stored, but not told of
    propose(one, checked, 2)
    run(bench.worker(), checked, 16, 8)
    assert_frame_equal(bench.table(), whole, check_exact=True)
    assert whole["trial"].to_list() == list(range(TRIALS))
    assert whole["cell"].n_unique() == TRIALS
    drawn = drawn_cells(3, checked.cells, 0, BATCH).tolist()
    assert whole["cell"][:BATCH].to_list() == drawn, "the first batch has the first trials of method random"


def test_a_survey_tells_what_is_proposed_and_what_is_done(bench: Bench) -> None:
    checked = bench.check()
    assert survey(bench.worker(), checked) == SurveyedSweep(done=[], rows=0, failed=0, seconds=0.0)
    propose(bench.worker(), checked, 0)
    run(bench.worker(), checked, 2, 3)
    found = survey(bench.worker(), checked)
    assert (found.proposed, found.done, found.rows) == (BATCH, [(2, 3)], 3)


def test_a_block_of_what_is_not_proposed_is_refused(bench: Bench) -> None:
    checked = bench.check()
    tasks = bench.worker()
    propose(tasks, checked, 0)
    with pytest.raises(DataError, match="are not proposed"):
        run(tasks, checked, 6, 3)


def test_a_batch_waits_for_the_rows_of_all_earlier_ones(bench: Bench) -> None:
    checked = bench.check()
    tasks = bench.worker()
    propose(tasks, checked, 0)
    run(tasks, checked, 0, 7)
    with pytest.raises(DataError, match="1 rows before it are missing"):
        propose(tasks, checked, 1)
    with pytest.raises(DataError, match="cannot be proposed"):
        propose(tasks, checked, 2)
    assert survey(tasks, checked).proposed == BATCH


def test_failed_rows_are_learnt_from_as_failed(bench: Bench) -> None:
    checked = bench.check()
    tasks = bench.worker()
    propose(tasks, checked, 0)
    assert run(tasks, checked, 0, 1, reason="it ended its worker").failed == 1
    run(tasks, checked, 1, 7)
    propose(tasks, checked, 1)
    run(tasks, checked, 8, 8)
    table = bench.table()
    assert table.filter(pl.col("failure").is_not_null())["trial"].to_list() == [0]
    assert table["total_return"].null_count() == 1


def test_a_sweep_that_is_deleted_and_started_again_begins_anew(bench: Bench) -> None:
    checked = bench.check()
    tasks = bench.worker()
    propose(tasks, checked, 0)
    run(tasks, checked, 0, 8)
    before = bench.table()
    shutil.rmtree(bench.root / "sweeps" / "s1")
    assert survey(tasks, checked).proposed == 0
    assert propose(tasks, checked, 0) == BATCH
    run(tasks, checked, 0, 8)
    assert_frame_equal(bench.table(), before, check_exact=True)
    other = bench.check(seed=4)
    assert survey(tasks, other).proposed == BATCH


def test_a_batch_that_cannot_be_read_says_so(bench: Bench) -> None:
    checked = bench.check()
    propose(bench.worker(), checked, 0)
    [path] = (bench.root / "sweeps" / "s1").glob("batch-*")
    assert os.stat(path).st_mode & 0o777 == 0o600
    path.write_bytes(b"\x93")
    with pytest.raises(DataError, match=r"batch-000000\.msgpack of a sweep cannot be read"):
        run(bench.worker(), checked, 0, 1)


def test_progress_has_the_trials_of_the_cells_that_are_done(bench: Bench) -> None:
    checked = bench.check()
    tasks = bench.worker()
    propose(tasks, checked, 0)
    done = run(tasks, checked, 2, 4)
    columns = {name: memoryview(one.data).cast("q").tolist() for name, one in list(done.cells_done.items())[:2]}
    assert list(done.cells_done) == ["cell", "trial", *SPACE, "value"]
    assert sorted(columns["trial"]) == [2, 3, 4, 5]
    stored = dict(zip(bench.table()["trial"], bench.table()["cell"], strict=True))
    assert [stored[trial] for trial in columns["trial"]] == columns["cell"] == sorted(columns["cell"])
