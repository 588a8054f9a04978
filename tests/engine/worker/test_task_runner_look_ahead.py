"""A backtest's algorithm is checked for look-ahead on the backtest's own bars, when its result is known."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from itertools import chain, count
from typing import Any, TypeVar

import msgpack
import msgspec
import numpy as np
import pytest

from backtestr_engine.algorithms.algorithm import Algorithm, algorithm
from backtestr_engine.algorithms.parameters import Int
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.backtest.own_bars import CHECK_SECONDS, OwnBarsCheck
from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import write_synthetic
from backtestr_engine.library.library import Library
from backtestr_engine.publishing.batching import Batcher
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.worker.price_replays import Sent
from backtestr_engine.worker.task_runner import TaskRunner
from backtestr_protocol.errors import TimeLimitExceeded
from backtestr_protocol.messages import BacktestConfig, BacktestResults
from backtestr_protocol.worker_channel import Assign, Control, Finished, Lent, Paused, Resumed

T = TypeVar("T")


@algorithm("peeks", lookahead=Int(1, low=0, high=5))
def peeks(bars: Bars, lookahead: int) -> Signals:
    """Enter where the close so many bars later is higher."""
    later = np.append(bars.close[lookahead:], np.full(lookahead, np.nan))
    return Signals.of(entries=later > bars.open, exits=later < bars.open)


_stop_loss = np.zeros(10_000)


@algorithm("reuses")
def reuses(bars: Bars) -> Signals:
    """Hold with a stop whose distance depends on the number of bars, in one array for all calls."""
    distances = _stop_loss[: len(bars)]
    distances[:] = len(bars) / 1e5
    return Signals.of(entries=bars.close > 0, stop_loss=distances)


class Calls:
    """Makes the calls of a check in place, notes what time each has, and fails with `error` where there is one."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.error: Exception | None = None

    def __call__(self, one: Algorithm, work: Callable[[Algorithm], T], seconds: float, /) -> T:
        self.seconds.append(seconds)
        if self.error is not None:
            raise self.error
        return work(one)


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def runner(
    catalog: Catalog, store: ResultStore, conventions: Conventions, batcher: Batcher, calls: Calls
) -> TaskRunner:
    write_synthetic(catalog)
    library = Library({"peeks": peeks, "reuses": reuses})
    runner = TaskRunner(catalog, store, conventions, 100, lambda: 1_700_000_000_000, batcher, library)
    runner.own_bars = OwnBarsCheck(calls)
    return runner


@pytest.fixture
def store(tmp_path: Any) -> ResultStore:
    return ResultStore(tmp_path / "results")


def assign(runner: TaskRunner, how: dict[str, Any] | None = None, **changes: Any) -> str:
    """Assign a backtest of `peeks`, and return its id."""
    fields: dict[str, Any] = {
        "backtest_id": str(uuid.uuid4()),
        "algorithm_id": "peeks",
        "symbol": "SYNTH",
        "initial_capital": 1e5,
        "timeframe": "1d",
        "commission": 0.0,
        "slippage": 0.0,
        "parameters": {},
    }
    asked = BacktestConfig(**(fields | changes))
    message = Assign(task_id=asked.backtest_id or "", work="RunBacktest", **(how or {}))
    runner.take(message, [msgpack.packb(msgspec.to_builtins(asked))])
    return message.task_id


def run_out(runner: TaskRunner, clock: Callable[[], float] = lambda: 0.0) -> list[Sent]:
    sent: list[Sent] = []
    while runner.running:
        sent += runner.step(clock)
    return sent


def ticking() -> Iterator[int]:
    """Return a clock that goes on a second with each reading, after a first step in which it stands."""
    return chain((0, 0, 0), count(1))


def outcomes(sent: list[Sent]) -> list[str]:
    return [message.outcome for message, _ in sent if isinstance(message, Finished)]


def outcome(sent: list[Sent]) -> str:
    (found,) = outcomes(sent)
    return found


def warnings(results: BacktestResults) -> list[str]:
    assert results.metrics is not None
    return results.metrics.warnings


def test_a_finding_is_the_first_warning_of_the_result(runner: TaskRunner, store: ResultStore, calls: Calls) -> None:
    task = assign(runner)
    assert outcome(run_out(runner)) == "completed"
    results, _ = store.read(task)
    assert warnings(results)[0].startswith(f"{peeks.algorithm_id} looks ahead, so these figures cannot be had")
    assert "on the sample SYNTH 1d from" in warnings(results)[0]
    assert results.config["options"]["lookAheadCheck"] is True
    assert len(calls.seconds) == 1


def test_an_honest_one_has_no_warning_and_a_repetition_costs_nothing(
    runner: TaskRunner, store: ResultStore, calls: Calls
) -> None:
    for _ in range(3):
        task = assign(runner, parameters={"lookahead": 0})
        run_out(runner)
        assert warnings(store.read(task)[0]) == []
    assert len(calls.seconds) == 1


def test_the_check_changes_nothing_but_the_warnings(runner: TaskRunner, store: ResultStore, calls: Calls) -> None:
    """The two have the same figures, tables and messages."""
    found = []
    for check in (True, False):
        task = assign(runner, {}, backtest_id="one", options={"lookAheadCheck": check})
        sent = run_out(runner)
        results, tables = store.read(task, ["equity", "orders", "trades", "positions"])
        assert results.metrics is not None
        metrics = msgspec.structs.replace(results.metrics, sentences=[])
        found.append((metrics, tables, [(type(message), frames) for message, frames in sent]))
        assert len(calls.seconds) == 1
        assert len(warnings(results)) == check
    assert found[0] == found[1]


def test_the_check_comes_after_the_last_bar_and_in_a_step_of_its_own(runner: TaskRunner, calls: Calls) -> None:
    assign(runner)
    for _ in range(10):  # 1,000 bars
        runner.step(lambda: 0.0)
    assert calls.seconds == []
    assert runner.step(lambda: 0.0) == []
    assert calls.seconds == [CHECK_SECONDS]
    assert outcome(runner.step(lambda: 0.0)) == "completed"


def test_a_backtest_that_was_paused_is_checked_at_its_end(runner: TaskRunner, store: ResultStore, calls: Calls) -> None:
    paused = assign(runner, {"paused": True})
    assert not runner.running
    ((resumed, _),) = runner.take(Control(task_id=paused, action="resume"), [])
    assert isinstance(resumed, Resumed)
    times = ticking()
    runner.step(lambda: float(next(times)))
    assert any(isinstance(one, Paused) for one, _ in runner.take(Control(task_id=paused, action="pause"), []))
    assert calls.seconds == []
    runner.take(Control(task_id=paused, action="resume"), [])
    assert outcome(run_out(runner, lambda: float(next(times)))) == "completed"
    assert len(warnings(store.read(paused)[0])) == len(calls.seconds) == 1


@pytest.mark.parametrize("paused", [False, True])
def test_one_with_a_pace_is_checked_before_it_lends_its_worker(
    runner: TaskRunner, store: ResultStore, calls: Calls, paused: bool
) -> None:
    """A call that ends the worker is then known to be its own. The check costs nothing of the time limit."""
    task = assign(runner, {"paused": paused}, options={"pace": 1_000_000, "timeLimitMs": 1_000})
    if paused:
        assert len(calls.seconds) == 1
        runner.take(Control(task_id=task, action="resume"), [])
    times = chain((0.0, 0.0, 0.9), count(1.0, 0.0))  # the check takes 0.9 s
    sent = runner.step(lambda: next(times))
    assert [one.task_id for one, _ in sent if isinstance(one, Lent)] == ([] if paused else [task])
    assert len(calls.seconds) == 1
    assert outcome(run_out(runner, lambda: 1.0)) == "completed"
    assert len(warnings(store.read(task)[0])) == len(calls.seconds) == 1


def test_levels_of_an_algorithm_that_uses_one_array_again_are_those_of_its_first_call(
    runner: TaskRunner, store: ResultStore
) -> None:
    equity = []
    for checked in (False, True):
        times = ticking()
        task = assign(runner, algorithm_id="reuses", options={"pace": 100_000, "lookAheadCheck": checked})
        assert outcome(run_out(runner, lambda times=times: float(next(times)))) == "completed"  # type: ignore[misc]
        equity += store.read(task, ["equity"])[1]
    assert equity[0] == equity[1]


def test_a_backtest_that_is_stopped_is_checked_quickly(runner: TaskRunner, store: ResultStore, calls: Calls) -> None:
    task = assign(runner)
    runner.step(lambda: 0.0)
    assert outcome(runner.take(Control(task_id=task, action="stop"), [])) == "stopped"
    assert len(warnings(store.read(task)[0])) == 1
    assert calls.seconds == [CHECK_SECONDS]

    stopped_while_paused = assign(runner, parameters={"lookahead": 3})
    runner.step(lambda: 0.0)
    runner.take(Control(task_id=stopped_while_paused, action="pause"), [])
    assert outcome(runner.take(Control(task_id=stopped_while_paused, action="stop"), [])) == "stopped"
    assert calls.seconds == [CHECK_SECONDS], "another may be computed beside it"

    before_its_first_bar = assign(runner, {"paused": True}, parameters={"lookahead": 2})
    assert outcome(runner.take(Control(task_id=before_its_first_bar, action="stop"), [])) == "stopped"
    assert calls.seconds == [CHECK_SECONDS], "it has no figures"


def test_the_check_has_what_is_left_of_the_time_limit_and_storing_the_result_has_some(
    runner: TaskRunner, calls: Calls
) -> None:
    """Two readings of the clock for each of ten chunks, of which the first took no time."""
    times = ticking()
    task = assign(runner, options={"timeLimitMs": 9_500})
    while not calls.seconds:
        runner.step(lambda: float(next(times)))
    assert calls.seconds == [0.5]
    assert runner.time_left(task) == 0.0
    assert outcome(runner.step(lambda: float(next(times)))) == "completed"


def test_an_algorithm_whose_further_calls_would_take_long_is_not_checked(runner: TaskRunner, calls: Calls) -> None:
    times = count()
    assign(runner)
    assert outcome(run_out(runner, lambda: float(next(times)))) == "completed"
    assert calls.seconds == []


@pytest.mark.parametrize("error", [TimeLimitExceeded("late"), ZeroDivisionError("a defect"), MemoryError()])
def test_a_check_that_fails_costs_no_result(
    runner: TaskRunner, store: ResultStore, calls: Calls, error: Exception
) -> None:
    calls.error = error
    task = assign(runner)
    assert outcome(run_out(runner)) == "completed"
    assert warnings(store.read(task)[0]) == []


def test_an_algorithm_is_not_checked_where_a_worker_was_lost(
    runner: TaskRunner, store: ResultStore, calls: Calls
) -> None:
    """It may have been the check that ended the worker; the backtest would fail the second time."""
    task = assign(runner, {"losses": 1})
    assert outcome(run_out(runner)) == "completed"
    assert warnings(store.read(task)[0]) == []
    assert calls.seconds == []


def test_built_in_algorithms_are_not_checked(runner: TaskRunner, calls: Calls) -> None:
    assign(runner, algorithm_id="sma_cross")
    assert outcome(run_out(runner)) == "completed"
    assert calls.seconds == []
