"""Freed memory is returned to the system when the process uses more than at its start, and once in an interval."""

from __future__ import annotations

import ctypes

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_broker.io.freed_memory import INTERVAL, TOLERATED_BYTES, FreedMemory

MB = 1 << 20


class Process:
    """A process whose memory is `used`, of which `free` can be returned."""

    def __init__(self, used: int = 50 * MB) -> None:
        self.used = used
        self.free = 0
        self.trims = 0

    def resident(self) -> int:
        return self.used + self.free

    def trim(self) -> None:
        self.trims += 1
        self.free = 0


def test_what_was_freed_is_returned_once_in_an_interval() -> None:
    process = Process()
    memory = FreedMemory(0.0, process.resident, process.trim)
    process.free = 100 * MB
    assert not memory.return_some(INTERVAL - 0.1)
    assert memory.return_some(INTERVAL)
    assert process.resident() == 50 * MB
    process.free = 100 * MB
    assert not memory.return_some(2 * INTERVAL - 0.1)
    assert memory.return_some(2 * INTERVAL)


def test_a_little_more_than_ever_is_not_worth_it() -> None:
    process = Process()
    memory = FreedMemory(0.0, process.resident, process.trim)
    process.free = TOLERATED_BYTES - 1
    assert not memory.return_some(2 * INTERVAL)
    process.free = TOLERATED_BYTES
    assert memory.return_some(3 * INTERVAL)


def test_a_process_without_such_a_call_or_a_measure_is_left_as_it_is() -> None:
    def unknown() -> int:
        raise psutil.AccessDenied

    assert not FreedMemory(0.0, Process().resident, None).return_some(INTERVAL)
    assert not FreedMemory(0.0, unknown, Process().trim).return_some(INTERVAL)


@given(st.lists(st.tuples(st.integers(-60, 60), st.integers(0, 60))))
def test_after_every_look_no_more_is_free_than_is_tolerated(changes: list[tuple[int, int]]) -> None:
    process = Process()
    memory = FreedMemory(0.0, process.resident, process.trim)
    for number, (used, free) in enumerate(changes, 1):
        process.used = max(50 * MB, process.used + used * MB)
        process.free += free * MB
        memory.return_some(number * INTERVAL)
        assert process.free == 0 or process.resident() < 50 * MB + TOLERATED_BYTES


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library has no malloc_trim")
def test_this_process_returns_its_own() -> None:
    memory = FreedMemory(0.0, iter([0, 1 << 40]).__next__)
    assert memory.return_some(INTERVAL)
