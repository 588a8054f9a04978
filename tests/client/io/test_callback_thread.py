"""Callbacks run one after the other on a thread of their own, and one that fails or hangs does not stop the client."""

from __future__ import annotations

import threading

import pytest

from backtestr.io.callback_thread import MAX_CALLS, CallbackThread
from support.client.interruptions import CALLS, interrupted_anywhere


def test_a_callback_that_raises_is_logged_and_the_others_are_called(caplog: pytest.LogCaptureFixture) -> None:
    callbacks = CallbackThread()
    called: list[int] = []
    callbacks.call(lambda: 1 // 0)
    callbacks.call(lambda: called.append(1))
    callbacks.close()
    assert called == [1]
    assert "ZeroDivisionError" in caplog.text


def test_a_callback_that_hangs_costs_calls_that_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    callbacks = CallbackThread()
    began, released = threading.Event(), threading.Event()
    called: list[int] = []

    def hang() -> None:
        began.set()
        assert released.wait(30)

    callbacks.call(hang)
    assert began.wait(10)
    for number in range(MAX_CALLS + 2):
        callbacks.call(lambda number=number: called.append(number))  # type: ignore[misc]
    assert callbacks.missed == 2
    released.set()
    callbacks.close()
    assert called == list(range(MAX_CALLS))
    assert caplog.text.count("too slow") == 1


def test_a_callback_may_close_its_own_thread() -> None:
    callbacks = CallbackThread()
    closed = threading.Event()

    def close() -> None:
        callbacks.close()
        closed.set()

    callbacks.call(close)
    assert closed.wait(10)
    callbacks.call(lambda: pytest.fail("called after the end"))


def test_a_close_that_is_interrupted_anywhere_leaves_a_thread_that_can_be_closed() -> None:
    interrupted = 0
    for callbacks in interrupted_anywhere(CallbackThread, CallbackThread.close, CALLS):
        # The I/O thread must not wait, whether the callback is called or not.
        other = threading.Thread(target=callbacks.call, args=(lambda: None,), daemon=True)
        other.start()
        other.join(5)
        assert not other.is_alive()
        callbacks.close()
        interrupted += 1
    assert interrupted >= 2
