"""Lines of a worker's log name their task, also while other backtests are parked."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.contextvars import clear_contextvars, get_contextvars

from backtestr_engine.worker.log import TaskLog
from backtestr_engine.worker.prints import PrintBudget
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import DataError
from backtestr_protocol.worker_channel import Assign, Finished, Paused, Resumed


@pytest.fixture(autouse=True)
def no_context_after() -> Iterator[None]:
    yield
    clear_contextvars()


def run(backtest_id: str, client_id: str) -> Assign:
    return Assign(task_id=backtest_id, work="RunBacktest", client_id=client_id, request_id=f"of {backtest_id}")


def test_lines_have_the_facts_of_the_backtest_in_work(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    log = TaskLog("compute-1")
    log.at(None)
    assert get_contextvars() == {"workerId": "compute-1"}
    log.assigned(run("b1", "ann"), b"")
    log.sent([(Paused(task_id="b1"), ())])
    log.assigned(run("b2", "bob"), b"")
    of_b2 = {"taskId": "b2", "work": "RunBacktest", "clientId": "bob", "requestId": "of b2", "backtestId": "b2"}
    assert get_contextvars() == {"workerId": "compute-1", **of_b2}
    log.sent([(Resumed(task_id="b1"), ())])
    assert get_contextvars()["clientId"] == "ann"
    log.at("b2")
    assert get_contextvars()["clientId"] == "bob"
    log.sent([(Finished(task_id="b2", outcome="completed"), ())])
    log.at(None)
    assert get_contextvars() == {"workerId": "compute-1"}
    assert log.facts("b2") == {"workerId": "compute-1"}, "its facts are forgotten"
    assert log.facts("b1")["requestId"] == "of b1"
    events = [record.message for record in caplog.records]
    assert events == ["task_began", "task_paused", "task_began", "task_resumed", "task_ended"]


def test_lines_of_an_interactive_task_have_the_backtest_that_it_names(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = TaskLog("interactive-1")
    assign = Assign(task_id="task-1", work="GetBacktestResults", client_id="ann", request_id="r1")
    log.assigned(assign, encode({"backtestId": "b1", "tables": []}))
    assert get_contextvars()["backtestId"] == "b1"
    error = DataError("unreadable").to_data(component="engine", timestamp=0)
    log.sent([(Finished(task_id="task-1", outcome="failed", error=error), ())])
    (record,) = caplog.records
    facts: dict[str, Any] = vars(record)
    assert (record.message, facts["outcome"], facts["code"], facts["error"]) == (
        "task_ended",
        "failed",
        "DATA_ERROR",
        "unreadable",
    )


@pytest.mark.parametrize("data", [b"", b"\xc1", encode([1]), encode({"backtestId": 7}), encode({"symbol": "X"})])
def test_an_interactive_task_may_name_no_backtest(data: bytes) -> None:
    log = TaskLog("interactive-1")
    log.assigned(Assign(task_id="task-1", work="GetMarketData"), data)
    assert "backtestId" not in get_contextvars()


def test_the_end_of_a_task_says_what_was_printed_beyond_its_budget(caplog: pytest.LogCaptureFixture) -> None:
    passed_on = bytearray()
    prints = PrintBudget(10, passed_on.extend)
    log = TaskLog("compute-1", prints)
    prints.write(b"at the start of the worker")
    log.assigned(run("b1", "ann"), b"")
    prints.write(b"x" * 25)
    log.assigned(run("b2", "ann"), b"")
    prints.write(b"y" * 5)
    for backtest_id in ("b1", "b2"):
        log.sent([(Finished(task_id=backtest_id, outcome="completed"), ())])
    log.assigned(run("b3", "ann"), b"")
    prints.write(b"z" * 13)
    log.given_up("b3", "it did not come back")
    told = [vars(record)["bytes"] for record in caplog.records if record.message == "prints_left_out"]
    assert told == [16, 15, 3]
    assert bytes(passed_on) == b"at the sta\n" + b"x" * 10 + b"\n" + b"y" * 5 + b"z" * 10 + b"\n"


def test_a_task_finds_streams_that_an_earlier_one_has_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    passed_on = bytearray()
    log = TaskLog("compute-1", PrintBudget(100, passed_on.extend))
    for backtest_id in ("b1", "b2"):
        log.assigned(run(backtest_id, "ann"), b"")
        print(backtest_id, flush=True)
        sys.stdout.close()
        sys.stderr = None
    assert bytes(passed_on) == b"b1\nb2\n"
