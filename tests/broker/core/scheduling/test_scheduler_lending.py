"""A paced backtest lends its worker: the worker takes another beside it, and neither is lost or run twice."""

from __future__ import annotations

import msgspec
import pytest

from backtestr_broker.core.scheduling import workers as workers_module
from backtestr_broker.core.scheduling.jobs import MAX_LOSSES
from backtestr_protocol import worker_channel
from backtestr_protocol.messages import MAX_LENDING
from backtestr_protocol.worker_channel import MAX_PARKED
from support.broker.clients import Client
from support.broker.link import LIMITS, Link, Worker, config
from support.broker.steps import B1, MakeLink, is_conflict, lend, paused, start, start_paced, status

MORE = [f"paced-{number}" for number in range(MAX_LENDING)]


def losses(link: Link, *backtest_ids: str) -> list[int]:
    return [link.core.scheduler.jobs.get(one).losses for one in backtest_ids]


def worker_state(client: Client, worker_id: str = "compute-1") -> str:
    (found,) = [one for one in client.ask("GetSystemStatus")["workers"] if one["workerId"] == worker_id]
    state: str = found["state"]
    return state


def test_a_worker_that_is_lent_takes_another_backtest_and_both_complete(
    link: Link, ann: Client, worker: Worker
) -> None:
    start_paced(ann, "slow")
    start(ann, "b1")
    assert [one.task_id for one in worker.assigned] == ["slow"], "it has not begun, and runs code of its author"
    worker.lent("slow")
    assert worker.task_id == "b1"
    worker.publish("orders.slow", 1, progress=1.0)
    worker.publish("orders.b1", 1, progress=50.0)
    worker.finish("b1")
    assert [status(ann), status(ann, "slow")] == ["completed", "running"]
    start(ann, "b2")
    assert worker.task_id == "b2", "it is lent for as long as the paced one runs"
    worker.finish("slow")
    assert [status(ann, "slow"), status(ann, "b2")] == ["completed", "running"]
    worker.finish("b2")
    assert link.states("slow") == link.states("b1") == ["queued", "running", "completed"]


def test_the_status_says_that_a_backtest_has_a_pace_and_that_it_lends(ann: Client, worker: Worker) -> None:
    start_paced(ann, "slow")
    before = ann.ask("GetBacktestStatus", {"backtestId": "slow"})
    assert (before["pace"], "lends" in before) == (50.0, False)
    worker.lent("slow")
    assert ann.ask("GetBacktestStatus", {"backtestId": "slow"})["lends"] is True
    assert worker_state(ann) == "busy"
    worker.finish("slow")
    assert "lends" not in ann.ask("GetBacktestStatus", {"backtestId": "slow"})
    assert worker_state(ann) == "idle"
    start(ann, "b1")
    assert not {"pace", "lends"} & ann.ask("GetBacktestStatus", B1).keys()


def test_paced_backtests_are_bounded_and_others_pass_those_that_wait(ann: Client, worker: Worker) -> None:
    lend(ann, worker, *MORE)
    start_paced(ann, "waits")
    start(ann, "b1", "b2")
    assert [worker.task_id, status(ann, "waits")] == ["b1", "queued"]
    worker.finish("b1")
    assert worker.task_id == "b2"
    worker.finish(MORE[3])
    assert status(ann, "waits") == "queued", "b2 is computed: it waits for its turn as any other"
    worker.finish("b2")
    assert worker.task_id == "waits"
    worker.lent("waits")
    start_paced(ann, "waits-too")
    assert status(ann, "waits-too") == "queued"


def test_an_unpaced_backtest_goes_to_the_worker_that_is_lent_less(make_link: MakeLink) -> None:
    link = make_link(compute=2)
    ann, first, second = link.client(), link.worker("compute-1"), link.worker("compute-2")
    lend(ann, first, "slow")
    start(ann, "b1")
    assert [one.task_id for one in second.assigned] == ["b1"]
    start(ann, "b2")
    assert first.task_id == "b2", "and to the other when that one computes"


def test_the_paced_one_is_paused_and_resumed_while_the_other_is_computed(
    link: Link, ann: Client, worker: Worker
) -> None:
    lend(ann, worker, "slow")
    start(ann, "b1")
    paused(ann, worker, "slow")
    assert "lends" not in ann.ask("GetBacktestStatus", {"backtestId": "slow"})
    resumed = ann.later("ResumeBacktest", {"backtestId": "slow"})
    assert worker.controls[-1] == ("resume", "slow"), "it does not wait for b1"
    worker.resumed("slow")
    assert ann.answer(resumed)["status"] == "running"
    assert ann.ask("GetBacktestStatus", {"backtestId": "slow"})["lends"] is True
    worker.finish("b1")
    start(ann, "b2")
    assert worker.task_id == "b2"
    worker.finish("slow")
    assert link.states("slow") == ["queued", "running", "paused", "running", "completed"]


def test_the_other_is_paused_and_resumed_beside_the_paced_one(ann: Client, worker: Worker) -> None:
    lend(ann, worker, "slow")
    start(ann, "b1", "b2")
    paused(ann, worker, "b1")
    assert worker.task_id == "b2"
    resumed = ann.later("ResumeBacktest", B1)
    assert worker.controls == [("pause", "b1")], "one is computed at a time"
    worker.finish("b2")
    worker.resumed("b1")
    assert ann.answer(resumed)["status"] == "running"
    assert status(ann, "slow") == "running"


@pytest.mark.parametrize(("stopped", "goes_on"), [("slow", "b1"), ("b1", "slow")])
def test_one_of_both_is_stopped_and_the_other_goes_on(ann: Client, worker: Worker, stopped: str, goes_on: str) -> None:
    lend(ann, worker, "slow")
    start(ann, "b1")
    asked = ann.later("StopBacktest", {"backtestId": stopped})
    assert worker.controls == [("stop", stopped)]
    worker.finish(stopped, "stopped")
    assert ann.answer(asked)["status"] == "stopped"
    worker.publish(f"orders.{goes_on}", 1)
    worker.finish(goes_on)
    assert status(ann, goes_on) == "completed"


def test_a_pause_and_a_stop_overtake_the_lending(ann: Client, worker: Worker) -> None:
    start_paced(ann, "slow")
    start(ann, "b1")
    pause = ann.later("PauseBacktest", {"backtestId": "slow"})
    worker.lent("slow")
    assert worker.task_id == "b1"
    worker.paused("slow")
    assert ann.answer(pause)["status"] == "paused"
    resume, stop = (ann.later(f"{verb}Backtest", {"backtestId": "slow"}) for verb in ("Resume", "Stop"))
    worker.resumed("slow")
    assert ann.answer(resume)["status"] == "running"
    worker.finish("slow", "stopped")
    assert ann.answer(stop)["status"] == "stopped"


def test_a_paced_backtest_that_begins_parked_lends_its_worker_once_it_is_resumed(ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    start_paced(ann, "slow")
    asked = ann.later("PauseBacktest", {"backtestId": "slow"})
    worker.finish("b1")
    assert worker.assigned[-1].paused
    worker.paused("slow")
    assert ann.answer(asked)["status"] == "paused"
    start(ann, "b2")
    ann.later("ResumeBacktest", {"backtestId": "slow"})
    worker.resumed("slow")
    assert [status(ann, "slow"), status(ann, "b2")] == ["running", "running"]


def test_a_paced_backtest_that_waits_for_room_to_lend_begins_parked_when_it_is_paused(
    ann: Client, worker: Worker
) -> None:
    lend(ann, worker, *MORE)
    start_paced(ann, "slow")
    assert status(ann, "slow") == "queued"
    asked = ann.later("PauseBacktest", {"backtestId": "slow"})
    assert (worker.task_id, worker.assigned[-1].paused) == ("slow", True)
    worker.paused("slow")
    assert ann.answer(asked)["status"] == "paused"


def test_a_resume_waits_for_room_to_lend(ann: Client, worker: Worker) -> None:
    lend(ann, worker, "slow")
    paused(ann, worker, "slow")
    lend(ann, worker, *MORE)
    resumed = ann.later("ResumeBacktest", {"backtestId": "slow"})
    start(ann, "b1")
    assert (worker.task_id, ann.answers(resumed)) == ("b1", [])
    worker.finish(MORE[0])
    assert worker.controls[-1] == ("resume", "slow")
    worker.resumed("slow")
    assert ann.answer(resumed)["status"] == "running"


def test_one_that_is_about_to_lend_keeps_its_room(ann: Client, worker: Worker) -> None:
    lend(ann, worker, "slow")
    paused(ann, worker, "slow")
    lend(ann, worker, *MORE[:-1])
    start_paced(ann, MORE[-1])
    ann.later("ResumeBacktest", {"backtestId": "slow"})
    assert ("resume", "slow") not in worker.controls
    worker.lent(MORE[-1])
    assert ("resume", "slow") not in worker.controls, "that one has taken the last room"
    worker.finish(MORE[-1])
    assert worker.controls[-1] == ("resume", "slow")


def test_pauses_on_their_way_to_one_worker_have_room_or_are_busy(
    ann: Client, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "MAX_PARKED", 2)
    lend(ann, worker, "one", "two", "three")
    first, second = (ann.later("PauseBacktest", {"backtestId": name}) for name in ("one", "two"))
    assert ann.refused("PauseBacktest", {"backtestId": "three"})["code"] == "BUSY"
    for name, asked in (("one", first), ("two", second)):
        worker.paused(name)
        assert ann.answer(asked)["status"] == "paused"
    ann.later("ResumeBacktest", {"backtestId": "one"})
    again = ann.later("PauseBacktest", {"backtestId": "one"})
    assert ann.refused("PauseBacktest", {"backtestId": "three"})["code"] == "BUSY", "that pause keeps its room"
    back = ann.later("ResumeBacktest", {"backtestId": "one"})
    worker.resumed("one")
    assert is_conflict(ann, again, "running")
    assert ann.answer(back)["status"] == "running"
    paused(ann, worker, "three")


def test_a_backtest_to_be_parked_starts_when_a_pause_is_taken_back(
    ann: Client, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "MAX_PARKED", 1)
    lend(ann, worker, "slow")
    paused(ann, worker, "slow")
    start(ann, "b1", "b2")
    ann.later("PauseBacktest", {"backtestId": "b2"})
    for verb in ("Resume", "Pause", "Resume"):
        ann.later(f"{verb}Backtest", {"backtestId": "slow"})
    worker.finish("b1")
    assert [one.task_id for one in worker.assigned] == ["slow", "b1"], "no room to park b2: that pause keeps it"
    worker.resumed("slow")
    assert (worker.assigned[-1].task_id, worker.assigned[-1].paused) == ("b2", True)


@pytest.mark.parametrize("message", [worker_channel.Lent(task_id="b2"), worker_channel.Lent(task_id="slow")])
def test_lending_what_cannot_be_lent_changes_nothing(
    link: Link, ann: Client, worker: Worker, message: worker_channel.Lent
) -> None:
    lend(ann, worker, "slow")
    start(ann, "b1", "b2")
    worker.say(message)
    assert [status(ann, name) for name in ("slow", "b1", "b2")] == ["running", "running", "queued"]
    (refused,) = link.signals("message_refused")
    assert refused["reason"].startswith("compute-1 ")


def test_a_backtest_without_a_pace_lends_nothing(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    worker.lent("b1")
    assert [status(ann), status(ann, "b2")] == ["running", "queued"]
    assert "lent by b1, which has no pace" in link.signals("message_refused")[0]["reason"]


def test_an_interactive_worker_lends_nothing(link: Link, ann: Client) -> None:
    interactive = link.worker("interactive-1")
    interactive.answers = False
    asked = ann.later("ListMarketData")
    interactive.lent()
    assert len(link.signals("message_refused")) == 1
    interactive.finish(data={"series": []})
    assert ann.answer(asked) == {"series": []}


# --- lost workers ---


def test_both_go_on_after_their_worker_was_killed_and_the_lending_one_is_not_to_blame(
    link: Link, ann: Client, worker: Worker
) -> None:
    lend(ann, worker, "slow")
    start(ann, "b1")
    worker.publish("orders.slow", 1, 2)
    worker.count("slow", progress_at=[30])
    worker.publish("progress.slow", 1, progress=30.0)
    worker.publish("orders.b1", 1)
    successor = link.lose_worker(worker)
    assert losses(link, "b1", "slow") == [1, 0]
    assert successor.task_id == "slow"
    successor.lent("slow")
    again = {one.task_id: one for one in successor.assigned}
    assert [again["b1"].published["orders.b1"], again["slow"].published["orders.slow"]] == [1, 2]
    assert again["slow"].progress_at == [30]
    successor.publish("progress.slow", 2, progress=20.0)
    assert ann.ask("GetBacktestStatus", {"backtestId": "slow"})["progressPercent"] == 30.0, "it never goes back"
    successor.publish("orders.slow", 3)
    assert [seq for seq, _ in link.streams["orders.slow"]] == [1, 3]
    for backtest_id in ("slow", "b1"):
        if status(ann, backtest_id) == "running":
            successor.finish(backtest_id)
        assert status(ann, backtest_id) == "completed"
        assert link.states(backtest_id) == ["queued", "running", "queued", "running", "completed"]


def test_an_algorithm_that_ends_its_workers_fails_and_the_lending_backtest_does_not(
    link: Link, ann: Client, worker: Worker
) -> None:
    lend(ann, worker, "slow")
    for number in range(MAX_LOSSES + 2):
        start(ann, f"bad-{number}")
        while status(ann, f"bad-{number}") != "failed":
            if link.core.scheduler.workers.get("compute-1").task_id == "slow":
                worker.lent("slow")
            worker = link.lose_worker(worker)
    assert status(ann, "slow") == "running"
    assert losses(link, "slow") == [0]


def test_a_worker_that_computes_nothing_is_lost_by_those_that_lend_it(link: Link, ann: Client, worker: Worker) -> None:
    lend(ann, worker, "one", "two")
    successor = link.lose_worker(worker)
    assert losses(link, "one", "two") == [1, 1]
    for lost in range(1, MAX_LOSSES + 1):
        assert losses(link, "one", "two") == [lost, lost]
        for _ in range(2):
            successor.lent(successor.task_id)
        successor = link.lose_worker(successor)
    assert [status(ann, "one"), status(ann, "two")] == ["failed", "failed"]


def test_the_computed_backtest_fails_where_its_worker_used_up_its_processor_time(
    link: Link, ann: Client, worker: Worker
) -> None:
    lend(ann, worker, "slow")
    start(ann, "b1")
    successor = link.lose_worker(worker, overdue=True)
    assert ann.ask("GetBacktestStatus", B1)["error"]["code"] == "TIMEOUT"
    assert [one.task_id for one in successor.assigned] == ["slow"]
    assert losses(link, "slow") == [0]


@pytest.mark.parametrize("reason", ["1 processes were left running", None])
def test_a_worker_that_leaves_after_its_answer_loses_none_that_lent_it(
    link: Link, ann: Client, worker: Worker, reason: str | None
) -> None:
    lend(ann, worker, "slow")
    worker.publish("orders.slow", 1)
    worker.count("slow", progress_at=[30])
    for number in range(MAX_LOSSES + 2):
        start(ann, f"b{number}")
        worker.say(
            worker_channel.Finished(task_id=f"b{number}", outcome="completed", is_last=True, reason=reason), [b"\x80"]
        )
        assert [status(ann, f"b{number}"), status(ann, "slow")] == ["completed", "queued"]
        worker = link.lose_worker(worker)
        (again,) = worker.assigned
        assert (again.task_id, again.published["orders.slow"], again.progress_at) == ("slow", 1, [30])
        assert losses(link, "slow") == [0]
        worker.lent("slow")
    worker.finish("slow")
    assert status(ann, "slow") == "completed"


def test_both_run_again_after_a_restart_of_the_broker(link: Link, ann: Client, worker: Worker) -> None:
    lend(ann, worker, "slow", "parked")
    paused(ann, worker, "parked")
    start(ann, "b1")
    link.restart_broker()
    ann.reconnect()
    worker = link.worker("compute-1")
    assert (worker.task_id, worker.assigned[0].restored) == ("slow", True)
    worker.lent("slow")
    assert (worker.task_id, worker.assigned[1].paused) == ("parked", True)
    worker.paused("parked")
    assert worker.task_id == "b1"
    assert [status(ann, name) for name in ("slow", "parked", "b1")] == ["running", "paused", "running"]
    assert ann.ask("GetBacktestStatus", {"backtestId": "slow"})["pace"] == 50.0


def test_prices_are_counted_for_the_backtest_that_shows_them(link: Link, ann: Client, worker: Worker) -> None:
    lend(ann, worker, "slow")
    start(ann, "b1")
    worker.publish("prices.SYNTH.1m", 1, shown_by="slow")
    worker.publish("prices.SYNTH.1m", 1, 2, 3, shown_by="b1")
    worker.publish("prices.SYNTH.1m", 2, shown_by="slow")
    worker.publish("prices.SYNTH.1m", 9, shown_by="another")
    assert "which is not its own" in link.signals("message_refused")[0]["reason"]
    counts = {one: link.core.scheduler.jobs.get(one).prices_published for one in ("slow", "b1")}
    assert counts == {"slow": {"prices.SYNTH.1m": 2}, "b1": {"prices.SYNTH.1m": 3}}


# --- liveness ---


def test_a_worker_with_several_backtests_is_watched_as_any_other(make_link: MakeLink) -> None:
    link = make_link(limits=msgspec.structs.replace(LIMITS, worker_silence_ms=60_000))
    ann, worker = link.client(), link.worker("compute-1")
    lend(ann, worker, "slow")
    start(ann, "b1")
    for _ in range(120):
        worker.say(worker_channel.Beat(task_id="slow"))
        link.worker("interactive-1").say(worker_channel.Beat(task_id=None))
        link.advance(1.0)
    assert link.killed == []
    assert [link.states(name)[-1] for name in ("slow", "b1")] == ["running", "running"]
    for _ in range(120):
        link.worker("interactive-1").say(worker_channel.Beat(task_id=None))
        link.advance(1.0)
    assert [worker_id for worker_id, _ in link.killed] == ["compute-1"]


def test_a_pace_that_cannot_be_read_is_none(link: Link, ann: Client, worker: Worker) -> None:
    """The worker refuses it; the broker schedules the backtest as one without a pace."""
    ann.ask("StartBacktest", config(backtestId="b1", options={"pace": "fast"}))
    assert "pace" not in ann.ask("GetBacktestStatus", B1)
    assert worker.task_id == "b1"


def test_the_bounds_of_a_worker_are_those_of_the_documentation() -> None:
    assert (MAX_LENDING, MAX_PARKED) == (8, 16)
