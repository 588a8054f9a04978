"""Hooks call every callback, and an error in one is logged and does not affect the others."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest

from backtestr_broker import hooks
from backtestr_broker.core.events import Notify


def test_every_signal_of_core_and_event_loop_is_a_hook() -> None:
    names = set(get_type_hints(Notify)["signal"].__args__)
    of_the_allow_list = {"client_denied", "clients_dropped", "allow_list_problem"}
    of_connections = {"connections_ended", "descriptors_exhausted", "peer_gone", "message_dropped"}
    of_the_event_loop = {
        "recorder_stopped",
        "recorder_resumed",
        "starts_again",
        "stops",
        *of_connections,
        *of_the_allow_list,
    }
    assert names | of_the_event_loop == set(hooks.SIGNALS)


def test_a_callback_gets_the_facts() -> None:
    received: list[dict[str, Any]] = []

    def callback(_sender: object, **facts: Any) -> None:
        received.append(facts)

    with hooks.backtest_changed.connected_to(callback):
        hooks.send("backtest_changed", {"backtestId": "b1", "status": "running"})
    hooks.send("backtest_changed", {"backtestId": "b2", "status": "running"})
    assert received == [{"backtestId": "b1", "status": "running"}]


def test_a_callback_that_fails_is_logged_and_the_others_are_called(caplog: pytest.LogCaptureFixture) -> None:
    received: list[str] = []

    def broken(_sender: object, **_facts: Any) -> None:
        raise ZeroDivisionError("the callback's own error")

    def first(_sender: object, **_facts: Any) -> None:
        received.append("first")

    def last(_sender: object, **_facts: Any) -> None:
        received.append("last")

    signal = hooks.worker_lost
    with signal.connected_to(first), signal.connected_to(broken), signal.connected_to(last):
        hooks.send("worker_lost", {"workerId": "compute-1", "reason": "x"})
    assert sorted(received) == ["first", "last"]
    (record,) = caplog.records
    assert record.getMessage() == "a callback of worker_lost failed"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
