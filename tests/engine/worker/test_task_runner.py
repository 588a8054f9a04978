"""A worker's work without its threads: what each note of the broker leads to, step by step."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import write_synthetic
from backtestr_engine.library.library import Library
from backtestr_engine.library.registrations import RegisteredAlgorithms
from backtestr_engine.publishing.batching import Batcher
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.worker.task_runner import MOMENT, Sent, TaskRunner
from backtestr_protocol.messages import BacktestConfig
from backtestr_protocol.worker_channel import (
    Assign,
    Control,
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


class Clock:
    """Time that passes by `step` seconds whenever it is looked at."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


@pytest.fixture
def bench(catalog: Catalog, store: ResultStore, conventions: Conventions, batcher: Batcher) -> TaskRunner:
    write_synthetic(catalog)
    return TaskRunner(catalog, store, conventions, 100, lambda: 1_700_000_000_000, batcher)


def config(**changes: Any) -> BacktestConfig:
    return BacktestConfig(
        **{
            "backtest_id": str(uuid.uuid4()),
            "algorithm_id": "sma_cross",
            "symbol": "SYNTH",
            "start_date": "2000-01-01",
            "end_date": "2100-01-01",
            "initial_capital": 1e5,
            "timeframe": "1d",
            "commission": 0.001,
            "slippage": 0.0,
            "parameters": {},
            **changes,
        }
    )


def assign(bench: TaskRunner, asked: BacktestConfig, **how: Any) -> list[Sent]:
    assert asked.backtest_id is not None
    note = Assign(task_id=asked.backtest_id, work="RunBacktest", **how)
    return bench.take(note, [msgpack.packb(to_wire(asked))])


def to_wire(asked: BacktestConfig) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(asked)
    return found


def run_out(bench: TaskRunner, clock: Clock | None = None) -> list[Sent]:
    sent: list[Sent] = []
    while bench.running:
        sent += bench.step(clock or Clock())
    return sent


def asked_of(bench: TaskRunner, work: Work, data: Any) -> Any:
    """What a question is answered with: Success data or ErrorData."""
    [(note, frames)] = bench.take(Assign(task_id="q", work=work), [msgpack.packb(data)])
    assert isinstance(note, Finished)
    return msgpack.unpackb(frames[0]) if note.error is None else msgspec.to_builtins(note.error)


def notes(sent: Sequence[Sent], kind: type) -> list[Any]:
    return [note for note, _ in sent if isinstance(note, kind)]


def test_a_backtest_runs_in_chunks_and_is_stored_before_it_is_finished(bench: TaskRunner, store: ResultStore) -> None:
    asked = config()
    assert assign(bench, asked) == []
    steps = 0
    sent: list[Sent] = []
    while bench.running:
        assert notes(sent, Finished) == []
        sent = bench.step(Clock())
        steps += 1
    assert steps == 11  # 1,000 bars, 100 at a time, and the result
    last_published, finished = sent[-2:]
    assert isinstance(last_published[0], Published)
    assert last_published[0].progress_percent == 100.0
    assert finished[0] == Finished(task_id=asked.backtest_id or "", outcome="completed")
    results, _ = store.read(asked.backtest_id or "")
    assert results.status == "completed"


def test_progress_comes_at_its_interval_and_at_the_end(bench: TaskRunner) -> None:
    assign(bench, config(options={"streams": {"progressIntervalMs": 50}}))
    clock = Clock(step=0.01)  # two looks a step: 20 ms
    progress = [one["data"] for one in messages(run_out(bench, clock)) if one["type"] == "BacktestProgress"]
    assert [one["progressPercent"] for one in progress] == [10.0, 40.0, 70.0, 100.0]


def test_pause_parks_and_resume_goes_on_where_it_was(bench: TaskRunner, store: ResultStore) -> None:
    straight, paused = config(), config()
    assign(bench, straight)
    run_out(bench)
    assign(bench, paused)
    bench.step(Clock())
    task_id = paused.backtest_id or ""
    parked = bench.take(Control(task_id=task_id, action="pause"), [])
    assert notes(parked, Published)[-1].progress_percent == 10.0
    assert bench.next_deadline() is None
    assert notes(parked, Paused) == [Paused(task_id=task_id)]
    assert not bench.running
    other = config()
    assign(bench, other)
    assert notes(run_out(bench), Finished)[0].task_id == other.backtest_id
    assert notes(bench.take(Control(task_id=task_id, action="resume"), []), Resumed) == [Resumed(task_id=task_id)]
    run_out(bench)
    assert store.read(task_id)[0].metrics == store.read(straight.backtest_id or "")[0].metrics


def test_what_a_paused_backtest_published_is_what_one_without_a_pause_did(bench: TaskRunner) -> None:
    """Message by message, whatever the batches; and nothing waits while it is paused, or after its end."""
    straight, paused = config(backtest_id="same"), config(backtest_id="same")
    assign(bench, straight)
    expected = [one for one in messages(run_out(bench)) if one["type"] != "BacktestProgress"]
    assign(bench, paused)
    sent: list[Sent] = []
    while bench.running:
        sent += bench.step(Clock())
        if notes(sent, Finished):
            break
        sent += bench.take(Control(task_id="same", action="pause"), [])
        assert isinstance(sent[-1][0], Paused)
        assert bench.next_deadline() is None
        sent += bench.take(Control(task_id="same", action="resume"), [])
    of_topic = [[one for one in messages(sent) if one["type"] == kind] for kind in ("OrderUpdate", "PositionUpdate")]
    assert of_topic == [[one for one in expected if one["type"] == kind] for kind in ("OrderUpdate", "PositionUpdate")]
    assert len(of_topic[0]) > 10
    assert bench.next_deadline() is None


def test_events_wait_for_more_of_their_topic_and_no_longer_than_they_may(bench: TaskRunner) -> None:
    assign(bench, config())
    assert notes(bench.step(Clock()), Published) == []
    deadline = bench.next_deadline()
    assert deadline == 0.005
    assert bench.due(0.0049) == []
    topics = {note.topic.partition(".")[0] for note in notes(bench.due(0.005), Published)}
    assert topics == {"orders", "positions"}
    assert bench.next_deadline() == 0.050, "one progress message, fewer than its class's least"


def test_what_happened_before_a_failure_is_published_before_it(bench: TaskRunner) -> None:
    assign(bench, config(options={"timeLimitMs": 1_000}))
    sent = run_out(bench, Clock(step=0.3))
    assert notes(sent, Finished)[0].error.code == "TIMEOUT"
    assert isinstance(sent[-1][0], Finished)
    assert {one["type"] for one in messages(sent)} == {"OrderUpdate", "PositionUpdate", "BacktestProgress"}
    assert bench.next_deadline() is None


def test_a_backtest_can_begin_parked(bench: TaskRunner) -> None:
    asked = config()
    sent = assign(bench, asked, paused=True)
    assert notes(sent, Paused)
    assert not bench.running


@pytest.mark.parametrize("paused", [True, False])
def test_a_restored_backtest_that_has_its_result_is_not_run_again(
    bench: TaskRunner, store: ResultStore, paused: bool
) -> None:
    asked = config()
    task_id = asked.backtest_id or ""
    assign(bench, asked)
    bench.step(Clock())
    bench.take(Control(task_id=task_id, action="stop"), [])
    stored = store.read(task_id, ["equity"])
    sent = assign(bench, asked, restored=True, paused=paused)
    assert [note for note, _ in sent] == [Finished(task_id=task_id, outcome="stopped")]
    assert not bench.running
    assert store.read(task_id, ["equity"]) == stored


def test_a_restored_backtest_without_a_result_runs(bench: TaskRunner, store: ResultStore) -> None:
    asked = config()
    assign(bench, asked, restored=True)
    assert [note.outcome for note in notes(run_out(bench), Finished)] == ["completed"]
    assert store.has(asked.backtest_id or "")


def test_a_backtest_of_this_broker_runs_whatever_is_on_disk(bench: TaskRunner) -> None:
    """A worker that died after it had stored the result may have left its streams short; the next one fills them."""
    asked = config()
    assign(bench, asked)
    run_out(bench)
    assert assign(bench, asked) == []
    assert [note.outcome for note in notes(run_out(bench), Finished)] == ["completed"]


@pytest.mark.parametrize("parked", [True, False])
def test_stop_stores_what_was_walked(bench: TaskRunner, store: ResultStore, parked: bool) -> None:
    asked = config()
    task_id = asked.backtest_id or ""
    assign(bench, asked)
    bench.step(Clock())
    if parked:
        bench.take(Control(task_id=task_id, action="pause"), [])
    stopped = bench.take(Control(task_id=task_id, action="stop"), [])
    assert notes(stopped, Finished) == [Finished(task_id=task_id, outcome="stopped")]
    assert not bench.running
    results, _ = store.read(task_id, ["equity"])
    assert (results.status, results.tables[0].rows) == ("stopped", 100)


def test_what_is_about_another_task_is_ignored(bench: TaskRunner) -> None:
    assign(bench, config())
    for action in ("pause", "resume", "stop"):
        assert bench.take(Control(task_id="someone else's", action=action), []) == []
    assert bench.running


def test_a_task_that_cannot_be_done_fails_and_the_next_is_done(bench: TaskRunner) -> None:
    refused = config(symbol="SYNHT")
    [(note, _)] = assign(bench, refused)
    assert isinstance(note, Finished)
    assert note.error is not None
    assert (note.outcome, note.error.code, note.error.component) == ("failed", "DATA_ERROR", "engine")
    assign(bench, config())
    assert notes(run_out(bench), Finished)[0].outcome == "completed"


def test_a_defect_fails_its_task_alone_and_is_logged(
    bench: TaskRunner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr("backtestr_engine.worker.task_runner.prepare", defect)
        [(note, _)] = assign(bench, config())
    assert isinstance(note, Finished)
    assert note.error is not None
    assert note.error.code == "SYSTEM_ERROR"
    assert note.error.details is not None
    assert note.error.details["id"] in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assign(bench, config())
    assert notes(run_out(bench), Finished)[0].outcome == "completed"


def test_time_at_work_is_limited_and_time_parked_is_not(bench: TaskRunner) -> None:
    asked = config(options={"timeLimitMs": 1_000})
    task_id = asked.backtest_id or ""
    assign(bench, asked)
    clock = Clock(step=0.05)
    bench.step(clock)
    bench.take(Control(task_id=task_id, action="pause"), [])
    clock.now += 100.0
    bench.take(Control(task_id=task_id, action="resume"), [])
    assert notes(run_out(bench, clock), Finished)[0].outcome == "completed"

    late = config(options={"timeLimitMs": 1_000})
    assign(bench, late)
    [failed] = notes(run_out(bench, Clock(step=0.3)), Finished)
    assert failed.error.code == "TIMEOUT"


def test_questions_are_answered_with_data_and_attachments(bench: TaskRunner) -> None:
    [(note, frames)] = bench.take(Assign(task_id="q", work="ListMarketData"), [msgpack.packb({})])
    assert note == Finished(task_id="q", outcome="completed")
    assert [one["timeframe"] for one in msgpack.unpackb(frames[0])["series"]] == ["1m", "1d"]
    request = {"symbol": "SYNTH", "timeframe": "1d", "limit": 5}
    [(_, frames)] = bench.take(Assign(task_id="q", work="GetMarketData"), [msgpack.packb(request)])
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
    """Two workers that share nothing but the disk; the name means another version when the backtest's turn comes."""
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
    assert notes(run_out(compute), Finished)[0].outcome == "completed"
    results, _ = store.read(accepted.backtest_id or "")
    assert results.config["algorithmId"] == first["algorithmId"]
    assert results.metrics is not None
    assert (results.metrics.exposure or 0.0) > 0.9
    # What a worker that is asked of an earlier version says; the broker remembers the newest only.
    assert asked_of(compute, "GetAlgorithmStatus", {"algorithmId": first["algorithmId"]}) == first
    refused = asked_of(interactive, "RegisterAlgorithm", {"name": "sma_cross", "source": HOLDS})
    assert refused["code"] == "STATE_CONFLICT"


def test_the_check_names_the_version_of_a_built_in_algorithm(bench: TaskRunner) -> None:
    checked = asked_of(bench, "CheckBacktest", to_wire(config(algorithm_id="sma_cross", parameters={"fast": 5})))

    assert checked["algorithmId"] == BUILT_IN["sma_cross"].algorithm_id
    assert checked["parameters"] == {"fast": 5}, "the rest stays as it came"


# --- a pace ---


def paced(bench: TaskRunner, asked: BacktestConfig, seconds: float, step: float) -> tuple[list[Sent], list[int]]:
    """What is sent in so much time, looked at every `step` seconds; and after each look how many bars were walked."""
    clock, sent, walked = Clock(), assign(bench, asked), []
    while bench.running and clock.now < seconds:
        sent += bench.step(clock) + bench.due(clock.now + step)
        percents = [note.progress_percent for note in notes(sent, Published) if note.progress_percent is not None]
        walked.append(round(percents[-1] * 10) if percents else 0)
        clock.now += step
    return sent, walked


def test_a_pace_walks_the_bars_that_are_due_and_tells_progress_with_each_step(bench: TaskRunner) -> None:
    _, walked = paced(bench, config(options={"pace": 8}), seconds=2.0, step=0.125)
    assert walked == list(range(1, 17))


def test_what_fell_due_meanwhile_is_walked_in_one_step(bench: TaskRunner) -> None:
    _, walked = paced(bench, config(options={"pace": 10}), seconds=8.0, step=4.0)
    assert walked == [1, 41]


@pytest.mark.parametrize("step", [0.01, 0.7, 30.0])
def test_a_pace_changes_no_result_and_no_stream(bench: TaskRunner, store: ResultStore, step: float) -> None:
    straight, slow = config(backtest_id="straight"), config(backtest_id="slow", options={"pace": 80.0})
    sent = assign(bench, straight) + run_out(bench)
    expected, tables = store.read("straight", ["equity", "orders", "positions", "trades"])
    then, _ = paced(bench, slow, seconds=1000.0, step=step)
    assert not bench.running
    found, same = store.read("slow", ["equity", "orders", "positions", "trades"])
    assert (found.metrics, same) == (expected.metrics, tables)
    assert found.config["options"]["pace"] == 80.0
    assert published_orders(then) == published_orders(sent)


def published_orders(sent: Sequence[Sent]) -> list[Any]:
    found = []
    for note, frames in sent:
        if isinstance(note, Published) and note.topic.startswith("orders."):
            data = msgpack.unpackb(frames[0])
            for one in data["data"]["messages"] if data["type"] == "Batch" else [data]:
                found.append({name: value for name, value in one["data"].items() if name != "backtestId"})
    return found


def test_waiting_for_its_pace_a_backtest_can_be_paused_and_stopped(bench: TaskRunner, store: ResultStore) -> None:
    asked = config(backtest_id="b", options={"pace": 0.5})
    clock = Clock()
    assign(bench, asked)
    bench.step(clock)
    assert bench.wait(clock.now) == 2.0
    assert bench.step(clock) == []
    assert notes(bench.take(Control(task_id="b", action="pause"), []), Paused)
    clock.now += 100.0
    bench.take(Control(task_id="b", action="resume"), [])
    assert bench.wait(clock.now) == 0.0
    bench.step(clock)
    assert bench.wait(clock.now) == 2.0, "the time that it was parked is not caught up with"
    bench.take(Control(task_id="b", action="stop"), [])
    assert store.read("b", ["equity"])[0].tables[0].rows == 2


def test_steps_of_a_quick_pace_are_some_milliseconds_apart(bench: TaskRunner) -> None:
    clock = Clock()
    assign(bench, config(options={"pace": 100_000}))
    bench.step(clock)
    assert bench.wait(clock.now) == MOMENT


def test_progress_keeps_to_its_interval_where_a_pace_is_quicker(bench: TaskRunner) -> None:
    asked = config(options={"pace": 100, "streams": {"progressIntervalMs": 1000}})
    sent, _ = paced(bench, asked, seconds=3.5, step=0.01)
    assert len([note for note in notes(sent, Published) if note.progress_percent]) == 4


def test_waiting_for_its_pace_counts_for_no_time_limit(bench: TaskRunner) -> None:
    asked = config(options={"pace": 20, "timeLimitMs": 1_000})
    assign(bench, asked)
    sent, clock = [], Clock()
    while bench.running:
        sent += bench.step(clock)
        clock.now += 1.0
    assert [note.outcome for note in notes(sent, Finished)] == ["completed"]


# --- replays ---


def test_the_bars_of_a_replay_are_read_here_and_played_elsewhere(bench: TaskRunner) -> None:
    order = OpenReplay(
        replay_id="r",
        symbol="SYNTH",
        timeframe="1d",
        start_time=None,
        end_time=None,
        bars_per_second=1.0,
        speed=None,
        allowed=None,
    )
    [(note, frames)] = bench.take(Assign(task_id="q", work="OpenReplay"), [msgspec.msgpack.encode(order)])
    assert note == Finished(task_id="q", outcome="completed")
    [tape] = bench.take_opened()
    assert msgspec.msgpack.decode(frames[0], type=OpenedReplay) == tape.opened
    assert tape.opened.bars == len(tape.bars) == 1_000
    assert bench.take_opened() == []
    refused = asked_of(bench, "OpenReplay", msgspec.to_builtins(msgspec.structs.replace(order, symbol="SYNHT")))
    assert refused["code"] == "DATA_ERROR"
    assert bench.take_opened() == []


def test_a_disk_that_is_full_when_a_backtest_is_stopped_costs_its_result_and_none_of_its_messages(
    bench: TaskRunner, store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(backtest_id="b", options={"pace": 80.0, "streams": {"prices": True}})
    clock = Clock()
    sent = assign(bench, asked) + bench.step(clock)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "write", full)
    sent += bench.take(Control(task_id="b", action="stop"), [])
    assert sum(note.count for note in notes(sent, Published) if note.topic.startswith("prices.")) == 1
    [finished] = notes(sent, Finished)
    assert finished.outcome == "failed"
    assert finished.error is not None
    assert "No space left" in finished.error.message
    assert isinstance(sent[-1][0], Finished), "it comes last"
