"""This module writes the log of a worker in the format of its broker's log, with the task of each line.

A line that is logged during a task has `workerId`, the `requestId` and `clientId` of the request, and the `backtestId`,
also a line from an algorithm's own logger. The broker's lines have the same names.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog
from structlog.contextvars import bind_contextvars, clear_contextvars

from backtestr_protocol.worker_channel import (
    Assign,
    Finished,
    LogFormat,
    LogLevel,
    Paused,
    Resumed,
    ToBroker,
)

# Libraries whose debug and info lines say nothing about a backtest.
_QUIET = ("numba",)

_log = logging.getLogger(__name__)


class _About(msgspec.Struct, rename="camel"):
    backtest_id: str | None = None


_about = msgspec.msgpack.Decoder(_About)


def start_logging(level: LogLevel, form: LogFormat) -> None:
    """Write the log on standard error from now on; only for a process of the worker's own."""
    to_text: list[Any] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if form == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.ExtraAdder(),
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *to_text],
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


class TaskLog:
    """The log of the tasks of one worker; all methods but `facts` belong to its compute thread."""

    def __init__(self, worker_id: str) -> None:
        self._worker_id = worker_id
        self._facts: dict[str, dict[str, str]] = {}  # by the id of each task that the worker holds
        self._current: str | None = ""

    def assigned(self, assign: Assign, data: bytes) -> None:
        """Log that a task begins; lines of this thread are about it from now on."""
        facts = {"taskId": assign.task_id, "work": assign.work}
        if assign.client_id is not None and assign.request_id is not None:
            facts |= {"clientId": assign.client_id, "requestId": assign.request_id}
        if (backtest_id := assign.task_id if assign.work == "RunBacktest" else _backtest_in(data)) is not None:
            facts["backtestId"] = backtest_id
        self._facts[assign.task_id] = facts
        self.at(assign.task_id)
        level = logging.INFO if assign.work == "RunBacktest" else logging.DEBUG
        _log.log(level, "task_began")

    def at(self, task_id: str | None) -> None:
        """Make the lines of this thread be about that task from now on; None for no task."""
        if task_id != self._current:
            self._current = task_id
            clear_contextvars()
            bind_contextvars(**self.facts(task_id))

    def facts(self, task_id: str | None) -> dict[str, str]:
        """Return the facts that a line about that task has."""
        return {"workerId": self._worker_id, **self._facts.get(task_id or "", {})}

    def sent(self, sent: Sequence[tuple[ToBroker, Sequence[bytes]]]) -> None:
        """Log the pauses, resumes and ends among these messages, and forget the tasks that have ended."""
        for message, _ in sent:
            match message:
                case Finished(task_id=task_id, outcome=outcome, error=error):
                    self.at(task_id)
                    ended = {"outcome": outcome} | ({"code": error.code, "error": error.message} if error else {})
                    is_backtest = self._facts.pop(task_id, {}).get("work") == "RunBacktest"
                    level = logging.INFO if is_backtest or error is not None else logging.DEBUG
                    _log.log(level, "task_ended", extra=ended)
                    self._current = ""
                case Paused(task_id=task_id) | Resumed(task_id=task_id):
                    self.at(task_id)
                    _log.info("task_paused" if isinstance(message, Paused) else "task_resumed")
                case _:
                    pass


def _backtest_in(data: bytes) -> str | None:
    """Return the id of the backtest that an interactive task names."""
    try:
        return _about.decode(data).backtest_id
    except msgspec.MsgspecError:
        return None
