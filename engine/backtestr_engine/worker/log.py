"""A worker's log: what its loggers say, written as its broker writes its own, each line with whose work it is.

A line that is logged while a task is worked on has `workerId`, the `requestId` and `clientId` of who asked for it, and
the `backtestId` that it is about, also one from an algorithm's own logger. The broker's lines have the same names.
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

# Libraries whose own doings at this level nobody follows a backtest by.
_QUIET = ("numba",)

_log = logging.getLogger(__name__)


class _About(msgspec.Struct, rename="camel"):
    backtest_id: str | None = None


_about = msgspec.msgpack.Decoder(_About)


def start_logging(level: LogLevel, form: LogFormat) -> None:
    """Write on standard error from now on; for a process that is a worker's own."""
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
    """What the tasks of one worker are about. Of its own thread, but for `facts`."""

    def __init__(self, worker_id: str) -> None:
        self._worker_id = worker_id
        self._facts: dict[str, dict[str, str]] = {}  # of the tasks that it holds
        self._current: str | None = ""

    def assigned(self, note: Assign, data: bytes) -> None:
        facts = {"taskId": note.task_id, "work": note.work}
        if note.client_id is not None and note.request_id is not None:
            facts |= {"clientId": note.client_id, "requestId": note.request_id}
        if (backtest_id := note.task_id if note.work == "RunBacktest" else _backtest_in(data)) is not None:
            facts["backtestId"] = backtest_id
        self._facts[note.task_id] = facts
        self.at(note.task_id)
        level = logging.INFO if note.work == "RunBacktest" else logging.DEBUG
        _log.log(level, "task_began")

    def at(self, task_id: str | None) -> None:
        """What this thread logs from now on is about that task."""
        if task_id != self._current:
            self._current = task_id
            clear_contextvars()
            bind_contextvars(**self.facts(task_id))

    def facts(self, task_id: str | None) -> dict[str, str]:
        return {"workerId": self._worker_id, **self._facts.get(task_id or "", {})}

    def sent(self, sent: Sequence[tuple[ToBroker, Sequence[bytes]]]) -> None:
        """Log what was said of tasks, and forget those that have ended."""
        for note, _ in sent:
            match note:
                case Finished(task_id=task_id, outcome=outcome, error=error):
                    self.at(task_id)
                    said = {"outcome": outcome} | ({"code": error.code, "error": error.message} if error else {})
                    is_backtest = self._facts.pop(task_id, {}).get("work") == "RunBacktest"
                    level = logging.INFO if is_backtest or error is not None else logging.DEBUG
                    _log.log(level, "task_ended", extra=said)
                    self._current = ""
                case Paused(task_id=task_id) | Resumed(task_id=task_id):
                    self.at(task_id)
                    _log.info("task_paused" if isinstance(note, Paused) else "task_resumed")
                case _:
                    pass


def _backtest_in(data: bytes) -> str | None:
    """The backtest that a question names."""
    try:
        return _about.decode(data).backtest_id
    except msgspec.MsgspecError:
        return None
