"""A sweep in blocks, in any order and after any end of a process, is the engine's own sweep, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from backtestr_engine.backtest.plan import prepare
from backtestr_engine.backtest.run import Run
from backtestr_engine.backtest.tables import attach_all
from backtestr_engine.built_in import find_algorithm
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.research.sweeps import sweep
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.worker.sweeping.sweep_results import read_results
from backtestr_engine.worker.sweeping.sweep_store import SweepStore
from backtestr_engine.worker.sweeping.sweep_tasks import SweepTasks
from backtestr_engine.worker.sweeping.trial_store import TrialStore
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.errors import DataError, InvalidConfiguration, ValidationError
from backtestr_protocol.messages import BacktestConfig
from backtestr_protocol.sweep_messages import GetSweepResults, StartSweep
from backtestr_protocol.sweep_tasks import BlockDone, CheckedSweep, SurveyedSweep, SweepBlock, SweepRow, SweepSurvey

BARS = 300
SPACE = {"fast": {"low": 2, "high": 9, "step": 1}, "slow": [8, 12, 20, 31]}
CONFIG = BacktestConfig(
    algorithm_id="sma_cross",
    symbol="SYNTH",
    initial_capital=10_000.0,
    timeframe="1d",
    commission=0.001,
    slippage=0.0005,
    parameters={},
)


@pytest.fixture
def full_catalog(catalog: Catalog) -> Catalog:
    catalog.write(synthetic_bars("1d", BARS))
    return catalog


@pytest.fixture
def store(tmp_path: Path) -> SweepStore:
    return SweepStore(tmp_path / "sweeps")


@pytest.fixture
def trials(tmp_path: Path) -> TrialStore:
    return TrialStore(tmp_path / "trials")


@pytest.fixture
def tasks(full_catalog: Catalog, conventions: Conventions, store: SweepStore, trials: TrialStore) -> SweepTasks:
    return SweepTasks(full_catalog, conventions, find_algorithm, store, trials)


def request(**changes: Any) -> StartSweep:
    return StartSweep(**{"config": CONFIG, "space": SPACE, "where": "fast < slow", **changes})


def check(tasks: SweepTasks, **changes: Any) -> CheckedSweep:
    return decode(msgspec.msgpack.Decoder(CheckedSweep), tasks.check(encode(request(**changes)))[0])


def run(tasks: SweepTasks, checked: CheckedSweep, first: int, count: int, **how: Any) -> BlockDone:
    block = SweepBlock(sweep_id="s1", checked=checked, first=first, count=count, **how)
    return decode(msgspec.msgpack.Decoder(BlockDone), tasks.run_block(encode(block))[0])


def table(store: SweepStore, **asked: Any) -> pl.DataFrame:
    request = GetSweepResults(sweep_id="s1", **asked)
    frames: list[pl.DataFrame] = []

    def hand_over(tables: Any) -> Any:
        frames.extend(one.make() for one in tables)
        return attach_all(tables)

    answer, _ = read_results(store, request, hand_over)
    assert [one.rows for one in answer.tables] == [frames[0].height]
    return frames[0]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_blocks_in_any_order_are_the_sweep_of_the_engine(
    tasks: SweepTasks, store: SweepStore, conventions: Conventions, order: list[int]
) -> None:
    checked = check(tasks)
    assert (checked.cells, checked.units, checked.path) == (32, 32, "fused")
    done = [run(tasks, checked, 8 * block, 8) for block in order]
    own = sweep(
        synthetic_bars("1d", BARS),
        find_algorithm("sma_cross"),
        SPACE,
        where="fast < slow",
        conventions=conventions,
        initial_capital=10_000.0,
        commission=0.001,
        slippage=0.0005,
    )
    assert sum(one.rows for one in done) == own.count.admissible == checked.combinations
    assert_frame_equal(table(store), own.frame, check_exact=True)
    best = max((one.best for one in done if one.best is not None), key=lambda one: (one.value, -one.cell))
    assert best.cell == own.best(1, "sharpe_ratio")["cell"][0]


def test_the_time_of_a_block_has_that_of_its_storing(
    full_catalog: Catalog,
    conventions: Conventions,
    store: SweepStore,
    trials: TrialStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A backtest waits until the worker of a block is idle, so blocks are sized by all of that time."""
    now = 100.0
    append = store.append

    def slow_append(*block: Any) -> None:
        nonlocal now
        append(*block)
        now += 5.0

    monkeypatch.setattr(store, "append", slow_append)
    tasks = SweepTasks(full_catalog, conventions, find_algorithm, store, trials, lambda: now)
    done = run(tasks, check(tasks), 0, 8)

    assert done.seconds == 5.0
    assert [block.facts.seconds for block in store.blocks("s1")] == [0.0]


def test_a_row_has_the_figures_of_its_backtest(
    tasks: SweepTasks, store: SweepStore, full_catalog: Catalog, conventions: Conventions
) -> None:
    checked = check(tasks)
    run(tasks, checked, 0, 32)
    for row in table(store, sort="sharpe_ratio", descending=True, limit=3).iter_rows(named=True):
        [frame] = tasks.open_row(encode(SweepRow(checked=checked, row=row["cell"], backtest_id="b1")))
        config = decode(msgspec.msgpack.Decoder(BacktestConfig), frame)
        assert config.parameters == {"fast": row["fast"], "slow": row["slow"]}
        single = Run(prepare(config, full_catalog, conventions), "b1")
        single.advance(single.bars_total)
        metrics = single.finish().metrics
        for name in ("final_equity", "total_return", "max_drawdown", "total_fees", "total_trades", "sharpe_ratio"):
            assert getattr(metrics, name) == row[name], name


def test_random_trials_are_the_same_in_any_blocks(tasks: SweepTasks, store: SweepStore) -> None:
    checked = check(tasks, method="random", trials=11, seed=3)
    assert checked.combinations == 11
    assert checked.units >= 11
    rows = [run(tasks, checked, unit, 1).rows for unit in range(checked.units)]
    assert sum(rows) == 11
    in_ones = table(store)
    store.delete("s1")
    assert run(tasks, checked, 0, checked.units).rows == 11
    assert_frame_equal(table(store), in_ones, check_exact=True)
    other = check(tasks, method="random", trials=11, seed=4)
    store.delete("s1")
    run(tasks, other, 0, other.units)
    assert table(store)["cell"].to_list() != in_ones["cell"].to_list()


def test_more_trials_than_combinations_are_a_grid_which_is_said(tasks: SweepTasks) -> None:
    checked = check(tasks, method="random", trials=1_000)
    assert (checked.sweep.method, checked.combinations) == ("grid", check(tasks).combinations)
    assert "no more than the trials" in checked.notes[0]


def test_a_survey_finds_what_is_stored(tasks: SweepTasks) -> None:
    checked = check(tasks)
    empty = survey(tasks, checked)
    assert (empty.done, empty.rows, empty.best) == ([], 0, None)
    blocks = [run(tasks, checked, first, 4) for first in (0, 4, 12)]
    found = survey(tasks, checked)
    assert found.done == [(0, 8), (12, 4)]
    assert found.rows == sum(one.rows for one in blocks)
    run(tasks, checked, 2, 8)  # a part of it twice, and a part of it new
    again = survey(tasks, checked)
    assert again.done == [(0, 10), (12, 4)]
    assert again.rows == found.rows + run_rows(tasks, checked, 8, 10)


def survey(tasks: SweepTasks, checked: CheckedSweep) -> SurveyedSweep:
    found = tasks.survey(encode(SweepSurvey(sweep_id="s1", checked=checked)))
    return decode(msgspec.msgpack.Decoder(SurveyedSweep), found[0])


def run_rows(tasks: SweepTasks, checked: CheckedSweep, first: int, last: int) -> int:
    block = SweepBlock(sweep_id="other", checked=checked, first=first, count=last - first)
    return decode(msgspec.msgpack.Decoder(BlockDone), tasks.run_block(encode(block))[0]).rows


def test_a_row_that_ends_workers_is_stored_with_its_reason(tasks: SweepTasks, store: SweepStore) -> None:
    checked = check(tasks)
    done = run(tasks, checked, 0, 1, reason="it ended the worker that computed it: killed")
    assert (done.rows, done.failed, done.best) == (1, 1, None)
    run(tasks, checked, 1, 31)
    rows = table(store)
    assert rows["failure"].null_count() == rows.height - 1
    assert rows["failure"][0] == "it ended the worker that computed it: killed"
    assert rows["sharpe_ratio"][0] is None


def test_bars_that_have_changed_are_refused(tasks: SweepTasks, full_catalog: Catalog, conventions: Conventions) -> None:
    checked = check(tasks)
    full_catalog.write(synthetic_bars("1d", BARS + 1)[1:])
    unused = SweepStore(Path("unused")), TrialStore(Path("unused"))
    other = SweepTasks(full_catalog, conventions, find_algorithm, *unused)
    with pytest.raises(DataError, match=r"have changed|no bars"):
        run(other, checked, 0, 4)


def test_rows_are_trials_once_and_before_they_count(
    tasks: SweepTasks, trials: TrialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = check(tasks)
    assert checked.trial_group is not None
    assert checked.trials_before == 0
    found: list[int] = []
    append = SweepStore.append

    def counted(*arguments: Any) -> None:
        found.append(trials.count(checked.trial_group or ""))
        append(*arguments)

    monkeypatch.setattr(SweepStore, "append", counted)
    rows = [run(tasks, checked, first, 8).rows for first in (0, 8, 0, 16)]
    assert found == [rows[0], rows[0] + rows[1], rows[0] + rows[1], rows[0] + rows[1] + rows[3]]
    assert check(tasks, where="fast + 1 < slow").trials_before == found[-1]


def test_random_trials_are_those_of_their_rows(tasks: SweepTasks, trials: TrialStore) -> None:
    checked = check(tasks, method="random", trials=9, seed=3)
    units = checked.units
    rows = sum(run(tasks, checked, first, min(4, units - first)).rows for first in range(0, units, 4))
    assert trials.count(checked.trial_group or "") == rows == 9
    whole = check(tasks)
    assert whole.trials_before == 9
    run(tasks, whole, 0, whole.units)
    assert trials.count(checked.trial_group or "") == whole.combinations, "each of the nine is a row of the grid"


def test_a_row_that_ends_workers_is_a_trial(tasks: SweepTasks, trials: TrialStore) -> None:
    checked = check(tasks)
    run(tasks, checked, 1, 1, reason="it ended the worker that computed it: killed")
    assert trials.count(checked.trial_group or "") == 1


def test_rows_are_filtered_sorted_and_paged(tasks: SweepTasks, store: SweepStore) -> None:
    checked = check(tasks)
    for first in range(0, 32, 5):
        run(tasks, checked, first, min(5, 32 - first))
    every = table(store)
    best = table(store, sort="total_return", descending=True)
    assert best["total_return"].to_list() == sorted(every["total_return"], reverse=True)
    pages = [table(store, sort="total_return", descending=True, offset=at, limit=7) for at in range(0, 32, 7)]
    assert_frame_equal(pl.concat(pages), best, check_exact=True)
    some = table(store, where="fast >= 4 and total_trades > 3", columns=["fast", "total_trades"])
    assert some.columns == ["cell", "fast", "total_trades"]
    expected = every.filter((pl.col("fast") >= 4) & (pl.col("total_trades") > 3))
    assert_frame_equal(some, expected.select("cell", "fast", "total_trades"), check_exact=True)
    assert table(store, where="fast > 100").height == 0


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"sort": "sharp_ratio"}, r"\$.sort: .*did you mean 'sharpe_ratio'"),
        ({"columns": ["slw"]}, r"\$.columns: .*did you mean 'slow'"),
        ({"where": "fst > 3"}, "unknown parameter 'fst'; did you mean 'fast'"),
        ({"sort": "return_sums"}, r"\$.sort"),
    ],
)
def test_a_column_that_does_not_exist_is_named(
    tasks: SweepTasks, store: SweepStore, asked: dict[str, Any], match: str
) -> None:
    run(tasks, check(tasks), 0, 4)
    with pytest.raises(ValidationError, match=match):
        table(store, **asked)


def test_progress_names_every_nth_cell(tasks: SweepTasks) -> None:
    done = run(tasks, check(tasks), 0, 32, stride=5)
    cells = memoryview(done.cells_done["cell"].data).cast("q").tolist()
    assert cells
    assert all(cell % 5 == 0 for cell in cells)
    assert {len(one.data) for one in done.cells_done.values()} == {8 * len(cells)}
    assert list(done.cells_done) == ["cell", "fast", "slow", "value"]


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"objective": "sharp_ratio"}, ValidationError, r"\$.objective: .*did you mean 'sharpe_ratio'"),
        ({"metrics": ["sharpRatio"]}, ValidationError, "unknown metric"),
        ({"space": {}}, InvalidConfiguration, "the space is empty"),
        ({"space": {"fst": [1]}}, ValidationError, "did you mean 'fast'"),
        ({"where": "fast > 900"}, InvalidConfiguration, "leaves no combination"),
        ({"trials": 5}, InvalidConfiguration, "a grid runs every combination"),
        (
            {"config": msgspec.structs.replace(CONFIG, symbol="SYNTHE")},
            DataError,
            "did you mean 'SYNTH'",
        ),
        (
            {"config": msgspec.structs.replace(CONFIG, parameters={"fast": 3})},
            InvalidConfiguration,
            "both swept and fixed",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_with_the_way_out(
    tasks: SweepTasks, changes: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        check(tasks, **changes)


def test_a_grid_of_a_billion_is_refused_with_its_count_and_can_be_sampled(tasks: SweepTasks) -> None:
    wide = {"fast": {"low": 2, "high": 500, "step": 1}, "slow": {"low": 3, "high": 500, "step": 1}}
    config = msgspec.structs.replace(CONFIG, algorithm_id="macd")
    space = {**wide, "signal": {"low": 2, "high": 200, "step": 1}}
    with pytest.raises(InvalidConfiguration, match="up to 10,000,000"):
        check(tasks, config=config, space=space, where=None)
    sampled = check(tasks, config=config, space=space, where=None, method="random", trials=50)
    assert sampled.combinations == 50


def test_a_grid_of_too_many_cells_is_refused_though_few_are_left(tasks: SweepTasks) -> None:
    config = msgspec.structs.replace(CONFIG, algorithm_id="bollinger_reversion")
    space = {"timeperiod": {"low": 2, "high": 1000, "step": 1}, "deviations": {"low": 0.5, "high": 9.5, "step": 1e-8}}
    with pytest.raises(InvalidConfiguration, match="up to 10,000,000 of 10,000,000,000"):
        check(tasks, config=config, space=space, where="deviations < 0.5001")
