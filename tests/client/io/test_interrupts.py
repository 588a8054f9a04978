"""A call in a thread of its own returns or raises as it would, and Ctrl-C waits for its end."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from backtestr.io.interrupts import InterruptGuard, JoinableThread, join_uninterrupted, uninterrupted


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


# --- the guard ---


@pytest.fixture
def pythons_handler() -> Iterator[None]:
    """Have Python's own handler, and then again that of this process: polars has one of its own."""
    saved = of_system()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
    put_back(saved)


def of_system() -> Any:
    """Return the system's handler of SIGINT, as it keeps it."""
    found = (ctypes.c_char * 512)()
    ctypes.CDLL(None).sigaction(int(signal.SIGINT), None, found)
    return found


def put_back(handler: Any) -> None:
    ctypes.CDLL(None).sigaction(int(signal.SIGINT), handler, None)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("pythons_handler")
def test_ctrl_c_is_put_off_while_the_guard_holds() -> None:
    done: list[str] = []

    def call(_guard: InterruptGuard) -> None:
        press()
        press()
        done.append("done")

    with pytest.raises(KeyboardInterrupt):
        InterruptGuard().run(call)
    assert done == ["done"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("pythons_handler")
def test_ctrl_c_is_raised_at_once_where_it_is_let_through_and_held_again_after_that() -> None:
    done: list[str] = []

    def call(guard: InterruptGuard) -> None:
        try:
            guard.let_through(lambda _: press(), 1)
        finally:
            press()
            done.append("tidied up")

    with pytest.raises(KeyboardInterrupt):
        InterruptGuard().run(call)
    assert done == ["tidied up"]


@pytest.mark.usefixtures("pythons_handler")
def test_ctrl_c_that_was_put_off_comes_before_the_next_wait() -> None:
    waited: list[int] = []

    def call(guard: InterruptGuard) -> None:
        press()
        guard.let_through(waited.append, 1)

    with pytest.raises(KeyboardInterrupt):
        InterruptGuard().run(call)
    assert waited == []


@pytest.mark.usefixtures("pythons_handler")
def test_ctrl_c_is_not_lost_to_another_error() -> None:
    def call(_guard: InterruptGuard) -> None:
        press()
        raise KeyError("gone")

    with pytest.raises(KeyboardInterrupt) as caught:
        InterruptGuard().run(call)
    assert isinstance(caught.value.__context__, KeyError)


@pytest.mark.usefixtures("pythons_handler")
def test_a_handler_of_the_program_is_called_and_may_set_another() -> None:
    called: list[int] = []

    def handle(number: int, _frame: object) -> None:
        called.append(number)
        if len(called) == 3:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def call(guard: InterruptGuard) -> int:
        for _ in range(3):
            guard.let_through(lambda _: press(), 1)
        return 7

    signal.signal(signal.SIGINT, handle)
    assert InterruptGuard().run(call) == 7
    assert called == [signal.SIGINT] * 3
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert InterruptGuard().run(lambda guard: guard.let_through(lambda _: press(), 1)) is None


def test_the_handler_that_a_library_has_set_in_c_is_put_back() -> None:
    before = bytes(of_system())[:8]  # its address
    InterruptGuard().run(lambda _: None)
    assert bytes(of_system())[:8] == before


def test_only_the_main_thread_needs_a_guard() -> None:
    found: list[bool] = [InterruptGuard.is_needed()]
    thread = threading.Thread(target=lambda: found.append(InterruptGuard.is_needed()))
    thread.start()
    thread.join()
    assert found == [True, False]


def test_a_handler_that_cannot_be_put_back_rules_a_guard_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert InterruptGuard.is_possible()
    monkeypatch.setattr("backtestr.io.interrupts._handler_of", lambda _: None)
    assert not InterruptGuard.is_possible()
