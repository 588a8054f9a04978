"""A backtest goes on from its checkpoint: with the result and the streams of one whose worker was never lost."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtestr_engine.backtest.checkpoint_format import Attempt, Writer, read_checkpoint
from backtestr_engine.backtest.checkpoint_store import CheckpointStore
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.publishing.stream_log import from_bytes
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.simulation.records import ORDER, POSITION
from backtestr_engine.worker.checkpoints import INTERVAL
from backtestr_protocol import topics
from backtestr_protocol.worker_channel import (
    Assign,
    Checkpointed,
    Continued,
    Control,
    CostWorkers,
    Counted,
    Finished,
    Paused,
    Published,
)
from support.engine.checkpointed import BARS, Broker, calls, counted, without_id
from support.engine.tasks import assign, config, is_event, of_kind


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    catalog = Catalog(tmp_path_factory.mktemp("catalog"), cache_bytes=64 << 20)
    for seed, symbol in enumerate(("SYNTH", "OTHER")):
        catalog.write(synthetic_bars("1d", BARS, symbol=symbol, seed=seed))
    return catalog


@pytest.fixture
def make(stocked: Catalog, tmp_path: Path, conventions: Conventions) -> Any:
    calls[0] = 0

    def made(folder: str = "lost", **changes: Any) -> Broker:
        asked = config(backtest_id="b1", **{"parameters": {"fast": 3, "slow": 7}, **changes})
        if changes.get("algorithm_id") == "counted":
            asked = msgspec.structs.replace(asked, parameters={})
        return Broker(stocked, tmp_path / folder, conventions, asked)

    return made


SLOW = INTERVAL + 0.05
"""Seconds of a step behind which a checkpoint is due."""


def checkpoint(broker: Broker) -> Any:
    content = broker.checkpoints.read("b1")
    return None if content is None else read_checkpoint(content)


def test_a_short_backtest_writes_nothing_and_says_nothing_of_checkpoints(make: Any, tmp_path: Path) -> None:
    broker = make()
    broker.assign()
    broker.run_out()
    assert of_kind(broker.sent, Finished)[0].outcome == "completed"
    assert of_kind(broker.sent, Checkpointed) == []
    assert not (tmp_path / "lost" / "checkpoints").exists()


def test_a_checkpoint_is_written_after_each_interval_of_work_and_removed_at_the_end(make: Any) -> None:
    broker = make()
    broker.assign()
    for _ in range(5):
        broker.step(SLOW)
    assert [one.bars for one in of_kind(broker.sent, Checkpointed)] == [50, 100, 150, 200, 250]
    found = checkpoint(broker)
    assert sum(len(one.equity) for one in found.chunks) == 8 * 250
    broker.run_out()
    assert checkpoint(broker) is None


def whole(make: Any, **changes: Any) -> Broker:
    broker: Broker = make("whole", **changes)
    broker.assign()
    broker.run_out()
    return broker


OPTIONS: dict[str, dict[str, Any]] = {
    "one symbol": {},
    "several symbols": {"symbols": ["SYNTH", "OTHER"], "options": {"size": "fraction", "sizeValue": 0.4}},
    "with prices": {"options": {"streams": {"prices": True}}},
    "stops and margin": {
        "options": {"leverage": 3.0, "maintenanceMargin": 0.1, "stopLoss": 0.02, "trailingStop": 0.03}
    },
    "with a pace": {"options": {"pace": 1000.0}},
}


@pytest.mark.parametrize("kind", OPTIONS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_lost_workers_change_no_result_and_no_stream(
    make: Any, kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    changes = OPTIONS[kind]
    undisturbed = whole(make, **changes)
    broker = make(str(tmp_path_factory.mktemp("run")), **changes)
    for _ in range(data.draw(st.integers(1, 4), "workers lost")):
        broker.new_worker(data.draw(st.integers(1, 120), "chunk"))
        broker.assign(paused=data.draw(st.booleans(), "paused"))
        if broker.runner._parked:
            broker.take(broker.runner.take(Control(task_id="b1", action="resume"), []))
        for _ in range(data.draw(st.integers(0, 5), "steps")):
            if broker.runner.running:
                broker.step(data.draw(st.sampled_from([0.01, 0.1, SLOW]), "seconds"))
        if not broker.runner.running:
            break
        # What it has made and not sent is lost with it.
        broker.lose_worker()
    else:
        broker.assign()
        broker.run_out()
    assert broker.events() == undisturbed.events()
    assert broker.outcome() == undisturbed.outcome()
    progress = broker.progress()
    assert progress == sorted(set(progress))
    assert progress[-1] == 100.0
    assert checkpoint(broker) is None


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_later_broker_goes_on_with_the_numbers_of_the_checkpoint(
    make: Any, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    undisturbed = whole(make)
    broker = make(str(tmp_path_factory.mktemp("run")))
    broker.assign()
    for _ in range(data.draw(st.integers(1, 9), "steps")):
        broker.step(data.draw(st.sampled_from([0.01, 0.1, SLOW]), "seconds"))
    before = {topic: list(found) for topic, found in broker.streams.items()}
    saved = checkpoint(broker)
    broker.start_again()
    broker.assign()
    first = dict(broker.numbers)
    continued = of_kind(broker.sent, Continued)
    assert bool(continued) == (saved is not None)
    if saved is not None:
        assert broker.percent == from_bytes(*(one.log for one in saved.chunks)).percent
        assert first["orders.b1"] == sum(len(one.orders) for one in saved.chunks) // ORDER.itemsize
        for topic in topics.of_backtest("b1"):
            assert (
                broker.fetched(topic, first[topic])[: len(before.get(topic, []))]
                == before.get(topic, [])[: first[topic]]
            )
    broker.run_out()
    assert broker.outcome() == undisturbed.outcome()
    orders = [without_id(one["data"]) for one in broker.streams["orders.b1"]]
    assert orders == undisturbed.events()["orders"][first.get("orders.b1", 0) :]
    assert broker.numbers["orders.b1"] == len(undisturbed.events()["orders"])
    changes = [without_id(one["data"]) for one in broker.streams["positions.b1"] if is_event(one)]
    kept = sum(len(one.positions) for one in saved.chunks) // POSITION.itemsize if saved is not None else 0
    assert changes == undisturbed.events()["positions"][kept:]
    assert broker.numbers["progress.b1"] == first.get("progress.b1", 0) + len(broker.progress())
    if saved is not None:  # what was published of progress behind the checkpoint comes again with the same numbers
        seen = before.get("progress.b1", [])[first["progress.b1"] :]
        assert broker.streams["progress.b1"][: len(seen)] == seen
    assert len(before.get("progress.b1", [])) >= first.get("progress.b1", 0) - 1
    assert broker.progress()[-1] == 100.0


def test_the_algorithm_is_not_asked_again_behind_a_checkpoint(make: Any) -> None:
    broker = make(algorithm_id="counted")
    broker.assign()
    broker.step(0.01)
    counted.signals(synthetic_bars("1d", 3), {})  # it writes to the array in which it gave its stops
    broker.step(SLOW)
    assert calls[0] == 2
    found = checkpoint(broker)
    assert np.frombuffer(found.computed.signals[0].stop_loss)[0] == 0.001
    broker.lose_worker()
    broker.assign()
    broker.run_out()
    assert calls[0] == 2
    assert of_kind(broker.sent, Finished)[0].outcome == "completed"


def test_a_careful_worker_keeps_the_signals_at_once_and_each_step(make: Any) -> None:
    broker = make(algorithm_id="counted")
    broker.assign()
    broker.step(0.01)
    broker.lose_worker()
    broker.assign()
    broker.step(0.01)
    assert [one.bars for one in of_kind(broker.sent, Checkpointed)] == [0], "others are not told within the interval"
    broker.step(0.01)
    broker.step(0.01)
    assert len(checkpoint(broker).chunks) == 3
    broker.lose_worker()
    broker.assign()
    assert broker.runner._running["b1"].run.bars_simulated == 150
    while broker.runner._running["b1"].spent < INTERVAL:
        broker.step(0.06)
    chunks = len(checkpoint(broker).chunks)
    broker.step(0.06)
    assert len(checkpoint(broker).chunks) == chunks, "it is careful no more"


def attempted(broker: Broker, *attempts: tuple[int, int]) -> None:
    """Have workers end in steps of a backtest, of which each has only said that it was about to begin."""
    for first, stop in attempts:
        content = broker.checkpoints.read("b1") or b""
        further = Writer(read_checkpoint(content).checksum).encode(Attempt(first, stop))
        broker.checkpoints.create("b1", content + further).close()
        broker.lose_worker()


def test_bars_that_have_ended_two_workers_are_not_tried_a_third_time(make: Any) -> None:
    broker = make()
    broker.assign()
    broker.step(SLOW)
    broker.lose_worker()
    attempted(broker, (50, 54))
    broker.assign()
    assert of_kind(broker.sent, CostWorkers) == []
    attempted(broker, (50, 60))
    assert broker.assign() == [(CostWorkers(task_id="b1", first_bar=50, stop_bar=60), ())]
    assert not broker.runner.running
    assert checkpoint(broker) is None


def test_bars_that_were_passed_in_between_count_no_more(make: Any) -> None:
    broker = make()
    broker.assign()
    broker.step(SLOW)
    broker.lose_worker()
    attempted(broker, (50, 100))
    broker.assign()
    broker.step(0.01)
    attempted(broker, (100, 150))
    broker.assign()
    broker.run_out()
    assert of_kind(broker.sent, Finished)[0].outcome == "completed"


@pytest.mark.parametrize(("name", "failed"), [("counted", True), ("sma_cross", False)])
def test_the_first_loss_without_progress_may_be_the_algorithm_of_a_user(make: Any, name: str, failed: bool) -> None:
    """The first worker writes no attempts: then it is its algorithm that is taken to have ended it."""
    broker = make(algorithm_id=name)
    broker.assign()
    broker.lose_worker()
    broker.assign()
    broker.runner._running["b1"].checkpoint._attempt(0, 0)
    broker.lose_worker()
    sent = broker.assign()
    assert of_kind(sent, CostWorkers) == ([CostWorkers(task_id="b1", first_bar=0, stop_bar=0)] if failed else [])


def test_the_end_of_a_backtest_may_cost_two_workers_too(make: Any) -> None:
    broker = make()
    broker.assign()
    broker.step(0.01)
    broker.lose_worker()
    broker.assign()
    while not broker.runner._running["b1"].run.done:
        broker.step(0.01)
    for _ in range(2):
        broker.runner._running["b1"].checkpoint.before_end()
        broker.lose_worker()
        broker.assign()
    assert of_kind(broker.sent, CostWorkers) == [CostWorkers(task_id="b1", first_bar=BARS, stop_bar=BARS)]


def test_a_paused_backtest_is_kept_where_it_was_paused(make: Any) -> None:
    broker = make(algorithm_id="counted", options={"lookAheadCheck": False})
    broker.assign()
    broker.step(0.01)
    broker.take(broker.runner.take(Control(task_id="b1", action="pause"), []))
    assert [one.bars for one in of_kind(broker.sent, Checkpointed)] == [50]
    broker.start_again()
    sent = broker.assign(paused=True)
    assert of_kind(sent, Paused)
    assert of_kind(sent, Published) == [], "all of it was published"
    broker.take(broker.runner.take(Control(task_id="b1", action="resume"), []))
    broker.run_out()
    assert calls[0] == 1
    assert of_kind(broker.sent, Finished)[0].outcome == "completed"


def test_a_paced_backtest_is_kept_by_the_clock(make: Any) -> None:
    broker = make(options={"pace": 100.0})
    broker.assign()
    broker.step(0.001)
    for _ in range(4):
        broker.clock.now += 0.1
        broker.step(0.001)
    assert of_kind(broker.sent, Checkpointed)
    bars = broker.runner._running["b1"].run.bars_simulated
    broker.start_again()
    broker.assign()
    assert bars - 30 < broker.runner._running["b1"].run.bars_simulated <= bars
    broker.step(0.001)
    assert broker.runner._running["b1"].run.bars_simulated <= bars, "it goes on at its pace"


def test_a_backtest_that_fails_or_is_stopped_leaves_no_checkpoint(make: Any) -> None:
    broker = make()
    broker.assign()
    broker.step(SLOW)
    broker.take(broker.runner.take(Control(task_id="b1", action="stop"), []))
    assert checkpoint(broker) is None
    late = make("late", options={"timeLimitMs": 400})
    late.assign()
    late.step(SLOW)
    assert checkpoint(late) is not None
    late.step(SLOW)
    assert of_kind(late.sent, Finished)[0].outcome == "failed"
    assert checkpoint(late) is None


@pytest.mark.parametrize("harm", ["damaged", "config", "data", "engine", "unreadable"])
def test_a_checkpoint_that_does_not_fit_is_not_used_and_the_log_says_so_once(
    make: Any,
    harm: str,
    stocked: Catalog,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stocked.write(synthetic_bars("1d", BARS, symbol="THIRD", seed=5))
    broker = make(symbol="THIRD")
    broker.assign()
    broker.step(SLOW)
    content = broker.checkpoints.read("b1")
    match harm:
        case "damaged":
            broker.checkpoints.create("b1", content[:7] + b"?" + content[8:]).close()
        case "config":
            broker.asked = msgspec.structs.replace(broker.asked, commission=0.5)
        case "data":
            stocked.write(synthetic_bars("1d", BARS, symbol="THIRD", seed=6))
        case "engine":
            monkeypatch.setattr("backtestr_engine.backtest.run_state.kernels_version", lambda: "another")
        case "unreadable":

            def read(_: object, __: str) -> bytes:
                raise PermissionError(13, "Permission denied")

            monkeypatch.setattr(CheckpointStore, "read", read)
    broker.start_again()
    broker.assign()
    assert broker.runner._running["b1"].run.bars_simulated == 0
    broker.run_out()
    assert of_kind(broker.sent, Continued) == []
    assert of_kind(broker.sent, Finished)[0].outcome == "completed"
    assert [one.levelno for one in caplog.records] == [logging.WARNING]
    assert "begins at its first bar" in caplog.text


def test_only_the_last_whole_chunk_of_a_torn_file_counts(make: Any) -> None:
    broker = make(options={"streams": {"progressIntervalMs": 60_000}})  # so the second chunk is the last record
    broker.assign()
    broker.step(SLOW)
    before = len(broker.checkpoints.read("b1") or b"")
    broker.step(SLOW)
    content = broker.checkpoints.read("b1")
    undisturbed = whole(make)
    for kept in (before, before + 1, (before + len(content)) // 2, len(content) - 1):
        broker.checkpoints.create("b1", content[:kept]).close()
        broker.start_again()
        broker.assign()
        assert broker.runner._running["b1"].run.bars_simulated == 50
    broker.run_out()
    assert broker.outcome() == undisturbed.outcome()


@pytest.mark.parametrize("fails_at", ["first", "later"])
def test_a_full_disk_costs_the_backtest_its_checkpoint_alone(
    make: Any, fails_at: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker = make()
    broker.assign()
    if fails_at == "later":
        broker.step(SLOW)
    write = os.write

    def full(handle: int, content: bytes) -> int:
        write(handle, content[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        for _ in range(3):
            broker.step(SLOW)
    assert checkpoint(broker) is None, "its room is left to the result"
    assert len(caplog.records) == 1
    assert "without checkpoints" in caplog.text
    broker.run_out()
    assert of_kind(broker.sent, Finished)[0].outcome == "completed"
    assert broker.outcome() == whole(make).outcome()


def test_progress_that_was_not_told_is_told_by_the_next_worker(make: Any) -> None:
    broker = make(options={"streams": {"progressIntervalMs": 1}})
    broker.assign()
    broker.step(SLOW)
    told = list(broker.progress_at)
    broker.clock.step = SLOW
    broker.runner.step(broker.clock)  # what it has made is lost, and its checkpoint is not
    broker.runner.step(broker.clock)
    broker.lose_worker()
    broker.assign()
    assert told == [50]
    assert broker.progress_at == [50, 100, 150], "also the progress behind the last chunk"
    assert broker.numbers["progress.b1"] == 2
    broker.run_out()
    assert broker.progress_at == sorted(set(broker.progress_at))
    assert broker.progress() == [100.0 * bars / BARS for bars in broker.progress_at]


def test_no_progress_is_made_among_changes_that_were_published(make: Any) -> None:
    """A mark between them would have the number of a change that subscribers have."""
    broker = make()
    broker.assign()
    broker.step(SLOW)
    broker.numbers |= broker.runner._running["b1"].logged.numbers
    broker.numbers["positions.b1"] += 9  # a worker with larger chunks came further before its next progress
    broker.new_worker(chunk_bars=7)
    broker.assign()
    backtest = broker.runner._running["b1"]
    while backtest.streams.is_behind:
        broker.step(SLOW)
        assert backtest.logged.log.progress_at == [50] or not backtest.streams.is_behind
    assert backtest.run.bars_simulated > 57


def test_a_checkpoint_that_is_begun_late_has_the_progress_that_is_still_to_be_made_again(make: Any) -> None:
    broker = make(options={"streams": {"progressIntervalMs": 1}})
    broker.assign()
    broker.step(0.01)
    broker.step(0.01)
    assert broker.progress_at == [50, 100]
    broker.new_worker(chunk_bars=60)  # before any checkpoint was written
    broker.assign()
    broker.step(SLOW)
    found = checkpoint(broker)
    assert from_bytes(found.chunks[0].log).progress_at == [50]
    assert found.progress_at == [100]
    broker.start_again()
    broker.assign()
    (continued,) = of_kind(broker.sent, Continued)
    assert continued.progress_at == [50, 100]
    assert continued.numbers["progress.b1"] == 1
    assert broker.runner._running["b1"].shown_bars == 100


def test_topics_without_a_listener_are_counted_where_a_checkpoint_has_more_than_was_counted(make: Any) -> None:
    broker = make()
    broker.assign()
    broker.step(SLOW)
    before = broker.numbers["orders.b1"]
    broker.clock.step = SLOW
    broker.runner.step(broker.clock)
    broker.lose_worker()
    sent = assign(
        broker.runner,
        broker.asked,
        resumes=True,
        published=dict(broker.numbers),
        progress_at=broker.progress_at,
        unheard=list(topics.of_backtest("b1")),
    )
    counted = of_kind(sent, Counted)
    made = broker.runner._running["b1"].logged.numbers["orders.b1"]
    assert [one.counts["orders.b1"] for one in counted] == [made - before]
    assert made > before
    assert of_kind(sent, Published) == []


def test_a_checkpoint_from_before_a_later_worker_is_not_used(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    broker = make(options={"streams": {"progressIntervalMs": 1}})
    broker.assign()
    for _ in range(3):
        broker.step(SLOW)
    broker.lose_worker()
    broker.progress_at = [50, 77]  # a worker that could not read it went on otherwise
    broker.assign()
    assert broker.runner._running["b1"].run.bars_simulated == 0
    assert "begins at its first bar" in caplog.text
    assert checkpoint(broker) is None, "no later one finds it"


def test_an_assignment_that_resumes_nothing_takes_up_no_checkpoint(make: Any) -> None:
    broker = make()
    broker.assign()
    broker.step(SLOW)
    broker.new_worker()
    broker.begun = False  # another backtest of that id, long after
    broker.assign()
    assert broker.runner._running["b1"].run.bars_simulated == 0


def test_the_message_of_an_assignment_says_all_that_a_worker_goes_on_from() -> None:
    fields = {one.name for one in msgspec.structs.fields(Assign)}
    assert {"resumes", "unnumbered", "published", "progress_at", "losses"} <= fields
