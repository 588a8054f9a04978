"""Backtests and interactive tasks go through the queues to the workers, and their answers come back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from backtestr_broker.core.scheduling import jobs as jobs_module
from backtestr_protocol import worker_channel
from backtestr_protocol.errors import AlgorithmError, DataError
from support.broker.clients import Client, failure
from support.broker.link import LIMITS, Link, Worker, config
from support.broker.steps import B1, MakeLink, paused, start, status

# --- without faults ---


def test_a_backtest_is_checked_accepted_assigned_and_finished(link: Link, ann: Client, worker: Worker) -> None:
    link.worker("interactive-1").answers = False
    started = ann.later("StartBacktest", config(backtestId="b1", parameters={"fast": 5}))
    assert ann.refused("GetBacktestStatus", B1)["code"] == "NOT_FOUND", "not accepted before it is checked"
    ((check, (checked,)),) = link.worker("interactive-1").received
    assert isinstance(check, worker_channel.Assign)
    assert check.work == "CheckBacktest"
    assert msgspec.msgpack.decode(checked)["parameters"] == {"fast": 5}
    link.worker("interactive-1").finish(data=checked)
    assert ann.answer(started) == {"backtestId": "b1", "status": "queued"}
    ((assigned, (given,)),) = worker.received
    assert assigned == worker_channel.Assign(
        task_id="b1",
        work="RunBacktest",
        client_id="ann",
        request_id=started,
        published={"progress.b1": 0, "orders.b1": 0, "positions.b1": 0},
    )
    assert given == checked
    worker.publish("progress.b1", 1, progress=40.0)
    assert ann.ask("GetBacktestStatus", B1)["progressPercent"] == 40.0
    worker.finish()
    ended = ann.ask("GetBacktestStatus", B1)
    assert (ended["status"], ended["progressPercent"]) == ("completed", 100.0)
    assert link.states("b1") == ["queued", "running", "completed"]


def test_a_backtest_without_an_id_gets_one_that_is_a_uuid(ann: Client) -> None:
    ids = [ann.ask("StartBacktest", config())["backtestId"] for _ in range(2)]
    assert ids[0] != ids[1]
    assert all(len(one) == 36 for one in ids)


@pytest.mark.parametrize("name", ["fillAt", "commision"])
def test_a_field_beside_the_options_is_refused_with_the_near_miss(ann: Client, name: str) -> None:
    error = ann.refused("StartBacktest", {**config(backtestId="b1"), name: 1})
    assert (error["code"], error["details"]["path"]) == ("VALIDATION_ERROR", f"$.{name}")
    assert "conventions (fillAt …) belong in options" in error["message"]
    assert ("did you mean 'commission'" in error["message"]) == (name == "commision")
    assert ann.ask("ListBacktests") == {"backtests": []}


def test_a_check_that_fails_is_the_answer_and_nothing_is_accepted(link: Link, ann: Client) -> None:
    link.worker("interactive-1").answers = False
    started = ann.later("StartBacktest", config(backtestId="b1"))
    link.worker("interactive-1").fail(DataError("no bars of SYNTH in 1950", symbol="SYNTH"))
    (payload,) = ann.answers(started)
    assert (payload["data"]["code"], payload["data"]["component"]) == ("DATA_ERROR", "engine")
    assert ann.ask("ListBacktests") == {"backtests": []}
    assert ann.refused("FetchMissed", {"topic": "orders.b1", "fromSeq": 1})["code"] == "NOT_FOUND"


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", b"\x93\x01\x02\x03"])
def test_a_check_with_an_undecodable_answer_is_a_system_error(link: Link, ann: Client, data: bytes) -> None:
    link.worker("interactive-1").answers = False
    started = ann.later("StartBacktest", config(backtestId="b1"))
    link.worker("interactive-1").finish(data=data)
    (payload,) = ann.answers(started)
    assert payload["data"]["code"] == "SYSTEM_ERROR"
    assert payload["data"]["details"]["id"]


def test_an_answer_without_data_is_a_system_error(link: Link, ann: Client) -> None:
    interactive = link.worker("interactive-1")
    interactive.answers = False
    asked = ann.later("ListMarketData")
    interactive.say(worker_channel.Finished(task_id=interactive.task_id, outcome="completed"))
    assert ann.answer(asked)["code"] == "SYSTEM_ERROR"


def test_the_same_id_twice_is_a_conflict(ann: Client) -> None:
    start(ann, "b1")
    assert ann.refused("StartBacktest", config(backtestId="b1"))["code"] == "STATE_CONFLICT"


def test_backtests_go_in_the_order_in_which_they_came(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2", "b3")
    for backtest_id in ("b1", "b2", "b3"):
        assert worker.task_id == backtest_id
        worker.finish()
    assert [message.task_id for message in worker.assigned] == ["b1", "b2", "b3"]


def test_a_failure_has_its_reason_and_the_algorithm_remembers_it(ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    assert ann.ask("GetAlgorithmStatus", {"algorithmId": "sma_cross@1"})["activeBacktests"] == 1
    worker.fail(AlgorithmError("division by zero", bar=7))
    ended = ann.ask("GetBacktestStatus", B1)
    assert ended["status"] == "failed"
    assert (ended["error"]["code"], ended["error"]["details"]) == ("ALGORITHM_ERROR", {"bar": 7})
    of_algorithm = ann.ask("GetAlgorithmStatus", {"algorithmId": "sma_cross"})
    assert of_algorithm["activeBacktests"] == 0
    assert of_algorithm["lastError"]["message"] == "division by zero"


def test_a_failure_without_reason_gets_one(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    worker.finish(outcome="failed")
    assert ann.ask("GetBacktestStatus", B1)["error"]["code"] == "SYSTEM_ERROR"
    assert len(link.streams["system.errors"]) == len(link.signals("fault")) == 1


# --- interactive tasks ---


def test_interactive_tasks_go_by_priority(link: Link, ann: Client) -> None:
    interactive = link.worker("interactive-1")
    interactive.answers = False
    for request_type, data in (
        ("ListMarketData", {}),
        ("ImportMarketData", {"path": "x.csv", "symbol": "X"}),
        ("GetMarketData", {"symbol": "SYNTH", "timeframe": "1m"}),
        ("StartBacktest", config()),
        ("EvaluateAlgorithm", {"algorithmId": "sma_cross", "symbol": "SYNTH", "timeframe": "1m"}),
    ):
        ann.later(request_type, data)
    for _ in range(4):
        interactive.finish(data={})
    works = [message.work for message in interactive.assigned]
    assert works == ["ListMarketData", "GetMarketData", "ImportMarketData", "CheckBacktest", "EvaluateAlgorithm"]


def test_tables_come_with_the_answer_and_with_its_repetition(link: Link, ann: Client) -> None:
    interactive = link.worker("interactive-1")
    interactive.answers = False
    data = {"symbol": "SYNTH", "timeframe": "1m"}
    asked = ann.later("GetMarketData", data)
    interactive.finish(data={"tables": []}, attachments=[b"arrow 0", b"arrow 1"])
    assert ann.inbox[-1][1] == [b"arrow 0", b"arrow 1"]
    ann.ask("GetMarketData", data, message_id=asked)
    assert ann.inbox[-1][1] == [b"arrow 0", b"arrow 1"]
    assert len(interactive.assigned) == 1


EVALUATE = {"algorithmId": "sma_cross", "symbol": "SYNTH", "timeframe": "1m"}


def test_an_evaluation_is_done_by_an_interactive_worker_and_its_table_forwarded(link: Link) -> None:
    interactive = link.worker("interactive-1")
    interactive.answers = False
    ann = link.client("ann", ("laptop", "run"))
    asked = ann.later("EvaluateAlgorithm", EVALUATE)
    assert interactive.assigned[-1].work == "EvaluateAlgorithm"
    assert (interactive.assigned[-1].client_id, interactive.assigned[-1].request_id) == ("ann", asked)
    interactive.finish(data={"tables": []}, attachments=[b"arrow"])
    assert (ann.answer(asked), ann.inbox[-1][1]) == ({"tables": []}, [b"arrow"])

    asked = ann.later("EvaluateAlgorithm", EVALUATE)
    interactive.fail(AlgorithmError("sma_cross raised ValueError: no", traceback="Traceback …"))
    error = ann.answer(asked)
    assert (error["code"], error["details"]) == ("ALGORITHM_ERROR", {"traceback": "Traceback …"})
    assert ann.ask("ListBacktests")["backtests"] == [], "an evaluation is no backtest"


@pytest.mark.parametrize(
    ("field", "near"),
    [("warmUp", "; did you mean 'warmup'?"), ("initialCapital", ""), ("options", "")],
)
def test_an_evaluation_with_a_field_that_it_does_not_have_is_refused(
    field: str, near: str, link: Link, ann: Client
) -> None:
    error = ann.refused("EvaluateAlgorithm", {**EVALUATE, field: 7})
    assert (error["code"], error["details"]["path"]) == ("VALIDATION_ERROR", f"$.{field}")
    assert error["message"].startswith(f"$.{field}: unknown field '{field}'{near}")
    assert error["message"].endswith("belongs in parameters; conventions and money need a backtest")
    assert link.worker("interactive-1").assigned == []


def test_full_queues_answer_busy(make_link: MakeLink) -> None:
    link = make_link(
        limits=msgspec.structs.replace(LIMITS, max_queued_backtests=2, max_queued_questions=1), interactive=1
    )
    ann = link.client()
    start(ann, "runs", "b1", "b2")
    error = ann.refused("StartBacktest", config(backtestId="b3"), message_id="again")
    assert (error["code"], error["details"]) == ("BUSY", {"retryAfterMs": 1000})
    link.worker("compute-1").finish("runs")
    assert ann.ask("StartBacktest", config(backtestId="b3"), message_id="again")["status"] == "queued"
    link.worker("interactive-1").answers = False
    ann.later("ListMarketData")
    ann.later("ListMarketData")
    assert ann.refused("ListMarketData")["code"] == "BUSY"
    assert ann.ask("GetSystemStatus")["queuedRequests"] == 3


def test_the_queue_may_fill_while_a_backtest_is_checked(make_link: MakeLink) -> None:
    link = make_link(limits=msgspec.structs.replace(LIMITS, max_queued_backtests=1))
    ann = link.client()
    start(ann, "runs")
    interactive = link.worker("interactive-1")
    interactive.answers = False
    first, second = (ann.later("StartBacktest", config(backtestId=name)) for name in ("b1", "b2"))
    for _ in range(2):
        _, (checked,) = interactive.received[-1]
        interactive.finish(data=checked)
    assert ann.answer(first)["status"] == "queued"
    assert ann.answer(second)["code"] == "BUSY"


# --- worker messages that do not fit the state ---


@pytest.mark.parametrize(
    "message",
    [
        worker_channel.Paused(task_id="b2"),
        worker_channel.Paused(task_id="nothing"),
        worker_channel.Resumed(task_id="b1"),
        worker_channel.Resumed(task_id="b2"),
        worker_channel.Finished(task_id="b2", outcome="completed"),
        worker_channel.Finished(task_id="question-1", outcome="completed"),
        worker_channel.Published(topic="orders.b2", count=1),
        worker_channel.Published(topic="system.status", count=1),
        worker_channel.Published(topic="prices.", count=1),
        worker_channel.Published(topic="orders.nothing", count=1),
    ],
)
def test_a_worker_message_about_what_the_worker_does_not_do_changes_nothing(
    link: Link, ann: Client, worker: Worker, message: worker_channel.ToBroker
) -> None:
    start(ann, "b1", "b2")
    link.advance(0)
    published = {topic: len(messages) for topic, messages in link.streams.items()}
    worker.say(message, [b"\xc0"])
    assert {topic: len(messages) for topic, messages in link.streams.items()} == published
    assert [status(ann, name) for name in ("b1", "b2")] == ["running", "queued"]
    (refusal,) = link.signals("message_refused")
    assert refusal["reason"].startswith("compute-1 ")
    worker.finish()
    assert status(ann) == "completed"


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"count": 0}, "$.count"),
        ({"count": worker_channel.MAX_BATCH + 1}, "$.count"),
        ({"count": 2**62}, "$.count"),
        ({"progress_percent": float("nan")}, "$.progressPercent"),
        ({"progress_percent": 100.1}, "$.progressPercent"),
        ({"topic": "orders." + "x" * 500}, "$.topic"),
    ],
)
def test_a_worker_message_with_a_value_out_of_range_changes_nothing_and_names_the_worker(
    link: Link, ann: Client, worker: Worker, changes: dict[str, Any], path: str
) -> None:
    start(ann, "b1")
    fields: dict[str, Any] = {"topic": "orders.b1", "count": 1, **changes}
    worker.say(worker_channel.Published(**fields), [b"\xc0"])
    (refusal,) = link.signals("message_refused")
    assert (refusal["code"], refusal["workerId"]) == ("VALIDATION_ERROR", "compute-1")
    assert refusal["reason"].startswith(f"on the engine socket: {path}: ")
    assert link.streams["orders.b1"] == []
    assert link.core.scheduler.jobs.get("b1").progress_percent == 0.0


def test_an_interactive_worker_neither_publishes_nor_pauses(link: Link, ann: Client) -> None:
    interactive = link.worker("interactive-1")
    interactive.answers = False
    asked = ann.later("ListMarketData")
    interactive.publish("prices.SYNTH.1m", 1, progress=50.0)
    interactive.paused()
    interactive.resumed()
    assert len(link.signals("message_refused")) == 3
    interactive.finish(data={"series": []})
    assert ann.answer(asked) == {"series": []}


def test_a_paused_backtest_cannot_complete(ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    paused(ann, worker)
    worker.finish("b1", "completed")
    assert ann.ask("GetBacktestStatus", B1)["error"]["code"] == "SYSTEM_ERROR"


def test_a_published_message_has_one_payload(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    for payload in ([], [b"\xc0", b"\xc0"]):
        worker.say(worker_channel.Published(topic="orders.b1", count=1), payload)
    assert "orders.b1" not in link.streams
    worker.publish("prices.SYNTH.1m", 1)
    assert [seq for seq, _ in link.streams["prices.SYNTH.1m"]] == [1]


def test_a_worker_that_was_not_started_is_not_given_work(link: Link) -> None:
    unknown = Worker(link, "compute-9", "compute", b"unknown")
    link.workers["compute-9"] = unknown
    unknown.ready()
    link.worker("compute-1").ready()
    twin = Worker(link, "compute-1", "compute", link.worker("interactive-1").peer)
    link.lose_worker(link.worker("compute-1"), again=False)
    link.start_worker("compute-1", "compute")
    twin.ready()
    assert len(link.signals("message_refused")) == 3
    assert len(link.signals("worker_ready")) == 2
    start(link.client(), "b1")
    assert unknown.received == []


# --- forgetting ---


def test_old_ended_backtests_are_forgotten_with_their_topics(
    link: Link, ann: Client, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "MAX_ENDED", 2)
    for name in ("b1", "b2", "b3"):
        start(ann, name)
        worker.publish(f"orders.{name}", 1)
        worker.finish()
    assert ann.refused("GetBacktestStatus", B1)["code"] == "NOT_FOUND"
    assert ann.refused("FetchMissed", {"topic": "orders.b1", "fromSeq": 1})["code"] == "NOT_FOUND"
    assert ann.ask("FetchMissed", {"topic": "orders.b2", "fromSeq": 1})["toSeq"] == 1
    assert [one["backtestId"] for one in ann.ask("ListBacktests")["backtests"]] == ["b3", "b2"]
    assert ann.ask("GetBacktestResults", B1) == {"answers": "GetBacktestResults"}, "results stay"


def test_backtests_are_listed_newest_first(ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2", "b3")
    worker.finish()

    def listed(**data: object) -> list[str]:
        return [one["backtestId"] for one in ann.ask("ListBacktests", data)["backtests"]]

    assert listed() == ["b3", "b2", "b1"]
    assert listed(limit=2) == ["b3", "b2"]
    assert listed(status="queued") == ["b3"]
    assert listed(status="completed", limit=5) == ["b1"]
    (envelope,) = ann.send("ListBacktests", {"limit": 0})
    assert failure(envelope)["details"] == {"path": "$.limit"}
