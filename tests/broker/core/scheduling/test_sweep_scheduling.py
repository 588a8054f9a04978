"""Blocks of sweeps go to workers that no backtest waits for, and nothing that was finished is computed again."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from backtestr_broker import hooks
from backtestr_broker.core.scheduling.sweep_scheduling import MAX_PROPOSALS_LOST
from backtestr_broker.core.scheduling.sweeps import MAX_SPANS
from backtestr_broker.core.scheduling.task_queue import MAX_PASSED
from backtestr_protocol import worker_channel
from backtestr_protocol.errors import ClusterUnavailable, DataError, DiskUnwritable, TimeLimitExceeded
from support.broker.clients import Client
from support.broker.link import Link
from support.broker.steps import start
from support.broker.sweep_steps import UNITS, SweepWorkers, request, started

S1 = {"sweepId": "s1"}

LEARNT: dict[str, Any] = {"method": "tpe", "trials": UNITS, "batchSize": 100}


@pytest.fixture
def sweeping(link: Link) -> SweepWorkers:
    return SweepWorkers(link)


def status(client: Client, sweep_id: str = "s1") -> dict[str, Any]:
    return dict(client.ask("GetSweepStatus", {"sweepId": sweep_id}))


def test_a_sweep_runs_to_its_end(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    accepted = started(ann)
    assert (accepted["status"], accepted["combinations"]) == ("queued", UNITS)
    assert accepted["estimatedMs"] > 0
    sweeping.run_to_end()
    found = status(ann)
    assert (found["status"], found["done"], found["progressPercent"]) == ("completed", UNITS, 100.0)
    assert found["best"] == {"cell": UNITS - 1, "value": UNITS - 1.0, "parameters": {"fast": UNITS - 1}}
    assert sorted(sweeping.rows["s1"]) == list(range(UNITS))
    published = [payload["data"] for _, payload in link.streams["progress.s1"]]
    assert [one["done"] for one in published] == sorted(one["done"] for one in published)
    assert published[-1]["status"] == "completed"
    link.core.check_invariants()


def test_a_dry_run_counts_and_starts_nothing(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    counted = ann.ask("StartSweep", request(dryRun=True))
    assert "sweepId" not in counted
    assert counted["combinations"] == UNITS
    assert ann.ask("ListSweeps", {}) == {"sweeps": [], "count": 0}
    assert link.worker("compute-1").assigned == []


def test_a_sweep_is_acknowledged_once_it_is_on_disk(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    with link.hold_commits():
        message_id = ann.later("StartSweep", request())
        assert ann.answers(message_id) == []
        assert ann.refused("GetSweepStatus", S1)["code"] == "NOT_FOUND"
    assert status(ann)["status"] == "running"


def test_the_same_request_again_is_the_same_sweep(ann: Client, sweeping: SweepWorkers) -> None:
    started(ann)
    assert started(ann)["status"] == "running"
    other = ann.refused("StartSweep", request(seed=7))
    assert other["code"] == "STATE_CONFLICT"
    assert len(ann.ask("ListSweeps", {})["sweeps"]) == 1


def test_sweeps_and_backtests_share_their_names(ann: Client, sweeping: SweepWorkers) -> None:
    started(ann, "b1")
    assert ann.refused("StartBacktest", {**request()["config"], "backtestId": "b1"})["code"] == "STATE_CONFLICT"
    start(ann, "b2")
    assert ann.refused("StartSweep", request("b2"))["code"] == "STATE_CONFLICT"


def test_a_backtest_goes_ahead_of_the_next_block(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    worker = link.worker("compute-1")
    started(ann)
    assert worker.assigned[-1].work == "RunBlock"
    start(ann, "b1")
    assert worker.assigned[-1].work == "RunBlock", "the block at hand is not interrupted"
    sweeping.do(worker)
    assert (worker.assigned[-1].work, worker.assigned[-1].task_id) == ("RunBacktest", "b1")
    worker.finish("b1")
    assert worker.assigned[-1].work == "RunBlock"


def test_a_backtest_that_finds_all_workers_at_blocks_goes_to_a_spare(
    link: Link, ann: Client, sweeping: SweepWorkers
) -> None:
    first, spare = link.worker("compute-1"), link.start_worker("compute-2", "compute")
    spare.ready()
    started(ann)
    assert (first.assigned[-1].work, spare.assigned) == ("RunBlock", [])
    start(ann, "b1")
    assert (spare.assigned[-1].work, spare.assigned[-1].task_id) == ("RunBacktest", "b1")
    states = {one["workerId"]: one["state"] for one in ann.ask("GetSystemStatus", {})["workers"]}
    assert (states["compute-1"], states["compute-2"]) == ("busy", "busy")
    blocks = len(first.assigned)
    sweeping.do(first)
    assert len(first.assigned) == blocks, "it has ended its block, and is the spare now"
    start(ann, "b2")
    assert len(first.assigned) == blocks, "a backtest waits for a backtest, not a spare"
    spare.finish("b1")
    spare.finish("b2")
    assert spare.assigned[-1].work == "RunBlock"
    start(ann, "b3")
    assert (first.assigned[-1].work, first.assigned[-1].task_id) == ("RunBacktest", "b3")
    link.core.check_invariants()


def test_a_spare_that_is_lost_at_the_end_of_a_block_costs_that_block_only(
    link: Link, ann: Client, sweeping: SweepWorkers
) -> None:
    first, spare = link.worker("compute-1"), link.start_worker("compute-2", "compute")
    spare.ready()
    started(ann)
    start(ann, "b1")
    link.lose_worker(first)
    spare.finish("b1")
    assert spare.assigned[-1].work == "RunBlock"
    while sweeping.has_task(spare):
        sweeping.do(spare)
    assert sorted(sweeping.rows["s1"]) == list(range(UNITS))
    link.core.check_invariants()


def test_backtests_without_end_leave_a_turn_to_the_sweep(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    worker = link.worker("compute-1")
    started(ann)
    for number in range(12):
        start(ann, f"b{number}")
    works = []
    for _ in range(12):
        if sweeping.has_task(worker):
            sweeping.do(worker)
        else:
            worker.finish()
        works.append(worker.assigned[-1].work)
    assert works == ["RunBacktest"] * MAX_PASSED + ["RunBlock"] + ["RunBacktest"] * (11 - MAX_PASSED)


def test_pause_resume_and_stop(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    worker = link.worker("compute-1")
    started(ann)
    assert ann.ask("PauseSweep", S1)["status"] == "paused"
    sweeping.do(worker)
    assert not sweeping.has_task(worker)
    assert status(ann)["done"] > 0, "the block that was being computed counts"
    assert ann.ask("PauseSweep", S1)["status"] == "paused"
    assert ann.ask("ResumeSweep", S1)["status"] in ("queued", "running")
    assert sweeping.has_task(worker)
    assert ann.ask("StopSweep", S1)["status"] == "stopped"
    before = status(ann)["done"]
    sweeping.do(worker)
    assert status(ann)["done"] > before
    assert not sweeping.has_task(worker)
    assert ann.refused("ResumeSweep", S1)["code"] == "STATE_CONFLICT"
    assert ann.ask("StopSweep", S1)["status"] == "stopped"


def test_a_lost_worker_costs_its_block_only(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    worker = link.worker("compute-1")
    started(ann)
    sweeping.do(worker)
    lost = sweeping.block(worker)
    done = status(ann)["done"]
    successor = link.lose_worker(worker)
    assert status(ann)["done"] == done
    again = sweeping.block(successor)
    assert again.first == lost.first
    sweeping.run_to_end()
    assert sorted(sweeping.rows["s1"]) == list(range(UNITS))


def test_a_combination_that_ends_its_worker_is_a_row_with_its_reason(
    link: Link, ann: Client, sweeping: SweepWorkers
) -> None:
    sweeping.worst = {321}
    started(ann)
    sweeping.run_to_end()
    found = status(ann)
    assert (found["status"], found["done"], found["failed"]) == ("completed", UNITS, 1)
    failed = {unit: reason for unit, reason in sweeping.rows["s1"].items() if reason is not None}
    assert list(failed) == [321]
    assert "ended the worker" in str(failed[321])
    link.core.check_invariants()


def test_a_block_that_does_not_come_back_in_time_is_halved(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    worker = link.worker("compute-1")
    started(ann)
    first = sweeping.block(worker)
    late = TimeLimitExceeded("it took too long").to_data(component="engine", timestamp=1)
    worker.say(worker_channel.Finished(task_id=worker.task_id, outcome="failed", error=late, is_last=True))
    successor = link.lose_worker(worker)
    assert sweeping.block(successor).count == first.count // 2
    assert status(ann)["status"] == "running"


def test_a_block_that_fails_as_a_whole_fails_the_sweep_which_can_be_resumed(
    link: Link, ann: Client, sweeping: SweepWorkers
) -> None:
    worker = link.worker("compute-1")
    started(ann)
    sweeping.do(worker)
    done = status(ann)["done"]
    worker.fail(DiskUnwritable("no space left"))
    found = status(ann)
    assert (found["status"], found["error"]["code"]) == ("failed", DiskUnwritable.code)
    assert "no space left" in found["error"]["message"]
    assert [payload["data"]["code"] for _, payload in link.streams["system.errors"]] == [DiskUnwritable.code]
    ann.ask("ResumeSweep", S1)
    assert status(ann)["done"] == done
    sweeping.run_to_end()
    assert status(ann)["status"] == "completed"


def test_a_broker_that_was_killed_goes_on_behind_what_is_stored(
    link: Link, ann: Client, sweeping: SweepWorkers
) -> None:
    worker = link.worker("compute-1")
    started(ann)
    for _ in range(3):
        sweeping.do(worker)
    stored = sweeping.store(worker)  # and its broker is gone before it hears of that
    before = dict(sweeping.rows["s1"])
    link.restart_broker()
    again = link.client("bob")
    worker = link.worker("compute-1")
    assert worker.assigned[-1].work == "SurveySweep"
    sweeping.do(worker)
    assert status(again)["done"] == len(before) == stored.first + stored.count
    assert sweeping.block(worker).first == stored.first + stored.count, "nothing is computed again"
    sweeping.run_to_end()
    assert status(again)["status"] == "completed"
    assert status(again)["done"] == UNITS


def test_a_paused_sweep_stays_paused_over_a_restart(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    worker = link.worker("compute-1")
    started(ann)
    sweeping.do(worker)
    ann.ask("PauseSweep", S1)
    sweeping.do(worker)
    link.restart_broker()
    again = link.client("bob")
    worker = link.worker("compute-1")
    assert status(again)["status"] == "paused"
    assert not sweeping.has_task(worker)
    again.ask("ResumeSweep", S1)
    assert worker.assigned[-1].work == "SurveySweep"
    sweeping.run_to_end()


def test_a_completed_sweep_is_known_after_a_restart(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    started(ann)
    sweeping.run_to_end()
    before = status(ann)
    link.restart_broker()
    after = status(link.client("bob"))
    assert {**after, "workMs": 0} == {**before, "workMs": 0}


def test_listeners_come_and_go_while_a_block_is_computed(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    started(ann)
    link.subscribe("late", "progress", b"progress.s1")
    link.unsubscribe("late", "progress", b"progress.s1")
    assert link.restarts == []
    sweeping.run_to_end()


def test_a_worker_that_speaks_of_a_block_as_a_backtest_is_refused(
    link: Link, ann: Client, sweeping: SweepWorkers
) -> None:
    worker = link.worker("compute-1")
    started(ann)
    for speak in (worker.paused, worker.resumed, worker.lent):
        speak()
    assert [signal for signal, _ in link.notices].count("message_refused") == 3
    assert link.restarts == []
    sweeping.run_to_end()


def test_every_signal_of_a_sweep_is_a_hook(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    started(ann)
    sweeping.run_to_end()
    assert {signal for signal, _ in link.notices} <= hooks.SIGNALS.keys()
    changes = [facts["status"] for signal, facts in link.notices if signal == "sweep_changed"]
    assert changes == ["queued", "running", "completed"]


def test_a_sweep_that_cannot_be_read_is_reported(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    started(ann, "old")
    started(ann, "new")
    link.disk.sweeps["old"] = msgspec.structs.replace(link.disk.sweeps["old"], checked=b"\x80")
    link.restart_broker()
    link.advance(1.0)
    assert [one["sweepId"] for one in link.client("bob").ask("ListSweeps", {})["sweeps"]] == ["new"]
    [(_, error)] = link.streams["system.errors"]
    assert "'old' was written by another version" in error["data"]["message"]
    sweeping.run_to_end("new")


def test_a_row_is_started_as_a_backtest(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    started(ann)
    ann.ask("PauseSweep", S1)
    opened = ann.ask("GetSweepRun", {"sweepId": "s1", "row": 4, "backtestId": "row4"})
    assert opened == {"backtestId": "row4", "status": "queued"}
    assert ann.ask("GetBacktestStatus", {"backtestId": "row4"})["status"] == "queued"


def test_a_sweep_is_deleted_once_it_has_ended(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    started(ann)
    assert ann.refused("DeleteSweep", S1)["code"] == "STATE_CONFLICT"
    sweeping.run_to_end()
    assert ann.ask("DeleteSweep", S1)["sweepId"] == "s1"
    assert ann.refused("GetSweepStatus", S1)["code"] == "NOT_FOUND"
    link.core.check_invariants()
    link.restart_broker()
    assert link.client("bob").ask("ListSweeps", {})["count"] == 0


@pytest.mark.parametrize("is_lost", [False, True])
@pytest.mark.parametrize("work", ["RunBlock", "ProposeBatch", "SurveySweep"])
def test_a_sweep_is_not_deleted_before_its_last_task_has_ended(
    link: Link, ann: Client, sweeping: SweepWorkers, work: str, is_lost: bool
) -> None:
    started(ann, **({} if work == "RunBlock" else LEARNT))
    if work == "SurveySweep":
        link.restart_broker()
        ann = link.client("ann")
    worker = link.worker("compute-1")
    assert worker.assigned[-1].work == work
    ann.ask("StopSweep", S1)
    assert ann.refused("DeleteSweep", S1)["code"] == "BUSY"
    if is_lost:
        link.lose_worker(worker)
    else:
        sweeping.do(worker)
    assert ann.ask("DeleteSweep", S1)["sweepId"] == "s1"
    assert ann.ask("ListSweeps", {})["count"] == 0


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"confg": {}}, "$.confg"),
        ({"config": {**request()["config"], "symbl": "X"}}, "$.config.symbl"),
        ({"config": {**request()["config"], "backtestId": "b"}}, "$.config.backtestId"),
    ],
)
def test_a_wrong_field_is_named(ann: Client, sweeping: SweepWorkers, changes: dict[str, Any], path: str) -> None:
    error = ann.refused("StartSweep", request(**changes))
    assert (error["code"], error["details"]["path"]) == ("VALIDATION_ERROR", path)


# --- on a cluster ---

CLUSTER = "tcp://127.0.0.1:8786"


def test_a_sweep_on_a_cluster_is_given_out_in_spans(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    started(ann, scheduler=CLUSTER)
    worker = link.worker("compute-1")
    assert sweeping.span(worker).checked.sweep.scheduler == CLUSTER
    for _ in range(UNITS):
        if status(ann)["status"] == "completed":
            break
        sweeping.do_span(worker, workers=8, refused=["tcp://10.0.0.9:1234: numpy 1.26, not 2.3"])
        link.core.check_invariants()
    found = status(ann)
    assert (found["status"], found["done"]) == ("completed", UNITS)
    assert found["cluster"] == {
        "scheduler": CLUSTER,
        "workers": 8,
        "refused": ["tcp://10.0.0.9:1234: numpy 1.26, not 2.3"],
    }
    assert sorted(sweeping.rows["s1"]) == list(range(UNITS))


def test_a_lost_cluster_pauses_its_sweep_and_what_is_stored_counts(
    link: Link, ann: Client, sweeping: SweepWorkers
) -> None:
    started(ann, scheduler=CLUSTER)
    worker = link.worker("compute-1")
    span = sweeping.span(worker)
    left = [(span.first + 1, 2)]
    problem = ClusterUnavailable(f"{CLUSTER} does not answer").to_data(component="engine", timestamp=0)
    sweeping.do_span(worker, left, problem=problem, pauses=True)
    found = status(ann)
    assert (found["status"], found["done"]) == ("paused", span.count - 2)
    assert found["error"]["message"] == f"{CLUSTER} does not answer"
    assert found["error"]["recoveryActions"]
    assert link.streams["progress.s1"][-1][1]["data"]["error"] == found["error"], "whoever watches is told"
    assert not sweeping.has_task(worker)
    ann.ask("ResumeSweep", S1)
    assert "error" not in status(ann)
    again = sweeping.span(worker)
    assert (again.first, again.count) == left[0]


def test_a_problem_of_the_sweep_itself_fails_it(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    started(ann, scheduler=CLUSTER)
    worker = link.worker("compute-1")
    span = sweeping.span(worker)
    problem = DataError("the bars have changed").to_data(component="engine", timestamp=0)
    sweeping.do_span(worker, [(span.first, span.count)], problem=problem)
    assert status(ann)["status"] == "failed"


def test_a_cluster_that_is_lost_while_its_sweep_is_stopped_changes_nothing(
    link: Link, ann: Client, sweeping: SweepWorkers
) -> None:
    started(ann, scheduler=CLUSTER)
    worker = link.worker("compute-1")
    span = sweeping.span(worker)
    ann.ask("StopSweep", S1)
    problem = ClusterUnavailable("it does not answer").to_data(component="engine", timestamp=0)
    sweeping.do_span(worker, [(span.first, span.count)], problem=problem, pauses=True)
    assert status(ann)["status"] == "stopped"
    link.core.check_invariants()


def test_a_span_whose_worker_here_is_lost_is_given_out_again(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    started(ann, scheduler=CLUSTER)
    worker = link.worker("compute-1")
    span = sweeping.span(worker)
    link.lose_worker(worker)
    again = sweeping.span(link.worker("compute-1"))
    assert again.first == span.first
    link.core.check_invariants()


def test_a_batch_is_proposed_when_all_rows_before_it_are_stored(
    link: Link, ann: Client, sweeping: SweepWorkers
) -> None:
    worker = link.worker("compute-1")
    accepted = started(ann, **LEARNT)
    assert accepted["batchSize"] == 100
    assert worker.assigned[-1].work == "ProposeBatch"
    sweeping.run_to_end()
    found = status(ann)
    assert (found["status"], found["done"]) == ("completed", UNITS)
    assert sorted(sweeping.rows["s1"]) == list(range(UNITS))
    works = [one.work for one in worker.assigned if one.task_id.startswith("sweep:")]
    assert works.count("ProposeBatch") == UNITS // 100
    assert set(works) == {"ProposeBatch", "RunBlock"}
    link.core.check_invariants()


def test_the_time_of_proposals_is_part_of_the_estimate(ann: Client, sweeping: SweepWorkers) -> None:
    grid = ann.ask("StartSweep", request(dryRun=True))
    learnt = ann.ask("StartSweep", request(dryRun=True, **LEARNT))
    assert learnt["estimatedMs"] == pytest.approx(grid["estimatedMs"] + UNITS * 10, abs=1)


def test_other_workers_do_other_things_while_one_proposes() -> None:
    link = Link(compute=2)
    sweeping, ann = SweepWorkers(link), link.client("ann")
    worker, other = link.worker("compute-1"), link.worker("compute-2")
    started(ann, **LEARNT)
    assert worker.assigned[-1].work == "ProposeBatch"
    assert not sweeping.has_task(other)
    started(ann, "s2")
    assert sweeping.block(other).sweep_id == "s2"
    sweeping.do(other)
    sweeping.do(worker)
    link.core.check_invariants()


def test_a_worker_that_is_lost_while_it_proposes_is_replaced_and_after_three_the_sweep_fails(
    link: Link, ann: Client, sweeping: SweepWorkers
) -> None:
    started(ann, **LEARNT)
    worker = link.worker("compute-1")
    for _ in range(MAX_PROPOSALS_LOST):
        assert worker.assigned[-1].work == "ProposeBatch"
        worker = link.lose_worker(worker)
    found = status(ann)
    assert found["status"] == "failed"
    assert "were lost while they proposed" in found["error"]["message"]
    assert not sweeping.has_task(worker)
    ann.ask("ResumeSweep", S1)
    sweeping.do(worker)
    link.lose_worker(worker)
    sweeping.run_to_end()
    assert status(ann)["done"] == UNITS


def test_a_proposal_that_fails_fails_the_sweep_and_it_can_go_on(
    link: Link, ann: Client, sweeping: SweepWorkers
) -> None:
    started(ann, **LEARNT)
    worker = link.worker("compute-1")
    worker.fail(DiskUnwritable("the disk is full"))
    assert status(ann)["error"]["message"] == "the disk is full"
    ann.ask("ResumeSweep", S1)
    sweeping.run_to_end()
    assert status(ann)["status"] == "completed"


@pytest.mark.parametrize("stored", [False, True])
def test_a_broker_that_is_killed_proposes_no_batch_twice(
    link: Link, ann: Client, sweeping: SweepWorkers, stored: bool
) -> None:
    worker = link.worker("compute-1")
    started(ann, **LEARNT)
    works = [worker.assigned[-1].work]
    while works.count("ProposeBatch") < 2:
        sweeping.do(worker)
        works.append(worker.assigned[-1].work)
    if stored:
        sweeping.propose(worker.received[-1][1][0])
    link.restart_broker()
    worker = link.worker("compute-1")
    sweeping.do(worker)
    works = [one.work for one in worker.assigned]
    assert works == ["SurveySweep", "RunBlock" if stored else "ProposeBatch"]
    sweeping.run_to_end()
    assert sorted(sweeping.rows["s1"]) == list(range(UNITS))


def test_a_pause_holds_back_the_next_batch(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    worker = link.worker("compute-1")
    started(ann, **LEARNT)
    ann.ask("PauseSweep", S1)
    sweeping.do(worker)
    assert not sweeping.has_task(worker)
    ann.ask("ResumeSweep", S1)
    assert worker.assigned[-1].work == "RunBlock"
    ann.ask("StopSweep", S1)
    sweeping.do(worker)
    assert status(ann)["status"] == "stopped"
    assert not sweeping.has_task(worker)


def test_a_cluster_takes_two_workers_of_the_broker_and_leaves_the_others_to_backtests() -> None:
    link = Link(compute=3)
    sweeping, ann = SweepWorkers(link), link.client("ann")
    started(ann, scheduler=CLUSTER)
    sweeping.do_span(link.worker("compute-1"), workers=4)
    at_spans = [one for one in link.workers.values() if one.kind == "compute" and sweeping.has_task(one)]
    assert len(at_spans) == MAX_SPANS == 2
    link.core.check_invariants()
    start(ann, "b1")
    [free] = [one for one in link.workers.values() if one.kind == "compute" and one not in at_spans]
    assert free.assigned[-1].work == "RunBacktest"
