"""A request for results that waits for the end of a backtest is answered by its worker, or else in some other way."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from backtestr_broker.core.scheduling.awaited_results import MAX_WAITING
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import AlgorithmError
from backtestr_protocol.worker_channel import Finished, Wanted
from support.broker.clients import Client
from support.broker.link import Link, Worker
from support.broker.steps import B1, start, start_paced

ASKED = {**B1, "tables": ["equity"], "waitMs": 5_000}
RESULTS: dict[str, Any] = {"backtestId": "b1", "status": "completed", "config": {}, "metrics": None, "tables": []}


def wanted(worker: Worker) -> list[Any]:
    return [msgpack.unpackb(payload[0]) for message, payload in worker.received if isinstance(message, Wanted)]


def finish(worker: Worker, results: dict[str, Any] | None = None) -> None:
    """End b1, with the answer to the request that is wanted, if there are `results`."""
    finished = Finished(task_id="b1", outcome="completed", is_wanted=results is not None)
    worker.say(finished, [encode(results or {})])


def read_from_disk(link: Link) -> list[Any]:
    return [one for one in link.worker("interactive-1").assigned if one.work == "GetBacktestResults"]


def test_the_answer_comes_with_the_end(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    first = ann.later("GetBacktestResults", ASKED)
    second = ann.later("GetBacktestResults", ASKED)
    assert wanted(worker) == [ASKED], "the worker is told once"
    assert ann.answers(first) == []
    finish(worker, RESULTS | {"warmupBars": 7})
    assert ann.answer(first)["warmupBars"] == ann.answer(second)["warmupBars"] == 7
    assert read_from_disk(link) == []


def test_attachments_are_passed_on(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    request_id = ann.later("GetBacktestResults", ASKED)
    worker.say(Finished(task_id="b1", outcome="completed", is_wanted=True), [encode(RESULTS), b"arrow"])
    assert ann.answer(request_id)["status"] == "completed"
    assert [attached for one, attached in ann.inbox if one.get("correlationId") == request_id] == [[b"arrow"]]


def test_what_the_worker_has_not_made_is_read_from_the_result(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    told = ann.later("GetBacktestResults", ASKED)
    other = ann.later("GetBacktestResults", {**ASKED, "tables": ["orders"]})
    finish(worker, RESULTS)
    assert ann.answer(told)["status"] == "completed"
    assert ann.answer(other) is not None
    assert len(read_from_disk(link)) == 1


def test_an_end_without_the_answer_has_it_read(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    request_id = ann.later("GetBacktestResults", ASKED)
    finish(worker)
    assert ann.answer(request_id) is not None
    assert len(read_from_disk(link)) == 1


def test_a_failed_backtest_has_no_results(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    request_id = ann.later("GetBacktestResults", ASKED)
    worker.fail(AlgorithmError("no"), "b1")
    found = ann.answer(request_id)
    assert (found["status"], found["metrics"], found["tables"]) == ("failed", None, [])


def test_a_pause_and_the_loss_of_the_worker_answer_at_once(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    request_id = ann.later("GetBacktestResults", ASKED)
    ann.later("PauseBacktest", B1)
    assert ann.answers(request_id) == []
    worker.paused("b1")
    assert ann.answer(request_id)["status"] == "paused"
    assert ann.ask("GetBacktestResults", ASKED)["status"] == "paused"
    ann.later("ResumeBacktest", B1)
    worker.resumed("b1")
    request_id = ann.later("GetBacktestResults", ASKED)
    successor = link.lose_worker(worker)
    assert ann.answer(request_id)["status"] == "queued"
    ann.later("GetBacktestResults", ASKED)
    assert len(wanted(successor)) == 1


def test_a_stopped_backtest_has_its_results(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    request_id = ann.later("GetBacktestResults", ASKED)
    ann.later("StopBacktest", B1)
    worker.say(Finished(task_id="b1", outcome="stopped", is_wanted=True), [encode(RESULTS | {"status": "stopped"})])
    assert ann.answer(request_id)["status"] == "stopped"


def test_the_answer_waits_no_longer_than_the_client_would(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    short = ann.later("GetBacktestResults", {**ASKED, "waitMs": 2_000})
    long = ann.later("GetBacktestResults", ASKED)
    link.advance(1.0)
    assert ann.answers(short) == []
    link.advance(2.5)
    assert ann.answer(short)["status"] == "running"
    assert ann.answers(long) == []
    finish(worker, RESULTS)
    assert ann.answer(long)["status"] == "completed"


@pytest.mark.parametrize("wait_ms", [0, 5_000])
def test_what_does_not_run_at_full_speed_is_answered_at_once(
    wait_ms: int, link: Link, ann: Client, worker: Worker
) -> None:
    start_paced(ann, "b1")
    start(ann, "b2")
    for backtest_id, status in (("b1", "running"), ("b2", "queued")):
        asked = {"backtestId": backtest_id, "waitMs": wait_ms}
        assert ann.ask("GetBacktestResults", asked)["status"] == status
    assert wanted(worker) == []


def test_so_many_wait_and_the_next_is_answered_at_once(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    waiting = [ann.later("GetBacktestResults", ASKED) for _ in range(MAX_WAITING)]
    assert ann.ask("GetBacktestResults", ASKED)["status"] == "running"
    finish(worker, RESULTS)
    assert {ann.answer(one)["status"] for one in waiting} == {"completed"}


@pytest.mark.parametrize("wait_ms", [-1, 60_001, "long"])
def test_a_wait_has_bounds(wait_ms: Any, ann: Client) -> None:
    assert ann.refused("GetBacktestResults", {**B1, "waitMs": wait_ms})["code"] == "VALIDATION_ERROR"
