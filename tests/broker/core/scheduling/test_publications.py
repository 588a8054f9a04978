"""A message of a worker is published if it is about its task, and counted for the next worker."""

from __future__ import annotations

import pytest

from support.broker.clients import Client
from support.broker.link import Link, Worker
from support.broker.steps import start


def test_the_next_worker_is_told_of_all_that_was_published_and_counted(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    worker.publish("positions.b1", 1)
    worker.count("b1", {"positions.b1": 3, "orders.b1": 2}, progress_at=[10, 20], progress=40.0)
    worker.publish("positions.b1", 5)
    second = link.lose_worker(worker)
    (again,) = second.assigned
    assert again.published == {"orders.b1": 2, "positions.b1": 5, "progress.b1": 0}
    assert again.progress_at == [10, 20]
    assert [seq for seq, _ in link.streams["positions.b1"]] == [1, 5]
    assert ann.ask("GetBacktestStatus", {"backtestId": "b1"})["progressPercent"] == 40.0


@pytest.mark.parametrize(
    ("backtest_id", "counts", "reason"),
    [("b2", {}, "which it does not hold"), ("b1", {"orders.b2": 1}, "which is not its own")],
)
def test_counts_of_another_backtest_are_refused(
    link: Link, ann: Client, worker: Worker, backtest_id: str, counts: dict[str, int], reason: str
) -> None:
    start(ann, "b1", "b2")
    worker.count(backtest_id, {"orders.b1": 1, **counts} if backtest_id == "b1" else counts, progress=50.0)
    (refused,) = link.signals("message_refused")
    assert reason in refused["reason"]
    assert link.core.sequencer.last_seq("orders.b1") == 0
    assert ann.ask("GetBacktestStatus", {"backtestId": backtest_id})["progressPercent"] == 0.0


def test_more_progress_than_there_can_be_is_refused(
    link: Link, ann: Client, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backtestr_broker.core.scheduling.publications.MAX_PROGRESS", 3)
    start(ann, "b1")
    worker.count("b1", progress_at=[1, 2, 3])
    worker.count("b1", {"orders.b1": 1}, progress_at=[4])
    assert "made progress 3 times" in link.signals("message_refused")[0]["reason"]
    assert link.core.sequencer.last_seq("orders.b1") == 0


def test_a_topic_of_another_backtest_is_refused(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    worker.publish("positions.other", 1)
    assert "positions.other" not in link.streams
    (refused,) = link.signals("message_refused")
    assert "which is not its own" in refused["reason"]
