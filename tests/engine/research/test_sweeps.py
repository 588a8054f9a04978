"""A sweep from a script: one table with a row per combination."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.research import sweeps
from backtestr_engine.research.sweep_plan import USUAL_METRICS
from backtestr_engine.research.sweeps import sweep
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.errors import InvalidConfiguration, ValidationError
from support.engine.sweep_cases import fragile

SMA = BUILT_IN["sma_cross"]
SPACE = {"fast": range(5, 12, 3), "slow": [9, 20, 30]}


@pytest.fixture(scope="module")
def bars() -> Bars:
    return synthetic_bars("1m", 400)


def test_a_table_has_a_row_for_each_combination(bars: Bars, conventions: Conventions) -> None:
    table = sweep(bars, SMA, SPACE, conventions=conventions, where="slow - fast > 3", commission=0.001)
    frame = table.frame
    assert str(table.count) == "7 of 9 combinations"
    assert (table.path.name, table.path.reason) == ("fused", "combinations of sma_cross share its lines")
    assert frame.columns == ["cell", "fast", "slow", *USUAL_METRICS, "return_sums", "square_sums", "failure"]
    assert frame["cell"].to_list() == [0, 1, 2, 4, 5, 7, 8]
    assert frame.filter(pl.col("fast") == 8)["slow"].to_list() == [20, 30]
    assert frame["total_trades"].dtype == pl.Int64
    assert frame["return_sums"].dtype == pl.Array(pl.Float64, 16)
    assert frame["failure"].null_count() == len(frame)
    growth = frame["return_sums"].arr.sum().to_numpy()
    assert (
        np.sign(growth - 0.5 * frame["square_sums"].arr.sum().to_numpy()).tolist()
        == np.sign(frame["total_return"].to_numpy()).tolist()
    )


def test_rows_do_not_depend_on_the_size_of_blocks(
    bars: Bars, conventions: Conventions, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sweep(bars, SMA, SPACE, conventions=conventions).frame
    monkeypatch.setattr(sweeps, "BLOCK_CELLS", 2)
    assert sweep(bars, SMA, SPACE, conventions=conventions).frame.equals(whole)


def test_a_combination_that_fails_is_a_row_with_its_reason(bars: Bars, conventions: Conventions) -> None:
    frame = sweep(bars, fragile, {"length": range(1, 5)}, conventions=conventions).frame
    assert frame["failure"].to_list() == [None, None, "fragile: length 3 cannot be", None]
    assert frame["final_equity"].is_null().to_list() == [False, False, True, False]


def test_the_best_rows_are_those_with_the_highest_value(bars: Bars, conventions: Conventions) -> None:
    table = sweep(bars, SMA, SPACE, conventions=conventions)
    best = table.best(3, "total_return")
    assert best["total_return"].to_list() == sorted(table.frame["total_return"].to_list(), reverse=True)[:3]
    lowest = table.best(1, "max_drawdown", lowest=True)
    assert lowest["max_drawdown"].item() == table.frame["max_drawdown"].min()
    with pytest.raises(ValidationError, match="no metric 'sharp_ratio'; did you mean 'sharpe_ratio'"):
        table.best(3, "sharp_ratio")


def test_a_metric_that_no_row_has_has_no_best(bars: Bars, conventions: Conventions) -> None:
    table = sweep(bars[:15], SMA, {"fast": [20], "slow": [30, 40]}, conventions=conventions)
    assert table.frame["win_rate"].is_null().all()
    with pytest.raises(InvalidConfiguration, match="win_rate is undefined for each of 2 rows"):
        table.best(1, "win_rate")


def test_warm_up_bars_are_seen_and_not_traded(bars: Bars, conventions: Conventions) -> None:
    longer = sweep(bars, SMA, SPACE, conventions=conventions, warmup=100)
    tested = sweep(bars[100:], SMA, SPACE, conventions=conventions)
    assert longer.frame["buy_and_hold_return"].to_list() == tested.frame["buy_and_hold_return"].to_list()
    assert not longer.frame.equals(tested.frame)
    with pytest.raises(InvalidConfiguration, match="a warm-up of 400 leaves none of 400 bars"):
        sweep(bars, SMA, SPACE, conventions=conventions, warmup=400)


def test_several_symbols_share_an_account(bars: Bars, conventions: Conventions) -> None:
    other = synthetic_bars("1m", 400, symbol="OTHER")
    table = sweep([bars, other], SMA, {"fast": [5, 8]}, conventions=conventions)
    assert (len(table.frame), table.path.name) == (2, "single_runs")


def test_the_example_of_the_page_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "sweeps.md").read_text("utf-8")
    example = page.partition("## From a script")[2].partition("```python\n")[2].partition("```")[0]
    exec(compile(example, "docs/sweeps.md", "exec"), {})
    count, path, *_ = capsys.readouterr().out.splitlines()
    assert f"# {count}\n" in example
    assert f"# {path}\n" in example
