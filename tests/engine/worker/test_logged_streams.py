"""A task runner counts what no subscriber would get, states where it makes progress, and answers fetches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import pytest

from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.publishing.batching import Batcher
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.worker.task_runner import TaskRunner
from backtestr_protocol import topics
from backtestr_protocol.messages import BacktestConfig
from backtestr_protocol.worker_channel import Assign, Control, Counted, Fetch, Fetched, Published, Unheard
from support.engine.batches import messages
from support.engine.tasks import Clock, assign, of_kind, run_out
from support.engine.tasks import config as any_config
from support.protocol.independent import messages_of

OF_B = topics.of_backtest("b")


def config(**changes: Any) -> BacktestConfig:
    """Return a config of a backtest that trades often."""
    return any_config(parameters={"fast": 2, "slow": 5}, **changes)


OPTIONS = {"streams": {"progressIntervalMs": 1}}


@pytest.fixture
def runner(catalog: Catalog, tmp_path: Path, conventions: Conventions, batcher: Batcher) -> TaskRunner:
    catalog.write(synthetic_bars("1d", 300))
    return TaskRunner(catalog, ResultStore(tmp_path / "results"), conventions, 50, lambda: 7, batcher)


def fetched(runner: TaskRunner, topic: str, from_seq: int, to_seq: int, task_id: str = "b") -> Any:
    """Return the data of the answer, or its error."""
    [(answer, frames)] = runner.take(
        Fetch(task_id=task_id, fetch_id=3, topic=topic, from_seq=from_seq, to_seq=to_seq), []
    )
    assert isinstance(answer, Fetched)
    assert (answer.task_id, answer.fetch_id) == (task_id, 3)
    return answer.error if answer.error is not None else msgpack.unpackb(frames[0]) if frames else None


def contents(missed: Any) -> list[Any]:
    return [message for one in missed["messages"] for message in messages_of(one["payload"])]


def test_what_no_one_hears_is_counted_and_can_be_fetched(runner: TaskRunner) -> None:
    assign(runner, config(backtest_id="b", options=OPTIONS))
    heard = messages(run_out(runner, Clock(0.01)))
    assign(runner, config(backtest_id="b", options=OPTIONS), unheard=list(OF_B))
    clock, sent, pages = Clock(0.01), [], []
    for _ in range(6):
        sent += runner.step(clock)
        counted = {topic: sum(one.counts.get(topic, 0) for one in of_kind(sent, Counted)) for topic in OF_B}
        pages = [fetched(runner, topic, 1, count) for topic, count in counted.items()]
    sent += run_out(runner, clock)
    assert of_kind(sent, Published) == []
    progress = [one for one in heard if one["type"] == "BacktestProgress"]
    assert contents(pages[0]) == progress[: len(contents(pages[0]))]
    for page, kind in zip(pages[1:], ("OrderUpdate", "PositionUpdate"), strict=True):
        assert contents(page)
        made = [one for one in heard if one["type"] == kind]
        assert contents(page) == made[: len(contents(page))]
    assert sum(one.counts.get(OF_B[1], 0) for one in of_kind(sent, Counted)) == len(
        [one for one in heard if one["type"] == "OrderUpdate"]
    )
    assert [one.progress_percent for one in of_kind(sent, Counted)][-1] == 100.0


def test_messages_that_wait_are_sent_before_the_first_is_counted(runner: TaskRunner) -> None:
    assign(runner, config(backtest_id="b", options=OPTIONS))
    sent = runner.step(Clock())
    assert not [one for one in of_kind(sent, Published) if one.topic == OF_B[1]]
    sent += runner.take(Unheard(task_id="b", topics=[OF_B[1]]), [])
    waited = sum(one.count for one in of_kind(sent, Published) if one.topic == OF_B[1])
    assert waited > 0
    sent += runner.step(Clock())
    sent += runner.take(Unheard(task_id="b", topics=[]), [])
    sent += run_out(runner)
    order = [
        ("sent", one.count) if isinstance(one, Published) else ("counted", one.counts[OF_B[1]])
        for one, _ in sent
        if (isinstance(one, Published) and one.topic == OF_B[1]) or (isinstance(one, Counted) and OF_B[1] in one.counts)
    ]
    assert [kind for kind, _ in order][:3] == ["sent", "counted", "sent"]
    assert runner.take(Unheard(task_id="gone", topics=[]), []) == []


def test_the_bars_of_progress_are_stated_before_it_is_sent(runner: TaskRunner) -> None:
    assign(runner, config(backtest_id="b", options=OPTIONS))
    stated, published = 0, 0
    for message, _ in run_out(runner, Clock(0.01)):
        if isinstance(message, Counted):
            stated += len(message.progress_at)
        elif isinstance(message, Published) and message.topic == OF_B[0]:
            published += message.count
            assert published <= stated
    assert published == stated > 3


def test_a_fetch_of_what_is_not_made_again_yet_says_when_to_ask_again(runner: TaskRunner) -> None:
    assign(runner, config(backtest_id="b"), published={OF_B[1]: 9})
    error = fetched(runner, OF_B[1], 8, 9)
    assert (error.code, error.details["retryAfterMs"]) == ("BUSY", 200)
    runner.take(Control(task_id="b", action="pause"), [])
    assert len(contents(fetched(runner, OF_B[1], 8, 9))) == 2, "a pause comes where the lost worker was"


def test_a_fetch_of_another_topic_or_backtest_ends_nothing(runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    assign(runner, config(backtest_id="b"))
    assert fetched(runner, "orders.other", 1, 1).code == "VALIDATION_ERROR"
    assert fetched(runner, OF_B[1], 1, 1, task_id="gone") is None

    def defect(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("backtestr_engine.worker.logged_streams.page", defect)
    runner.step(Clock())
    assert fetched(runner, OF_B[1], 1, 1).code == "SYSTEM_ERROR"
    assert runner.running


def test_a_stop_before_the_published_bars_are_made_again_keeps_them(runner: TaskRunner) -> None:
    assign(runner, config(backtest_id="b"), published={OF_B[1]: 12})
    runner.take(Control(task_id="b", action="stop"), [])
    asked = msgpack.packb({"topic": OF_B[1], "fromSeq": 1, "toSeq": 12})
    [(_, frames)] = runner.take(Assign(task_id="q", work="FetchMissed"), [asked])
    assert len(contents(msgpack.unpackb(frames[0]))) == 12
