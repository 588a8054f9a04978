"""The broker's log: structlog on standard error, fed by the hooks and by the standard library's loggers.

A `LogWriter` takes the lines, so that the broker's thread never waits for the reader of standard error.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from backtestr_broker import hooks
from backtestr_broker.config import LogOptions
from backtestr_protocol.log_format import TIMESTAMP, LineHandler, dropped_line, renderers
from backtestr_protocol.log_writer import LogWriter

_STANDARD_ERROR = 2

_LEVELS = {
    "client_denied": logging.WARNING,
    "clients_dropped": logging.WARNING,
    "connections_ended": logging.WARNING,
    "descriptors_exhausted": logging.WARNING,
    "allow_list_problem": logging.ERROR,
    "message_refused": logging.WARNING,
    "message_dropped": logging.WARNING,
    "peer_gone": logging.DEBUG,
    "worker_lost": logging.WARNING,
    "recorder_stopped": logging.WARNING,
    "starts_again": logging.ERROR,
    "fault": logging.ERROR,
}


def start_logging(options: LogOptions) -> LogWriter:
    """Configure structlog, log every hook from now on, and return what writes the lines."""
    writer = LogWriter(_STANDARD_ERROR, dropped_line(options.format))
    colors = sys.stderr is not None and sys.stderr.isatty()
    before: list[Any] = [structlog.processors.add_log_level, TIMESTAMP]
    handler = LineHandler(options.format, before, lambda _name, line: writer.write(line), colors=colors)
    logging.basicConfig(level=options.level.upper(), handlers=[handler], force=True)
    structlog.configure(
        processors=[*before, *renderers(options.format, colors=colors)],
        wrapper_class=structlog.make_filtering_bound_logger(options.level),
        logger_factory=structlog.WriteLoggerFactory(writer),  # type: ignore[arg-type]  # it needs write and flush alone
    )
    log = structlog.get_logger()
    for name, signal in hooks.SIGNALS.items():
        signal.connect(_logger_of(log, name), weak=False)
    return writer


def _logger_of(log: Any, name: str) -> Any:
    """Return a callback that logs the signal `name`."""
    level = _LEVELS.get(name, logging.INFO)

    def write(_sender: object, **facts: Any) -> None:
        log.log(level, name, **facts)

    return write
