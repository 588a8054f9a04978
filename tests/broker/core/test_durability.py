"""An acknowledged change is on disk: answers and starts wait for the commit, and a later broker restores it."""

from __future__ import annotations

import msgspec
import pytest

from backtestr_broker.core import commit_queue as commit_queue_module
from backtestr_broker.core.durability import SAVE_RETRY
from backtestr_broker.core.scheduling import jobs as jobs_module
from backtestr_broker.core.scheduling.jobs import MAX_LOSSES
from backtestr_protocol import worker_channel
from backtestr_protocol.errors import DataError
from backtestr_protocol.messages import BacktestConfig
from support.broker.clients import Client
from support.broker.link import LIMITS, Link, Worker, config
from support.broker.steps import MakeLink, paused, start, status

B1 = {"backtestId": "b1"}


def on_disk(link: Link) -> tuple[str, bool]:
    """Return the recorded status of b1, and whether it is to be paused."""
    record = link.disk.jobs["b1"]
    return record.status, record.to_pause


# --- starting ---


def test_a_backtest_is_answered_announced_and_run_once_it_is_on_disk(link: Link, ann: Client, worker: Worker) -> None:
    with link.hold_commits():
        asked = ann.later("StartBacktest", config(**B1))
        assert ann.refused("GetBacktestStatus", B1)["code"] == "NOT_FOUND"
        assert link.states("b1") == []
        assert worker.received == []
        link.write_disk()
        assert ann.answer(asked) == {"backtestId": "b1", "status": "queued"}
        assert link.disk.jobs["b1"].status == "queued"
        assert worker.task_id == "b1"
    assert link.states("b1") == ["queued", "running"]


def test_a_backtest_that_cannot_be_written_is_a_fault_and_may_be_tried_again(
    link: Link, ann: Client, worker: Worker
) -> None:
    with link.full_disk():
        refused = ann.refused("StartBacktest", config(**B1), message_id="the same")
        assert refused["code"] == "SYSTEM_ERROR"
        assert "database or disk is full" in refused["message"]
        assert worker.received == []
    assert ann.ask("StartBacktest", config(**B1), message_id="the same") == {"backtestId": "b1", "status": "queued"}
    assert worker.task_id == "b1"


def test_a_full_disk_is_reported_once_until_there_is_space_again(link: Link, ann: Client) -> None:
    for _ in range(2):
        before = len(link.streams["system.errors"])
        with link.full_disk():
            ann.refused("StartBacktest", config(**B1))
            ann.refused("StartBacktest", config(**B1))
        assert len(link.streams["system.errors"]) == before + 1
        start(ann, f"b{before + 2}")


def test_a_broker_that_cannot_write_is_not_healthy_until_it_can(link: Link, ann: Client) -> None:
    with link.full_disk():
        ann.refused("StartBacktest", config(**B1))
        assert ann.ask("GetSystemStatus")["status"] == "error"
    start(ann, "b1")
    assert ann.ask("GetSystemStatus")["status"] == "healthy"


def test_a_change_that_builds_on_a_failed_one_fails_with_it(link: Link, ann: Client) -> None:
    """The second change is issued while the first is on its way to disk, and would be written after it."""
    link.disk.held = True
    first = ann.later("StartBacktest", config(**B1))
    second = ann.later("StartBacktest", config(backtestId="b2"))
    with link.full_disk():
        link.write_disk(1)
    link.write_disk()
    assert [ann.answer(one)["code"] for one in (first, second)] == ["SYSTEM_ERROR"] * 2
    assert link.disk.jobs == {}
    link.disk.held = False
    start(ann, "b1", "b2")
    assert list(link.disk.jobs) == ["b1", "b2"]


def test_an_id_is_taken_while_its_backtest_is_on_its_way_to_disk(link: Link, ann: Client) -> None:
    bob = link.client("bob")
    with link.hold_commits():
        ann.later("StartBacktest", config(**B1))
        assert bob.refused("StartBacktest", config(**B1))["code"] == "STATE_CONFLICT"


def test_the_queue_counts_backtests_on_their_way_to_disk(make_link: MakeLink) -> None:
    link = make_link(limits=msgspec.structs.replace(LIMITS, max_queued_backtests=2))
    ann = link.client()
    with link.hold_commits():
        for _ in range(2):
            ann.later("StartBacktest", config())
        assert ann.refused("StartBacktest", config())["code"] == "BUSY"


def test_a_start_is_busy_while_too_much_is_on_its_way_to_disk(
    link: Link, ann: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_queue_module, "MAX_UNCOMMITTED", 2)
    with link.hold_commits():
        for _ in range(2):
            ann.later("StartBacktest", config())
        assert ann.refused("StartBacktest", config(**B1))["details"] == {
            "retryAfterMs": commit_queue_module.RETRY_AFTER_MS
        }
    start(ann, "b1")


def test_a_resend_while_it_is_on_its_way_is_answered_once(link: Link, ann: Client) -> None:
    with link.hold_commits():
        asked = ann.later("StartBacktest", config(**B1), message_id="r")
        assert ann.send("StartBacktest", config(**B1), message_id="r") == []
    assert len(ann.answers(asked)) == 1
    assert list(link.disk.jobs) == ["b1"]


# --- written while it runs ---


def test_the_record_follows_the_backtest(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    assert on_disk(link) == ("running", False)
    paused(ann, worker)
    assert on_disk(link) == ("paused", True)
    ann.later("ResumeBacktest", B1)
    worker.resumed()
    assert on_disk(link) == ("running", False)
    worker.fail(DataError("no such bars"))
    record = link.disk.jobs["b1"]
    assert record.status == "failed"
    assert record.error is not None
    assert record.error.message == "no such bars"
    assert record.end_time == link.wall_ms


def test_changes_during_a_commit_are_merged(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    commits = link.disk.commits
    with link.hold_commits():
        paused(ann, worker)
        for _ in range(3):
            ann.later("ResumeBacktest", B1)
            worker.resumed()
            paused(ann, worker)
        assert len(link.disk.waiting) == 1
    assert link.disk.commits == commits + 2
    assert link.disk.jobs["b1"].status == "paused"


def test_a_record_that_could_not_be_written_is_written_when_there_is_space(
    link: Link, ann: Client, worker: Worker
) -> None:
    start(ann, "b1")
    with link.full_disk():
        worker.finish()
        assert status(ann) == "completed"
        link.advance(3 * SAVE_RETRY)
        assert on_disk(link) == ("running", False)
        assert link.core.next_deadline() > link.now, "a full disk must not keep the processor busy"
    link.advance(SAVE_RETRY)
    assert on_disk(link) == ("completed", False)


def test_a_forgotten_backtest_is_forgotten_on_disk_too(
    link: Link, ann: Client, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "MAX_ENDED", 2)
    for name in ("b1", "b2", "b3"):
        start(ann, name)
        worker.finish()
    assert list(link.disk.jobs) == ["b2", "b3"]


# --- after kill -9 ---


def test_every_acknowledged_backtest_comes_to_an_end_after_a_restart(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2", "b3", "b4")
    worker.finish("b1")
    paused(ann, worker, "b2")
    assert [status(ann, name) for name in ("b1", "b2", "b3", "b4")] == ["completed", "paused", "running", "queued"]
    link.restart_broker()
    ann, worker = link.client(), link.worker("compute-1")
    assert [one["backtestId"] for one in ann.ask("ListBacktests")["backtests"]] == ["b4", "b3", "b2", "b1"]
    assert status(ann, "b1") == "completed"
    assert [(message.task_id, message.paused, message.restored) for message in worker.assigned] == [("b2", True, True)]
    worker.paused("b2")
    for name in ("b3", "b4"):
        assert worker.task_id == name
        worker.finish(name)
    assert [status(ann, name) for name in ("b1", "b2", "b3", "b4")] == ["completed", "paused", *["completed"] * 2]
    assert link.states("b3") == ["running", "completed"]


def test_a_backtest_that_was_not_acknowledged_is_not_there_after_a_restart(link: Link, ann: Client) -> None:
    link.disk.held = True
    ann.later("StartBacktest", config(**B1))
    link.disk.held = False
    link.restart_broker()
    assert link.client().ask("ListBacktests")["backtests"] == []


def test_a_start_sent_again_to_the_next_broker_is_the_same_backtest(link: Link, ann: Client, worker: Worker) -> None:
    ann.ask("StartBacktest", config(**B1), message_id="r")
    link.restart_broker()
    ann = link.client()
    assert ann.ask("StartBacktest", config(**B1), message_id="r") == {"backtestId": "b1", "status": "running"}
    assert link.client("bob").refused("StartBacktest", config(**B1), message_id="r")["code"] == "STATE_CONFLICT"
    assert len(link.worker("compute-1").assigned) == 1


def test_a_session_whose_answer_was_lost_gets_it_from_the_next_broker(link: Link) -> None:
    ann = link.session()
    with link.drop_replies(1):
        asked = ann.ask("StartBacktest", msgspec.convert(config(**B1), BacktestConfig), timeout=300.0)
    link.restart_broker()
    assert ann.answered[asked].backtest_id == "b1"
    assert len(link.core.scheduler.jobs.get("b1").request_key) == 2
    assert len(list(link.core.scheduler.jobs)) == 1


def test_a_resumed_backtest_is_not_paused_again_by_a_restart(link: Link, ann: Client, worker: Worker) -> None:
    """The backtest is paused, put back into the queue when its worker is lost, and resumed there with an answer."""
    start(ann, "b1")
    paused(ann, worker)
    link.lose_worker(worker, again=False)
    assert ann.ask("ResumeBacktest", B1) == {"backtestId": "b1", "status": "queued"}
    link.restart_broker()
    assert [message.paused for message in link.worker("compute-1").assigned] == [False]


def test_a_paused_backtest_that_lost_its_worker_is_still_to_be_paused(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    paused(ann, worker)
    link.lose_worker(worker, again=False)
    link.restart_broker()
    assert [message.paused for message in link.worker("compute-1").assigned] == [True]


def test_a_backtest_that_loses_too_many_workers_fails_across_restarts_too(
    link: Link, ann: Client, worker: Worker
) -> None:
    start(ann, "b1")
    for _ in range(MAX_LOSSES):
        worker = link.lose_worker(worker)
    link.restart_broker()
    assert status(link.client()) == "running"
    link.lose_worker(link.worker("compute-1"))
    assert status(link.client()) == "failed"


def test_only_a_backtest_of_an_earlier_broker_may_have_a_result_already(link: Link, ann: Client) -> None:
    """The second worker of a restored backtest runs it again: the streams of the first may be incomplete."""
    start(ann, "b1")
    link.restart_broker()
    link.lose_worker(link.worker("compute-1"))
    assert [message.restored for message in link.worker("compute-1").assigned] == [False]


@pytest.mark.parametrize("outcome", ["completed", "stopped"])
def test_a_restored_backtest_may_turn_out_to_have_ended(
    link: Link, ann: Client, outcome: worker_channel.Outcome
) -> None:
    start(ann, "b1")
    link.restart_broker()
    link.worker("compute-1").finish("b1", outcome)
    ann = link.client()
    assert status(ann) == outcome
    assert link.disk.jobs["b1"].status == outcome


def test_a_restored_queue_may_be_longer_than_the_bound(make_link: MakeLink) -> None:
    link = make_link(limits=msgspec.structs.replace(LIMITS, max_queued_backtests=3))
    ann = link.client()
    start(ann, "b1", "b2", "b3", "b4")  # one of them runs
    link.counts["compute"] = 0
    link.restart_broker()
    ann = link.client()
    assert len(ann.ask("ListBacktests", {"status": "queued"})["backtests"]) == 4
    assert ann.refused("StartBacktest", config())["code"] == "BUSY"


def test_the_topics_of_restored_backtests_are_known(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    worker.finish()
    link.restart_broker()
    ann = link.client()
    for name in ("b1", "b2"):
        missed = ann.ask("FetchMissed", {"topic": f"orders.{name}", "fromSeq": 1})
        assert (missed["toSeq"], missed["oldestSeq"], missed["messages"]) == (0, 1, [])


def test_an_id_that_is_forgotten_and_taken_again_keeps_its_new_record(link: Link, ann: Client, worker: Worker) -> None:
    """The record of the forgotten backtest is deleted while that of the new one is on its way."""
    start(ann, "b1")
    worker.finish()
    link.disk.held = True
    link.core.scheduler.jobs.save("b1")
    link.tick()  # its record is on its way, and what changes meanwhile waits for that
    link.core.scheduler.jobs.forget("b1")
    asked = ann.later("StartBacktest", config(**B1))
    link.write_disk(1)
    link.write_disk()
    assert ann.answer(asked)["status"] == "queued"
    assert link.disk.jobs["b1"].request_id == asked
    link.disk.held = False
    link.write_disk()
    assert link.disk.jobs["b1"].status == "running"


def test_a_database_that_was_moved_aside_is_reported(make_link: MakeLink) -> None:
    link = make_link(start=False)
    link.disk.moved_aside = "the database could not be read and was moved to broker.db.corrupt-1"
    link.restart_broker()
    link.tick()
    ((_, payload),) = link.streams["system.errors"]
    assert payload["data"]["message"] == link.disk.moved_aside
    assert link.signals("fault")[-1]["id"] == payload["data"]["details"]["id"]
    link.tick()
    assert len(link.streams["system.errors"]) == 1
