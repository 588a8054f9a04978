"""Backtests from acceptance to their end: paused, resumed, stopped, and with workers lost, in every order."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from backtestr_broker import jobs as jobs_module
from backtestr_broker import scheduler as scheduler_module
from backtestr_protocol import engine
from backtestr_protocol.errors import AlgorithmError, DataError, TimedOut
from broker.link import LIMITS, Client, Link, Worker, config, failure

MakeLink = Callable[..., Link]
B1 = {"backtestId": "b1"}


@pytest.fixture
def ann(link: Link) -> Client:
    return link.client()


@pytest.fixture
def worker(link: Link) -> Worker:
    return link.worker("compute-1")


def start(client: Client, *backtest_ids: str) -> None:
    for backtest_id in backtest_ids:
        client.ask("StartBacktest", config(backtestId=backtest_id))


def status(client: Client, backtest_id: str = "b1") -> str:
    found: str = client.ask("GetBacktestStatus", {"backtestId": backtest_id})["status"]
    return found


def is_conflict(client: Client, message_id: str, state: str) -> bool:
    (payload,) = client.answers(message_id)
    assert payload["type"] == "Failure"
    return (payload["data"]["code"], payload["data"]["details"]) == ("STATE_CONFLICT", {"status": state})


def paused(client: Client, worker: Worker, backtest_id: str = "b1") -> None:
    asked = client.later("PauseBacktest", {"backtestId": backtest_id})
    worker.paused(backtest_id)
    assert client.answer(asked) == {"backtestId": backtest_id, "status": "paused"}


# --- the straight way ---


def test_a_backtest_is_checked_accepted_assigned_and_finished(link: Link, ann: Client, worker: Worker) -> None:
    link.worker("interactive-1").answers = False
    started = ann.later("StartBacktest", config(backtestId="b1", parameters={"fast": 5}))
    assert ann.refused("GetBacktestStatus", B1)["code"] == "NOT_FOUND", "not accepted before it is checked"
    ((check, (checked,)),) = link.worker("interactive-1").told
    assert isinstance(check, engine.Assign)
    assert check.work == "CheckBacktest"
    assert msgspec.msgpack.decode(checked)["parameters"] == {"fast": 5}
    link.worker("interactive-1").finish(data=checked)
    assert ann.answer(started) == {"backtestId": "b1", "status": "queued"}
    ((assigned, (given,)),) = worker.told
    assert assigned == engine.Assign(
        task_id="b1", work="RunBacktest", published={"progress.b1": 0, "orders.b1": 0, "positions.b1": 0}
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


def test_a_check_that_fails_is_the_answer_and_nothing_is_accepted(link: Link, ann: Client) -> None:
    link.worker("interactive-1").answers = False
    started = ann.later("StartBacktest", config(backtestId="b1"))
    link.worker("interactive-1").fail(DataError("no bars of SYNTH in 1950", symbol="SYNTH"))
    (payload,) = ann.answers(started)
    assert (payload["data"]["code"], payload["data"]["component"]) == ("DATA_ERROR", "engine")
    assert ann.ask("ListBacktests") == {"backtests": []}
    assert ann.refused("FetchMissed", {"topic": "orders.b1", "fromSeq": 1})["code"] == "NOT_FOUND"


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", b"\x93\x01\x02\x03"])
def test_a_check_that_answers_nonsense_is_a_fault_of_ours(link: Link, ann: Client, data: bytes) -> None:
    link.worker("interactive-1").answers = False
    started = ann.later("StartBacktest", config(backtestId="b1"))
    link.worker("interactive-1").finish(data=data)
    (payload,) = ann.answers(started)
    assert payload["data"]["code"] == "SYSTEM_ERROR"
    assert payload["data"]["details"]["id"]


def test_an_answer_without_data_is_a_fault_of_ours(link: Link, ann: Client) -> None:
    interactive = link.worker("interactive-1")
    interactive.answers = False
    asked = ann.later("ListMarketData")
    interactive.say(engine.Finished(task_id=interactive.task_id, outcome="completed"))
    assert ann.answer(asked)["code"] == "SYSTEM_ERROR"


def test_the_same_id_twice_is_a_conflict(ann: Client) -> None:
    start(ann, "b1")
    assert ann.refused("StartBacktest", config(backtestId="b1"))["code"] == "STATE_CONFLICT"


def test_backtests_go_in_the_order_in_which_they_came(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2", "b3")
    for backtest_id in ("b1", "b2", "b3"):
        assert worker.task_id == backtest_id
        worker.finish()
    assert [note.task_id for note in worker.assigned] == ["b1", "b2", "b3"]


def test_a_failure_has_its_reason_and_the_algorithm_remembers_it(ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    assert ann.ask("GetAlgorithmStatus", {"algorithmId": "sma-1"})["activeBacktests"] == 1
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


# --- pause, resume, stop ---


def test_a_pause_is_answered_when_it_has_taken_effect(ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    asked = ann.later("PauseBacktest", B1)
    assert worker.controls == [("pause", "b1")]
    assert (ann.answers(asked), status(ann)) == ([], "running")
    worker.publish("progress.b1", 1)
    worker.paused()
    assert ann.answer(asked) == {"backtestId": "b1", "status": "paused"}
    assert ann.ask("PauseBacktest", B1) == {"backtestId": "b1", "status": "paused"}, "again succeeds"
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
    assert [note.task_id for note in worker.assigned] == ["b1", "b2"]


def test_resuming_what_runs_or_waits_succeeds_at_once(ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    assert ann.ask("ResumeBacktest", B1)["status"] == "running"
    assert ann.ask("ResumeBacktest", {"backtestId": "b2"})["status"] == "queued"
    assert worker.controls == []


def test_a_stop_ends_what_runs_and_its_answer_says_how(ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    first, second = ann.later("StopBacktest", B1), ann.later("StopBacktest", B1)
    assert worker.controls == [("stop", "b1")]
    worker.finish(outcome="stopped")
    assert ann.answer(first) == ann.answer(second) == {"backtestId": "b1", "status": "stopped"}
    assert worker.task_id == "b2"
    assert ann.ask("StopBacktest", B1)["status"] == "stopped", "again succeeds"


def test_a_stop_that_comes_too_late_says_how_it_ended(ann: Client, worker: Worker) -> None:
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
    assert [note.task_id for note in worker.assigned] == ["b1"]
    assert link.states("b2") == ["queued", "stopped"]


def test_what_was_stopped_in_the_queue_has_no_results_to_read(link: Link, ann: Client) -> None:
    start(ann, "b1", "b2")
    ann.ask("StopBacktest", {"backtestId": "b2"})
    results = ann.ask("GetBacktestResults", {"backtestId": "b2"})
    assert (results["status"], results["metrics"], results["tables"]) == ("stopped", None, [])
    assert results["config"]["backtestId"] == "b2"
    assert ann.ask("GetPerformanceMetrics", {"backtestId": "b2"})["metrics"] is None
    works = [note.work for note in link.worker("interactive-1").assigned]
    assert works == ["CheckBacktest", "CheckBacktest"]


def test_what_a_worker_stopped_is_read_by_a_worker(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    assert ann.ask("GetBacktestResults", B1)["metrics"] is None, "the broker answers while it runs"
    ann.later("StopBacktest", B1)
    worker.finish(outcome="stopped")
    assert ann.ask("GetBacktestResults", B1) == {"answers": "GetBacktestResults"}
    assert ann.ask("GetPerformanceMetrics", B1) == {"answers": "GetPerformanceMetrics"}


def test_a_stop_of_a_paused_backtest_ends_it_beside_what_runs(ann: Client, worker: Worker) -> None:
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
    assert ann.answer(pause)["status"] == "paused", "it did take effect"
    worker.finish(outcome="stopped")
    assert ann.answer(stopped)["status"] == "stopped"


@pytest.mark.parametrize("request_type", ["PauseBacktest", "ResumeBacktest"])
def test_what_is_being_stopped_or_has_ended_is_not_changed(ann: Client, worker: Worker, request_type: str) -> None:
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
    assert worker.controls[-1] == ("resume", "b1"), "before b2: it has its worker still"
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


def test_resume_pause_resume_ends_running_and_the_pause_is_told(ann: Client, worker: Worker) -> None:
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


def test_as_many_as_a_worker_can_hold_are_parked_and_no_more(ann: Client, worker: Worker) -> None:
    names = [f"b{number}" for number in range(engine.MAX_PARKED)]
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


def test_what_is_to_be_paused_waits_for_room_and_lets_others_pass(ann: Client, worker: Worker) -> None:
    for number in range(engine.MAX_PARKED):
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


def test_what_waits_for_room_runs_when_it_is_resumed(ann: Client, worker: Worker) -> None:
    for number in range(engine.MAX_PARKED):
        start(ann, f"b{number}")
        paused(ann, worker, f"b{number}")
    start(ann, "runs", "waits")
    asked = ann.later("PauseBacktest", {"backtestId": "waits"})
    worker.finish("runs")
    assert ann.ask("ResumeBacktest", {"backtestId": "waits"})["status"] == "running"
    assert is_conflict(ann, asked, "queued")


def test_those_that_wait_for_one_backtest_are_bounded(ann: Client, monkeypatch: pytest.MonkeyPatch) -> None:
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


# --- lost workers ---


def test_a_backtest_moves_to_another_worker_which_goes_on_with_its_streams(
    link: Link, ann: Client, worker: Worker
) -> None:
    start(ann, "b1")
    worker.publish("orders.b1", 1, 2, 3)
    worker.publish("progress.b1", 1)
    successor = link.lose_worker(worker)
    assert successor.assigned == [
        engine.Assign(task_id="b1", work="RunBacktest", published={"progress.b1": 1, "orders.b1": 3, "positions.b1": 0})
    ]
    successor.publish("orders.b1", 4)
    successor.finish()
    assert [seq for seq, _ in link.streams["orders.b1"]] == [1, 4]
    assert link.states("b1") == ["queued", "running", "queued", "running", "completed"]


def test_a_worker_that_gives_up_gets_nothing_more_and_its_backtest_does_not_run_again(
    link: Link, ann: Client, worker: Worker
) -> None:
    start(ann, "b1", "b2")
    late = TimedOut("it did not come back").to_data(component="engine", timestamp=1)
    worker.say(engine.Finished(task_id="b1", outcome="failed", error=late, is_last=True))
    assert ann.ask("GetBacktestStatus", B1)["error"]["code"] == "TIMEOUT"
    assert [assign.task_id for assign in worker.assigned] == ["b1"]
    successor = link.lose_worker(worker)
    assert successor.task_id == "b2"
    successor.finish()
    assert link.states("b2") == ["queued", "running", "completed"]


def test_a_lost_backtest_goes_before_those_that_wait(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    assert link.lose_worker(worker).task_id == "b1"


def test_a_backtest_that_loses_two_workers_fails_with_the_reason(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    waits = ann.later("PauseBacktest", B1)
    third = link.lose_worker(link.lose_worker(worker))
    ended = ann.ask("GetBacktestStatus", B1)
    assert ended["status"] == "failed"
    assert ended["error"]["code"] == "SYSTEM_ERROR"
    assert "killed by signal 9" in ended["error"]["message"]
    assert is_conflict(ann, waits, "failed")
    assert third.task_id == "b2"
    ((_, published),) = link.streams["system.errors"]
    assert published["data"] == ended["error"]
    (fault,) = link.signals("fault")
    assert fault["id"] == ended["error"]["details"]["id"]


def test_a_paused_backtest_that_loses_its_worker_is_paused_again(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    paused(ann, worker)
    successor = link.lose_worker(worker)
    assert (successor.task_id, successor.assigned[0].paused) == ("b1", True)
    successor.paused()
    assert status(ann) == "paused"
    ann.later("ResumeBacktest", B1)
    successor.resumed()
    successor.finish()
    assert status(ann) == "completed"


def test_all_that_a_worker_had_parked_move_with_what_it_ran(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2", "b3", "b4")
    paused(ann, worker, "b1")
    paused(ann, worker, "b2")
    successor = link.lose_worker(worker)
    seen = []
    for _ in range(4):
        seen.append((successor.task_id, successor.assigned[-1].paused))
        if successor.assigned[-1].paused:
            successor.paused()
        else:
            successor.finish()
    assert sorted(seen) == [("b1", True), ("b2", True), ("b3", False), ("b4", False)]


def test_a_stop_that_its_worker_did_not_live_to_carry_out(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    asked = ann.later("StopBacktest", B1)
    successor = link.lose_worker(worker)
    assert ann.answer(asked) == {"backtestId": "b1", "status": "stopped"}
    assert successor.told == []
    assert ann.ask("GetBacktestResults", B1)["metrics"] is None, "nobody stored what it walked"


def test_a_pause_that_its_worker_did_not_live_to_carry_out(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    asked = ann.later("PauseBacktest", B1)
    successor = link.lose_worker(worker)
    assert successor.assigned[0].paused
    assert ann.answers(asked) == []
    successor.paused()
    assert ann.answer(asked)["status"] == "paused"


def test_a_resume_that_its_worker_did_not_live_to_carry_out(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    paused(ann, worker)
    asked = ann.later("ResumeBacktest", B1)
    successor = link.lose_worker(worker)
    assert not successor.assigned[0].paused
    assert ann.answer(asked)["status"] == "queued"


def test_a_resume_that_waited_for_a_worker_that_died(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    paused(ann, worker)
    asked = ann.later("ResumeBacktest", B1)
    successor = link.lose_worker(worker)
    assert ann.answer(asked)["status"] == "queued"
    first = successor.task_id
    successor.finish()
    assert {first, successor.task_id} == {"b1", "b2"}
    assert successor.controls == [], "it holds nothing that could be resumed"


def test_a_resume_that_overtook_a_pause_when_the_worker_died(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    pause, resume = ann.later("PauseBacktest", B1), ann.later("ResumeBacktest", B1)
    successor = link.lose_worker(worker)
    assert not successor.assigned[0].paused
    assert is_conflict(ann, pause, "queued")
    assert ann.answer(resume)["status"] == "queued"


def test_an_idle_worker_that_ends_takes_nothing_with_it(link: Link, ann: Client, worker: Worker) -> None:
    successor = link.lose_worker(worker)
    start(ann, "b1")
    assert successor.task_id == "b1"


def test_what_a_lost_worker_still_says_is_not_heard(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    successor = link.lose_worker(worker)
    worker.publish("orders.b1", 1)
    worker.finish("b1")
    assert "orders.b1" not in link.streams
    assert status(ann) == "running"
    successor.finish()


def test_a_question_is_asked_again_once_and_then_given_up(link: Link, ann: Client) -> None:
    interactive = link.worker("interactive-1")
    interactive.answers = False
    asked = ann.later("ListMarketData")
    second = link.lose_worker(interactive, again=False)
    second = link.start_worker("interactive-1", "interactive")
    second.answers = False
    second.ready()
    assert [note.work for note in second.assigned] == ["ListMarketData"]
    assert ann.answers(asked) == []
    link.lose_worker(second)
    error = ann.answer(asked)
    assert error["code"] == "SYSTEM_ERROR"
    assert "ListMarketData" in error["message"]
    assert ann.ask("ListMarketData", message_id=asked)["series"], "a fault is not remembered: the same id tries again"


# --- questions ---


def test_questions_go_by_priority(link: Link, ann: Client) -> None:
    interactive = link.worker("interactive-1")
    interactive.answers = False
    for request_type, data in (
        ("ListMarketData", {}),
        ("ImportMarketData", {"path": "x.csv", "symbol": "X"}),
        ("GetMarketData", {"symbol": "SYNTH", "timeframe": "1m"}),
        ("StartBacktest", config()),
    ):
        ann.later(request_type, data)
    for _ in range(3):
        interactive.finish(data={})
    works = [note.work for note in interactive.assigned]
    assert works == ["ListMarketData", "GetMarketData", "ImportMarketData", "CheckBacktest"]


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
        _, (checked,) = interactive.told[-1]
        interactive.finish(data=checked)
    assert ann.answer(first)["status"] == "queued"
    assert ann.answer(second)["code"] == "BUSY"


# --- notes that do not fit ---


@pytest.mark.parametrize(
    "note",
    [
        engine.Paused(task_id="b2"),
        engine.Paused(task_id="nothing"),
        engine.Resumed(task_id="b1"),
        engine.Resumed(task_id="b2"),
        engine.Finished(task_id="b2", outcome="completed"),
        engine.Finished(task_id="question-1", outcome="completed"),
        engine.Published(topic="orders.b2", count=1),
        engine.Published(topic="system.status", count=1),
        engine.Published(topic="prices.", count=1),
        engine.Published(topic="orders.b1", count=0),
        engine.Published(topic="orders.b1", count=2**62),
        engine.Published(topic="orders.nothing", count=1),
    ],
)
def test_a_note_about_what_a_worker_does_not_do_changes_nothing(
    link: Link, ann: Client, worker: Worker, note: engine.ToBroker
) -> None:
    start(ann, "b1", "b2")
    link.advance(0)
    published = {topic: len(messages) for topic, messages in link.streams.items()}
    worker.say(note, [b"\xc0"])
    assert {topic: len(messages) for topic, messages in link.streams.items()} == published
    assert [status(ann, name) for name in ("b1", "b2")] == ["running", "queued"]
    (refusal,) = link.signals("message_refused")
    assert refusal["reason"].startswith("compute-1 ")
    worker.finish()
    assert status(ann) == "completed"


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
        worker.say(engine.Published(topic="orders.b1", count=1), payload)
    assert "orders.b1" not in link.streams
    worker.publish("prices.SYNTH.1m", 1)
    assert [seq for seq, _ in link.streams["prices.SYNTH.1m"]] == [1]


def test_a_worker_that_nobody_started_is_not_given_work(link: Link) -> None:
    imposter = Worker(link, "compute-9", "compute", b"imposter")
    link.workers["compute-9"] = imposter
    imposter.ready()
    link.worker("compute-1").ready()
    twin = Worker(link, "compute-1", "compute", link.worker("interactive-1").peer)
    link.lose_worker(link.worker("compute-1"), again=False)
    link.start_worker("compute-1", "compute")
    twin.ready()
    assert len(link.signals("message_refused")) == 3
    assert len(link.signals("worker_ready")) == 2
    start(link.client(), "b1")
    assert imposter.told == []


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
