"""This module writes the log of a worker in the format of its broker's log, with the task of each line.

A `LogWriter` takes the lines, so that no thread of the worker waits for the reader of standard error. What algorithms
print or log goes there as well, up to a budget (`prints.py`).

A line that is logged during a task has `workerId`, the `requestId` and `clientId` of the request, and the `backtestId`,
also a line from an algorithm's own logger. The broker's lines have the same names.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any

import msgspec
import structlog
from structlog.contextvars import bind_contextvars, clear_contextvars

from backtestr_protocol.log_format import TIMESTAMP, LineHandler, dropped_line
from backtestr_protocol.log_writer import LogWriter, open_standard_descriptors, open_without_waiting, read_descriptor
from backtestr_protocol.worker_channel import (
    Assign,
    Finished,
    Paused,
    Resumed,
    ToBroker,
    WorkerSettings,
)

from .prints import PrintBudget

_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2
# The loggers of backtestr itself; all others are those of algorithms (`backtestr_algorithms`) and of their libraries.
_OWN = ("backtestr_engine", "backtestr_protocol")

# Libraries whose debug and info lines say nothing about a backtest.
_QUIET = ("numba",)

_log = logging.getLogger(__name__)


class _About(msgspec.Struct, rename="camel"):
    backtest_id: str | None = None


_about = msgspec.msgpack.Decoder(_About)


def start_logging(settings: WorkerSettings, print_bytes: int) -> tuple[LogWriter, PrintBudget]:
    """Write the log, and what algorithms print, on standard error from now on; only for a process of the worker's own.

    `print_bytes` is the budget of each task for its prints. Crashes of threads are lines of the log, too.
    """
    open_standard_descriptors()
    form = settings.log_format
    colors = sys.stderr is not None and sys.stderr.isatty()
    writer = LogWriter(os.dup(_STANDARD_ERROR), dropped_line(form))
    writer.use_in_forks(_STANDARD_ERROR)
    prints = PrintBudget(print_bytes, writer.write_bytes)

    def write(name: str, line: str) -> None:
        if name.startswith(_OWN):
            writer.write(line)
        else:
            prints.write(line.encode("utf-8", "backslashreplace"))

    before: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        TIMESTAMP,
    ]
    logging.basicConfig(
        level=settings.log_level.upper(), handlers=[LineHandler(form, before, write, colors=colors)], force=True
    )
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    prints.renew_streams()
    read_descriptor(_STANDARD_OUTPUT, prints.write_read)
    open_without_waiting(_STANDARD_ERROR)  # no pipe in this process: it would lose the last words of C code
    sys.excepthook = log_crash
    threading.excepthook = partial(_log_thread_crash, settings.worker_id)
    return writer, prints


def log_crash(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    """Log a crash as a line in the format of the log."""
    _log.critical("crashed", exc_info=(kind, error or kind(), traceback))


def _log_thread_crash(worker_id: str, crash: threading.ExceptHookArgs) -> None:
    """Log the crash of a thread; one that an algorithm has started counts for the algorithm's budget."""
    if crash.thread is not None and crash.thread.name.startswith(worker_id):
        log_crash(crash.exc_type, crash.exc_value, crash.exc_traceback)
    else:
        facts = (crash.exc_type, crash.exc_value or crash.exc_type(), crash.exc_traceback)
        logging.getLogger("algorithm").error("a thread of an algorithm crashed", exc_info=facts)


class TaskLog:
    """The log of the tasks of one worker; all methods but `facts` and `given_up` belong to its compute thread."""

    def __init__(self, worker_id: str, prints: PrintBudget | None = None) -> None:
        """Name the worker, and give the budget that its tasks have for prints, where they have one."""
        self._worker_id = worker_id
        self._prints = prints
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
        self._log_left_out(None)
        if self._prints is not None:
            self._prints.renew_streams()
        self.at(assign.task_id)
        level = logging.INFO if assign.work == "RunBacktest" else logging.DEBUG
        _log.log(level, "task_began")

    def at(self, task_id: str | None) -> None:
        """Make the lines of this thread be about that task from now on; None for no task."""
        if task_id != self._current:
            self._current = task_id
            if self._prints is not None:
                self._prints.at(task_id)
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
                    self._log_left_out(task_id)
                    ended = {"outcome": outcome} | ({"code": error.code, "error": error.message} if error else {})
                    is_backtest = self._facts.pop(task_id, {}).get("work") == "RunBacktest"
                    level = logging.INFO if is_backtest or error is not None else logging.DEBUG
                    _log.log(level, "task_ended", extra=ended)
                    self._current = ""
                    if self._prints is not None:
                        self._prints.at(None)
                case Paused(task_id=task_id) | Resumed(task_id=task_id):
                    self.at(task_id)
                    _log.info("task_paused" if isinstance(message, Paused) else "task_resumed")
                case _:
                    pass

    def given_up(self, task_id: str | None, reason: str) -> None:
        """Log that the worker ends because of this task."""
        self._log_left_out(task_id, self.facts(task_id))
        _log.error("task_given_up", extra={**self.facts(task_id), "error": reason})

    def _log_left_out(self, task_id: str | None, facts: Mapping[str, str] = MappingProxyType({})) -> None:
        """Log what a task printed beyond its budget, which then ends; None for what was printed without a task."""
        left_out = 0 if self._prints is None else self._prints.end(task_id)
        if left_out:
            _log.warning("prints_left_out", extra={**facts, "bytes": left_out, "option": "worker.print_bytes"})


def _backtest_in(data: bytes) -> str | None:
    """Return the id of the backtest that an interactive task names."""
    try:
        return _about.decode(data).backtest_id
    except msgspec.MsgspecError:
        return None
