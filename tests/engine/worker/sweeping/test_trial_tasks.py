"""Single backtests are entered into the ledger beside their simulation, and its groups are listed and counted."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from backtestr_engine.algorithms.algorithm import Algorithm, algorithm
from backtestr_engine.algorithms.parameters import Int
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.library.library import Library
from backtestr_engine.research.trials import TrialData
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.worker.interactive_tasks import Means
from backtestr_engine.worker.sweeping import trial_log, trial_tasks
from backtestr_engine.worker.sweeping.trial_store import TrialStore
from backtestr_engine.worker.sweeping.trial_tasks import trials_answer
from backtestr_engine.worker.task_runner import TaskRunner
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import NotFound, ValidationError
from backtestr_protocol.messages import BacktestConfig
from backtestr_protocol.system.file_lock import FileLock
from backtestr_protocol.trial_messages import GetTrials, TrialList
from backtestr_protocol.worker_channel import Assign, Control, Finished
from support.engine.batches import batcher

CONFIG = BacktestConfig(
    algorithm_id="sma_cross",
    symbol="SYNTH",
    initial_capital=10_000.0,
    timeframe="1d",
    commission=0.0,
    slippage=0.0,
    parameters={},
)


@algorithm("fails", length=Int(3, 1, 9))
def fails(_bars: Bars, length: int) -> Signals:
    """Raise an error."""
    raise RuntimeError("no signals")


@pytest.fixture
def trials(tmp_path: Path) -> TrialStore:
    return TrialStore(tmp_path / "trials")


@pytest.fixture
def results(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


@pytest.fixture
def runner(catalog: Catalog, results: ResultStore, trials: TrialStore, conventions: Conventions) -> TaskRunner:
    catalog.write(synthetic_bars("1d", 200))
    own: dict[str, Algorithm] = {"fails": fails}
    return TaskRunner(
        catalog, results, conventions, 100, lambda: 7, batcher(), Library(own), means=Means(trials=trials)
    )


def begin(runner: TaskRunner, backtest_id: str, **changes: Any) -> None:
    config = msgspec.structs.replace(CONFIG, backtest_id=backtest_id, **changes)
    runner.take(Assign(task_id=backtest_id, work="RunBacktest", client_id="c", request_id="r"), [encode(config)])


def ran(runner: TaskRunner, backtest_id: str, **changes: Any) -> str:
    """Run a backtest, and return how it ended."""
    begin(runner, backtest_id, **changes)
    while runner.running:
        for message, _payload in runner.step(lambda: 0.0):
            if isinstance(message, Finished):
                return message.outcome
    raise AssertionError("it has no end")


def listed(trials: TrialStore, **asked: Any) -> TrialList:
    frames = trials_answer(trials, encode(GetTrials(**asked)), lambda: ["macd"], lambda: ["GOOG"])
    return msgspec.msgpack.decode(frames[0], type=TrialList)


def test_a_backtest_counts_once_however_often_it_is_run(
    runner: TaskRunner, trials: TrialStore, results: ResultStore
) -> None:
    for number, parameters in enumerate([{}, {"fast": 5}, {"fast": 10}, {"fast": 5, "slow": 30}]):
        assert ran(runner, f"b{number}", parameters=parameters) == "completed"
    [group] = listed(trials).groups
    assert (group.algorithm, group.symbols, group.timeframe, group.bars) == ("sma_cross", ["SYNTH"], "1d", 200)
    assert (group.trials, group.runs) == (2, 4)
    assert results.read("b0")[0].trial_group == group.group


def test_backtests_that_fail_or_are_stopped_count(runner: TaskRunner, trials: TrialStore) -> None:
    assert ran(runner, "failed", algorithm_id="fails") == "failed"
    begin(runner, "stopped")
    runner.take(Control(task_id="stopped", action="stop"), [])
    assert {one.algorithm: one.trials for one in listed(trials).groups} == {"fails": 1, "sma_cross": 1}


def test_a_runner_that_is_closed_leaves_no_thread_and_no_locked_file(runner: TaskRunner, tmp_path: Path) -> None:
    """A worker may be a thread of a program that goes on."""
    assert ran(runner, "b1") == "completed"
    [lock] = list(tmp_path.rglob(f"*{trial_log.LOCK}"))
    assert not FileLock(lock).take()
    runner.close()
    assert not [one.name for one in threading.enumerate() if one.name.startswith("backtestr trials")]
    assert FileLock(lock).take()


@pytest.mark.parametrize("at_once", [20_000, 100], ids=["at once", "in a thread"])
def test_a_trial_is_entered_before_its_backtest_has_ended(
    runner: TaskRunner, trials: TrialStore, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_data: TrialData, _keys: object, *, synced: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trial_tasks, "BARS_AT_ONCE", at_once)
    assert ran(runner, "b") == "completed"
    assert listed(trials).groups[0].trials == 1

    monkeypatch.setattr(trials, "append", full)
    assert ran(runner, "b0") == "failed"
    assert ran(runner, "b1", algorithm_id="fails") == "failed"
    assert [one.algorithm for one in listed(trials).groups] == ["sma_cross"]


def test_a_trial_is_synced_behind_its_backtest(
    runner: TaskRunner, trials: TrialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = threading.Event()
    sync = TrialStore.sync

    def told(store: TrialStore) -> None:
        sync(store)
        synced.set()

    monkeypatch.setattr(TrialStore, "sync", told)
    assert ran(runner, "b") == "completed"
    assert synced.wait(10.0)


@pytest.fixture
def filled(tmp_path: Path) -> TrialStore:
    """Return a ledger with three groups, entered in this order."""
    times = iter(range(1_000, 2_000))
    store = TrialStore(tmp_path / "filled", wall_ms=times.__next__)
    for name, symbols, timeframe in (
        ("sma_cross", ["SYNTH"], "1d"),
        ("sma_cross", ["BTCPERP", "ETHPERP"], "1h"),
        ("ema_cross", ["BTCPERP"], "1h"),
    ):
        data = TrialData(name, symbols, timeframe, "0" * 32, 0, 86_400_000, 1)
        store.append(data, np.arange(5, dtype=np.uint64))
    return store


@pytest.mark.parametrize(
    ("asked", "times"),
    [
        ({}, [1_002, 1_001, 1_000]),
        ({"algorithm_id": "sma_cross"}, [1_001, 1_000]),
        ({"algorithm_id": "sma_cross@0123"}, [1_001, 1_000]),
        ({"symbol": "BTCPERP"}, [1_002, 1_001]),
        ({"symbol": "BTCPERP", "algorithm_id": "ema_cross"}, [1_002]),
        ({"timeframe": "60m"}, [1_002, 1_001]),
        ({"timeframe": "5m"}, []),
        ({"algorithm_id": "macd"}, []),
        ({"symbol": "GOOG"}, []),
        ({"group": "0" * 32}, []),
        ({"group": TrialData("sma_cross", ["SYNTH"], "1d", "0" * 32, 0, 0, 1).group}, [1_000]),
    ],
    ids=str,
)
def test_groups_are_filtered_with_the_latest_first(filled: TrialStore, asked: dict[str, Any], times: list[int]) -> None:
    found = listed(filled, **asked)
    assert [one.last_time for one in found.groups] == times
    assert found.count == len(times)
    assert all(one.trials == 5 for one in found.groups)


def test_a_limit_says_how_many_there_are(filled: TrialStore) -> None:
    found = listed(filled, limit=1)
    assert (len(found.groups), found.count) == (1, 3)


@pytest.mark.parametrize(
    ("asked", "error", "near"),
    [
        ({"algorithm_id": "sma_cros"}, NotFound, "did you mean 'sma_cross'"),
        ({"algorithm_id": "mcad"}, NotFound, "did you mean 'macd'"),
        ({"symbol": "BTCPERPS"}, NotFound, "did you mean 'BTCPERP'"),
        ({"timeframe": "1q"}, ValidationError, "timeframe"),
    ],
    ids=str,
)
def test_a_name_that_is_nowhere_is_an_error_with_the_near_miss(
    filled: TrialStore, asked: dict[str, Any], error: type[Exception], near: str
) -> None:
    with pytest.raises(error, match=near):
        listed(filled, **asked)


def test_names_are_looked_up_only_where_the_ledger_has_none(filled: TrialStore) -> None:
    def never() -> list[str]:
        raise AssertionError("the catalogue was read")

    names: Callable[[], list[str]] = never
    trials_answer(filled, encode(GetTrials(algorithm_id="sma_cross", symbol="SYNTH")), names, names)
