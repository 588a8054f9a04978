"""Commands of several threads run once and in order, wake the I/O thread, and are refused after the end."""

from __future__ import annotations

import select
import threading

import pytest

from backtestr.io.command_queue import CommandQueue


def is_readable(queue: CommandQueue) -> bool:
    readable, _, _ = select.select([queue.wake_up], [], [], 0)
    return bool(readable)


def test_commands_run_in_order_and_once() -> None:
    queue = CommandQueue()
    ran: list[int] = []
    for number in range(3):
        queue.add(lambda number=number: ran.append(number))  # type: ignore[misc]
    queue.run()
    queue.run()
    assert ran == [0, 1, 2]
    queue.close(None)


def test_one_byte_wakes_for_any_number_of_commands_until_they_are_run() -> None:
    queue = CommandQueue()
    assert not is_readable(queue)
    for _ in range(3):
        queue.add(lambda: None)
    assert is_readable(queue)
    assert queue.wake_up.recv(4096) == b"\0"
    queue.run()
    assert not is_readable(queue)
    queue.add(lambda: None)
    assert queue.wake_up.recv(4096) == b"\0"
    queue.close(None)


def test_the_thread_is_woken_without_a_command_and_not_after_the_end() -> None:
    queue = CommandQueue()
    queue.wake()
    found = [queue.is_empty]
    queue.add(lambda: None)
    assert [*found, queue.is_empty] == [True, False]
    assert queue.wake_up.recv(4096) == b"\0"
    queue.close(None)
    queue.wake()


def test_a_command_may_add_another() -> None:
    queue = CommandQueue()
    ran: list[str] = []
    queue.add(lambda: queue.add(lambda: ran.append("second")))
    queue.run()
    assert ran == ["second"]
    queue.close(None)


def test_closing_runs_the_last_commands_and_refuses_further_ones() -> None:
    queue = CommandQueue()
    ran: list[int] = []
    queue.add(lambda: ran.append(1))
    fault = OSError("broken")
    queue.close(fault)
    assert ran == [1]
    with pytest.raises(RuntimeError, match="closed") as caught:
        queue.add(lambda: ran.append(2))
    assert caught.value.__cause__ is fault


def test_no_command_of_several_threads_is_lost() -> None:
    queue = CommandQueue()
    ran: list[int] = []

    def add() -> None:
        for _ in range(500):
            queue.add(lambda: ran.append(1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        queue.run()
    queue.close(None)
    assert len(ran) == 2_000
