"""The law of sweeps: a row is the single run of its combination, bit for bit, whatever block it is in."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.algorithms.parameters import Value
from backtestr_engine.backtest.plan import Plan
from backtestr_engine.backtest.run import Run
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_engine.metrics.returns import BLOCKS
from backtestr_engine.research import sweep_blocks, sweep_lines
from backtestr_engine.research.sweep_blocks import Block, SweepWork, run_block
from backtestr_engine.research.sweep_plan import ALL_METRICS, USUAL_METRICS, plan_sweep
from backtestr_protocol.errors import BacktestrError
from backtestr_protocol.messages import BacktestConfig
from support.engine.cases import shipped_conventions
from support.engine.sweep_cases import ALONE, SPACES, SweepCase, random_sweep

DEFAULTS = shipped_conventions()
COMPILING = settings(deadline=None, max_examples=120)
"""The first example waits for its kernels."""

seeds = st.integers(0, 2**32)


def whole(case: SweepCase) -> Block:
    work = SweepWork(case.plan, case.algorithm, case.panel, case.seen)
    return run_block(work, 0, case.plan.space.cells)


def finished_or_error(case: SweepCase, values: dict[str, Value]) -> Run | BacktestrError:
    try:
        return case.single_run(values)
    except BacktestrError as error:
        return error


def assert_rows_are_single_runs(case: SweepCase, block: Block) -> None:
    for row, cell in enumerate(block.cells.tolist()):
        values = case.plan.space.values(cell)
        assert {name: column[row].item() for name, column in block.parameters.items()}.items() <= values.items()
        where = f"{case.algorithm.name} {values} by {case.plan.path}: {case.plan.options.conventions}"
        run = finished_or_error(case, values)
        if isinstance(run, BacktestrError):
            assert block.failures[row] == run.message, where
            assert all(np.isnan(column[row]) for column in block.metrics.values()), where
            continue
        assert row not in block.failures, where
        metrics = run.finish().metrics
        undefined = {name: reason for name, reason in metrics.undefined.items() if name in block.metrics}
        assert block.undefined(row) == undefined, where
        for name, column in block.metrics.items():
            single = getattr(metrics, name)
            assert np.isnan(column[row]) if single is None else column[row].item() == single, f"{name} of {where}"
        assert_block_sums(block, row, run.simulation.equity, where)


def assert_block_sums(block: Block, row: int, equity: Floats, where: str) -> None:
    """Allow sums in another order to differ by 1e-12 of the sum of the sizes of what is added."""
    sums = block.return_sums[row], block.square_sums[row]
    if equity.min() <= 0.0:
        assert np.isnan(sums).all(), where
        return
    returns = equity / np.concatenate(([1000.0], equity[:-1])) - 1.0
    bounds = np.arange(BLOCKS + 1) * len(returns) // BLOCKS
    for power, own in zip((1, 2), sums, strict=True):
        expected = [(returns[first:end] ** power).sum() for first, end in itertools.pairwise(bounds)]
        assert own == pytest.approx(expected, abs=1e-12 * max(1.0, float(np.sum(np.abs(returns) ** power)))), where


@COMPILING
@given(st.sampled_from(ALONE), seeds)
def test_every_figure_of_a_row_is_that_of_the_single_run_bit_for_bit(name: str, seed: int) -> None:
    case = random_sweep(np.random.default_rng(seed), DEFAULTS, name)
    assert_rows_are_single_runs(case, whole(case))


@COMPILING
@given(st.sampled_from(ALONE), seeds)
def test_so_are_the_usual_metrics_which_are_computed_together(name: str, seed: int) -> None:
    case = random_sweep(np.random.default_rng(seed), DEFAULTS, name, metrics=None)
    block = whole(case)
    assert tuple(block.metrics) == USUAL_METRICS
    assert_rows_are_single_runs(case, block)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([*SPACES]), seeds, st.integers(2, 3))
def test_so_are_those_of_several_symbols_that_share_an_account(name: str, seed: int, symbols: int) -> None:
    case = random_sweep(np.random.default_rng(seed), DEFAULTS, name, symbols=symbols)
    assert case.plan.path.name == "single_runs"
    assert_rows_are_single_runs(case, whole(case))


def as_bytes(block: Block) -> dict[str, bytes]:
    arrays = {**block.parameters, **block.metrics, "cells": block.cells, "r": block.return_sums, "s": block.square_sums}
    return {name: array.tobytes() for name, array in arrays.items()} | {
        f"codes of {name}": codes.tobytes() for name, codes in block.codes.items()
    }


@COMPILING
@given(st.sampled_from(ALONE), seeds, st.lists(st.integers(1, 6), max_size=20), st.randoms(use_true_random=False))
def test_blocks_of_any_size_in_any_order_make_the_same_table(
    name: str, seed: int, sizes: list[int], shuffled: np.random.Generator
) -> None:
    case = random_sweep(np.random.default_rng(seed), DEFAULTS, name)
    together = whole(case)
    cells = case.plan.space.cells
    bounds = [min(bound, cells) for bound in itertools.accumulate([0, *sizes, cells])]
    ranges = [(first, end - first) for first, end in itertools.pairwise(bounds)]
    shuffled.shuffle(ranges)
    work = SweepWork(case.plan, case.algorithm, case.panel, case.seen)
    blocks = sorted((run_block(work, *one) for one in ranges), key=lambda block: block.first)

    parts = [as_bytes(block) for block in blocks]
    for column, content in as_bytes(together).items():
        assert b"".join(part[column] for part in parts) == content, column
    failed = {int(block.cells[row]): why for block in blocks for row, why in block.failures.items()}
    assert failed == {int(together.cells[row]): why for row, why in together.failures.items()}


@pytest.mark.parametrize("name", ["sma_cross", "donchian_breakout", "macd"])
def test_lines_and_indicators_that_do_not_fit_are_computed_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_sweep(np.random.default_rng(5), DEFAULTS, name, metrics=None)
    plenty = as_bytes(whole(case))
    monkeypatch.setattr(sweep_lines, "LINES_BYTES", 1)
    monkeypatch.setattr(sweep_blocks, "REMEMBERED_BYTES", 1)
    assert as_bytes(whole(case)) == plenty


def test_each_kind_of_algorithm_takes_the_fastest_path_it_can() -> None:
    paths = {name: random_sweep(np.random.default_rng(0), DEFAULTS, name).plan.path.name for name in SPACES}
    assert set(paths.values()) <= {"fused", "general", "single_runs"}
    assert paths["leaders"] == "single_runs"


def test_all_metrics_of_a_single_run_are_there() -> None:
    block = whole(random_sweep(np.random.default_rng(3), DEFAULTS, "sma_cross"))
    assert tuple(block.metrics) == ALL_METRICS
    assert len(block) > 0


def test_thousand_pairs_on_real_days_have_the_figures_of_single_runs(google: Bars) -> None:
    config = BacktestConfig(
        algorithm_id="sma_cross",
        symbol="GOOG",
        initial_capital=10_000.0,
        timeframe="1d",
        commission=0.001,
        slippage=0.0,
        parameters={},
        options={"preset": "vectorbt", "direction": "long"},
    )
    sma_cross, panel = BUILT_IN["sma_cross"], Panel.of([google])
    space = {"fast": range(5, 51), "slow": range(5, 51)}
    plan = plan_sweep(config, sma_cross, space, DEFAULTS, metrics="all")
    block = run_block(SweepWork(plan, sma_cross, panel), 0, plan.space.cells)
    assert (len(block), plan.path.name, block.failures) == (1035, "fused", {})
    for row in range(0, 1035, 29):
        values = plan.space.values(int(block.cells[row]))
        run = Run(Plan(config, sma_cross, values, plan.options, panel), "single")
        run.advance(run.bars_total)
        metrics = run.finish().metrics
        assert {name: column[row] for name, column in block.metrics.items()} == {
            name: getattr(metrics, name) for name in block.metrics
        }

    # vectorbt 1.0's own figures: see tests/engine/backtest/test_run_golden.py.
    row = int(np.flatnonzero((block.parameters["fast"] == 10) & (block.parameters["slow"] == 30))[0])
    golden = {"final_equity": 60155.441128097256, "sharpe_ratio": 1.2643286457221035, "total_trades": 33}
    golden |= {"sortino_ratio": 2.020249311020536, "max_drawdown": 0.28923409638937386}
    assert {name: block.metrics[name][row] for name in golden} == pytest.approx(golden, rel=1e-12)
