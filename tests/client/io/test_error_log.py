"""The error log keeps the last errors and calls back for those that are severe enough."""

from __future__ import annotations

import pytest

from backtestr.core.recovery import MessagesLost
from backtestr.io.callback_thread import CallbackThread
from backtestr.io.error_log import MAX_ERRORS, ErrorLog, ErrorReport
from backtestr_protocol.errors import BacktestrError, NotFound, SystemFault


def report(error: BacktestrError, timestamp: int = 0) -> ErrorReport:
    return ErrorReport(error, "Ping", timestamp)


def test_the_last_hundred_errors_are_kept() -> None:
    errors = ErrorLog(CallbackThread())
    for number in range(MAX_ERRORS + 5):
        errors.add(report(NotFound("no"), number))
    assert [one.timestamp for one in errors.kept] == list(range(5, MAX_ERRORS + 5))
    assert errors.count == MAX_ERRORS + 5


def test_callbacks_hear_what_is_severe_enough_until_they_have_enough() -> None:
    listeners = CallbackThread()
    errors = ErrorLog(listeners)
    heard: list[str] = []
    stop = errors.listen(lambda one: heard.append(f"warning {one.severity}"), "Warning")
    errors.listen(lambda one: heard.append(f"critical {one.severity}"), "Critical")
    errors.add(report(MessagesLost("gone")))
    errors.add(report(SystemFault("no")))
    stop()
    stop()
    errors.add(report(NotFound("no")))
    listeners.close()
    assert heard == ["warning Warning", "warning Critical", "critical Critical"]


def test_a_severity_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="'warning' came; did you mean 'Warning'"):
        ErrorLog(CallbackThread()).listen(print, "warning")  # type: ignore[arg-type]
