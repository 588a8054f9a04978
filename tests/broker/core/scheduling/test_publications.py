"""A message of a worker is published if it is about its task, and counted for the next worker."""

from __future__ import annotations

import pytest

from support.broker.link import Client, Link, Worker
from support.broker.steps import start


def test_the_next_worker_is_told_of_changes_of_positions_and_not_of_marks(
    link: Link, ann: Client, worker: Worker
) -> None:
    start(ann, "b1")
    worker.publish("positions.b1", 1)
    worker.publish("positions.b1", 2, 3, 4, marks=2)
    worker.publish("positions.b1", 5, marks=1)
    second = link.lose_worker(worker)
    assert second.assigned[0].published["positions.b1"] == 2
    assert [seq for seq, _ in link.streams["positions.b1"]] == [1, 2, 5]


@pytest.mark.parametrize(
    ("topic", "count", "marks"), [("positions.b1", 1, 2), ("orders.b1", 2, 1), ("prices.S.1m", 1, 1)]
)
def test_marks_that_cannot_be_are_refused_with_their_message(
    link: Link, ann: Client, worker: Worker, topic: str, count: int, marks: int
) -> None:
    start(ann, "b1")
    worker.publish(topic, *range(count), marks=marks)
    assert topic not in link.streams
    (refused,) = link.signals("message_refused")
    assert f"{marks} marks in {count} of {topic!r}" in refused["reason"]


def test_a_topic_of_another_backtest_is_refused(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    worker.publish("positions.other", 1)
    assert "positions.other" not in link.streams
    (refused,) = link.signals("message_refused")
    assert "which is not its own" in refused["reason"]
