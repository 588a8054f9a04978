"""A wake ends the sleep of the event loop, from any thread and at signals, and never blocks."""

from __future__ import annotations

import select
import signal

import pytest

from backtestr_broker.io.wake import Wake


def test_a_wake_ends_the_sleep_and_is_taken_back() -> None:
    wake = Wake()
    for _ in range(3):
        wake()
    assert wake.read_end.recv(1) == b"\0"
    wake.drain()
    with pytest.raises(BlockingIOError):
        wake.read_end.recv(1)
    wake.close()
    wake()


def test_many_wakes_without_a_reader_do_not_block() -> None:
    """The buffer of the socket is full long before the last of them."""
    wake = Wake()
    for _ in range(100_000):
        wake()
    wake.drain()
    wake.close()


def test_a_signal_wakes_the_loop_within_the_block_alone() -> None:
    """Python's handler runs once the sleep has ended, and a signal alone does not end it on every system."""
    wake = Wake()
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    try:
        with wake.at_signals():
            signal.raise_signal(signal.SIGUSR1)
        assert select.select([wake.read_end], [], [], 10.0)[0]
        wake.drain()
        signal.raise_signal(signal.SIGUSR1)
        assert not select.select([wake.read_end], [], [], 0.0)[0]
    finally:
        signal.signal(signal.SIGUSR1, before)
        wake.close()


def test_a_signal_after_its_end_writes_to_nothing() -> None:
    wake = Wake()
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    with wake.at_signals():
        wake.close()
        assert signal.set_wakeup_fd(before) == before
