"""The broker's log: structlog on standard error, fed by the hooks."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from . import hooks
from .config import Log

_LEVELS = {
    "message_refused": logging.WARNING,
    "message_dropped": logging.WARNING,
    "worker_lost": logging.WARNING,
    "fault": logging.ERROR,
}


def start_logging(options: Log) -> None:
    """Configure structlog and log every hook from now on."""
    to_text: list[Any] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if options.format == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *to_text,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(options.level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    log = structlog.get_logger()
    for name, signal in hooks.SIGNALS.items():
        signal.connect(_listener(log, name), weak=False)


def _listener(log: Any, name: str) -> Any:
    level = _LEVELS.get(name, logging.INFO)

    def write(_sender: object, **facts: Any) -> None:
        log.log(level, name, **facts)

    return write
