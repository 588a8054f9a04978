"""The log has a line for every hook and every library, as text for people or as JSON for programs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import blinker
import pytest
import structlog

from backtestr_broker import hooks
from backtestr_broker.config import LogOptions
from backtestr_broker.io.log import start_logging
from backtestr_protocol.worker_channel import LogFormat

Lines = Callable[[], list[str]]


@pytest.fixture
def start(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[LogOptions], Lines]]:
    """Give a function that starts the log, and returns one that returns its lines; what it installed is removed."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    before = {name: list(signal.receivers_for(blinker.ANY)) for name, signal in hooks.SIGNALS.items()}
    writers = []

    def begin(options: LogOptions) -> Lines:
        writer = start_logging(options)
        writers.append(writer)

        def lines() -> list[str]:
            assert writer.drain(10.0)
            return capfd.readouterr().err.splitlines()

        return lines

    yield begin
    for name, signal in hooks.SIGNALS.items():
        for callback in list(signal.receivers_for(blinker.ANY)):
            if callback not in before[name]:
                signal.disconnect(callback)
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    for writer in writers:
        writer.close()


Start = Callable[[LogOptions], Lines]


def test_with_json_each_line_is_one_object(start: Start) -> None:
    log = start(LogOptions(level="info", format="json"))
    hooks.send("worker_lost", {"workerId": "compute-1", "reason": "killed by signal 9"})
    hooks.send("fault", {"code": "SYSTEM_ERROR", "message": "x", "id": "f1"})
    logging.getLogger("some.library").warning("take %s", "care")
    lines = [json.loads(line) for line in log()]
    assert all(line.pop("timestamp").endswith("Z") for line in lines)
    assert lines == [
        {"event": "worker_lost", "level": "warning", "workerId": "compute-1", "reason": "killed by signal 9"},
        {"event": "fault", "level": "error", "code": "SYSTEM_ERROR", "message": "x", "id": "f1"},
        {"event": "take care", "level": "warning"},
    ]


def test_the_traceback_of_a_callback_is_a_json_line_too(start: Start) -> None:
    log = start(LogOptions(level="info", format="json"))

    def broken(_sender: object, **_facts: Any) -> None:
        raise ZeroDivisionError("the callback's own error")

    with hooks.serving.connected_to(broken):
        hooks.send("serving", {})
    by_event = {line["event"]: line for line in map(json.loads, log())}
    assert by_event["serving"]["level"] == "info"
    found = by_event["a callback of serving failed"]["exception"]
    assert "in broken" in found
    assert found.endswith("ZeroDivisionError: the callback's own error\n")


def test_with_console_each_line_has_name_and_values(start: Start) -> None:
    log = start(LogOptions(level="info", format="console"))
    hooks.send("client_joined", {"clientId": "ann", "clientName": "a notebook"})
    (line,) = log()
    assert "[info" in line
    assert "client_joined" in line
    assert "clientId=ann" in line
    assert "clientName='a notebook'" in line


def test_a_level_leaves_out_the_lines_below_it(start: Start) -> None:
    log = start(LogOptions(level="warning", format="json"))
    hooks.send("client_joined", {"clientId": "ann", "clientName": None})
    hooks.send("message_refused", {"code": "AUTHENTICATION_ERROR", "reason": "bad signature"})
    logging.getLogger("some.library").info("chatter")
    (line,) = log()
    assert json.loads(line)["event"] == "message_refused"


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_shows_no_values_of_variables(start: Start, form: LogFormat) -> None:
    log = start(LogOptions(level="info", format=form))

    def broken(_sender: object, **_facts: Any) -> None:
        held = " by ".join(("held", "a frame"))
        raise ZeroDivisionError(str(len(held)))

    with hooks.serving.connected_to(broken):
        hooks.send("serving", {})
    text = "\n".join(log())
    assert "ZeroDivisionError: 15" in text
    assert "held by a frame" not in text
