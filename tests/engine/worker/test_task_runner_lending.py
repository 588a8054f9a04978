"""Backtests that share a worker: a paced one lends it, and none changes results, messages or the time of another."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import write_synthetic
from backtestr_engine.publishing.batching import Batcher
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.worker.held_backtest import MOMENT
from backtestr_engine.worker.pace import Pace
from backtestr_engine.worker.price_replays import Sent
from backtestr_engine.worker.task_runner import TaskRunner
from backtestr_protocol.messages import TableName
from backtestr_protocol.worker_channel import Control, Finished, Lent, Paused, Published, Resumed
from support.engine.batches import batcher as new_batcher
from support.engine.batches import messages
from support.engine.tasks import Clock, assign, config, is_event, of_kind, run_out

TABLES: list[TableName] = ["equity", "orders", "positions", "trades"]
CHUNK = 100


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


@pytest.fixture
def runner(catalog: Catalog, store: ResultStore, conventions: Conventions, batcher: Batcher) -> TaskRunner:
    write_synthetic(catalog)
    return TaskRunner(catalog, store, conventions, CHUNK, lambda: 1_700_000_000_000, batcher)


def control(runner: TaskRunner, action: Any, task_id: str) -> list[Sent]:
    return runner.take(Control(task_id=task_id, action=action), [])


def events_of(sent: Sequence[Sent], backtest_id: str) -> dict[str, list[Any]]:
    """Return the orders, changes of positions and prices of a backtest, by type and without its id."""
    found: dict[str, list[Any]] = defaultdict(list)
    for one in messages(sent):
        if one["data"].get("backtestId") == backtest_id and is_event(one):
            found[one["type"]].append({name: value for name, value in one["data"].items() if name != "backtestId"})
    return found


def test_a_paced_backtest_lends_its_worker_once_its_algorithm_has_run(runner: TaskRunner) -> None:
    assert assign(runner, config(backtest_id="slow", options={"pace": 10})) == []
    clock = Clock()
    sent = runner.step(clock)
    assert of_kind(sent, Lent) == [Lent(task_id="slow")]
    sent = control(runner, "pause", "slow") + control(runner, "resume", "slow")
    for _ in range(5):
        clock.now += 1.0
        sent += runner.step(clock)
    assert of_kind(sent, Resumed)
    assert of_kind(sent, Lent) == [], "once"


@pytest.mark.parametrize("how", [{"options": {}}, {"options": {"pace": 10.0}, "start_date": "2022-09-26"}])
def test_a_backtest_without_a_pace_or_with_one_step_lends_nothing(
    runner: TaskRunner, catalog: Catalog, how: dict[str, Any]
) -> None:
    if "start_date" in how:
        last = int(catalog.load("SYNTH", "1d", None, None).timestamp[-1])
        how = {**how, "start_date": str(np.datetime64(last, "us"))}
    assign(runner, config(**how))
    sent = run_out(runner)
    assert of_kind(sent, Finished)
    assert of_kind(sent, Lent) == []


def test_a_backtest_that_begins_parked_lends_nothing_until_it_is_resumed(runner: TaskRunner) -> None:
    sent = assign(runner, config(backtest_id="slow", options={"pace": 10}), paused=True)
    sent += control(runner, "resume", "slow") + runner.step(Clock())
    assert of_kind(sent, Paused)
    assert of_kind(sent, Lent) == [], "a resume says so already"


def test_another_is_computed_between_the_bars_of_a_paced_one(runner: TaskRunner, store: ResultStore) -> None:
    assign(runner, config(backtest_id="slow", options={"pace": 1.0}))
    clock = Clock()
    runner.step(clock)
    assert runner.wait(clock.now) == 1.0
    assign(runner, config(backtest_id="fast"))
    sent: list[Sent] = []
    while not of_kind(sent, Finished):
        assert runner.wait(clock.now) == 0.0
        assert runner.next_id == "fast"
        sent += runner.step(clock)
    assert clock.now == 0.0
    assert (runner.next_id, runner.wait(clock.now)) == ("slow", 1.0)
    clock.now = 1000.0
    while runner.running:
        sent += runner.step(clock)
    (slow, _), (fast, _) = store.read("slow", TABLES), store.read("fast", TABLES)
    assert slow.metrics == fast.metrics
    assert store.read("slow", TABLES)[1] == store.read("fast", TABLES)[1]


class StepClock:
    """A clock that is read when a step begins and when it ends, `duration` seconds later."""

    def __init__(self) -> None:
        self.now = 0.0
        self.duration = 0.0

    def __call__(self) -> float:
        now = self.now
        self.now += self.duration
        return now


PACES = [None, None, 0.5, 7.0, 50.0, 20_000.0, 1e6]
durations = st.sampled_from([0.0, 0.0005, 0.003, 0.02, 0.4])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    paces=st.lists(st.sampled_from(PACES), min_size=2, max_size=5), taken=st.lists(durations, min_size=20, max_size=80)
)
def test_a_backtest_that_is_due_waits_for_one_step_of_each_other(
    runner: TaskRunner, paces: list[float | None], taken: list[float]
) -> None:
    """Whatever the steps take, none starves, and a paced one is late by a step of each other, and the one at hand."""
    names = [f"b{number}" for number in range(len(paces))]
    for name, pace in zip(names, paces, strict=True):
        options = {} if pace is None else {"pace": pace}
        assign(runner, config(backtest_id=name, options={**options, "timeLimitMs": 86_400_000}))
    try:
        check_turns(runner, dict(zip(names, paces, strict=True)), taken)
    finally:
        for name in names:
            control(runner, "stop", name)


def check_turns(runner: TaskRunner, paces: dict[str, float | None], taken: list[float]) -> None:
    clock = StepClock()
    due = dict.fromkeys(paces, 0.0)  # by the rule that the module states
    kept = {name: Pace(pace) for name, pace in paces.items() if pace is not None}
    bars = dict.fromkeys(paces, 0)
    passed: dict[str, list[str]] = {name: [] for name in paces}  # those that were stepped while it was due
    for duration in taken:
        clock.now += runner.wait(clock.now)
        clock.duration, began = duration, clock.now
        name = runner.next_id
        if name is None:
            break
        assert due[name] <= began + 1e-9, f"{name} is not due"
        sent = runner.step(clock)
        clock.now = began + duration
        for other in due.keys() - {name}:
            if due[other] <= began:
                assert name not in passed[other], f"{other} is due, and waits for {name} a second time"
                passed[other].append(name)
        passed[name] = []
        if name not in kept or bars[name] == 1000:
            due[name] = began + duration
        elif count := min(CHUNK, kept[name].due(began), 1000 - bars[name]):
            bars[name] += count
            kept[name].take(count)
            at_pace = max(kept[name].deadline(began), began + MOMENT)
            due[name] = began + duration if bars[name] == 1000 else at_pace
        for ended in of_kind(sent, Finished):
            del due[ended.task_id]


schedules = st.lists(
    st.tuples(st.sampled_from(["step", "step", "step", "wait", "pause", "resume", "due"]), st.integers(0, 3)),
    max_size=60,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedule=schedules, chunk=st.sampled_from([7, 100]), columns=st.booleans())
def test_whatever_shares_the_worker_results_and_messages_are_the_same(
    catalog: Catalog,
    store: ResultStore,
    conventions: Conventions,
    schedule: list[tuple[str, int]],
    chunk: int,
    columns: bool,
) -> None:
    """Four backtests, which show the same prices, step, wait, pause and resume in any order."""
    write_synthetic(catalog)
    runner = TaskRunner(catalog, store, conventions, chunk, lambda: 1_700_000_000_000, new_batcher())
    streams = {"prices": True, "columns": columns}
    asked = [
        config(
            backtest_id=f"b{number}",
            algorithm_id=algorithm,
            options={"streams": streams, **({} if pace is None else {"pace": pace})},
        )
        for number, (algorithm, pace) in enumerate(
            [("sma_cross", None), ("sma_cross", 300.0), ("rsi_reversion", 40.0), ("buy_and_hold", 5.0)]
        )
    ]
    alone: list[dict[str, list[Any]]] = []
    results: list[Any] = []
    for one in asked:
        own = config(backtest_id="alone", algorithm_id=one.algorithm_id, options={"streams": streams})
        sent = assign(runner, own)
        sent += run_out(runner)
        alone.append(events_of(sent, "alone"))
        found, tables = store.read("alone", TABLES)
        results.append((found.metrics, tables))
    sent = [message for one in asked for message in assign(runner, one)]
    clock = Clock()
    for does, number in schedule:
        match does:
            case "step":
                sent += runner.step(clock)
            case "wait":
                clock.now += [0.001, 0.02, 0.3, 2.0][number]
            case "due":
                sent += runner.due(clock.now)
            case _:
                sent += control(runner, does, f"b{number}")
    for number in range(4):
        sent += control(runner, "resume", f"b{number}")
    while runner.running:
        clock.now += 1000.0
        sent += runner.step(clock)
    assert sorted(one.task_id for one in of_kind(sent, Finished)) == ["b0", "b1", "b2", "b3"]
    for number, (events, result) in enumerate(zip(alone, results, strict=True)):
        found, tables = store.read(f"b{number}", TABLES)
        assert (found.metrics, tables) == result
        assert events_of(sent, f"b{number}") == events
    for message, frames in sent:
        if isinstance(message, Published) and message.topic.startswith("prices."):
            assert {one["data"]["backtestId"] for one in messages([(message, frames)])} == {message.task_id}


def test_one_that_fails_loses_no_prices_of_another_that_shows_the_same(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    shows = {"streams": {"prices": True}}
    assign(runner, config(backtest_id="b", options=shows))
    sent = run_out(runner)
    expected = events_of(sent, "b")["PriceUpdate"]
    assign(runner, config(backtest_id="bad", options={**shows, "pace": 10.0}))
    assign(runner, config(backtest_id="good", options={**shows, "pace": 10.0}))
    clock = Clock()
    sent = runner.step(clock) + runner.step(clock)
    assert runner.next_deadline() is not None, "prices wait for others"

    def fail(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(TaskRunner, "_finish", fail)
        sent += control(runner, "stop", "bad")
    assert [one.outcome for one in of_kind(sent, Finished)] == ["failed"]
    clock.now = 1000.0
    sent += run_out(runner, clock)
    assert events_of(sent, "good")["PriceUpdate"] == expected


def test_one_is_stopped_while_the_other_goes_on(runner: TaskRunner, store: ResultStore) -> None:
    assign(runner, config(backtest_id="slow", options={"pace": 1.0}))
    runner.step(Clock())
    assign(runner, config(backtest_id="fast"))
    runner.step(Clock())
    stopped = control(runner, "stop", "slow")
    assert of_kind(stopped, Finished) == [Finished(task_id="slow", outcome="stopped")]
    assert of_kind(run_out(runner), Finished) == [Finished(task_id="fast", outcome="completed")]
    rows = [store.read(name, ["equity"])[0].tables[0].rows for name in ("slow", "fast")]
    assert rows == [1, 1000]


def test_each_has_a_time_limit_of_its_own(runner: TaskRunner) -> None:
    assign(runner, config(backtest_id="slow", options={"pace": 1e6, "timeLimitMs": 86_400_000}))
    assign(runner, config(backtest_id="late", options={"timeLimitMs": 1_000}))
    clock = Clock(step=0.3)
    sent: list[Sent] = []
    while not of_kind(sent, Finished):
        sent += runner.step(clock)
    (ended,) = of_kind(sent, Finished)
    assert (ended.task_id, ended.error.code) == ("late", "TIMEOUT")
    assert runner.time_left("late") == math.inf
    assert 86_000 < runner.time_left("slow") < 86_400
    assert [one.outcome for one in of_kind(run_out(runner, clock), Finished)] == ["completed"]


# --- a process that an algorithm has changed ---


def test_one_that_has_changed_the_process_lends_nothing_and_is_stepped_alone(runner: TaskRunner) -> None:
    clock = Clock()
    assign(runner, config(backtest_id="slow", options={"pace": 1.0}))
    runner.step(clock)
    assign(runner, config(backtest_id="bad", options={"pace": 2.0}))
    runner.is_unchanged = lambda: False
    assert of_kind(runner.step(clock), Lent) == []
    clock.now = 100.0
    for _ in range(20):
        assert runner.next_id == "bad", "no other computes in that process"
        clock.now += 0.5
        assert runner.wait(clock.now) == 0.0
        runner.step(clock)
    control(runner, "stop", "bad")
    assert runner.next_id == "slow"


def test_others_go_on_while_the_one_that_has_changed_the_process_is_parked(runner: TaskRunner) -> None:
    clock = Clock()
    assign(runner, config(backtest_id="slow", options={"pace": 1.0}))
    runner.step(clock)
    assign(runner, config(backtest_id="bad"))
    runner.is_unchanged = lambda: False
    runner.step(clock)
    assert runner.next_id == "bad"
    control(runner, "pause", "bad")
    assert runner.next_id == "slow"


def test_the_process_is_looked_at_once_when_an_algorithm_has_run(runner: TaskRunner) -> None:
    looks: list[str | None] = []

    def look() -> bool:
        looks.append(runner.next_id)
        return True

    runner.is_unchanged = look
    assign(runner, config(backtest_id="b1"))
    run_out(runner)
    assign(runner, config(backtest_id="b2"), paused=True)
    control(runner, "resume", "b2")
    run_out(runner)
    assert looks == ["b1", None], "also before the first bar of one that begins parked"


# --- after a lost worker ---


def test_bars_that_a_lost_worker_has_shown_are_simulated_at_full_speed(runner: TaskRunner) -> None:
    clock = Clock()
    sent = assign(runner, config(backtest_id="slow", options={"pace": 1.0}), progress_at=[257])
    while runner.wait(clock.now) == 0.0:
        sent += runner.step(clock)
    assert clock.now == 0.0
    clock.now += runner.wait(clock.now)
    sent += runner.step(clock)
    assert (clock.now, runner.wait(clock.now)) == (MOMENT, 1.0)
    sent += runner.due(math.inf)
    progress = [one["data"]["progressPercent"] for one in messages(sent) if one["type"] == "BacktestProgress"]
    assert progress == [25.7, 25.8], "257 bars at once, and the next by its pace"


def test_a_backtest_without_a_pace_begins_again_in_chunks_that_end_where_progress_was_made(runner: TaskRunner) -> None:
    assign(runner, config(backtest_id="b"), progress_at=[257])
    steps = 0
    while runner.running:
        runner.step(Clock())
        steps += 1
    assert steps == 12
