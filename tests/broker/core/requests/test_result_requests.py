"""Stored results are listed, pinned, deleted and pruned; what runs or is pinned is refused with the reason."""

from __future__ import annotations

import msgspec
import pytest

from backtestr_broker.core.requests import result_requests as result_requests_module
from backtestr_broker.core.retention import RetentionRules
from support.broker.clients import Client
from support.broker.link import LIMITS, WALL_MS, Link, Worker, config
from support.broker.steps import MakeLink, start

DAY = 86_400_000
B1 = {"backtestId": "b1"}


@pytest.fixture
def four(link: Link) -> Link:
    """Return a link with four results of backtests that the broker does not know, of 10 to 40 bytes."""
    link.disk.files = {f"b{number}": (10 * number, WALL_MS - (10 - number) * DAY) for number in range(1, 5)}
    return link


def test_results_are_listed_the_latest_first_with_their_sizes(four: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b9")
    worker.finish()
    four.disk.files["b9"] = (5, WALL_MS)
    ann.ask("PinBacktest", {"backtestId": "b2", "pinned": True})
    listed = ann.ask("ListResults", {})
    assert [(one["backtestId"], one["bytes"]) for one in listed["results"]] == [
        ("b9", 5),
        ("b4", 40),
        ("b3", 30),
        ("b2", 20),
        ("b1", 10),
    ]
    assert listed["results"][0]["status"] == "completed"
    assert "status" not in listed["results"][1]
    assert [one["backtestId"] for one in listed["results"] if one.get("pinned")] == ["b2"]
    assert (listed["count"], listed["bytes"]) == (5, 105)
    assert len(ann.ask("ListResults", {"limit": 2})["results"]) == 2
    assert ann.refused("ListResults", {"limit": 0})["code"] == "VALIDATION_ERROR"


def test_a_backtest_that_has_not_ended_is_not_deleted(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1", "b2")
    for name, status in (("b1", "running"), ("b2", "queued")):
        refused = ann.refused("DeleteBacktest", {"backtestId": name})
        assert refused["code"] == "STATE_CONFLICT"
        assert refused["details"]["status"] == status
        assert "stop it (StopBacktest)" in refused["message"]
    worker.finish()
    assert ann.ask("DeleteBacktest", B1) == {"backtestId": "b1", "freedBytes": 0}


def test_a_backtest_on_its_way_to_disk_is_not_deleted_though_old_files_have_its_name(link: Link, ann: Client) -> None:
    link.disk.files["b1"] = (10, WALL_MS)
    with link.hold_commits():
        started = ann.later("StartBacktest", config(backtestId="b1"))
        assert ann.refused("DeleteBacktest", B1)["code"] == "STATE_CONFLICT"
    assert ann.answer(started)["status"] == "queued"
    assert "b1" in link.disk.jobs


def test_an_unknown_backtest_is_not_found_with_the_near_miss(four: Link, ann: Client) -> None:
    four.disk.files["my-study"] = (1, WALL_MS)
    for request, data in (("DeleteBacktest", {}), ("PinBacktest", {"pinned": True})):
        refused = ann.refused(request, {"backtestId": "my-stduy", **data})
        assert refused["code"] == "NOT_FOUND"
        assert "did you mean 'my-study'?" in refused["message"]
    assert ann.refused("DeleteBacktest", {"backtestId": "../../etc"})["code"] == "NOT_FOUND"


def test_a_deletion_is_made_once_for_a_request_key(four: Link, ann: Client) -> None:
    first = ann.ask("DeleteBacktest", B1, message_id="delete")
    assert ann.ask("DeleteBacktest", B1, message_id="delete") == first == {"backtestId": "b1", "freedBytes": 10}
    assert ann.refused("DeleteBacktest", B1)["code"] == "NOT_FOUND"
    four.restart_broker()
    assert four.client().ask("DeleteBacktest", B1, message_id="delete") == first


def test_a_pinned_backtest_is_not_deleted_until_it_is_unpinned(four: Link, ann: Client) -> None:
    assert ann.ask("PinBacktest", {"backtestId": "b1", "pinned": True}) == {"backtestId": "b1", "pinned": True}
    assert ann.ask("PinBacktest", {"backtestId": "b1", "pinned": True})["pinned"]
    four.restart_broker()
    ann = four.client()
    refused = ann.refused("DeleteBacktest", B1)
    assert refused["code"] == "STATE_CONFLICT"
    assert "unpin it (PinBacktest)" in refused["message"]
    assert ann.ask("PinBacktest", {"backtestId": "b1", "pinned": False}) == {"backtestId": "b1", "pinned": False}
    assert four.disk.pins == {}
    assert ann.ask("DeleteBacktest", B1)["freedBytes"] == 10


def test_a_pin_that_cannot_be_written_is_no_pin(four: Link, ann: Client) -> None:
    with four.full_disk():
        assert ann.refused("PinBacktest", {"backtestId": "b1", "pinned": True})["code"] == "SYSTEM_ERROR"
    assert ann.ask("DeleteBacktest", B1)["freedBytes"] == 10


def test_a_running_backtest_may_be_pinned(link: Link, ann: Client) -> None:
    start(ann, "b1")
    assert ann.ask("PinBacktest", {"backtestId": "b1", "pinned": True})["pinned"]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"maxCount": 3}, {"b1": "more than 3 are stored"}),
        ({"maxAgeMs": 7 * DAY}, {"b1": "older than 7 days", "b2": "older than 7 days"}),
        ({"maxBytes": 70}, {"b1": "more than 70 bytes are stored", "b2": "more than 70 bytes are stored"}),
        ({"maxCount": 1, "keepNewest": 3}, {"b1": "more than 1 are stored"}),
        ({}, {}),
    ],
)
def test_pruning_deletes_what_a_dry_run_names(
    four: Link, ann: Client, bounds: dict[str, int], expected: dict[str, str]
) -> None:
    planned = ann.ask("PruneResults", {"dryRun": True, **bounds})
    assert {one["backtestId"]: one["reason"] for one in planned["results"]} == expected
    assert planned["dryRun"]
    assert len(four.disk.files) == 4
    done = ann.ask("PruneResults", bounds)
    assert done == {**planned, "dryRun": False}
    assert done["freedBytes"] == sum(one["bytes"] for one in done["results"])
    assert four.disk.files.keys() == {"b1", "b2", "b3", "b4"} - expected.keys()


def test_pruning_without_bounds_uses_the_configured_ones(make_link: MakeLink) -> None:
    link = make_link(limits=msgspec.structs.replace(LIMITS, retention=RetentionRules(max_count=3, keep_newest=2)))
    link.tick()
    link.disk.files = {f"b{number}": (1, number) for number in range(5)}
    ann = link.client()
    planned = ann.ask("PruneResults", {"dryRun": True})
    assert [one["backtestId"] for one in planned["results"]] == ["b0", "b1"]


def test_a_prune_is_bounded_and_says_what_remains(four: Link, ann: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_requests_module, "MAX_PRUNED", 2)
    done = ann.ask("PruneResults", {"maxCount": 1})
    assert ([one["backtestId"] for one in done["results"]], done["remaining"]) == (["b1", "b2"], 1)
    assert sorted(four.disk.files) == ["b3", "b4"]


def test_one_prune_at_a_time(four: Link, ann: Client) -> None:
    four.holds_surveys = True
    first = ann.later("PruneResults", {"maxCount": 3})
    assert ann.refused("PruneResults", {"maxCount": 3})["code"] == "BUSY"
    listed = ann.later("ListResults", {})
    four.holds_surveys = False
    four.feed(four.disk.survey(four.wall_ms))
    assert ann.answer(first)["freedBytes"] == 10
    assert ann.answer(listed)["count"] == 4, "as they were when the request came"
    assert ann.ask("PruneResults", {"maxCount": 3})["results"] == []
