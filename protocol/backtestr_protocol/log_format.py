"""This module gives the lines of the log their form; broker and workers write the same.

Tracebacks have no values of variables: a frame may hold a key, or the data of a user. Texts are bounded, since an
exception may have any length. It needs structlog, which the client does without.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

from .texts import bounded, traceback_of
from .worker_channel import LogFormat

_MAX_DEPTH = 8

TIMESTAMP: Any = structlog.processors.TimeStamper(fmt="iso", utc=True)


def renderers(form: LogFormat, *, colors: bool = False) -> list[Any]:
    """Return the last processors of structlog, which make a line of the facts of an event."""
    if form == "json":
        return [_with_traceback, _bounded_facts, structlog.processors.JSONRenderer()]
    plain = structlog.dev.plain_traceback
    return [_with_traceback, _bounded_facts, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]


class LineHandler(logging.Handler):
    """A handler of the standard library's loggers that gives every line to a function, and never raises.

    It has no lock: an object of a user that never ends to make its text holds its own thread only.
    """

    def __init__(
        self, form: LogFormat, before: list[Any], write: Callable[[str, str], object], *, colors: bool
    ) -> None:
        """Take the function, which gets the name of the logger and the line, and the processors before the last."""
        super().__init__()
        self._write = write
        only_text = structlog.stdlib.ProcessorFormatter.remove_processors_meta
        self.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=before, processors=[only_text, *renderers(form, colors=colors)]
            )
        )

    def createLock(self) -> None:
        """Have no lock."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Give the line of a record to the function."""
        try:
            line = self.format(record)
        except BaseException as error:  # a user's object may fail to make its text
            line = f"a line of {record.name} could not be made: {type(error).__name__}"
        self._write(record.name, f"{line}\n")


def dropped_line(form: LogFormat) -> Callable[[int], str]:
    """Return a function that makes the line of a log in that form about a number of dropped lines."""
    processors = [structlog.processors.add_log_level, TIMESTAMP, *renderers(form)]

    def line(count: int) -> str:
        text = f"{count:,} log lines were dropped: nobody read standard error"
        rendered: Any = {"event": text, "dropped": count}
        for processor in processors:
            rendered = processor(None, "warning", rendered)
        return f"{rendered}\n"

    return line


def _with_traceback(_logger: object, _method: str, facts: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the error of an event by the text of its traceback."""
    found = facts.pop("exc_info", None)
    if found is True:
        found = sys.exc_info()
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        facts["exception"] = traceback_of(error)
    return facts


def _bounded_facts(_logger: object, _method: str, facts: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in facts.items():
        facts[name] = _bounded(value, 0)
    return facts


def _bounded(value: Any, depth: int) -> Any:
    """Return a value whose texts are bounded, in lists and maps as well."""
    if isinstance(value, str):
        return bounded(value)
    if depth < _MAX_DEPTH and isinstance(value, list | tuple):
        return [_bounded(one, depth + 1) for one in value]
    if depth < _MAX_DEPTH and isinstance(value, dict):
        return {name: _bounded(one, depth + 1) for name, one in value.items()}
    return value
