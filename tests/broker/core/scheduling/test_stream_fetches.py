"""A fetch beyond the ring goes to the worker of its backtest, or to its stored result, and is always answered."""

from __future__ import annotations

import pytest

from backtestr_broker.core.scheduling import stream_fetches
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import Busy
from backtestr_protocol.messages import FetchMissed, Missed
from backtestr_protocol.worker_channel import Fetch, Fetched, Unheard
from support.broker.clients import Client
from support.broker.link import Link, Worker
from support.broker.steps import start

B1 = {"topic": "orders.b1", "fromSeq": 1}


def page(asked: FetchMissed) -> bytes:
    return encode(Missed(topic=asked.topic, from_seq=asked.from_seq, to_seq=77, oldest_seq=1, messages=[]))


def fetches(worker: Worker) -> list[Fetch]:
    return [message for message, _ in worker.received if isinstance(message, Fetch)]


def counted(link: Link, ann: Client, worker: Worker) -> None:
    """Have a backtest run that has counted ten orders and sent one."""
    start(ann, "b1")
    worker.count("b1", {"orders.b1": 10})
    worker.publish("orders.b1", 11)


def test_the_ring_answers_at_once_for_what_it_retains(link: Link, ann: Client, worker: Worker) -> None:
    counted(link, ann, worker)
    missed = ann.ask("FetchMissed", {"topic": "orders.b1", "fromSeq": 11})
    assert ([one["seq"] for one in missed["messages"]], missed["toSeq"], missed["oldestSeq"]) == ([11], 11, 1)
    assert fetches(worker) == []


@pytest.mark.parametrize(("to_seq", "told"), [(None, 11), (5, 5), (50, 11)])
def test_a_worker_answers_for_the_rest(link: Link, ann: Client, worker: Worker, to_seq: int | None, told: int) -> None:
    counted(link, ann, worker)
    request_id = ann.later("FetchMissed", {**B1, "fromSeq": 3, **({} if to_seq is None else {"toSeq": to_seq})})
    (fetch,) = fetches(worker)
    assert (fetch.task_id, fetch.topic, fetch.from_seq, fetch.to_seq) == ("b1", "orders.b1", 3, told)
    worker.say(Fetched(task_id="b1", fetch_id=fetch.fetch_id), [page(FetchMissed(topic="orders.b1", from_seq=3))])
    assert ann.answer(request_id)["toSeq"] == 77, "it is passed on as it came"


def test_an_error_of_the_worker_is_the_answer(link: Link, ann: Client, worker: Worker) -> None:
    counted(link, ann, worker)
    request_id = ann.later("FetchMissed", B1)
    error = Busy("later", retryAfterMs=7).to_data(component="engine", timestamp=0)
    worker.say(Fetched(task_id="b1", fetch_id=fetches(worker)[0].fetch_id, error=error))
    assert ann.answer(request_id)["details"]["retryAfterMs"] == 7


def test_a_lost_worker_is_no_answer_and_the_next_one_is_asked(link: Link, ann: Client, worker: Worker) -> None:
    counted(link, ann, worker)
    request_id = ann.later("FetchMissed", B1)
    successor = link.lose_worker(worker)
    assert ann.answer(request_id)["code"] == "BUSY"
    ann.later("FetchMissed", B1)
    assert [one.task_id for one in fetches(successor)] == ["b1"]


def test_a_backtest_that_waits_for_its_next_worker_is_asked_later(link: Link, ann: Client, worker: Worker) -> None:
    counted(link, ann, worker)
    link.lose_worker(worker, again=False)
    assert ann.refused("FetchMissed", B1)["code"] == "BUSY"


def test_an_ended_backtest_is_read_from_its_result(link: Link, ann: Client, worker: Worker) -> None:
    counted(link, ann, worker)
    request_id = ann.later("FetchMissed", B1)
    link.stored_streams["orders.b1"] = page
    worker.finish("b1")
    worker.say(Fetched(task_id="b1", fetch_id=fetches(worker)[0].fetch_id))
    assert ann.answer(request_id)["toSeq"] == 77, "its worker had forgotten it when the fetch came"
    assert ann.ask("FetchMissed", B1)["toSeq"] == 77
    link.restart_broker()
    assert link.client().ask("FetchMissed", B1)["toSeq"] == 77


def test_a_result_without_a_log_leaves_the_ring(link: Link, ann: Client, worker: Worker) -> None:
    counted(link, ann, worker)
    worker.finish("b1")
    missed = ann.ask("FetchMissed", B1)
    assert ([one["seq"] for one in missed["messages"]], missed["oldestSeq"]) == ([11], 11)


def test_a_failed_backtest_has_its_ring_alone(link: Link, ann: Client, worker: Worker) -> None:
    counted(link, ann, worker)
    worker.fail(Busy("it failed"), "b1")
    assert ann.ask("FetchMissed", B1)["oldestSeq"] == 11


def test_a_backtest_that_has_not_begun_has_nothing_yet(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    missed = ann.ask("FetchMissed", {"topic": "orders.b2", "fromSeq": 1})
    assert (missed["toSeq"], missed["oldestSeq"], missed["messages"]) == (0, 1, [])


def test_a_range_that_ends_before_it_begins_is_refused(link: Link, ann: Client, worker: Worker) -> None:
    counted(link, ann, worker)
    assert ann.refused("FetchMissed", {**B1, "fromSeq": 5, "toSeq": 4})["code"] == "VALIDATION_ERROR"


def test_more_fetches_than_may_wait_are_refused(
    link: Link, ann: Client, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_fetches, "MAX_WAITING", 2)
    counted(link, ann, worker)
    for _ in range(2):
        ann.later("FetchMissed", B1)
    assert ann.refused("FetchMissed", B1)["code"] == "BUSY"


def test_an_answer_that_no_one_asked_for_is_refused(link: Link, ann: Client, worker: Worker) -> None:
    counted(link, ann, worker)
    worker.say(Fetched(task_id="b1", fetch_id=5), [b"\x80"])
    assert "was not asked" in link.signals("message_refused")[0]["reason"]


def test_a_worker_knows_which_topics_have_no_listener() -> None:
    link = Link(listening=False)
    ann, worker = link.client(), link.worker("compute-1")
    link.subscribe("bob", "orders", b"orders.")
    start(ann, "b1")
    assert worker.assigned[0].unheard == ["progress.b1", "positions.b1"]
    link.subscribe("bob", "progress", b"progress.b1")
    link.subscribe("bob", "progress", b"progress.other")
    told = [message for message, _ in worker.received if isinstance(message, Unheard)]
    assert told == [Unheard(task_id="b1", topics=["positions.b1"])], "once, since the second changes nothing"
    link.hang_up("bob")
    link.advance(5.0)
    told = [message for message, _ in worker.received if isinstance(message, Unheard)]
    assert set(told[-1].topics) == {"progress.b1", "orders.b1", "positions.b1"}
