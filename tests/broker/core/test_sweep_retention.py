"""Retention deletes the oldest sweeps that have ended, with their rows and records, and says so."""

from __future__ import annotations

import msgspec
import pytest

from backtestr_broker.core import sweep_retention
from backtestr_broker.core.deletions import SURVEY_INTERVAL
from backtestr_broker.core.retention import RetentionRules
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import DataError
from support.broker.clients import Client
from support.broker.link import LIMITS, Link
from support.broker.steps import MakeLink
from support.broker.sweep_steps import SweepWorkers, request


def with_rules(make_link: MakeLink, **rules: int) -> tuple[Link, Client, SweepWorkers]:
    link = make_link(limits=msgspec.structs.replace(LIMITS, sweep_retention=RetentionRules(**rules)))
    return link, link.client(), SweepWorkers(link)


def ended(ann: Client, workers: SweepWorkers, *names: str) -> None:
    for name in names:
        ann.ask("StartSweep", request(name))
        workers.run_to_end(name)


def names(link: Link) -> list[str]:
    return [sweep.sweep_id for sweep in link.core.scheduler.sweeping.sweeps]


def test_the_oldest_are_deleted_with_rows_and_records(make_link: MakeLink) -> None:
    link, ann, workers = with_rules(make_link, max_count=2)
    ended(ann, workers, "s1", "s2", "s3", "s4")
    link.disk.sweep_bytes = {"s1": 600, "s2": 700}
    link.advance(SURVEY_INTERVAL + 1)
    assert names(link) == ["s3", "s4"]
    assert sorted(workers.rows) == sorted(link.disk.sweeps) == ["s3", "s4"]
    told = [(one["sweepId"], one["bytes"]) for one in link.signals("sweep_deleted")]
    assert told == [("s1", 600), ("s2", 700)]
    assert link.signals("sweep_deleted")[0]["reason"] == "more than 2 are stored"
    bob = link.client("bob")
    assert bob.refused("GetSweepStatus", {"sweepId": "s1"})["code"] == "NOT_FOUND"
    ended(bob, workers, "s1")  # its id is free again


def test_bytes_count(make_link: MakeLink) -> None:
    link, ann, workers = with_rules(make_link, max_bytes=1_000)
    ended(ann, workers, "s1", "s2")
    link.advance(SURVEY_INTERVAL + 1)
    assert names(link) == ["s1", "s2"]
    link.disk.sweep_bytes = {"s1": 600, "s2": 700}
    link.advance(SURVEY_INTERVAL + 1)
    assert names(link) == ["s2"]


def test_one_that_is_paused_and_the_newest_stay(make_link: MakeLink) -> None:
    link, ann, workers = with_rules(make_link, max_age_ms=1_000, keep_newest=1)
    ann.ask("StartSweep", request("paused"))
    ann.ask("PauseSweep", {"sweepId": "paused"})
    ended(ann, workers, "old", "newest")
    link.advance(SURVEY_INTERVAL + 1)
    assert names(link) == ["paused", "newest"]


def test_one_that_was_stopped_stays_until_its_last_task_has_ended(make_link: MakeLink) -> None:
    link, ann, workers = with_rules(make_link, max_age_ms=1_000)
    ann.ask("StartSweep", request("learnt", method="tpe", batchSize=100))
    worker = link.worker("compute-1")
    assert worker.assigned[-1].work == "ProposeBatch"
    ann.ask("StopSweep", {"sweepId": "learnt"})
    link.advance(SURVEY_INTERVAL + 1)
    assert names(link) == ["learnt"]
    workers.do(worker)
    link.advance(SURVEY_INTERVAL + 1)
    assert names(link) == []


def test_many_are_deleted_in_parts(make_link: MakeLink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_retention, "BATCH", 2)
    link, ann, workers = with_rules(make_link, max_count=1)
    ended(ann, workers, "s1", "s2", "s3", "s4")
    link.advance(SURVEY_INTERVAL + 1)
    assert names(link) == ["s3", "s4"]
    link.advance(SURVEY_INTERVAL + 1)
    assert names(link) == ["s4"]


def test_one_that_cannot_be_deleted_is_told_once_and_tried_again(make_link: MakeLink) -> None:
    link, ann, workers = with_rules(make_link, max_count=1)
    ended(ann, workers, "s1", "s2")
    worker = link.worker("interactive-1")
    worker.answers = False
    for _ in range(2):
        link.advance(SURVEY_INTERVAL + 1)
        worker.fail(DataError("the folder is not writable"), worker.task_id)
    assert names(link) == ["s1", "s2"]
    [(_, error)] = link.streams["system.errors"]
    assert error["data"]["message"].startswith("sweep 's1' is due (more than 1 are stored), and could not be deleted: ")
    link.advance(SURVEY_INTERVAL + 1)
    worker.finish(worker.task_id, data=encode({"sweepId": "s1", "freedBytes": 0}))
    assert names(link) == ["s2"]
