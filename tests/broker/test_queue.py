"""The task queue: priority first, then arrival; bounded, except for what comes back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_broker.queue import TaskQueue
from backtestr_protocol.errors import Busy
from backtestr_protocol.messages import PRIORITIES, Priority


def drained(queue: TaskQueue) -> list[str]:
    taken: list[str] = []
    while (task_id := queue.pop()) is not None:
        taken.append(task_id)
    return taken


@settings(deadline=None)
@given(st.lists(st.sampled_from(PRIORITIES), max_size=30))
def test_the_highest_priority_goes_first_and_within_it_the_earliest(priorities: list[Priority]) -> None:
    queue = TaskQueue(100)
    for number, priority in enumerate(priorities):
        queue.push(str(number), priority)
    queue.check_invariants()
    expected = sorted(range(len(priorities)), key=lambda number: (PRIORITIES.index(priorities[number]), number))
    assert drained(queue) == [str(number) for number in expected]


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    queue = TaskQueue(2)
    queue.push("a", "I")
    queue.push("b", "K")
    with pytest.raises(Busy) as caught:
        queue.push("c", "R")
    assert caught.value.details == {"retryAfterMs": 1000}
    assert len(queue) == 2
    queue.pop()
    queue.push("c", "R")
    assert drained(queue) == ["c", "b"]


def test_what_comes_back_goes_first_and_is_never_refused() -> None:
    queue = TaskQueue(1)
    queue.push("a", "B")
    queue.push_front("lost", "B")
    queue.push_front("bulk", "K")
    queue.check_invariants()
    assert drained(queue) == ["lost", "a", "bulk"]


def test_what_is_removed_does_not_come() -> None:
    queue = TaskQueue(5)
    queue.push("a", "B")
    queue.push("b", "B")
    queue.remove("a")
    queue.remove("never there")
    assert drained(queue) == ["b"]
