"""A deleted backtest is gone as a whole, after a crash at any moment too, and retention deletes what is due."""

from __future__ import annotations

import msgspec
import pytest

from backtestr_broker.core import deletions as deletions_module
from backtestr_broker.core.deletions import SURVEY_INTERVAL, SURVEY_PATIENCE, SURVEY_SOON
from backtestr_broker.core.events import FilesSurveyed, SurveyFiles
from backtestr_broker.core.retention import RetentionRules
from support.broker.clients import Client
from support.broker.link import LIMITS, WALL_MS, Link, Worker, config
from support.broker.steps import MakeLink, start

B1 = {"backtestId": "b1"}
DAY = 86_400_000


def ended(link: Link, ann: Client, *names: str) -> None:
    """Have backtests run to their end, with a result of 100 bytes each."""
    for name in names:
        start(ann, name)
        link.worker("compute-1").finish()
        link.disk.files[name] = (100, link.wall_ms)


def surveys(link: Link) -> int:
    return sum(isinstance(one, SurveyFiles) for effects in link.effects for one in effects)


def test_a_backtest_is_deleted_with_its_record_its_files_and_its_topics(link: Link, ann: Client) -> None:
    ended(link, ann, "b1", "b2")
    assert ann.ask("DeleteBacktest", B1) == {"backtestId": "b1", "freedBytes": 100}
    assert list(link.disk.jobs) == ["b2"]
    assert list(link.disk.files) == ["b2"]
    assert link.disk.deletions == {}
    assert ann.refused("GetBacktestStatus", B1)["code"] == "NOT_FOUND"
    assert ann.refused("FetchMissed", {"topic": "orders.b1", "fromSeq": 1})["code"] == "NOT_FOUND"
    assert [one["backtestId"] for one in ann.ask("ListBacktests", {})["backtests"]] == ["b2"]
    start(ann, "b1")
    assert link.disk.jobs["b1"].status == "running"


def test_a_deletion_that_is_not_on_disk_has_not_happened(link: Link, ann: Client) -> None:
    ended(link, ann, "b1")
    with link.hold_commits():
        asked = ann.later("DeleteBacktest", B1)
        assert ann.ask("GetBacktestStatus", B1)["status"] == "completed"
        assert ann.refused("DeleteBacktest", B1)["code"] == "BUSY"
        assert ann.refused("StartBacktest", config(**B1))["code"] == "STATE_CONFLICT"
        assert link.disk.files
    assert ann.answer(asked)["freedBytes"] == 100


def test_a_deletion_that_cannot_be_written_deletes_nothing(link: Link, ann: Client) -> None:
    ended(link, ann, "b1")
    with link.full_disk():
        assert ann.refused("DeleteBacktest", B1, message_id="delete")["code"] == "SYSTEM_ERROR"
    assert ann.ask("GetBacktestStatus", B1)["status"] == "completed"
    assert link.disk.files
    assert ann.ask("DeleteBacktest", B1, message_id="delete")["freedBytes"] == 100


def test_a_broker_that_ends_before_the_files_are_gone_leaves_that_to_the_next(link: Link, ann: Client) -> None:
    ended(link, ann, "b1")
    link.holds_removals = True
    ann.later("DeleteBacktest", B1, message_id="delete")
    for request in ("GetBacktestResults", "GetPerformanceMetrics"):
        refused = ann.refused(request, B1)
        assert (refused["code"], refused["message"]) == ("NOT_FOUND", "backtest 'b1' was deleted")
    link.holds_removals = False
    link.restart_broker()
    assert link.disk.files, "the broker has not come to it"
    link.tick()
    assert link.disk.files == {}
    assert link.disk.deletions == {}
    ann = link.client()
    assert ann.ask("DeleteBacktest", B1, message_id="delete") == {"backtestId": "b1", "freedBytes": 100}
    assert ann.refused("DeleteBacktest", B1)["code"] == "NOT_FOUND"


def test_a_broker_that_ends_before_the_commit_leaves_the_backtest(link: Link, ann: Client) -> None:
    ended(link, ann, "b1")
    link.disk.held = True
    ann.later("DeleteBacktest", B1, message_id="delete")
    link.disk.held = False
    link.restart_broker()
    link.tick()
    ann = link.client()
    assert ann.ask("GetBacktestStatus", B1)["status"] == "completed"
    assert link.disk.files
    assert ann.ask("DeleteBacktest", B1, message_id="delete")["freedBytes"] == 100


def test_files_that_cannot_be_removed_are_reported_once_and_tried_again(link: Link, ann: Client) -> None:
    ended(link, ann, "b1")
    link.disk.stuck.add("b1")
    refused = ann.refused("DeleteBacktest", B1)
    assert refused["code"] == "SYSTEM_ERROR"
    assert "could not be removed: Permission denied" in refused["message"]
    assert ann.refused("GetBacktestResults", B1)["code"] == "NOT_FOUND"
    reported = len(link.streams["system.errors"])
    link.advance(3 * SURVEY_INTERVAL)
    assert len(link.streams["system.errors"]) == reported
    assert list(link.disk.deletions) == ["b1"]
    link.disk.stuck.clear()
    link.advance(SURVEY_INTERVAL + 1)
    assert link.disk.files == {}
    assert link.disk.deletions == {}


def test_a_job_whose_record_waits_to_be_written_is_not_written_after_its_deletion(link: Link, ann: Client) -> None:
    ended(link, ann, "b1")
    with link.hold_commits():
        asked = ann.later("DeleteBacktest", B1)
        link.core.scheduler.jobs.save("b1")
        link.advance(2)
    assert ann.answer(asked)["freedBytes"] == 100
    assert link.disk.jobs == {}


# --- surveys ---


def test_files_are_surveyed_at_the_start_every_minute_and_soon_after_an_end(make_link: MakeLink) -> None:
    link = make_link()
    link.tick()
    assert surveys(link) == 1
    link.advance(SURVEY_INTERVAL + 1)
    assert surveys(link) == 2
    ended(link, link.client(), "b1")
    link.advance(1 + SURVEY_SOON + 1)
    assert surveys(link) == 3
    assert link.client().ask("GetSystemStatus")["disk"]["resultsBytes"] == 100


def test_a_survey_that_fails_is_the_answer_of_what_waits_for_it(
    link: Link, ann: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(link.disk, "survey", lambda wall_ms: FilesSurveyed({}, [], None, "not a folder", wall_ms))
        assert "cannot be counted: not a folder" in ann.refused("ListResults", {})["message"]
    assert ann.ask("ListResults", {})["count"] == 0


def test_a_request_waits_for_a_survey_that_began_after_it(link: Link, ann: Client) -> None:
    link.holds_surveys = True
    first = ann.later("ListResults", {})
    link.disk.files["b9"] = (7, 1)
    survey = link.disk.survey(link.wall_ms)
    link.disk.files["b8"] = (8, 2)
    second = ann.later("ListResults", {})
    link.holds_surveys = False
    link.feed(survey)
    assert ann.answer(first)["bytes"] == 7
    assert ann.answer(second)["bytes"] == 15


def test_a_survey_is_followed_by_a_rest_of_some_times_its_length(link: Link, ann: Client) -> None:
    """Requests in a loop must not keep the disk and the processor busy; nobody waits longer than some seconds."""
    for took, rest in ((0.5, 2.0), (100.0, 10.0)):
        link.holds_surveys = True
        first = ann.later("ListResults", {})
        link.now += took
        link.holds_surveys = False
        link.feed(link.disk.survey(link.wall_ms))
        assert ann.answer(first)["count"] == 0
        second = ann.later("ListResults", {})
        link.advance(rest - 0.1)
        assert ann.answers(second) == []
        link.advance(0.2)
        assert ann.answer(second)["count"] == 0


def test_a_survey_that_hangs_keeps_no_request_waiting_for_good(link: Link, ann: Client) -> None:
    link.holds_surveys = True
    asked = ann.later("ListResults", {})
    link.advance(SURVEY_PATIENCE - 2)
    assert ann.answers(asked) == []
    link.advance(4)
    assert "the disk has not answered for" in ann.answer(asked)["message"]
    reasons = link.client("bob").ask("GetSystemStatus")["reasons"]
    assert any("the results cannot be counted" in reason for reason in reasons)
    link.holds_surveys = False
    link.feed(link.disk.survey(link.wall_ms))
    reasons = link.client("carl").ask("GetSystemStatus").get("reasons", [])
    assert not any("cannot be counted" in reason for reason in reasons)


def test_waiting_requests_are_bounded(link: Link, ann: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletions_module, "MAX_WAITING", 0)
    assert ann.refused("ListResults", {})["code"] == "BUSY"


# --- retention ---


def with_rules(make_link: MakeLink, **rules: int) -> Link:
    return make_link(limits=msgspec.structs.replace(LIMITS, retention=RetentionRules(**rules)))


def test_retention_deletes_the_oldest_with_their_records_and_says_so(make_link: MakeLink) -> None:
    link = with_rules(make_link, max_count=2)
    ann = link.client()
    ended(link, ann, "b1", "b2", "b3", "b4")
    link.advance(SURVEY_SOON + 2)
    assert list(link.disk.files) == list(link.disk.jobs) == ["b3", "b4"]
    assert [one["backtestId"] for one in link.signals("backtest_deleted")] == ["b1", "b2"]
    assert link.signals("backtest_deleted")[0]["reason"] == "more than 2 are stored"
    assert ann.refused("GetBacktestStatus", B1)["code"] == "NOT_FOUND"


def test_retention_spares_what_runs_is_pinned_or_newest(make_link: MakeLink) -> None:
    link = with_rules(make_link, max_age_ms=DAY, keep_newest=1)
    ann = link.client()
    ended(link, ann, "old", "pinned", "newest")
    start(ann, "running")
    for at, name in enumerate(("old", "pinned", "running", "newest", "forgotten")):
        link.disk.files[name] = (100, WALL_MS - 10 * DAY + at)
    link.disk.files["newest"] = (100, WALL_MS - 2 * DAY)
    ann.ask("PinBacktest", {"backtestId": "pinned", "pinned": True})
    link.advance(SURVEY_INTERVAL + 1)
    assert sorted(link.disk.files) == ["newest", "pinned", "running"]
    assert sorted(link.disk.jobs) == ["newest", "pinned", "running"]


def test_many_due_results_are_deleted_in_parts(make_link: MakeLink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletions_module, "RETENTION_BATCH", 3)
    link = with_rules(make_link, max_count=1)
    link.disk.files = {f"b{number}": (1, number) for number in range(10)}
    link.advance(2)
    assert list(link.disk.files) == ["b9"]
    assert link.disk.commits >= 3


def test_retention_that_cannot_be_written_is_tried_again(make_link: MakeLink) -> None:
    link = with_rules(make_link, max_count=1)
    link.disk.files = {"b1": (1, 1), "b2": (1, 2)}
    with link.full_disk():
        link.advance(2)
        assert len(link.disk.files) == 2
        assert link.signals("backtest_deleted") == []
    link.advance(SURVEY_INTERVAL + 1)
    assert list(link.disk.files) == ["b2"]


def test_a_worker_that_is_lost_in_a_deletion_changes_nothing(link: Link, ann: Client, worker: Worker) -> None:
    ended(link, ann, "b1")
    start(ann, "b2")
    with link.hold_commits():
        asked = ann.later("DeleteBacktest", B1)
        link.lose_worker(worker)
    assert ann.answer(asked)["freedBytes"] == 100
    assert link.disk.jobs["b2"].status == "running"
