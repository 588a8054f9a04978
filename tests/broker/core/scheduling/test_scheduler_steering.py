"""Pause, resume and stop take effect in every order, and each is answered with its result."""

from __future__ import annotations

import pytest

from backtestr_broker.core.scheduling import scheduler as scheduler_module
from backtestr_protocol import worker_channel
from support.broker.clients import Client
from support.broker.link import Link, Worker
from support.broker.steps import B1, MakeLink, is_conflict, paused, start, status


def test_a_pause_is_answered_when_it_has_taken_effect(ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    asked = ann.later("PauseBacktest", B1)
    assert worker.controls == [("pause", "b1")]
    assert (ann.answers(asked), status(ann)) == ([], "running")
    worker.publish("progress.b1", 1)
    worker.paused()
    assert ann.answer(asked) == {"backtestId": "b1", "status": "paused"}
    assert ann.ask("PauseBacktest", B1) == {"backtestId": "b1", "status": "paused"}, "a repeated request succeeds"
    assert worker.controls == [("pause", "b1")]


def test_two_pauses_are_one(ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    first, second = ann.later("PauseBacktest", B1), ann.later("PauseBacktest", B1)
    assert worker.controls == [("pause", "b1")]
    worker.paused()
    assert ann.answer(first) == ann.answer(second) == {"backtestId": "b1", "status": "paused"}


def test_a_paused_backtest_frees_its_worker_and_resumes_there(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    paused(ann, worker)
    assert worker.task_id == "b2"
    resumed = ann.later("ResumeBacktest", B1)
    assert worker.controls == [("pause", "b1")], "its worker is busy with b2"
    worker.finish()
    assert worker.controls[-1] == ("resume", "b1")
    assert status(ann) == "paused"
    worker.resumed()
    assert ann.answer(resumed) == {"backtestId": "b1", "status": "running"}
    worker.finish()
    assert link.states("b1") == ["queued", "running", "paused", "running", "completed"]


def test_a_resume_waits_for_the_worker_that_holds_it_though_another_is_idle(make_link: MakeLink) -> None:
    link = make_link(compute=2)
    ann = link.client()
    start(ann, "b1")
    first, second = link.worker("compute-1"), link.worker("compute-2")
    paused(ann, first)
    start(ann, "b2", "b3")
    assert (second.task_id, first.task_id) == ("b2", "b3"), "the worker with fewer parked ones is asked first"
    second.finish()
    resumed = ann.later("ResumeBacktest", B1)
    assert second.controls == first.controls[1:] == []
    first.finish()
    assert first.controls[-1] == ("resume", "b1")
    first.resumed()
    assert ann.answer(resumed)["status"] == "running"


def test_a_resume_goes_before_the_queue(ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2", "b3")
    paused(ann, worker)
    ann.later("ResumeBacktest", B1)
    worker.finish("b2")
    assert worker.controls[-1] == ("resume", "b1")
    assert [message.task_id for message in worker.assigned] == ["b1", "b2"]


def test_a_resume_of_a_running_or_queued_backtest_succeeds_at_once(ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    assert ann.ask("ResumeBacktest", B1)["status"] == "running"
    assert ann.ask("ResumeBacktest", {"backtestId": "b2"})["status"] == "queued"
    assert worker.controls == []


def test_a_stop_ends_a_running_backtest_and_its_answer_has_the_status(ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    first, second = ann.later("StopBacktest", B1), ann.later("StopBacktest", B1)
    assert worker.controls == [("stop", "b1")]
    worker.finish(outcome="stopped")
    assert ann.answer(first) == ann.answer(second) == {"backtestId": "b1", "status": "stopped"}
    assert worker.task_id == "b2"
    assert ann.ask("StopBacktest", B1)["status"] == "stopped", "a repeated request succeeds"


def test_a_stop_after_the_end_is_answered_with_the_final_status(ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    asked = ann.later("StopBacktest", B1)
    worker.finish(outcome="completed")
    assert ann.answer(asked) == {"backtestId": "b1", "status": "completed"}


def test_a_stop_of_a_queued_backtest_takes_it_out_of_the_queue(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    waits = ann.later("PauseBacktest", {"backtestId": "b2"})
    assert ann.ask("StopBacktest", {"backtestId": "b2"})["status"] == "stopped"
    assert is_conflict(ann, waits, "stopped")
    worker.finish()
    assert [message.task_id for message in worker.assigned] == ["b1"]
    assert link.states("b2") == ["queued", "stopped"]


def test_a_backtest_stopped_in_the_queue_has_no_results(link: Link, ann: Client) -> None:
    start(ann, "b1", "b2")
    ann.ask("StopBacktest", {"backtestId": "b2"})
    results = ann.ask("GetBacktestResults", {"backtestId": "b2"})
    assert (results["status"], results["metrics"], results["tables"]) == ("stopped", None, [])
    assert results["config"]["backtestId"] == "b2"
    assert ann.ask("GetPerformanceMetrics", {"backtestId": "b2"})["metrics"] is None
    works = [message.work for message in link.worker("interactive-1").assigned]
    assert works == ["CheckBacktest", "CheckBacktest"]


def test_results_of_a_backtest_that_a_worker_stopped_are_read_by_a_worker(
    link: Link, ann: Client, worker: Worker
) -> None:
    start(ann, "b1")
    assert ann.ask("GetBacktestResults", B1)["metrics"] is None, "the broker answers while it runs"
    ann.later("StopBacktest", B1)
    worker.finish(outcome="stopped")
    assert ann.ask("GetBacktestResults", B1) == {"answers": "GetBacktestResults"}
    assert ann.ask("GetPerformanceMetrics", B1) == {"answers": "GetPerformanceMetrics"}


def test_a_stop_of_a_paused_backtest_ends_it_beside_a_running_one(ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    paused(ann, worker)
    worker.publish("progress.b2", 1, progress=10.0)
    asked = ann.later("StopBacktest", B1)
    worker.publish("progress.b1", 9, progress=70.0)
    worker.finish("b1", "stopped")
    assert ann.answer(asked)["status"] == "stopped"
    assert ann.ask("GetBacktestStatus", B1)["progressPercent"] == 70.0
    assert ann.ask("GetBacktestStatus", {"backtestId": "b2"})["progressPercent"] == 10.0, "b2 has its own progress"
    assert worker.task_id == "b2"


def test_a_stop_takes_back_a_resume_that_waits(ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    paused(ann, worker)
    resumed = ann.later("ResumeBacktest", B1)
    stopped = ann.later("StopBacktest", B1)
    worker.finish("b2")
    assert worker.controls == [("pause", "b1"), ("stop", "b1")]
    worker.finish("b1", "stopped")
    assert ann.answer(stopped)["status"] == "stopped"
    assert is_conflict(ann, resumed, "stopped")


def test_a_stop_while_it_resumes(ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    paused(ann, worker)
    resumed, stopped = ann.later("ResumeBacktest", B1), ann.later("StopBacktest", B1)
    assert worker.controls == [("pause", "b1"), ("resume", "b1"), ("stop", "b1")]
    worker.resumed()
    assert ann.answer(resumed)["status"] == "running"
    worker.finish(outcome="stopped")
    assert ann.answer(stopped)["status"] == "stopped"


def test_a_stop_overtakes_a_pause(ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    pause, stopped = ann.later("PauseBacktest", B1), ann.later("StopBacktest", B1)
    worker.paused()
    assert ann.answer(pause)["status"] == "paused", "the pause took effect"
    worker.finish(outcome="stopped")
    assert ann.answer(stopped)["status"] == "stopped"


@pytest.mark.parametrize("request_type", ["PauseBacktest", "ResumeBacktest"])
def test_a_backtest_that_is_being_stopped_or_has_ended_is_not_changed(
    ann: Client, worker: Worker, request_type: str
) -> None:
    start(ann, "b1")
    ann.later("StopBacktest", B1)
    error = ann.refused(request_type, B1)
    assert (error["code"], error["details"]) == ("STATE_CONFLICT", {"status": "running"})
    worker.finish(outcome="stopped")
    error = ann.refused(request_type, B1)
    assert (error["code"], error["details"]) == ("STATE_CONFLICT", {"status": "stopped"})


def test_a_pause_that_the_end_overtakes_is_a_conflict(ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    asked = ann.later("PauseBacktest", B1)
    worker.finish()
    assert is_conflict(ann, asked, "completed")


def test_a_resume_that_overtakes_a_pause_is_carried_out_after_it(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    pause, resume = ann.later("PauseBacktest", B1), ann.later("ResumeBacktest", B1)
    worker.paused()
    assert ann.answer(pause)["status"] == "paused"
    assert worker.controls[-1] == ("resume", "b1"), "before b2: its worker still holds it"
    worker.resumed()
    assert ann.answer(resume)["status"] == "running"
    worker.finish()
    assert link.states("b1") == ["queued", "running", "paused", "running", "completed"]


def test_a_pause_that_overtakes_a_resume_that_waits(ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    paused(ann, worker)
    resume = ann.later("ResumeBacktest", B1)
    assert ann.ask("PauseBacktest", B1)["status"] == "paused"
    assert is_conflict(ann, resume, "paused")
    worker.finish("b2")
    assert worker.controls == [("pause", "b1")]
    assert status(ann) == "paused"


def test_a_pause_that_overtakes_a_resume_on_its_way(ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    paused(ann, worker)
    resume, pause = ann.later("ResumeBacktest", B1), ann.later("PauseBacktest", B1)
    worker.resumed()
    assert ann.answer(resume)["status"] == "running"
    assert worker.controls[-1] == ("pause", "b1")
    worker.paused()
    assert ann.answer(pause)["status"] == "paused"


def test_pause_resume_pause_ends_paused(ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    first, resume, second = (ann.later(f"{verb}Backtest", B1) for verb in ("Pause", "Resume", "Pause"))
    worker.paused()
    assert ann.answer(first)["status"] == ann.answer(second)["status"] == "paused"
    assert is_conflict(ann, resume, "paused")
    assert ("resume", "b1") not in worker.controls


def test_resume_pause_resume_ends_running_and_the_pause_is_answered(ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    paused(ann, worker)
    first, pause, second = (ann.later(f"{verb}Backtest", B1) for verb in ("Resume", "Pause", "Resume"))
    worker.resumed()
    assert ann.answer(first)["status"] == ann.answer(second)["status"] == "running"
    assert is_conflict(ann, pause, "running")
    assert worker.controls == [("pause", "b1"), ("resume", "b1")]


def test_a_pause_in_the_queue_takes_effect_before_the_first_bar(ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    asked = ann.later("PauseBacktest", {"backtestId": "b2"})
    worker.finish("b1")
    assert worker.assigned[-1].paused
    assert ann.answers(asked) == []
    worker.paused()
    assert ann.answer(asked) == {"backtestId": "b2", "status": "paused"}


def test_a_resume_in_the_queue_takes_back_a_pause(ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    asked = ann.later("PauseBacktest", {"backtestId": "b2"})
    assert ann.ask("ResumeBacktest", {"backtestId": "b2"})["status"] == "queued"
    assert is_conflict(ann, asked, "queued")
    worker.finish("b1")
    assert not worker.assigned[-1].paused


def test_the_parked_backtests_of_a_worker_are_bounded(ann: Client, worker: Worker) -> None:
    names = [f"b{number}" for number in range(worker_channel.MAX_PARKED)]
    for name in names:
        start(ann, name)
        paused(ann, worker, name)
    start(ann, "one-more")
    error = ann.refused("PauseBacktest", {"backtestId": "one-more"})
    assert (error["code"], error["details"]) == ("BUSY", {"retryAfterMs": 1000})
    assert status(ann, "one-more") == "running"
    ann.later("StopBacktest", {"backtestId": names[0]})
    worker.finish(names[0], "stopped")
    paused(ann, worker, "one-more")


def test_a_backtest_to_be_paused_waits_for_room_and_lets_others_pass(ann: Client, worker: Worker) -> None:
    for number in range(worker_channel.MAX_PARKED):
        start(ann, f"b{number}")
        paused(ann, worker, f"b{number}")
    start(ann, "runs", "waits", "passes")
    asked = ann.later("PauseBacktest", {"backtestId": "waits"})
    worker.finish("runs")
    assert worker.task_id == "passes"
    worker.finish("passes")
    assert [status(ann, "waits"), ann.answers(asked)] == ["queued", []]
    ann.later("StopBacktest", {"backtestId": "b0"})
    worker.finish("b0", "stopped")
    assert (worker.task_id, worker.assigned[-1].paused) == ("waits", True)
    worker.paused()
    assert ann.answer(asked)["status"] == "paused"


def test_a_backtest_that_waits_for_room_runs_when_it_is_resumed(ann: Client, worker: Worker) -> None:
    for number in range(worker_channel.MAX_PARKED):
        start(ann, f"b{number}")
        paused(ann, worker, f"b{number}")
    start(ann, "runs", "waits")
    asked = ann.later("PauseBacktest", {"backtestId": "waits"})
    worker.finish("runs")
    assert ann.ask("ResumeBacktest", {"backtestId": "waits"})["status"] == "running"
    assert is_conflict(ann, asked, "queued")


def test_requests_that_wait_for_one_backtest_are_bounded(ann: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "MAX_WAITING", 3)
    start(ann, "b1")
    for _ in range(3):
        ann.later("PauseBacktest", B1)
    for request_type in ("PauseBacktest", "ResumeBacktest", "StopBacktest"):
        assert ann.refused(request_type, B1)["code"] == "BUSY"


def test_unknown_backtests_are_not_found(ann: Client) -> None:
    start(ann, "golden")
    for request_type in ("PauseBacktest", "ResumeBacktest", "StopBacktest", "GetBacktestStatus"):
        error = ann.refused(request_type, {"backtestId": "goldne"})
        assert error["code"] == "NOT_FOUND"
        assert "did you mean 'golden'" in error["message"]
