"""The errors of one client: the last of them, and who is told of each."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import get_args

import msgspec

from backtestr_protocol.errors import BacktestrError, Severity, did_you_mean

from .callback_thread import Listeners

# The errors that are kept to be looked at later; older ones went to the callbacks and to the log.
MAX_ERRORS = 100

SEVERITIES: tuple[Severity, ...] = get_args(Severity)  # the least first


class ErrorReport(msgspec.Struct, frozen=True):
    """An error and what it is of: a request's type, a topic, or `connection`. `timestamp` is when it was noticed, in
    milliseconds since the Unix epoch; `error.recovery_actions` says what may help."""

    error: BacktestrError
    about: str
    timestamp: int

    @property
    def severity(self) -> Severity:
        return self.error.severity


Callback = Callable[[ErrorReport], object]


class ErrorLog:
    def __init__(self, listeners: Listeners) -> None:
        self.count = 0
        self._listeners = listeners
        self._kept: deque[ErrorReport] = deque(maxlen=MAX_ERRORS)
        self._callbacks: dict[int, tuple[Callback, int]] = {}
        self._numbers = itertools.count()

    @property
    def kept(self) -> tuple[ErrorReport, ...]:
        """The last `MAX_ERRORS`, the oldest first."""
        return tuple(self._kept.copy())

    def add(self, report: ErrorReport) -> None:
        self.count += 1
        self._kept.append(report)
        rank = SEVERITIES.index(report.severity)
        for callback, least in list(self._callbacks.values()):
            if rank >= least:
                self._listeners.tell(partial(callback, report))

    def listen(self, callback: Callback, severity: Severity) -> Callable[[], None]:
        """Tell `callback` of every further error that is at least so severe, until the returned function is called."""
        if severity not in SEVERITIES:
            near = did_you_mean(str(severity), SEVERITIES)
            raise ValueError(f"severity: expected one of {', '.join(SEVERITIES)}; {severity!r} came{near}")
        number = next(self._numbers)
        self._callbacks[number] = (callback, SEVERITIES.index(severity))

        def unsubscribe() -> None:
            self._callbacks.pop(number, None)

        return unsubscribe
