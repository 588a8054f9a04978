"""Callbacks run one after the other on a thread of their own, and one that fails or hangs does not stop the client."""

from __future__ import annotations

import threading

import pytest

from backtestr.io.callback_thread import MAX_CALLS, CallbackThread


def test_a_listener_that_raises_is_logged_and_the_others_hear(caplog: pytest.LogCaptureFixture) -> None:
    listeners = CallbackThread()
    heard: list[int] = []
    listeners.tell(lambda: 1 // 0)
    listeners.tell(lambda: heard.append(1))
    listeners.close()
    assert heard == [1]
    assert "ZeroDivisionError" in caplog.text


def test_a_listener_that_hangs_costs_calls_that_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    listeners = CallbackThread()
    began, go_on = threading.Event(), threading.Event()
    heard: list[int] = []

    def hang() -> None:
        began.set()
        assert go_on.wait(30)

    listeners.tell(hang)
    assert began.wait(10)
    for number in range(MAX_CALLS + 2):
        listeners.tell(lambda number=number: heard.append(number))  # type: ignore[misc]
    assert listeners.missed == 2
    go_on.set()
    listeners.close()
    assert heard == list(range(MAX_CALLS))
    assert caplog.text.count("too slow") == 1


def test_a_listener_may_close_what_calls_it() -> None:
    listeners = CallbackThread()
    closed = threading.Event()

    def close() -> None:
        listeners.close()
        closed.set()

    listeners.tell(close)
    assert closed.wait(10)
    listeners.tell(lambda: pytest.fail("called after the end"))
