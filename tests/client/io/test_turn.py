"""Whoever waits for the turn gets it before the I/O thread can take it again."""

from __future__ import annotations

import threading

from backtestr.io.turn import Turn
from support.harness import wait_until


def test_a_caller_that_waits_is_not_overtaken() -> None:
    turn = Turn()
    order: list[str] = []

    def step() -> None:
        with turn.next, turn.now:
            order.append("caller")

    turn.take()
    caller = threading.Thread(target=step)
    caller.start()
    wait_until(turn.next.locked, 10)
    turn.leave()
    turn.take()
    order.append("I/O thread")
    turn.leave()
    caller.join()
    assert order == ["caller", "I/O thread"]


def test_the_turn_is_free_unless_it_is_taken_or_waited_for() -> None:
    turn = Turn()
    found = [turn.is_free]
    turn.take()
    found.append(turn.is_free)
    turn.leave()
    with turn.next:
        found.append(turn.is_free)
    assert [*found, turn.is_free] == [True, False, False, True]
