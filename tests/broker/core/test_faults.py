"""A fault is answered, logged once with its event and without secrets, and judged by effects and invariants."""

from __future__ import annotations

from typing import NoReturn

import pytest

from backtestr_broker.core import faults as faults_module
from backtestr_broker.core import shared_state as shared_state_module
from backtestr_broker.core.clients.sessions import Sessions
from backtestr_broker.core.core import Core
from backtestr_broker.core.events import ListenersFound, RequestReceived
from backtestr_broker.core.faults import LOGGED, TICK_PAUSE
from backtestr_broker.core.outbox import Outbox
from backtestr_broker.core.requests.dispatch import Requests
from backtestr_broker.core.scheduling.scheduler import Scheduler
from backtestr_broker.core.shared_state import SharedState
from backtestr_broker.core.worker_messages import WorkerMessages
from support.broker.clients import Client
from support.broker.link import Injected, Link, Worker, config
from support.broker.steps import start, status


def failing(*_arguments: object, **_named: object) -> NoReturn:
    raise Injected("on purpose")


def test_a_request_is_answered_with_the_id_that_the_log_has(
    link: Link, ann: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(SharedState, "snapshot", failing)
        error = ann.refused("SnapshotState", {"prefix": "a"}, message_id="mine")
    assert (error["code"], error["severity"]) == ("SYSTEM_ERROR", "Critical")
    assert error["message"] == "the broker has a defect: Injected('on purpose')"
    (fault,) = link.signals("fault")
    assert (fault["id"], fault["requestId"], fault["clientId"]) == (error["details"]["id"], "mine", "ann")
    assert fault["raised"] == "Injected('on purpose')"
    assert fault["during"].startswith("RequestReceived {'frames': [32, ")
    assert "'type': 'SnapshotState', 'data': {'prefix': 'a'}" in fault["during"]
    assert "in snapshot" in fault["traceback"]
    assert ann.ask("SnapshotState", {"prefix": "a"}, message_id="mine")["entries"] == [], "it is another try"
    assert link.restarts == []


def test_the_log_has_neither_keys_nor_content_of_a_user(
    link: Link, ann: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Requests, "execute", failing)
    for request in (
        ("UpdateState", {"key": "a", "value": "private"}),
        ("RegisterAlgorithm", {"name": "a", "source": "private"}),
        (
            "StartBacktest",
            config(parameters={"long": "x" * 1000, "many": list(range(1000)), "deep": [[[[[["private"]]]]]]}),
        ),
        ("GetState", {"key": b"private"}),
    ):
        assert ann.refused(*request)["code"] == "SYSTEM_ERROR"
    logged = str(link.signals("fault"))
    for secret in ("private", link.key.hex(), str(link.key), str(ann.requests.session_id)):
        assert secret not in logged
    assert len(logged) < 40_000
    assert "x" * 64 + "… of 1000 characters" in logged
    assert "… of 1000'" in logged


def test_a_request_that_cannot_be_read_again_gets_an_error_without_an_id(
    link: Link, ann: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Core, "_on_frames", failing)
        link.feed(RequestReceived(ann.peer, [b"whatever"], link.wall_ms))
    assert ann.inbox[-1][0]["messageType"] == "Error"
    assert ann.inbox[-1][0]["payload"]["data"]["code"] == "SYSTEM_ERROR"
    assert len(link.signals("fault")) == 1
    assert ann.ask("Ping")


def test_a_request_that_fails_again_and_again_is_described_some_times_a_second(
    link: Link, ann: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Requests, "execute", failing)
    for _ in range(3 * LOGGED):
        assert ann.refused("Ping")["code"] == "SYSTEM_ERROR"
    assert len([one for one in link.signals("fault") if "traceback" in one]) == LOGGED


def test_effects_of_a_request_that_fails_half_way_are_dropped_and_the_broker_starts_again(
    link: Link, ann: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_afterwards(*_arguments: object) -> NoReturn:
        link.core.outbox.kill("compute-1", "an effect")
        raise Injected("on purpose")

    peer = ann.peer
    with monkeypatch.context() as patch:
        patch.setattr(Requests, "execute", fail_afterwards)
        (answer,) = ann.send("Ping", {})
    assert answer["payload"]["data"]["code"] == "SYSTEM_ERROR"
    assert link.killed == []
    (reason,) = link.restarts
    assert reason == "RequestReceived raised Injected('on purpose'), and it had 1 effects already"
    ann.reconnect()
    assert ann.peer != peer
    assert ann.ask("Ping")


def test_a_state_that_contradicts_itself_starts_the_broker_again(
    link: Link, ann: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = SharedState.update

    def fail_afterwards(state: SharedState, *arguments: object) -> NoReturn:
        change(state, *arguments)  # type: ignore[arg-type]
        raise Injected("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(SharedState, "update", fail_afterwards)
        (answer,) = ann.send("UpdateState", {"key": "a", "value": 1})
    assert answer["payload"]["data"]["code"] == "SYSTEM_ERROR"
    assert "a change is on its way and its record is not" in link.restarts[0]


def test_a_fault_that_cannot_even_be_reported_starts_the_broker_again(
    link: Link, ann: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Requests, "execute", failing)
        patch.setattr(Outbox, "error_data", failing)
        assert ann.send("Ping", {}) == []
    assert link.restarts[0].startswith("RequestReceived raised Injected('on purpose'), and the state contradicts")


def test_a_tick_that_fails_is_tried_again_after_a_pause(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sessions, "expire", failing)
    monkeypatch.setattr(shared_state_module.SharedState, "verify", failing)
    link.now = link.core.next_deadline()
    with monkeypatch.context() as patch:
        patch.setattr(Core, "_on_time", failing)
        link.tick()
    assert link.core.next_deadline() == link.now + TICK_PAUSE
    assert link.restarts == []
    (_, payload), *_ = link.streams["system.errors"]
    assert payload["data"]["message"] == "the broker has a defect: Injected('on purpose')"


def test_a_note_that_fails_ends_its_worker_and_the_work_moves(
    link: Link, ann: Client, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(ann, "b1")
    with monkeypatch.context() as patch:
        patch.setattr(Scheduler, "finished", failing)
        worker.finish()
    ((worker_id, reason),) = link.killed
    assert worker_id == "compute-1"
    assert reason == "it was ended: the broker failed at its message: Injected('on purpose')"
    assert "'message': {'task_id': 'b1', 'outcome': 'completed'" in link.signals("fault")[0]["during"]
    link.lose_worker(worker).finish()
    assert status(ann) == "completed"
    assert link.restarts == []


def test_a_note_of_an_unknown_peer_that_fails_ends_nobody(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(WorkerMessages, "received", failing)
        Worker(link, "compute-1", "compute", b"unknown").ready()
    assert (link.killed, link.restarts, len(link.signals("fault"))) == ([], [], 1)


def test_an_event_that_tells_of_the_world_cannot_be_skipped(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("backtestr_broker.core.streams.listeners.Listeners.take", failing)
        link.listening = False
        link.feed(ListenersFound("prices", [], [b"prices."], link.wall_ms))
    assert link.restarts == ["ListenersFound raised Injected('on purpose'), and a ListenersFound cannot be skipped"]


def test_a_value_that_cannot_be_shown_is_named() -> None:
    shown = faults_module._shortened(
        {"object": object(), "bytes": b"abc", "none": None, "map": dict.fromkeys(range(20))}
    )
    assert shown["object"] == "<object>"
    assert shown["bytes"] == "<3 bytes>"
    assert shown["none"] is None
    assert shown["map"]["…"] == 20
