"""The status of a sweep says how many trials its data had before it, and after its end how many there are now."""

from __future__ import annotations

from typing import Any

import pytest

from backtestr_protocol.errors import DataError
from support.broker.clients import Client
from support.broker.link import Link
from support.broker.sweep_steps import GROUP, UNITS, SweepWorkers, request, started

S1 = {"sweepId": "s1"}


@pytest.fixture
def sweeping(link: Link) -> SweepWorkers:
    return SweepWorkers(link)


def status(client: Client, sweep_id: str = "s1") -> dict[str, Any]:
    return dict(client.ask("GetSweepStatus", {"sweepId": sweep_id}))


def told(found: dict[str, Any]) -> tuple[int | None, int | None]:
    return found.get("trialsBefore"), found.get("trialsAfter")


def test_the_trials_are_told_before_and_after_a_sweep(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    sweeping.trials = {5_001, 5_002}
    accepted = started(ann)
    assert (accepted["trialsBefore"], accepted["trialGroup"]) == (2, GROUP)
    assert told(status(ann)) == (2, None)
    sweeping.run_to_end()
    found = status(ann)
    assert (told(found), found["trialGroup"]) == ((2, UNITS + 2), GROUP)
    assert [told(one) for one in ann.ask("ListSweeps", {})["sweeps"]] == [(2, UNITS + 2)]
    published = [payload["data"] for _, payload in link.streams["progress.s1"]]
    assert [told(one)[1] for one in published[-2:]] == [None, UNITS + 2]
    assert {one["status"] for one in published[-2:]} == {"completed"}


def test_a_dry_run_says_how_many_trials_there_are(ann: Client, sweeping: SweepWorkers) -> None:
    sweeping.trials = {1, 2, 3}
    assert ann.ask("StartSweep", request(dryRun=True))["trialsBefore"] == 3


def test_a_sweep_is_counted_once_its_last_block_is_back(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    worker = link.worker("compute-1")
    started(ann)
    sweeping.do(worker)
    ann.ask("StopSweep", S1)
    assert told(status(ann)) == (0, None)
    sweeping.do(worker)
    assert told(status(ann)) == (0, len(sweeping.trials))


def test_a_worker_that_is_lost_with_the_last_block_lets_it_be_counted(
    link: Link, ann: Client, sweeping: SweepWorkers
) -> None:
    worker = link.worker("compute-1")
    started(ann)
    sweeping.do(worker)
    ann.ask("StopSweep", S1)
    link.lose_worker(worker)
    assert told(status(ann)) == (0, len(sweeping.trials))


def test_a_sweep_that_goes_on_is_counted_anew(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    worker = link.worker("compute-1")
    started(ann)
    sweeping.do(worker)
    worker.fail(DataError("the disk is full"))
    assert (status(ann)["status"], *told(status(ann))) == ("failed", 0, len(sweeping.trials))
    ann.ask("ResumeSweep", S1)
    assert told(status(ann)) == (0, None)
    sweeping.run_to_end()
    assert told(status(ann)) == (0, UNITS)


def test_the_number_outlives_the_broker(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    started(ann)
    sweeping.run_to_end()
    link.advance(5.0)
    link.restart_broker()
    assert told(status(link.client("bob"))) == (0, UNITS)
    assert [one.work for one in link.worker("interactive-1").assigned] == [], "it is not counted again"


@pytest.mark.parametrize("fails", [True, False], ids=["an error", "other bytes"])
def test_a_count_that_fails_is_reported_and_made_up_for(
    link: Link, ann: Client, sweeping: SweepWorkers, fails: bool
) -> None:
    started(ann)
    counter = link.worker("interactive-1")
    counter.answers = False
    sweeping.run_to_end()
    assert counter.assigned[-1].work == "GetTrials"
    assert told(status(ann)) == (0, None)
    assert [one.work for one in counter.assigned].count("GetTrials") == 1, "it is being counted"
    if fails:
        counter.fail(DataError("the ledger cannot be read"))
    else:
        counter.finish(data=b"\xc1")
    assert len(link.streams["system.errors"]) == 1
    counter.answers = True
    assert told(status(ann)) == (0, None), "it is asked for with this request, and not waited for"
    assert told(status(ann)) == (0, UNITS)


def test_a_sweep_of_an_earlier_version_is_not_counted(link: Link, ann: Client, sweeping: SweepWorkers) -> None:
    started(ann)
    sweep = link.core.scheduler.sweeping.sweeps.get("s1")
    sweep.checked = type(sweep.checked)(
        **{name: getattr(sweep.checked, name) for name in sweep.checked.__struct_fields__ if "trial" not in name}
    )
    sweeping.run_to_end()
    assert told(status(ann)) == (None, None)
