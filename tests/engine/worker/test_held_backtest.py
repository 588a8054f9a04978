"""A backtest's result is written while its bars are simulated, and nothing of it stays where there is none."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from backtestr_engine.backtest.result_files import RecordWriter
from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import write_synthetic
from backtestr_engine.publishing.batching import Batcher
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.worker import held_backtest
from backtestr_engine.worker.task_runner import TaskRunner
from backtestr_protocol.messages import BacktestConfig
from backtestr_protocol.worker_channel import Control, Finished
from support.engine.tasks import Clock, assign, config, of_kind, run_out

CHUNK = 100
BARS_AHEAD = 200
ALL_BARS = 1_000
NEVER = 10 * ALL_BARS


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


@pytest.fixture
def runner(
    catalog: Catalog,
    store: ResultStore,
    conventions: Conventions,
    batcher: Batcher,
    monkeypatch: pytest.MonkeyPatch,
) -> TaskRunner:
    monkeypatch.setattr(held_backtest, "BARS_AHEAD", BARS_AHEAD)
    write_synthetic(catalog)
    return TaskRunner(catalog, store, conventions, CHUNK, lambda: 1_700_000_000_000, batcher)


def partials(store_folder: Path) -> list[Path]:
    return list((store_folder / "results").glob(".*.partial"))


def begun(runner: TaskRunner, asked: BacktestConfig, bars: int) -> str:
    """Assign a backtest, simulate so many of its bars, and return its id."""
    assign(runner, asked)
    for _ in range(bars // CHUNK):
        runner.step(Clock())
    assert asked.backtest_id is not None
    return asked.backtest_id


def stored(runner: TaskRunner, store: ResultStore, asked: BacktestConfig, bars: int) -> tuple[Any, ...]:
    """Return the metrics and tables of a backtest that is stopped after so many bars, or that runs to its end."""
    backtest_id = begun(runner, asked, bars)
    if bars < ALL_BARS:
        runner.take(Control(task_id=backtest_id, action="stop"), [])
    run_out(runner)
    results, tables = store.read(backtest_id, ["equity", "orders", "positions", "trades"])
    return results.status, results.metrics, tables


@pytest.mark.parametrize("algorithm", ["sma_cross", "buy_and_hold"])
@pytest.mark.parametrize("options", [{}, {"stopLoss": 0.01, "takeProfit": 0.02}], ids=["market", "exits"])
@pytest.mark.parametrize("bars", [CHUNK, 3 * CHUNK, 7 * CHUNK, ALL_BARS])
def test_a_result_written_ahead_equals_one_written_at_the_end(
    runner: TaskRunner,
    store: ResultStore,
    monkeypatch: pytest.MonkeyPatch,
    algorithm: str,
    options: dict[str, float],
    bars: int,
) -> None:
    ahead = stored(runner, store, config(algorithm_id=algorithm, options=options), bars)
    monkeypatch.setattr(held_backtest, "BARS_AHEAD", NEVER)
    assert ahead == stored(runner, store, config(algorithm_id=algorithm, options=options), bars)


def test_what_is_simulated_is_written_before_the_end(
    runner: TaskRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[tuple[str, int]] = []
    ahead = RecordWriter.ahead

    def noted(writer: RecordWriter, name: str, so_far: Any, most_rows: int = 0) -> None:
        rows.append((name, len(so_far)))
        ahead(writer, name, so_far, most_rows)

    monkeypatch.setattr(RecordWriter, "ahead", noted)
    begun(runner, config(), CHUNK)
    assert partials(tmp_path) == []
    run_out(runner)
    rows.clear()
    begun(runner, config(), 5 * CHUNK)
    assert len(partials(tmp_path)) == 1
    assert [count for name, count in rows if name == "equity"] == [200, 400]
    run_out(runner)
    assert partials(tmp_path) == []


def test_a_paused_backtest_leaves_nothing_and_its_result_is_whole(
    runner: TaskRunner, store: ResultStore, tmp_path: Path
) -> None:
    asked = config()
    backtest_id = begun(runner, asked, 4 * CHUNK)
    runner.take(Control(task_id=backtest_id, action="pause"), [])
    assert partials(tmp_path) == []
    runner.take(Control(task_id=backtest_id, action="resume"), [])
    runner.step(Clock())
    run_out(runner)
    tables = store.read(backtest_id, ["equity", "trades"])[1]
    assert tables == store.read(begun_and_ended(runner), ["equity", "trades"])[1]


def begun_and_ended(runner: TaskRunner) -> str:
    backtest_id = begun(runner, config(), ALL_BARS)
    run_out(runner)
    return backtest_id


def test_a_failed_backtest_leaves_nothing(runner: TaskRunner, tmp_path: Path) -> None:
    begun(runner, config(options={"timeLimitMs": 500}), 4 * CHUNK)
    assert len(partials(tmp_path)) == 1
    [finished] = of_kind(runner.step(Clock(step=1.0)), Finished)
    assert finished.outcome == "failed"
    assert partials(tmp_path) == []


def test_one_with_a_pace_is_written_at_its_end(runner: TaskRunner, store: ResultStore, tmp_path: Path) -> None:
    asked = config(options={"pace": 10_000.0})
    assert assign(runner, asked) == []
    clock, steps = Clock(step=0.01), 0
    while runner.running:
        assert partials(tmp_path) == []
        runner.step(clock)
        steps += 1
    assert steps > ALL_BARS // BARS_AHEAD
    assert store.read(asked.backtest_id or "")[0].status == "completed"


def test_a_disk_that_takes_no_folder_yet_is_asked_again(
    runner: TaskRunner, store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(ResultStore, "begin", full)
        backtest_id = begun(runner, config(), 4 * CHUNK)
    [finished] = of_kind(run_out(runner), Finished)
    assert finished.outcome == "completed"
    assert store.read(backtest_id)[0].status == "completed"
