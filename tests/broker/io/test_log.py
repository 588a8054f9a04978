"""The log has a line for every hook and every library, as text for people or as JSON for programs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import blinker
import pytest
import structlog

from backtestr_broker import hooks
from backtestr_broker.config import LogOptions
from backtestr_broker.io.log import start_logging


@pytest.fixture
def no_log_after() -> Iterator[None]:
    """Remove what `start_logging` installed."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    before = {name: list(signal.receivers_for(blinker.ANY)) for name, signal in hooks.SIGNALS.items()}
    yield
    for name, signal in hooks.SIGNALS.items():
        for callback in list(signal.receivers_for(blinker.ANY)):
            if callback not in before[name]:
                signal.disconnect(callback)
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("no_log_after")
def test_with_json_each_line_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(LogOptions(level="info", format="json"))
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
def test_the_traceback_of_a_callback_is_a_json_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(LogOptions(level="info", format="json"))

    def broken(_sender: object, **_facts: Any) -> None:
        raise ZeroDivisionError("the callback's own error")

    with hooks.serving.connected_to(broken):
        hooks.send("serving", {})
    by_event = {line["event"]: line for line in map(json.loads, capsys.readouterr().err.splitlines())}
    assert by_event["serving"]["level"] == "info"
    (found,) = by_event["a callback of serving failed"]["exception"]
    assert found["exc_type"] == "ZeroDivisionError"


@pytest.mark.usefixtures("no_log_after")
def test_with_console_each_line_has_name_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(LogOptions(level="info", format="console"))
    hooks.send("client_joined", {"clientId": "ann", "clientName": "a notebook"})
    (line,) = capsys.readouterr().err.splitlines()
    assert "[info" in line
    assert "client_joined" in line
    assert "clientId=ann" in line
    assert "clientName='a notebook'" in line


@pytest.mark.usefixtures("no_log_after")
def test_a_level_leaves_out_the_lines_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(LogOptions(level="warning", format="json"))
    hooks.send("client_joined", {"clientId": "ann", "clientName": None})
    hooks.send("message_refused", {"code": "AUTHENTICATION_ERROR", "reason": "bad signature"})
    logging.getLogger("some.library").info("chatter")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "message_refused"
