"""The task runner is tested without threads: each message of the broker, and the messages it returns, step by step."""

from __future__ import annotations

import errno
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtestr_engine.backtest.result_store import ResultStore, Storing
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import write_synthetic
from backtestr_engine.library.library import Library
from backtestr_engine.library.registrations import RegisteredAlgorithms
from backtestr_engine.publishing.batching import Batcher
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.worker.held_backtest import MOMENT
from backtestr_engine.worker.price_replays import Sent
from backtestr_engine.worker.task_runner import TaskRunner
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import AlgorithmError
from backtestr_protocol.messages import BacktestConfig
from backtestr_protocol.texts import MAX_DETAILS_BYTES, MAX_TEXT_BYTES
from backtestr_protocol.worker_channel import (
    Assign,
    Control,
    Counted,
    Finished,
    OpenedReplay,
    OpenReplay,
    Paused,
    Published,
    Resumed,
    Work,
)
from support.engine.batches import batcher as new_batcher
from support.engine.batches import messages
from support.engine.tasks import Clock, assign, config, is_event, of_kind, published_orders, run_out, to_wire


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


@pytest.fixture
def runner(catalog: Catalog, store: ResultStore, conventions: Conventions, batcher: Batcher) -> TaskRunner:
    write_synthetic(catalog)
    return TaskRunner(catalog, store, conventions, 100, lambda: 1_700_000_000_000, batcher)


def asked_of(runner: TaskRunner, work: Work, data: Any) -> Any:
    """Return the answer to an interactive task: Success data or ErrorData."""
    [(message, frames)] = runner.take(Assign(task_id="q", work=work), [msgpack.packb(data)])
    assert isinstance(message, Finished)
    return msgpack.unpackb(frames[0]) if message.error is None else msgspec.to_builtins(message.error)


def test_a_backtest_runs_in_chunks_and_is_stored_before_it_is_finished(runner: TaskRunner, store: ResultStore) -> None:
    asked = config()
    assert assign(runner, asked) == []
    steps = 0
    sent: list[Sent] = []
    while runner.running:
        assert of_kind(sent, Finished) == []
        sent = runner.step(Clock())
        steps += 1
    assert steps == 11  # 1,000 bars, 100 at a time, and the result
    last_published, finished = sent[-2:]
    assert isinstance(last_published[0], Published)
    assert last_published[0].progress_percent == 100.0
    assert finished[0] == Finished(task_id=asked.backtest_id or "", outcome="completed")
    results, _ = store.read(asked.backtest_id or "")
    assert results.status == "completed"


def test_progress_comes_at_its_interval_and_at_the_end(runner: TaskRunner) -> None:
    assign(runner, config(options={"streams": {"progressIntervalMs": 50}}))
    clock = Clock(step=0.01)  # two readings of the clock in a step: 20 ms
    progress = [one["data"] for one in messages(run_out(runner, clock)) if one["type"] == "BacktestProgress"]
    assert [one["progressPercent"] for one in progress] == [10.0, 40.0, 70.0, 100.0]


def marks_before_progress(sent: Sequence[Sent]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Return every progress with the marks that came since the one before it."""
    found: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    marks: list[dict[str, Any]] = []
    for one in messages(sent):
        if one["data"].get("mark"):
            marks.append(one["data"])
        elif one["type"] == "BacktestProgress":
            found.append((one["data"], marks))
            marks = []
    return found


def test_every_progress_comes_with_the_open_positions_at_its_prices(runner: TaskRunner) -> None:
    assign(runner, config(algorithm_id="buy_and_hold"))
    found = marks_before_progress(run_out(runner, Clock(step=0.03)))
    assert len(found) == 10
    for progress, marks in found:
        (mark,) = marks
        assert mark["unrealizedPnL"] == progress["unrealizedPnL"] != 0.0
        assert mark["realizedPnL"] == progress["realizedPnL"]
        assert mark["timestamp"] == progress["currentTime"]
        assert mark["unrealizedPnL"] == mark["quantity"] * (mark["currentPrice"] - mark["averagePrice"])
    assert len({mark["currentPrice"] for _, (mark,) in found}) > 5


def test_a_closed_position_is_not_marked(runner: TaskRunner) -> None:
    assign(runner, config())
    for progress, marks in marks_before_progress(run_out(runner, Clock(step=0.03))):
        assert len(marks) == progress["positionsOpened"] - progress["positionsClosed"]


@pytest.mark.parametrize("off", ["marks", "positions"])
def test_marks_can_be_turned_off(runner: TaskRunner, off: str) -> None:
    assign(runner, config(algorithm_id="buy_and_hold", options={"streams": {off: False}}))
    found = messages(run_out(runner, Clock(step=0.03)))
    assert [one for one in found if "mark" in one["data"]] == []
    assert len([one for one in found if one["type"] == "PositionUpdate"]) == (off == "marks")


def test_another_worker_leaves_out_what_was_published_and_no_later_change(runner: TaskRunner) -> None:
    """The marks are the same too, and stand where they stood: it makes progress at the same bars."""
    assign(runner, config(backtest_id="whole"))
    sent = run_out(runner, Clock(step=0.01))
    made_at = [bars for one in of_kind(sent, Counted) for bars in one.progress_at]
    whole = [one["data"] for one in messages(sent) if one["type"] == "PositionUpdate"]
    assert sum("mark" in one for one in whole) > 3
    assign(runner, config(backtest_id="again"), published={"positions.again": 7}, progress_at=made_at)
    again = [one["data"] for one in messages(run_out(runner)) if one["type"] == "PositionUpdate"]
    assert again == [{**one, "backtestId": "again"} for one in whole[7:]]


def test_pause_parks_and_resume_continues_at_the_same_bar(runner: TaskRunner, store: ResultStore) -> None:
    straight, paused = config(), config()
    assign(runner, straight)
    run_out(runner)
    assign(runner, paused)
    runner.step(Clock())
    task_id = paused.backtest_id or ""
    parked = runner.take(Control(task_id=task_id, action="pause"), [])
    assert of_kind(parked, Published)[-1].progress_percent == 10.0
    assert runner.next_deadline() is None
    assert of_kind(parked, Paused) == [Paused(task_id=task_id)]
    assert not runner.running
    other = config()
    assign(runner, other)
    assert of_kind(run_out(runner), Finished)[0].task_id == other.backtest_id
    assert of_kind(runner.take(Control(task_id=task_id, action="resume"), []), Resumed) == [Resumed(task_id=task_id)]
    run_out(runner)
    assert store.read(task_id)[0].metrics == store.read(straight.backtest_id or "")[0].metrics


def test_a_paused_backtest_publishes_the_same_messages_as_one_without_a_pause(runner: TaskRunner) -> None:
    """The messages are equal whatever the batches are, and none waits during a pause or after the end."""
    straight, paused = config(backtest_id="same"), config(backtest_id="same")
    assign(runner, straight)
    expected = [one for one in messages(run_out(runner)) if is_event(one)]
    assign(runner, paused)
    sent: list[Sent] = []
    while runner.running:
        sent += runner.step(Clock())
        if of_kind(sent, Finished):
            break
        sent += runner.take(Control(task_id="same", action="pause"), [])
        assert isinstance(sent[-1][0], Paused)
        assert runner.next_deadline() is None
        sent += runner.take(Control(task_id="same", action="resume"), [])
    of_topic = [
        [one for one in messages(sent) if one["type"] == kind and is_event(one)]
        for kind in ("OrderUpdate", "PositionUpdate")
    ]
    assert of_topic == [[one for one in expected if one["type"] == kind] for kind in ("OrderUpdate", "PositionUpdate")]
    assert len(of_topic[0]) > 10
    assert runner.next_deadline() is None


def test_messages_wait_for_others_of_their_topic_up_to_their_limit(runner: TaskRunner) -> None:
    assign(runner, config())
    assert of_kind(runner.step(Clock()), Published) == []
    deadline = runner.next_deadline()
    assert deadline == 0.005
    assert runner.due(0.0049) == []
    topics = {message.topic.partition(".")[0] for message in of_kind(runner.due(0.005), Published)}
    assert topics == {"orders", "positions"}
    assert runner.next_deadline() == 0.050, "one progress message, fewer than the minimum of its class"


def test_messages_before_a_failure_are_published_before_it(runner: TaskRunner) -> None:
    assign(runner, config(options={"timeLimitMs": 1_000}))
    sent = run_out(runner, Clock(step=0.3))
    error = of_kind(sent, Finished)[0].error
    assert error.code == "TIMEOUT"
    assert [(one.action, one.automatic) for one in error.recovery_actions] == [("raise_time_limit", False)]
    assert isinstance(sent[-1][0], Finished)
    assert {one["type"] for one in messages(sent)} == {"OrderUpdate", "PositionUpdate", "BacktestProgress"}
    assert runner.next_deadline() is None


def test_a_backtest_can_begin_parked(runner: TaskRunner) -> None:
    asked = config()
    sent = assign(runner, asked, paused=True)
    assert of_kind(sent, Paused)
    assert not runner.running


@pytest.mark.parametrize("paused", [True, False])
def test_a_restored_backtest_that_has_its_result_is_not_run_again(
    runner: TaskRunner, store: ResultStore, paused: bool
) -> None:
    asked = config()
    task_id = asked.backtest_id or ""
    assign(runner, asked)
    runner.step(Clock())
    runner.take(Control(task_id=task_id, action="stop"), [])
    stored = store.read(task_id, ["equity"])
    sent = assign(runner, asked, restored=True, paused=paused)
    assert [message for message, _ in sent] == [Finished(task_id=task_id, outcome="stopped")]
    assert not runner.running
    assert store.read(task_id, ["equity"]) == stored


def test_a_restored_backtest_without_a_result_runs(runner: TaskRunner, store: ResultStore) -> None:
    asked = config()
    assign(runner, asked, restored=True)
    assert [message.outcome for message in of_kind(run_out(runner), Finished)] == ["completed"]
    assert store.has(asked.backtest_id or "")


def test_a_backtest_of_this_broker_runs_whatever_is_on_disk(runner: TaskRunner) -> None:
    """A worker lost after it had stored the result may not have sent all stream messages; the next one sends them."""
    asked = config()
    assign(runner, asked)
    run_out(runner)
    assert assign(runner, asked) == []
    assert [message.outcome for message in of_kind(run_out(runner), Finished)] == ["completed"]


@pytest.mark.parametrize("parked", [True, False])
def test_stop_stores_the_simulated_bars(runner: TaskRunner, store: ResultStore, parked: bool) -> None:
    asked = config()
    task_id = asked.backtest_id or ""
    assign(runner, asked)
    runner.step(Clock())
    if parked:
        runner.take(Control(task_id=task_id, action="pause"), [])
    stopped = runner.take(Control(task_id=task_id, action="stop"), [])
    assert of_kind(stopped, Finished) == [Finished(task_id=task_id, outcome="stopped")]
    assert not runner.running
    results, _ = store.read(task_id, ["equity"])
    assert (results.status, results.tables[0].rows) == ("stopped", 100)


def test_a_message_about_another_task_is_ignored(runner: TaskRunner) -> None:
    assign(runner, config())
    for action in ("pause", "resume", "stop"):
        assert runner.take(Control(task_id="someone else's", action=action), []) == []
    assert runner.running


def test_a_refused_task_fails_and_the_next_is_done(runner: TaskRunner) -> None:
    refused = config(symbol="SYNHT")
    [(message, _)] = assign(runner, refused)
    assert isinstance(message, Finished)
    assert message.error is not None
    assert (message.outcome, message.error.code, message.error.component) == ("failed", "DATA_ERROR", "engine")
    assign(runner, config())
    assert of_kind(run_out(runner), Finished)[0].outcome == "completed"


def test_a_defect_fails_its_task_alone_and_is_logged(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr("backtestr_engine.worker.task_runner.prepare", defect)
        [(message, _)] = assign(runner, config())
    assert isinstance(message, Finished)
    assert message.error is not None
    assert message.error.code == "SYSTEM_ERROR"
    assert message.error.details is not None
    assert message.error.details["id"] in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assign(runner, config())
    assert of_kind(run_out(runner), Finished)[0].outcome == "completed"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit(), SystemExit(1)])
def test_what_is_no_exception_fails_its_task_alone(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(_runner: TaskRunner, *_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(TaskRunner, "_simulate", fail)
        assign(runner, config())
        (ended,) = of_kind(run_out(runner), Finished)
    assert (ended.outcome, ended.error.code) == ("failed", "ALGORITHM_ERROR")
    assert ended.error.message.startswith(f"the algorithm raised {type(error).__name__}")
    assign(runner, config())
    assert of_kind(run_out(runner), Finished)[0].outcome == "completed"


def test_an_interactive_task_is_no_other(runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("backtestr_engine.worker.interactive_tasks.market_data", fail)
    refused = asked_of(runner, "GetMarketData", {"symbol": "SYNTH", "timeframe": "1d"})
    assert (refused["code"], refused["message"]) == ("ALGORITHM_ERROR", "the algorithm raised KeyboardInterrupt")


def test_texts_and_details_of_an_error_are_bounded(runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_runner: TaskRunner, *_: Any) -> None:
        raise AlgorithmError("x" * 20_000_000, traceback="y" * 20_000_000, more=["z" * 1000] * 20_000, what=object())

    monkeypatch.setattr(TaskRunner, "_simulate", fail)
    assign(runner, config())
    (ended,) = of_kind(run_out(runner), Finished)
    assert ended.error.message.endswith("x… cut: 20,000,000 characters")
    assert len(encode(ended)) <= 2 * MAX_TEXT_BYTES + MAX_DETAILS_BYTES


def test_the_time_limit_counts_time_in_steps_and_not_time_parked(runner: TaskRunner) -> None:
    asked = config(options={"timeLimitMs": 1_000})
    task_id = asked.backtest_id or ""
    assign(runner, asked)
    clock = Clock(step=0.05)
    runner.step(clock)
    runner.take(Control(task_id=task_id, action="pause"), [])
    clock.now += 100.0
    runner.take(Control(task_id=task_id, action="resume"), [])
    assert of_kind(run_out(runner, clock), Finished)[0].outcome == "completed"

    late = config(options={"timeLimitMs": 1_000})
    assign(runner, late)
    [failed] = of_kind(run_out(runner, Clock(step=0.3)), Finished)
    assert failed.error.code == "TIMEOUT"


def test_interactive_tasks_are_answered_with_data_and_attachments(runner: TaskRunner) -> None:
    [(message, frames)] = runner.take(Assign(task_id="q", work="ListMarketData"), [msgpack.packb({})])
    assert message == Finished(task_id="q", outcome="completed")
    assert [one["timeframe"] for one in msgpack.unpackb(frames[0])["series"]] == ["1m", "1d"]
    request = {"symbol": "SYNTH", "timeframe": "1d", "limit": 5}
    [(_, frames)] = runner.take(Assign(task_id="q", work="GetMarketData"), [msgpack.packb(request)])
    assert len(frames) == 2
    assert msgpack.unpackb(frames[0])["tables"][0]["rows"] == 5


HOLDS = """
from backtestr_engine.authoring import Signals, algorithm

@algorithm("holds")
def holds(bars):
    return Signals.of(entries=bars.close > 0)
"""


def test_the_version_that_was_checked_is_the_one_that_runs(
    catalog: Catalog, store: ResultStore, conventions: Conventions, tmp_path: Path
) -> None:
    """Two workers share only the disk, and the name stands for a newer version when the backtest begins."""
    write_synthetic(catalog)
    interactive, compute = (
        TaskRunner(
            catalog,
            store,
            conventions,
            chunk_bars=1_000,
            wall_ms=lambda: 1_700_000_000_000,
            batcher=new_batcher(),
            library=Library(registered=RegisteredAlgorithms(tmp_path / "registered")),
        )
        for _ in range(2)
    )
    first = asked_of(interactive, "RegisterAlgorithm", {"name": "holds", "source": HOLDS})
    checked = asked_of(interactive, "CheckBacktest", to_wire(config(algorithm_id="holds")))
    second = asked_of(interactive, "RegisterAlgorithm", {"name": "holds", "source": HOLDS.replace("> 0", "< 0")})

    assert checked["algorithmId"] == first["algorithmId"] != second["algorithmId"]
    accepted = msgspec.convert(checked, BacktestConfig)
    assert assign(compute, accepted) == []
    assert of_kind(run_out(compute), Finished)[0].outcome == "completed"
    results, _ = store.read(accepted.backtest_id or "")
    assert results.config["algorithmId"] == first["algorithmId"]
    assert results.metrics is not None
    assert (results.metrics.exposure or 0.0) > 0.9
    # A worker also knows earlier versions; the broker remembers the newest only.
    assert asked_of(compute, "GetAlgorithmStatus", {"algorithmId": first["algorithmId"]}) == first
    refused = asked_of(interactive, "RegisterAlgorithm", {"name": "sma_cross", "source": HOLDS})
    assert refused["code"] == "STATE_CONFLICT"


def test_the_check_names_the_version_of_a_built_in_algorithm(runner: TaskRunner) -> None:
    checked = asked_of(runner, "CheckBacktest", to_wire(config(algorithm_id="sma_cross", parameters={"fast": 5})))

    assert checked["algorithmId"] == BUILT_IN["sma_cross"].algorithm_id
    assert checked["parameters"] == {"fast": 5}, "the rest stays as it came"


# --- what a lost worker has published ---


def percents(sent: Sequence[Sent]) -> list[float]:
    published = of_kind(sent, Published)
    return [message.progress_percent for message in published if message.progress_percent is not None]


@given(steps=st.integers(1, 10), paused=st.booleans())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_progress_goes_on_where_a_lost_worker_left_it(runner: TaskRunner, steps: int, paused: bool) -> None:
    asked = config(options={"streams": {"progressIntervalMs": 1}})
    first, clock = assign(runner, asked), Clock(0.01)
    for _ in range(steps):
        first += runner.step(clock)
    first += runner.due(math.inf)
    before = percents(first)
    assert asked.backtest_id is not None
    runner.take(Control(task_id=asked.backtest_id, action="stop"), [])
    again = config(options=asked.options)  # the result of the first is on disk
    made_at = [bars for one in of_kind(first, Counted) for bars in one.progress_at]
    sent_before = [one.count for one in of_kind(first, Published) if one.topic.startswith("progress.")]
    published = {f"progress.{again.backtest_id}": sum(sent_before)}
    second = assign(runner, again, paused=paused, progress_at=made_at, published=published)
    if paused:
        assert percents(second) == [], "it is paused where the first worker was"
        second += runner.take(Control(task_id=again.backtest_id or "", action="resume"), [])
    second += run_out(runner, clock)
    whole = before + percents(second)
    assert whole == sorted(set(whole)), "it never goes back, and is not repeated"
    assert whole[-1] == 100.0


# --- a pace ---


def paced(runner: TaskRunner, asked: BacktestConfig, seconds: float, step: float) -> tuple[list[Sent], list[int]]:
    """Step every `step` seconds; return the messages sent, and the number of simulated bars after each step."""
    clock, sent, simulated = Clock(), assign(runner, asked), []
    while runner.running and clock.now < seconds:
        sent += runner.step(clock) + runner.due(clock.now + step)
        percents = [
            message.progress_percent for message in of_kind(sent, Published) if message.progress_percent is not None
        ]
        simulated.append(round(percents[-1] * 10) if percents else 0)
        clock.now += step
    return sent, simulated


def test_a_pace_simulates_the_bars_that_are_due_and_publishes_progress_with_each_step(runner: TaskRunner) -> None:
    _, simulated = paced(runner, config(options={"pace": 8}), seconds=2.0, step=0.125)
    assert simulated == list(range(1, 17))


def test_bars_that_fell_due_meanwhile_are_simulated_in_one_step(runner: TaskRunner) -> None:
    _, simulated = paced(runner, config(options={"pace": 10}), seconds=8.0, step=4.0)
    assert simulated == [1, 41]


@pytest.mark.parametrize("step", [0.01, 0.7, 30.0])
def test_a_pace_changes_no_result_and_no_stream(runner: TaskRunner, store: ResultStore, step: float) -> None:
    straight, slow = config(backtest_id="straight"), config(backtest_id="slow", options={"pace": 80.0})
    sent = assign(runner, straight) + run_out(runner)
    expected, tables = store.read("straight", ["equity", "orders", "positions", "trades"])
    then, _ = paced(runner, slow, seconds=1000.0, step=step)
    assert not runner.running
    found, same = store.read("slow", ["equity", "orders", "positions", "trades"])
    assert (found.metrics, same) == (expected.metrics, tables)
    assert found.config["options"]["pace"] == 80.0
    assert published_orders(then) == published_orders(sent)


def test_a_backtest_that_waits_for_its_pace_can_be_paused_and_stopped(runner: TaskRunner, store: ResultStore) -> None:
    asked = config(backtest_id="b", options={"pace": 0.5})
    clock = Clock()
    assign(runner, asked)
    runner.step(clock)
    assert runner.wait(clock.now) == 2.0
    assert runner.step(clock) == []
    assert of_kind(runner.take(Control(task_id="b", action="pause"), []), Paused)
    clock.now += 100.0
    runner.take(Control(task_id="b", action="resume"), [])
    assert runner.wait(clock.now) == 0.0
    runner.step(clock)
    assert runner.wait(clock.now) == 2.0, "bars of the time parked do not fall due"
    runner.take(Control(task_id="b", action="stop"), [])
    assert store.read("b", ["equity"])[0].tables[0].rows == 2


def test_steps_of_a_fast_pace_are_some_milliseconds_apart(runner: TaskRunner) -> None:
    clock = Clock()
    assign(runner, config(options={"pace": 100_000}))
    runner.step(clock)
    assert runner.wait(clock.now) == MOMENT


def test_progress_keeps_its_interval_if_the_pace_is_faster(runner: TaskRunner) -> None:
    asked = config(options={"pace": 100, "streams": {"progressIntervalMs": 1000}})
    sent, _ = paced(runner, asked, seconds=3.5, step=0.01)
    assert len([message for message in of_kind(sent, Published) if message.progress_percent]) == 4


def test_the_time_limit_does_not_count_waiting_for_the_pace(runner: TaskRunner) -> None:
    asked = config(options={"pace": 20, "timeLimitMs": 1_000})
    assign(runner, asked)
    sent, clock = [], Clock()
    while runner.running:
        sent += runner.step(clock)
        clock.now += 1.0
    assert [message.outcome for message in of_kind(sent, Finished)] == ["completed"]


# --- price replays ---


def test_the_bars_of_a_price_replay_are_read_here_and_published_elsewhere(runner: TaskRunner) -> None:
    settings = OpenReplay(
        replay_id="r",
        symbol="SYNTH",
        timeframe="1d",
        start_time=None,
        end_time=None,
        bars_per_second=1.0,
        speed=None,
        allowed=None,
    )
    [(message, frames)] = runner.take(Assign(task_id="q", work="OpenReplay"), [msgspec.msgpack.encode(settings)])
    assert message == Finished(task_id="q", outcome="completed")
    [replay] = runner.take_opened()
    assert msgspec.msgpack.decode(frames[0], type=OpenedReplay) == replay.opened
    assert replay.opened.bars == len(replay.bars) == 1_000
    assert runner.take_opened() == []
    refused = asked_of(runner, "OpenReplay", msgspec.to_builtins(msgspec.structs.replace(settings, symbol="SYNHT")))
    assert refused["code"] == "DATA_ERROR"
    assert runner.take_opened() == []


def test_a_full_disk_at_a_stop_loses_the_result_and_no_message(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(backtest_id="b", options={"pace": 80.0, "streams": {"prices": True}})
    clock = Clock()
    sent = assign(runner, asked) + runner.step(clock)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Storing, "end", full)
    sent += runner.take(Control(task_id="b", action="stop"), [])
    assert sum(message.count for message in of_kind(sent, Published) if message.topic.startswith("prices.")) == 1
    [finished] = of_kind(sent, Finished)
    assert finished.outcome == "failed"
    assert finished.error is not None
    assert "No space left" in finished.error.message
    assert isinstance(sent[-1][0], Finished), "it comes last"
