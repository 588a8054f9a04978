"""The tasks of a lost worker are assigned again, and each request that waits for it is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backtestr_broker.core.events import WorkerExited
from backtestr_broker.core.scheduling.jobs import MAX_KILLED, MAX_LOSSES
from backtestr_broker.core.scheduling.liveness import CRASH_LOOP_STAGES
from backtestr_protocol import worker_channel
from backtestr_protocol.codec import encoded_payload
from backtestr_protocol.errors import TimedOut
from support.broker.clients import Client
from support.broker.link import Link, Worker
from support.broker.steps import B1, is_conflict, paused, start, status

MakeLink = Callable[..., Link]


def test_a_backtest_moves_to_another_worker_which_continues_its_streams(
    link: Link, ann: Client, worker: Worker
) -> None:
    start(ann, "b1")
    worker.publish("orders.b1", 1, 2, 3)
    worker.publish("progress.b1", 1)
    successor = link.lose_worker(worker)
    (again,) = successor.assigned
    assert (again.task_id, again.work, again.client_id) == ("b1", "RunBacktest", "ann")
    assert again.published == {"progress.b1": 1, "orders.b1": 3, "positions.b1": 0}
    successor.publish("orders.b1", 4)
    successor.finish()
    assert [seq for seq, _ in link.streams["orders.b1"]] == [1, 4]
    assert link.states("b1") == ["queued", "running", "queued", "running", "completed"]


def test_a_backtest_moves_to_a_spare_worker_at_once(link: Link, ann: Client, worker: Worker) -> None:
    spare = link.start_worker("compute-2", "compute")
    spare.ready()
    start(ann, "b1")
    start(ann, "b2")
    assert spare.assigned == [], "it takes nothing while no other is missing"
    link.lose_worker(worker)
    assert [one.task_id for one in spare.assigned] == ["b1"]
    assert [one.task_id for one in link.worker("compute-1").assigned] == [], "it is the spare now"
    spare.finish()
    assert [one.task_id for one in spare.assigned] == ["b1", "b2"]


def test_the_progress_of_a_backtest_does_not_go_back(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    assert [one.progress_at for one in worker.assigned] == [None], "nothing was published before"
    worker.count("b1", progress_at=[0, 33])
    worker.publish("progress.b1", 1, progress=33.0)
    successor = link.lose_worker(worker)
    assert [one.progress_at for one in successor.assigned] == [[0, 33]]
    assert ann.ask("GetBacktestStatus", B1)["progressPercent"] == 33.0
    successor.publish("progress.b1", 2, progress=20.0)
    assert ann.ask("GetBacktestStatus", B1)["progressPercent"] == 33.0
    successor.publish("progress.b1", 3, progress=40.0)
    assert ann.ask("GetBacktestStatus", B1)["progressPercent"] == 40.0


def test_prices_that_a_backtest_has_published_are_counted_apart_from_those_of_others(
    link: Link, ann: Client, worker: Worker
) -> None:
    link.core.outbox.publish("prices.SYNTH.1m", encoded_payload("PriceUpdate", {}))
    start(ann, "b0")
    worker.publish("prices.SYNTH.1m", 1)
    worker.finish("b0")
    start(ann, "b1")
    worker.publish("prices.SYNTH.1m", 1, 2)
    worker.publish("prices.OTHER.1m", 1)
    worker.publish("prices.SYNTH.1m", 3)
    ((again),) = link.lose_worker(worker).assigned
    assert {topic: again.published[topic] for topic in again.published if topic.startswith("prices.")} == {
        "prices.SYNTH.1m": 3,
        "prices.OTHER.1m": 1,
    }


def test_a_worker_that_gives_up_gets_nothing_more_and_its_backtest_does_not_run_again(
    link: Link, ann: Client, worker: Worker
) -> None:
    start(ann, "b1", "b2")
    late = TimedOut("it did not come back").to_data(component="engine", timestamp=1)
    worker.say(worker_channel.Finished(task_id="b1", outcome="failed", error=late, is_last=True))
    assert ann.ask("GetBacktestStatus", B1)["error"]["code"] == "TIMEOUT"
    assert [assign.task_id for assign in worker.assigned] == ["b1"]
    successor = link.lose_worker(worker)
    assert successor.task_id == "b2"
    successor.finish()
    assert link.states("b2") == ["queued", "running", "completed"]


def test_a_parked_backtest_of_a_replaced_worker_is_parked_again_and_has_lost_no_worker(
    link: Link, ann: Client, worker: Worker
) -> None:
    start(ann, "b1")
    ann.later("PauseBacktest", B1)
    worker.paused("b1")
    for number in range(MAX_LOSSES + 2):
        start(ann, f"other{number}")
        ended = worker_channel.Finished(
            task_id=f"other{number}", outcome="completed", is_last=True, reason="1 processes were left running"
        )
        worker.say(ended, [b"\x80"])
        link.feed(WorkerExited(worker.worker_id, "exit code 3", link.wall_ms))
        worker = link.start_worker(worker.worker_id, "compute")
        worker.ready()
        (again,) = worker.assigned
        assert (again.task_id, again.paused) == ("b1", True)
        worker.paused("b1")
        assert link.core.scheduler.jobs.get("b1").losses == 0
    assert ann.ask("GetBacktestStatus", B1)["status"] == "paused"


def test_a_backtest_of_a_lost_worker_goes_before_those_that_wait(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    successor = link.lose_worker(worker)
    assert successor.task_id == "b1"
    assert [one.losses for one in (*worker.assigned, *successor.assigned)] == [None, 1]


def test_a_backtest_whose_same_bars_cost_two_workers_fails_with_the_reason(
    link: Link, ann: Client, worker: Worker
) -> None:
    start(ann, "b1", "b2")
    waits = ann.later("PauseBacktest", B1)
    third = link.lose_worker(link.lose_worker(worker))
    third.say(worker_channel.CostWorkers(task_id="b1", first_bar=400, stop_bar=404))
    ended = failed(ann)
    assert "its bars 400 to 403" in ended["message"]
    assert "killed by signal 9" in ended["message"]
    assert (ended["details"]["fromBar"], ended["details"]["toBar"]) == (400, 403)
    assert is_conflict(ann, waits, "failed")
    assert third.task_id == "b2"
    ((_, published),) = link.streams["system.errors"]
    assert published["data"] == ended
    (fault,) = link.signals("fault")
    assert fault["id"] == ended["details"]["id"]


@pytest.mark.parametrize(
    ("first", "stop", "where"),
    [(0, 0, "before its first bar"), (7, 8, "its bar 7"), (90, 90, "after its last bar")],
)
def test_the_error_names_the_place_that_cost_two_workers(
    link: Link, ann: Client, worker: Worker, first: int, stop: int, where: str
) -> None:
    start(ann, "b1")
    third = link.lose_worker(link.lose_worker(worker))
    third.say(worker_channel.CostWorkers(task_id="b1", first_bar=first, stop_bar=stop))
    assert where in failed(ann)["message"]


def test_a_backtest_fails_that_loses_ten_workers_and_does_not_go_on(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    for _ in range(MAX_LOSSES):
        worker = link.lose_worker(worker)
        assert worker.task_id == "b1"
    assert link.lose_worker(worker).task_id == "b2"
    message = failed(ann)["message"]
    assert "10 workers before its first bar" in message
    assert "killed by signal 9" in message


def test_workers_that_are_killed_from_outside_may_be_many(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    for _ in range(MAX_KILLED):
        link.feed(WorkerExited(worker.worker_id, "killed by signal 9", link.wall_ms, killed=True))
        worker = link.start_worker(worker.worker_id, "compute")
        worker.ready()
        assert worker.task_id == "b1"
    assert worker.assigned[-1].losses == MAX_KILLED
    link.feed(WorkerExited(worker.worker_id, "killed by signal 9", link.wall_ms, killed=True))
    assert "100 workers before its first bar" in failed(ann)["message"]


def test_only_a_checkpoint_further_on_ends_the_count_of_losses(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    job = link.core.scheduler.jobs.get("b1")
    for bars, expected in [(100, 0), (100, 1), (99, 2), (101, 0)]:
        worker.say(worker_channel.Checkpointed(task_id="b1", bars=bars))
        assert job.losses == expected
        worker = link.lose_worker(worker)
        assert worker.assigned[-1].losses == expected + 1
    for _ in range(MAX_LOSSES):
        worker = link.lose_worker(worker)
    assert "behind the first 101 of its bars" in failed(ann)["message"]


def test_a_parked_backtest_counts_no_loss(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    paused(ann, worker)
    for _ in range(MAX_LOSSES + 2):
        worker = link.lose_worker(worker)
        worker.paused()
    assert link.core.scheduler.jobs.get("b1").losses == 0


def test_only_a_worker_that_has_a_backtest_speaks_of_its_checkpoint(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    other = link.start_worker("compute-2", "compute")
    other.ready()
    for message in (
        worker_channel.Checkpointed(task_id="b1", bars=5),
        worker_channel.Continued(task_id="b1", numbers={}),
        worker_channel.CostWorkers(task_id="b1", first_bar=0, stop_bar=4),
    ):
        other.say(message)
    assert len(link.signals("message_refused")) == 3
    assert (status(ann), link.core.scheduler.jobs.get("b1").bars_stored) == ("running", -1)


def test_the_topics_of_a_restored_backtest_go_on_from_the_numbers_of_its_checkpoint(
    link: Link, ann: Client, worker: Worker
) -> None:
    start(ann, "b1")
    worker.publish("orders.b1", 1, 2)
    link.restart_broker()
    ann.reconnect()
    worker = link.worker("compute-1")
    (again,) = worker.assigned
    assert (again.unnumbered, again.resumes) == (True, True)
    numbers = {"orders.b1": 2, "positions.b1": 5, "progress.b1": 3}
    worker.say(
        worker_channel.Continued(task_id="b1", numbers=numbers, progress_at=[40, 80, 120], progress_percent=20.0)
    )
    assert ann.ask("GetBacktestStatus", B1)["progressPercent"] == 20.0
    worker.publish("orders.b1", 3)
    assert [seq for seq, _ in link.streams["orders.b1"]][-1] == 3
    missed = ann.ask("FetchMissed", {"topic": "orders.b1", "fromSeq": 3})
    assert (missed["oldestSeq"], [one["seq"] for one in missed["messages"]]) == (1, [3])
    ann.later("FetchMissed", {"topic": "orders.b1", "fromSeq": 1})
    asked, _ = worker.received[-1]
    assert isinstance(asked, worker_channel.Fetch), "the worker has those before the checkpoint"
    assert (asked.from_seq, asked.to_seq) == (1, 3)
    (next_one,) = link.lose_worker(worker).assigned
    assert not next_one.unnumbered
    assert next_one.published == {"orders.b1": 3, "positions.b1": 5, "progress.b1": 3}
    assert next_one.progress_at == [40, 80, 120]


@pytest.mark.parametrize("numbers", [{"orders.b2": 3}, {"system.errors": 3}], ids=["other", "system"])
def test_numbers_that_a_backtest_cannot_have_are_refused(
    link: Link, ann: Client, worker: Worker, numbers: dict[str, int]
) -> None:
    start(ann, "b1")
    link.restart_broker()
    ann.reconnect()
    worker = link.worker("compute-1")
    worker.say(worker_channel.Continued(task_id="b1", numbers=numbers))
    assert len(link.signals("message_refused")) == 1
    assert link.core.outbox.sequencer.last_seq("positions.b1") == 0


@pytest.mark.parametrize("first", ["published", "counted"])
def test_a_restored_backtest_that_began_again_has_its_numbers(
    link: Link, ann: Client, worker: Worker, first: str
) -> None:
    start(ann, "b1")
    link.restart_broker()
    ann.reconnect()
    worker = link.worker("compute-1")
    if first == "published":
        worker.publish("orders.b1", 1)
    else:
        worker.count("b1", {"orders.b1": 1})
    worker.say(worker_channel.Continued(task_id="b1", numbers={"orders.b1": 9}))
    assert len(link.signals("message_refused")) == 1
    worker.publish("orders.b1", 2)
    assert [seq for seq, _ in link.streams["orders.b1"]][-1] == 2


def failed(ann: Client) -> Any:
    ended = ann.ask("GetBacktestStatus", B1)
    assert ended["status"] == "failed"
    assert ended["error"]["code"] == "SYSTEM_ERROR"
    return ended["error"]


def test_a_backtest_that_used_up_its_processor_time_ends_no_second_worker(
    link: Link, ann: Client, worker: Worker
) -> None:
    start(ann, "b1", "b2")
    ann.later("PauseBacktest", B1)
    worker.say(worker_channel.Paused(task_id="b1"))
    successor = link.lose_worker(worker, overdue=True)
    assert ann.ask("GetBacktestStatus", {"backtestId": "b2"})["error"]["code"] == "TIMEOUT"
    assert ann.ask("GetBacktestStatus", B1)["status"] != "failed", "it was parked beside it"
    assert successor.task_id != "b2"


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


def test_the_parked_backtests_of_a_lost_worker_move_with_the_running_one(
    link: Link, ann: Client, worker: Worker
) -> None:
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


def test_a_stop_whose_worker_is_lost_before_it(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    asked = ann.later("StopBacktest", B1)
    successor = link.lose_worker(worker)
    assert ann.answer(asked) == {"backtestId": "b1", "status": "stopped"}
    assert successor.received == []
    assert ann.ask("GetBacktestResults", B1)["metrics"] is None, "no worker stored the simulated bars"


def test_a_pause_whose_worker_is_lost_before_it(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    asked = ann.later("PauseBacktest", B1)
    successor = link.lose_worker(worker)
    assert successor.assigned[0].paused
    assert ann.answers(asked) == []
    successor.paused()
    assert ann.answer(asked)["status"] == "paused"


def test_a_resume_whose_worker_is_lost_before_it(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    paused(ann, worker)
    asked = ann.later("ResumeBacktest", B1)
    successor = link.lose_worker(worker)
    assert not successor.assigned[0].paused
    assert ann.answer(asked)["status"] == "queued"


def test_a_resume_that_waited_for_a_lost_worker(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    paused(ann, worker)
    asked = ann.later("ResumeBacktest", B1)
    successor = link.lose_worker(worker)
    assert ann.answer(asked)["status"] == "queued"
    first = successor.task_id
    successor.finish()
    assert {first, successor.task_id} == {"b1", "b2"}
    assert successor.controls == [], "it holds nothing that could be resumed"


def test_a_resume_that_overtook_a_pause_when_the_worker_was_lost(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    pause, resume = ann.later("PauseBacktest", B1), ann.later("ResumeBacktest", B1)
    successor = link.lose_worker(worker)
    assert not successor.assigned[0].paused
    assert is_conflict(ann, pause, "queued")
    assert ann.answer(resume)["status"] == "queued"


def test_the_end_of_an_idle_worker_affects_no_task(link: Link, ann: Client, worker: Worker) -> None:
    successor = link.lose_worker(worker)
    start(ann, "b1")
    assert successor.task_id == "b1"


def test_messages_of_a_lost_worker_are_ignored(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    successor = link.lose_worker(worker)
    worker.publish("orders.b1", 1)
    worker.finish("b1")
    assert "orders.b1" not in link.streams
    assert status(ann) == "running"
    successor.finish()


def test_an_interactive_task_that_used_up_its_processor_time_is_not_assigned_again(link: Link, ann: Client) -> None:
    interactive = link.worker("interactive-1")
    interactive.answers = False
    asked = ann.later("ListMarketData")
    assert link.lose_worker(interactive, overdue=True).assigned == []
    assert ann.answer(asked)["code"] == "TIMEOUT"


def test_an_interactive_task_is_assigned_again_once_and_then_fails(link: Link, ann: Client) -> None:
    interactive = link.worker("interactive-1")
    interactive.answers = False
    asked = ann.later("ListMarketData")
    second = link.lose_worker(interactive, again=False)
    second = link.start_worker("interactive-1", "interactive")
    second.answers = False
    second.ready()
    assert [message.work for message in second.assigned] == ["ListMarketData"]
    assert ann.answers(asked) == []
    link.lose_worker(second)
    error = ann.answer(asked)
    assert error["code"] == "SYSTEM_ERROR"
    assert not any(one["automatic"] for one in error["recoveryActions"]), "again, it would end two more"
    assert "ListMarketData" in error["message"]
    assert ann.ask("ListMarketData", message_id=asked)["series"], (
        "a fault is not remembered: the same id may be tried again"
    )


# --- interactive workers that do not get ready ---


def fail_to_start(link: Link, times: int, worker_id: str = "interactive-1") -> None:
    """Start an interactive worker so many times, and have it end before it is ready."""
    for _ in range(times):
        link.lose_worker(link.start_worker(worker_id, "interactive"), again=False)


def test_what_waits_for_an_interactive_worker_fails_once_none_is_proven_to_start(link: Link, ann: Client) -> None:
    host = link.worker("interactive-1")
    host.answers = False
    waiting = [ann.later("ListMarketData") for _ in range(2)]
    starting = ann.later("StartPriceReplay", {"replayId": "r1", "symbol": "SYNTH", "timeframe": "1m", "speed": 1.0})
    link.lose_worker(host, again=False)
    fail_to_start(link, CRASH_LOOP_STAGES[0] - 1)
    assert [ann.answers(one) for one in (*waiting, starting)] == [[]] * 3, "the next start may do better"
    fail_to_start(link, 1)
    for one in (*waiting, starting):
        error = ann.answer(one)
        assert error["code"] == "SYSTEM_ERROR"
        assert error["message"].startswith(
            "no interactive worker can start: 4 in a row have ended before they were ready, the last time: killed by "
        )
        assert [action["action"] for action in error["recoveryActions"]] == ["read_log"]
        assert not any(action["automatic"] for action in error["recoveryActions"]), "no client asks again by itself"
    assert ann.ask("GetSystemStatus")["queuedRequests"] == 0


def test_what_comes_later_has_one_start_to_wait_for(link: Link, ann: Client) -> None:
    link.lose_worker(link.worker("interactive-1"), again=False)
    fail_to_start(link, CRASH_LOOP_STAGES[0])
    fails = ann.later("ListMarketData")
    fail_to_start(link, 1)
    assert "5 in a row" in ann.answer(fails)["message"]
    served = ann.later("ListMarketData")
    link.start_worker("interactive-1", "interactive").ready()
    assert len(ann.answer(served)["series"]) == 1
    link.lose_worker(link.worker("interactive-1"), again=False)
    waits = ann.later("ListMarketData")
    fail_to_start(link, CRASH_LOOP_STAGES[0] - 1)
    assert ann.answers(waits) == [], "they are counted anew since one was ready"


def test_nothing_fails_while_another_interactive_worker_is_ready(make_link: MakeLink) -> None:
    link = make_link(interactive=2)
    ann = link.client()
    busy = link.worker("interactive-2")
    link.lose_worker(link.worker("interactive-1"), again=False)
    busy.answers = False
    tasks = [ann.later("ListMarketData") for _ in range(2)]
    fail_to_start(link, 3 * CRASH_LOOP_STAGES[0])
    assert [ann.answers(one) for one in tasks] == [[], []]
    busy.answers = True
    busy.finish(busy.task_id, data=link.answer_to("ListMarketData", b""))
    assert [len(ann.answer(one)["series"]) for one in tasks] == [1, 1]


def test_each_of_several_interactive_workers_has_its_tries(make_link: MakeLink) -> None:
    link = make_link(interactive=2)
    ann = link.client()
    for worker_id in ("interactive-1", "interactive-2"):
        link.lose_worker(link.worker(worker_id), again=False)
    waits = ann.later("ListMarketData")
    fail_to_start(link, 2 * CRASH_LOOP_STAGES[0] - 1)
    assert ann.answers(waits) == []
    fail_to_start(link, 1, "interactive-2")
    assert "8 in a row" in ann.answer(waits)["message"]


def test_a_price_replay_that_moves_waits_for_the_cause_to_be_mended(link: Link, ann: Client) -> None:
    ann.ask("StartPriceReplay", {"replayId": "r1", "symbol": "SYNTH", "timeframe": "1m", "speed": 1.0})
    link.lose_worker(link.worker("interactive-1"), again=False)
    fail_to_start(link, 2 * CRASH_LOOP_STAGES[0])
    assert ann.ask("GetPriceReplayStatus", {"replayId": "r1"})["status"] == "running"
    link.start_worker("interactive-1", "interactive").ready()
    assert [one.work for one in link.worker("interactive-1").assigned] == ["OpenReplay"]


def test_backtests_wait_for_a_compute_worker_however_many_fail_to_start(
    link: Link, ann: Client, worker: Worker
) -> None:
    """They are on disk, and nobody waits for an answer."""
    start(ann, "b1")
    link.lose_worker(worker, again=False)
    for _ in range(3 * CRASH_LOOP_STAGES[0]):
        link.lose_worker(link.start_worker("compute-1", "compute"), again=False)
    assert status(ann, "b1") == "queued"
    link.start_worker("compute-1", "compute").ready()
    assert status(ann, "b1") == "running"
