"""A call in a thread of its own returns or raises as it would, and Ctrl-C waits for its end."""

from __future__ import annotations

import os
import select
import signal
import threading

import pytest

from backtestr.io.interrupts import JoinableThread, join_uninterrupted, uninterrupted


def test_a_call_returns_or_raises() -> None:
    assert uninterrupted(lambda: 7) == 7
    with pytest.raises(KeyError, match="GONE"):
        uninterrupted(lambda: os.environ["GONE"])


def test_ctrl_c_is_raised_after_the_call() -> None:
    done: list[str] = []
    signalled = threading.Event()

    def call() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        signalled.set()
        done.append("done")

    with pytest.raises(KeyboardInterrupt):
        uninterrupted(call)
    assert done == ["done"]
    assert signalled.is_set()


def test_a_thread_that_has_ended_is_joined_at_once() -> None:
    thread = JoinableThread(lambda: None, "short")
    thread.start()
    join_uninterrupted(thread)
    join_uninterrupted(thread)
    assert not thread.is_alive()


def test_ctrl_c_does_not_cut_a_join_short() -> None:
    ended: list[bool] = []

    def work() -> None:
        for _ in range(2):
            select.select([], [], [], 0.1)  # the main thread waits by then
            os.kill(os.getpid(), signal.SIGINT)
        select.select([], [], [], 0.1)
        ended.append(True)

    thread = JoinableThread(work, "works on")
    # polars has a handler of its own, with which the system goes on waiting.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            join_uninterrupted(thread)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == [True]
    assert not thread.is_alive()
