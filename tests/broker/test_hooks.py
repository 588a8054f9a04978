"""Hooks and log: whoever listens is told, whoever fails harms nobody, and the log is for people or for programs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any, get_type_hints

import blinker
import pytest
import structlog

from backtestr_broker import hooks
from backtestr_broker.config import Log
from backtestr_broker.core.events import Notify
from backtestr_broker.io.log import start_logging


@pytest.fixture
def no_log_after() -> Iterator[None]:
    """Takes away what `start_logging` installed."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    before = {name: list(signal.receivers_for(blinker.ANY)) for name, signal in hooks.SIGNALS.items()}
    yield
    for name, signal in hooks.SIGNALS.items():
        for listener in list(signal.receivers_for(blinker.ANY)):
            if listener not in before[name]:
                signal.disconnect(listener)
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_every_signal_that_the_core_sends_is_a_hook() -> None:
    names = set(get_type_hints(Notify)["signal"].__args__)
    of_the_door = {"client_denied", "clients_dropped", "allow_list_problem"}
    of_the_shell = {"message_dropped", "peer_gone", "recorder_stopped", *of_the_door}
    assert names | of_the_shell == set(hooks.SIGNALS)


def test_a_listener_is_told_the_facts() -> None:
    heard: list[dict[str, Any]] = []

    def listener(_sender: object, **facts: Any) -> None:
        heard.append(facts)

    with hooks.backtest_changed.connected_to(listener):
        hooks.send("backtest_changed", {"backtestId": "b1", "status": "running"})
    hooks.send("backtest_changed", {"backtestId": "b2", "status": "running"})
    assert heard == [{"backtestId": "b1", "status": "running"}]


def test_a_listener_that_fails_is_logged_and_the_others_are_told(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    def broken(_sender: object, **_facts: Any) -> None:
        raise ZeroDivisionError("of the listener's own")

    def first(_sender: object, **_facts: Any) -> None:
        heard.append("first")

    def last(_sender: object, **_facts: Any) -> None:
        heard.append("last")

    signal = hooks.worker_lost
    with signal.connected_to(first), signal.connected_to(broken), signal.connected_to(last):
        hooks.send("worker_lost", {"workerId": "compute-1", "reason": "x"})
    assert sorted(heard) == ["first", "last"]
    (record,) = caplog.records
    assert record.getMessage() == "a listener of worker_lost failed"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


@pytest.mark.usefixtures("no_log_after")
def test_json_lines_are_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(Log(level="info", format="json"))
    hooks.send("worker_lost", {"workerId": "compute-1", "reason": "killed by signal 9"})
    hooks.send("fault", {"code": "SYSTEM_ERROR", "message": "x", "id": "f1"})
    logging.getLogger("some.library").warning("take %s", "care")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert all(line.pop("timestamp").endswith("Z") for line in lines)
    assert lines == [
        {"event": "worker_lost", "level": "warning", "workerId": "compute-1", "reason": "killed by signal 9"},
        {"event": "fault", "level": "error", "code": "SYSTEM_ERROR", "message": "x", "id": "f1"},
        {"event": "take care", "level": "warning"},
    ]


@pytest.mark.usefixtures("no_log_after")
def test_the_traceback_of_a_listener_is_a_json_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(Log(level="info", format="json"))

    def broken(_sender: object, **_facts: Any) -> None:
        raise ZeroDivisionError("of the listener's own")

    with hooks.serving.connected_to(broken):
        hooks.send("serving", {})
    by_event = {line["event"]: line for line in map(json.loads, capsys.readouterr().err.splitlines())}
    assert by_event["serving"]["level"] == "info"
    (found,) = by_event["a listener of serving failed"]["exception"]
    assert found["exc_type"] == "ZeroDivisionError"


@pytest.mark.usefixtures("no_log_after")
def test_console_lines_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(Log(level="info", format="console"))
    hooks.send("client_joined", {"clientId": "ann", "clientName": "a notebook"})
    (line,) = capsys.readouterr().err.splitlines()
    assert "[info" in line
    assert "client_joined" in line
    assert "clientId=ann" in line
    assert "clientName='a notebook'" in line


@pytest.mark.usefixtures("no_log_after")
def test_a_level_leaves_out_what_is_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(Log(level="warning", format="json"))
    hooks.send("client_joined", {"clientId": "ann", "clientName": None})
    hooks.send("message_refused", {"code": "AUTHENTICATION_ERROR", "reason": "bad signature"})
    logging.getLogger("some.library").info("chatter")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "message_refused"
