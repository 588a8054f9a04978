"""A change of the shared state is made once, and answered and published when it is on disk."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from backtestr_broker.core import commit_queue as commit_queue_module
from backtestr_broker.core.clients.idempotency import KEPT_SECONDS
from backtestr_protocol.state_values import checksum, value_bytes
from support.broker.clients import Client
from support.broker.link import LIMITS, Link
from support.broker.steps import MakeLink
from support.protocol.independent import Fields


def changes(link: Link, key: str = "a") -> list[Fields]:
    """Return the published changes of a key."""
    return [payload["data"] for _, payload in link.streams[f"state.{key}"]]


def update(client: Client, key: str = "a", value: Any = 1, **more: Any) -> Fields:
    return client.ask("UpdateState", {"key": key, "value": value, **more})


def test_a_key_is_set_read_deleted_and_published(link: Link, ann: Client) -> None:
    value = {"b": [1, None, 2.5], "a": "é"}
    kept = checksum(value_bytes(value))
    assert update(ann, value=value) == {"key": "a", "version": 1, "checksum": kept}
    entry = {"key": "a", "value": value, "version": 1, "checksum": kept, "timestamp": link.wall_ms}
    assert ann.ask("GetState", {"key": "a"}) == entry
    assert ann.ask("SnapshotState", {"prefix": ""}) == {"entries": [entry], "watermark": 1}
    assert ann.ask("DeleteState", {"key": "a"}) == {"key": "a", "version": 2}
    assert ann.refused("GetState", {"key": "a"})["code"] == "NOT_FOUND"
    assert ann.ask("SnapshotState", {"prefix": ""}) == {"entries": [], "watermark": 2}
    deleted = {**entry, "value": None, "version": 2, "checksum": checksum(b"\xc0"), "deleted": True, "revision": 2}
    assert changes(link) == [{**entry, "revision": 1}, deleted]


def test_a_conflict_has_the_current_value_and_version(ann: Client) -> None:
    update(ann, value={"x": [1]})
    refused = ann.refused("UpdateState", {"key": "a", "value": 2, "expectedVersion": 0})
    assert refused["code"] == "STATE_CONFLICT"
    assert refused["details"] == {"currentVersion": 1, "currentValue": {"x": [1]}}
    assert update(ann, value=2, expectedVersion=1)["version"] == 2
    assert ann.refused("DeleteState", {"key": "a", "expectedVersion": 1})["details"]["currentVersion"] == 2


@pytest.mark.parametrize(
    "key", ["", ".", "a.", ".a", "a..b", "a b", "a/b", "é", "a\n", "x" * 257, "a" * 128 + "." + "b" * 128]
)
@pytest.mark.parametrize("request_type", ["GetState", "UpdateState", "DeleteState"])
def test_an_invalid_key_is_refused_by_its_path(ann: Client, request_type: str, key: str) -> None:
    refused = ann.refused(request_type, {"key": key, "value": 1})
    assert (refused["code"], refused["details"]) == ("VALIDATION_ERROR", {"path": "$.key"})


@pytest.mark.parametrize("key", ["a", "A-1_.b.0", "x" * 256, "a" * 127 + "." + "b" * 128])
def test_dotted_names_are_keys(ann: Client, key: str) -> None:
    assert update(ann, key)["key"] == key


def test_a_missing_value_is_not_nil(ann: Client) -> None:
    assert ann.refused("UpdateState", {"key": "a"})["details"] == {"path": "$.value"}
    assert update(ann, value=None)["checksum"] == checksum(b"\xc0")
    assert ann.ask("GetState", {"key": "a"})["value"] is None


# --- on disk first ---


def test_a_change_is_answered_read_and_published_once_it_is_on_disk(link: Link, ann: Client) -> None:
    with link.hold_commits():
        asked = ann.later("UpdateState", {"key": "a", "value": 1})
        assert ann.refused("GetState", {"key": "a"})["code"] == "NOT_FOUND"
        assert changes(link) == []
        link.write_disk()
        assert ann.answer(asked)["version"] == 1
        assert link.disk.state["a"].value == value_bytes(1)
    assert [one["version"] for one in changes(link)] == [1]


def test_changes_on_their_way_are_ordered_like_others(link: Link, ann: Client) -> None:
    with link.hold_commits():
        first = ann.later("UpdateState", {"key": "a", "value": 1, "expectedVersion": 0})
        second = ann.later("UpdateState", {"key": "a", "value": 2, "expectedVersion": 1})
        lost = ann.later("UpdateState", {"key": "a", "value": 3, "expectedVersion": 1})
        gone = ann.later("DeleteState", {"key": "a"})
        missing = ann.later("DeleteState", {"key": "a"})
        link.write_disk(1)
        assert ann.answer(first)["version"] == 1
        assert ann.answers(second) == ann.answers(lost) == []
        link.write_disk(1)
        assert ann.answer(second)["version"] == 2
        assert ann.answer(lost)["details"] == {"currentVersion": 2, "currentValue": 2}
        assert ann.answers(missing) == []
    assert ann.answer(gone)["version"] == 3
    assert ann.answer(missing)["code"] == "NOT_FOUND"
    assert [(one["version"], one.get("deleted", False)) for one in changes(link)] == [(1, False), (2, False), (3, True)]


def test_a_change_that_cannot_be_written_is_undone(link: Link, ann: Client) -> None:
    """A change that builds on it, and a refusal because of it, fail with it."""
    update(ann, value="before")
    link.disk.held = True
    asked = [
        ann.later("UpdateState", {"key": "a", "value": 1, "expectedVersion": 1}, message_id="the same"),
        ann.later("UpdateState", {"key": "a", "value": 2, "expectedVersion": 2}),
        ann.later("UpdateState", {"key": "a", "value": 3, "expectedVersion": 1}),
    ]
    with link.full_disk():
        link.write_disk(1)
    link.disk.held = False
    link.write_disk()
    assert [ann.answer(one)["code"] for one in asked] == ["SYSTEM_ERROR"] * 3
    assert ann.ask("GetState", {"key": "a"})["value"] == "before"
    assert link.disk.state["a"].version == 1
    ann.inbox.clear()
    again = ann.ask("UpdateState", {"key": "a", "value": 1, "expectedVersion": 1}, message_id="the same")
    assert again["version"] == 2
    assert [one["version"] for one in changes(link)] == [1, 2]


def test_a_change_is_busy_while_too_much_is_on_its_way_to_disk(
    link: Link, ann: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_queue_module, "MAX_UNCOMMITTED", 2)
    with link.hold_commits():
        for number in range(2):
            ann.later("UpdateState", {"key": f"k{number}", "value": 1})
        assert ann.refused("UpdateState", {"key": "a", "value": 1}, message_id="r")["code"] == "BUSY"
    assert ann.ask("UpdateState", {"key": "a", "value": 1, "expectedVersion": 0}, message_id="r")["version"] == 1


# --- after a restart ---


def test_state_and_its_versions_outlive_the_broker(link: Link, ann: Client) -> None:
    update(ann, "a", 1)
    update(ann, "b", 2)
    ann.ask("DeleteState", {"key": "b"})
    link.restart_broker()
    ann = link.client()
    assert ann.ask("GetState", {"key": "a"})["value"] == 1
    assert ann.refused("GetState", {"key": "b"})["code"] == "NOT_FOUND"
    assert update(ann, "b", 3, expectedVersion=0)["version"] == 3
    assert ann.ask("SnapshotState", {"prefix": "b"})["watermark"] == 4
    assert [one["revision"] for one in changes(link, "b")] == [4]


@pytest.mark.parametrize("request_type", ["UpdateState", "DeleteState"])
def test_a_change_sent_again_to_the_next_broker_is_not_made_twice(link: Link, ann: Client, request_type: str) -> None:
    update(ann)
    data = {"key": "a", "value": 5, "expectedVersion": 1}
    first = ann.ask(request_type, data, message_id="r")
    link.restart_broker()
    ann, bob = link.client(), link.client("bob")
    assert ann.ask(request_type, data, message_id="r") == first
    assert link.disk.state["a"].version == 2
    assert bob.refused(request_type, data, message_id="r")["code"] == "STATE_CONFLICT"


def test_an_answer_is_remembered_for_its_time_across_restarts(link: Link, ann: Client) -> None:
    ann.ask("UpdateState", {"key": "a", "value": 1}, message_id="r")
    link.now += KEPT_SECONDS - 1
    link.restart_broker()
    assert link.client().ask("UpdateState", {"key": "a", "value": 1}, message_id="r")["version"] == 1
    link.now += 1
    assert link.client().ask("UpdateState", {"key": "a", "value": 1}, message_id="r")["version"] == 2


def test_a_clock_that_was_put_back_makes_answers_no_younger_than_now(link: Link, ann: Client) -> None:
    ann.ask("UpdateState", {"key": "a", "value": 1}, message_id="r")
    link.wall_offset -= 3_600_000
    link.restart_broker()
    assert link.client().ask("UpdateState", {"key": "a", "value": 1}, message_id="r")["version"] == 1
    link.now += KEPT_SECONDS
    assert link.client().ask("UpdateState", {"key": "a", "value": 1}, message_id="r")["version"] == 2


def test_the_topic_of_a_quiet_key_is_known(link: Link, ann: Client) -> None:
    update(ann)
    link.restart_broker()
    ann = link.client()
    missed = ann.ask("FetchMissed", {"topic": "state.a", "fromSeq": 1})
    assert (missed["toSeq"], missed["oldestSeq"], missed["messages"]) == (0, 1, [])
    assert ann.refused("FetchMissed", {"topic": "state.b", "fromSeq": 1})["code"] == "NOT_FOUND"


# --- the Clone pattern ---


def test_a_snapshot_and_the_updates_after_its_watermark_are_the_state(link: Link, ann: Client) -> None:
    """Subscribe, take a snapshot and drop older updates: no change is lost or applied twice."""
    for number in range(3):
        update(ann, f"k{number}", number)
    ann.ask("DeleteState", {"key": "k0"})
    snapshot = ann.ask("SnapshotState", {"prefix": ""})
    update(ann, "k1", "new")
    ann.ask("DeleteState", {"key": "k2"})
    update(ann, "k3", 3)
    replica = {one["key"]: one["value"] for one in snapshot["entries"]}
    heard = [one for key in ("k0", "k1", "k2", "k3") for one in changes(link, key)]
    for one in sorted(heard, key=lambda one: one["revision"]):
        if one["revision"] > snapshot["watermark"]:
            if one.get("deleted"):
                del replica[one["key"]]
            else:
                replica[one["key"]] = one["value"]
    now = ann.ask("SnapshotState", {"prefix": ""})
    assert replica == {one["key"]: one["value"] for one in now["entries"]} == {"k1": "new", "k3": 3}


# --- damage ---


def corrupt(link: Link, key: str) -> None:
    """Change the bytes of a value of four letters in memory."""
    record = link.core.state.get(key)
    on_disk = link.disk.state[key]
    link.disk.state[key] = msgspec.structs.replace(on_disk)
    msgspec.structs.force_setattr(record, "value", value_bytes("evil"))


def test_a_damaged_value_is_found_on_an_interval_reported_and_repaired(link: Link, ann: Client) -> None:
    update(ann, value="good")
    corrupt(link, "a")
    link.advance(LIMITS.verify_interval_ms / 1000)
    ((_, payload),) = link.streams["system.errors"]
    assert payload["data"]["code"] == "SYSTEM_ERROR"
    assert "'a'" in payload["data"]["message"]
    assert link.signals("state_repaired") == [{"key": "a"}]
    assert ann.ask("GetState", {"key": "a"})["value"] == "good"


def test_a_damaged_value_is_sent_to_no_client(link: Link, ann: Client) -> None:
    update(ann, value="good")
    corrupt(link, "a")
    assert ann.refused("GetState", {"key": "a"})["code"] == "SYSTEM_ERROR"
    assert ann.ask("GetState", {"key": "a"})["value"] == "good"


def test_a_value_that_is_damaged_on_disk_too_is_reported_and_can_be_set_again(link: Link, ann: Client) -> None:
    update(ann, value="good")
    corrupt(link, "a")
    link.disk.state["a"] = msgspec.structs.replace(link.disk.state["a"], value=value_bytes("hell"))
    link.advance(5.0)
    messages = [payload["data"]["message"] for _, payload in link.streams["system.errors"]]
    assert len(messages) == 2
    assert "damaged on disk too" in messages[1]
    assert ann.refused("GetState", {"key": "a"})["code"] == "SYSTEM_ERROR"
    update(ann, value="new")
    assert ann.ask("GetState", {"key": "a"})["value"] == "new"


def test_an_empty_state_has_no_deadline_for_verification(make_link: MakeLink) -> None:
    link = make_link(limits=msgspec.structs.replace(LIMITS, verify_interval_ms=10, heartbeat_interval_ms=60_000))
    link.tick()
    link.advance(1.0)
    assert link.core.next_deadline() - link.now > 1
    update(link.client())
    assert link.core.next_deadline() - link.now <= 0.01
