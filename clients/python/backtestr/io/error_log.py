"""The error log keeps the latest errors of one client, and calls back for each."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import get_args

import msgspec

from backtestr_protocol.errors import BacktestrError, Severity, did_you_mean

from .callback_thread import CallbackThread

# Errors that are kept for later reading; older ones went to the callbacks and to the log.
MAX_ERRORS = 100

SEVERITIES: tuple[Severity, ...] = get_args(Severity)  # the least severe first


class ErrorReport(msgspec.Struct, frozen=True):
    """An error and its subject.

    `about` is the type of a request, a topic, or `connection`. `timestamp` is when the error was found, in milliseconds
    since the Unix epoch. `error.recovery_actions` say what may help.
    """

    error: BacktestrError
    about: str
    timestamp: int

    @property
    def severity(self) -> Severity:
        """The severity of the error."""
        return self.error.severity


class ErrorReports(tuple[ErrorReport, ...]):
    """The latest errors that are at least a `Warning`, the oldest first; called, those of another severity."""

    _all: tuple[ErrorReport, ...]

    def __call__(self, severity: Severity = "Warning") -> tuple[ErrorReport, ...]:
        """Return the latest reports that are at least so severe; `Info` adds what was recovered."""
        rank = _rank(severity)
        return tuple(one for one in self._all if SEVERITIES.index(one.severity) >= rank)


Callback = Callable[[ErrorReport], object]


def _rank(severity: Severity) -> int:
    """Return the place of a severity among all, the least severe first. Raises `ValueError` for another text."""
    if severity not in SEVERITIES:
        near = did_you_mean(str(severity), SEVERITIES)
        raise ValueError(f"severity: expected one of {', '.join(SEVERITIES)}; {severity!r} came{near}")
    return SEVERITIES.index(severity)


class ErrorLog:
    """The latest errors of one client, and the callbacks for further ones."""

    def __init__(self, callback_thread: CallbackThread) -> None:
        self.count = 0
        self._callback_thread = callback_thread
        # Each with its number. Recoveries are kept apart, so that a hundred of them do not push out an error.
        self._latest: deque[tuple[int, ErrorReport]] = deque(maxlen=MAX_ERRORS)
        self._recoveries: deque[tuple[int, ErrorReport]] = deque(maxlen=MAX_ERRORS)
        self._callbacks: dict[int, tuple[Callback, int]] = {}
        self._numbers = itertools.count()

    @property
    def latest(self) -> ErrorReports:
        """The latest `MAX_ERRORS` errors, the oldest first; called with `Info`, as many recoveries as well."""
        errors = list(self._latest.copy())
        reports = ErrorReports(one for _, one in errors)
        reports._all = tuple(one for _, one in sorted([*errors, *self._recoveries.copy()], key=lambda one: one[0]))
        return reports

    def add(self, report: ErrorReport) -> None:
        """Keep and count an error, or keep a recovery, and call back for it."""
        if report.severity == "Info":
            self._recoveries.append((next(self._numbers), report))
        else:
            self.count += 1
            self._latest.append((next(self._numbers), report))
        rank = SEVERITIES.index(report.severity)
        for callback, least in list(self._callbacks.values()):
            if rank >= least:
                self._callback_thread.call(partial(callback, report))

    def add_callback(self, callback: Callback, severity: Severity) -> Callable[[], None]:
        """Call `callback` for every further error that is at least so severe, until the returned function is called."""
        rank = _rank(severity)
        number = next(self._numbers)
        self._callbacks[number] = (callback, rank)

        def unsubscribe() -> None:
            self._callbacks.pop(number, None)

        return unsubscribe
