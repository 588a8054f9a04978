"""The error log keeps the last errors and calls back for those that are severe enough."""

from __future__ import annotations

import pytest

from backtestr.core.recovery import MessagesLost, Recovered
from backtestr.io.callback_thread import CallbackThread
from backtestr.io.error_log import MAX_ERRORS, ErrorLog, ErrorReport
from backtestr_protocol.errors import BacktestrError, NetworkError, NotFound, SystemFault


def report(error: BacktestrError, timestamp: int = 0) -> ErrorReport:
    return ErrorReport(error, "Ping", timestamp)


def test_the_latest_hundred_errors_are_kept() -> None:
    errors = ErrorLog(CallbackThread())
    for number in range(MAX_ERRORS + 5):
        errors.add(report(NotFound("no"), number))
    assert [one.timestamp for one in errors.latest] == list(range(5, MAX_ERRORS + 5))
    assert errors.count == MAX_ERRORS + 5


def test_callbacks_get_errors_that_are_severe_enough_until_they_are_removed() -> None:
    callbacks = CallbackThread()
    errors = ErrorLog(callbacks)
    called: list[str] = []
    stop = errors.add_callback(lambda one: called.append(f"warning {one.severity}"), "Warning")
    errors.add_callback(lambda one: called.append(f"critical {one.severity}"), "Critical")
    errors.add(report(MessagesLost("gone")))
    errors.add(report(SystemFault("no")))
    stop()
    stop()
    errors.add(report(NotFound("no")))
    callbacks.close()
    assert called == ["warning Warning", "warning Critical", "critical Critical"]


def test_an_unknown_severity_is_refused() -> None:
    with pytest.raises(ValueError, match="'warning' came; did you mean 'Warning'"):
        ErrorLog(CallbackThread()).add_callback(print, "warning")  # type: ignore[arg-type]


def test_recoveries_are_kept_apart_and_in_order() -> None:
    errors = ErrorLog(CallbackThread())
    errors.add(report(NotFound("no"), 1))
    for number in range(MAX_ERRORS + 5):
        errors.add(report(Recovered("again"), 2 + number))
    errors.add(report(NetworkError("gone"), 500))
    assert [one.timestamp for one in errors.latest] == [1, 500]
    assert [one.timestamp for one in errors.latest(severity="Info")] == [1, *range(7, MAX_ERRORS + 7), 500]
    assert [one.timestamp for one in errors.latest(severity="Error")] == [1]
    assert errors.count == 2
    with pytest.raises(ValueError, match="'info' came; did you mean 'Info'"):
        errors.latest(severity="info")  # type: ignore[arg-type]


def test_a_recovery_reaches_those_who_ask_for_info() -> None:
    callbacks = CallbackThread()
    errors = ErrorLog(callbacks)
    called: list[str] = []
    errors.add_callback(lambda one: called.append("info"), "Info")
    errors.add_callback(lambda one: called.append("warning"), "Warning")
    errors.add(report(Recovered("again")))
    callbacks.close()
    assert called == ["info"]
