"""The broker's log: structlog on standard error, fed by the hooks and by the standard library's loggers."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from backtestr_broker import hooks
from backtestr_broker.config import LogOptions

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
    "fault": logging.ERROR,
}


def start_logging(options: LogOptions) -> None:
    """Configure structlog and log every hook from now on."""
    to_text: list[Any] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if options.format == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    stamped: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    _log_libraries(options.level, stamped, to_text)
    structlog.configure(
        processors=[*stamped, *to_text],
        wrapper_class=structlog.make_filtering_bound_logger(options.level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    log = structlog.get_logger()
    for name, signal in hooks.SIGNALS.items():
        signal.connect(_logger_of(log, name), weak=False)


def _log_libraries(level: str, stamped: list[Any], to_text: list[Any]) -> None:
    """Give lines of the standard library's loggers the same form, a failed callback's traceback among them."""
    handler = logging.StreamHandler(sys.stderr)
    only_text = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=stamped, processors=[only_text, *to_text])
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _logger_of(log: Any, name: str) -> Any:
    """Return a callback that logs the signal `name`."""
    level = _LEVELS.get(name, logging.INFO)

    def write(_sender: object, **facts: Any) -> None:
        log.log(level, name, **facts)

    return write
