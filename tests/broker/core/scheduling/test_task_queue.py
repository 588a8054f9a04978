"""The task queue is ordered by priority, clients in turn and arrival, and bounded except for tasks put back."""

from __future__ import annotations

from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backtestr_broker.core.scheduling.task_queue import MAX_PASSED, SHARE, TaskQueue
from backtestr_protocol.errors import Busy
from backtestr_protocol.message_types import PRIORITIES, Priority

clients = st.sampled_from(["ann", "bob", "carl"])


def drained(queue: TaskQueue, can_park: bool = True) -> list[str]:
    taken: list[str] = []
    while (task_id := queue.pop(can_park)) is not None:
        taken.append(task_id)
        queue.check_invariants()
    return taken


@settings(deadline=None)
@given(st.lists(st.sampled_from(PRIORITIES), max_size=MAX_PASSED))
def test_the_highest_priority_goes_first_and_within_it_the_earliest(priorities: list[Priority]) -> None:
    queue = TaskQueue(100)
    for number, priority in enumerate(priorities):
        queue.push(str(number), priority, "ann")
    queue.check_invariants()
    expected = sorted(range(len(priorities)), key=lambda number: (PRIORITIES.index(priorities[number]), number))
    assert drained(queue) == [str(number) for number in expected]


class BoundedWaits(RuleBasedStateMachine):
    """Tasks of all priorities come and are taken; none that could be taken is passed over for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = TaskQueue(10_000)
        self.waiting: dict[str, tuple[Priority, bool]] = {}
        # Takings since the last of that priority, while one could be taken: of higher ones, and of any.
        self.passed: Counter[Priority] = Counter()
        self.others: Counter[Priority] = Counter()
        self.made = 0

    @rule(priority=st.sampled_from(PRIORITIES), client_id=clients, to_park=st.booleans(), count=st.integers(1, 20))
    def push(self, priority: Priority, client_id: str, to_park: bool, count: int) -> None:
        for _ in range(count):
            self.made += 1
            self.queue.push_admitted(f"task-{self.made}", priority, client_id, to_park)
            self.waiting[f"task-{self.made}"] = priority, to_park

    @rule(can_park=st.booleans(), count=st.integers(1, 20))
    def take(self, can_park: bool, count: int) -> None:
        for _ in range(count):
            able = {priority for priority, to_park in self.waiting.values() if can_park or not to_park}
            task_id = self.queue.pop(can_park)
            if task_id is None:
                assert not able, "a task could be taken"
                return
            taken, _ = self.waiting.pop(task_id)
            assert taken in able
            if all(self.passed[one] < MAX_PASSED for one in able):
                assert taken == min(able, key=PRIORITIES.index), "a lower priority is taken only after its wait"
            for one in able - {taken}:
                self.passed[one] += PRIORITIES.index(one) > PRIORITIES.index(taken)
                self.others[one] += 1
                assert self.passed[one] < MAX_PASSED + len(PRIORITIES), f"{one} waits for higher ones without a bound"
                # Lower ones that have waited as long have their turns meanwhile, each at most twice.
                assert self.others[one] < MAX_PASSED + 2 * len(PRIORITIES), f"{one} waits without a bound"
            for over in {taken} | (set(PRIORITIES) - {priority for priority, _ in self.waiting.values()}):
                self.passed[over] = self.others[over] = 0

    @invariant()
    def is_consistent(self) -> None:
        self.queue.check_invariants()


TestBoundedWaits = BoundedWaits.TestCase
TestBoundedWaits.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_an_endless_flood_of_interactive_work_leaves_every_ninth_task_to_background_work() -> None:
    queue = TaskQueue(10_000)
    for number in range(1000):
        queue.push_admitted(f"I {number}", "I", "flood")
    for number in range(10):
        queue.push_admitted(f"B {number}", "B", "ann")
    taken = drained(queue)[: 10 * (MAX_PASSED + 1)]
    assert [at for at, task_id in enumerate(taken) if task_id[0] == "B"] == [9 * turn + 8 for turn in range(10)]


@settings(deadline=None)
@given(st.lists(clients, max_size=40))
def test_clients_take_turns_and_each_is_served_in_order(arrivals: list[str]) -> None:
    queue = TaskQueue(1000)
    for number, client_id in enumerate(arrivals):
        queue.push(f"{client_id} {number}", "B", client_id)
    taken = [task_id.split() for task_id in drained(queue)]
    for client_id in set(arrivals):
        numbers = [int(number) for owner, number in taken if owner == client_id]
        assert numbers == sorted(numbers), f"{client_id} is served out of order"
    assert Counter(owner for owner, _ in taken) == Counter(arrivals)
    left = Counter(arrivals)
    for position, (owner, _) in enumerate(taken):
        waiting = {client_id for client_id, count in left.items() if count}
        a_round = {one for one, _ in taken[position : position + len(waiting)]}
        assert a_round == waiting, "a client waits for more than one round"
        left[owner] -= 1


class Fairness(RuleBasedStateMachine):
    """Tasks of several clients are queued, marked to park, taken and put back; a model names the next client.

    A third of the tasks have a pace, and need room to lend a worker unless they need room to park.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queue = TaskQueue(10_000)
        self.queues: dict[str, deque[str]] = {}  # tasks in order, including those to park
        self.to_park: set[str] = set()
        self.paced: set[str] = set()
        self.passed: Counter[str] = Counter()  # turns of other clients since a client's last turn, or since it came
        self.taken: list[tuple[str, str]] = []
        self.made = 0

    @rule(client_id=clients, to_park=st.booleans())
    def push(self, client_id: str, to_park: bool) -> None:
        self.made += 1
        task_id = f"task-{self.made}"
        if self.made % 3 == 0:
            self.paced.add(task_id)
        self.queue.push_admitted(task_id, "B", client_id, to_park, task_id in self.paced)
        self.come(client_id, task_id, to_park)

    def come(self, client_id: str, task_id: str, to_park: bool, first: bool = False) -> None:
        if client_id not in self.queues:
            self.queues[client_id] = deque()
            self.passed[client_id] = 0
        if first:
            self.queues[client_id].appendleft(task_id)
        else:
            self.queues[client_id].append(task_id)
        if to_park:
            self.to_park.add(task_id)

    @precondition(lambda self: self.taken)
    @rule(to_park=st.booleans())
    def put_back(self, to_park: bool) -> None:
        client_id, task_id = self.taken.pop()
        self.queue.push_front(task_id, "B", client_id, to_park, task_id in self.paced)
        self.come(client_id, task_id, to_park, first=True)
        self.passed = Counter(dict.fromkeys(self.passed, 0))  # a turn is inserted: the count starts again

    @rule(data=st.data(), to_park=st.booleans())
    def hold(self, data: st.DataObject, to_park: bool) -> None:
        waiting = sorted(task_id for waiting_tasks in self.queues.values() for task_id in waiting_tasks)
        if waiting:
            task_id = data.draw(st.sampled_from(waiting))
            self.queue.set_to_park(task_id, to_park)
            assert self.queue.is_to_park(task_id) == to_park
            (self.to_park.add if to_park else self.to_park.discard)(task_id)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        waiting = sorted(task_id for waiting_tasks in self.queues.values() for task_id in waiting_tasks)
        if waiting:
            task_id = data.draw(st.sampled_from(waiting))
            self.forget(task_id)
            self.queue.remove(task_id)

    def forget(self, task_id: str) -> None:
        for client_id, waiting_tasks in list(self.queues.items()):
            if task_id in waiting_tasks:
                waiting_tasks.remove(task_id)
                if not waiting_tasks:
                    del self.queues[client_id]
        self.to_park.discard(task_id)

    @rule(can_park=st.booleans(), can_lend=st.booleans())
    def pop(self, can_park: bool, can_lend: bool) -> None:
        able = {
            client_id: [
                one for one in waiting_tasks if (can_park if one in self.to_park else can_lend or one not in self.paced)
            ]
            for client_id, waiting_tasks in self.queues.items()
        }
        task_id = self.queue.pop(can_park, can_lend)
        if task_id is None:
            assert not any(able.values()), "a task could be taken"
            return
        (client_id,) = (one for one, waiting_tasks in self.queues.items() if task_id in waiting_tasks)
        assert able[client_id][0] == task_id, "not the first task of its client that may be taken"
        self.taken.append((client_id, task_id))
        self.forget(task_id)
        for other, waiting_tasks in able.items():
            if other != client_id and waiting_tasks:
                self.passed[other] += 1
                assert self.passed[other] < len({"ann", "bob", "carl"}), f"{other} was passed over for a whole round"
        self.passed[client_id] = 0

    @invariant()
    def counts(self) -> None:
        self.queue.check_invariants()
        assert len(self.queue) == sum(map(len, self.queues.values()))
        for client_id in ("ann", "bob", "carl"):
            assert self.queue.waiting(client_id) == len(self.queues.get(client_id, ()))


TestFairness = Fairness.TestCase
TestFairness.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


def test_a_thousand_tasks_of_one_client_do_not_delay_the_task_of_another() -> None:
    queue = TaskQueue(10_000)
    for number in range(1000):
        queue.push(f"flood {number}", "B", "flood")
    assert queue.pop() == "flood 0"
    queue.push("mine", "B", "ann")
    assert [queue.pop(), queue.pop()] == ["flood 1", "mine"]


def test_a_full_queue_refuses_and_states_when_to_retry() -> None:
    queue = TaskQueue(2)
    queue.push("a", "I", "ann")
    queue.push("b", "K", "ann")
    with pytest.raises(Busy) as caught:
        queue.push("c", "R", "bob")
    assert caught.value.details == {"retryAfterMs": 1000}
    assert len(queue) == 2
    queue.pop()
    queue.push("c", "R", "bob")
    assert drained(queue) == ["c", "b"]


@settings(deadline=None)
@given(st.integers(5, 200), st.integers(1, 4))
def test_there_is_room_for_a_client_without_a_queued_task_in_any_flood(bound: int, floods: int) -> None:
    queue = TaskQueue(bound)
    refused: set[str] = set()
    number = 0
    while len(refused) < floods:
        for client_id in (f"flood {one}" for one in range(floods)):
            number += 1
            try:
                queue.push(str(number), "B", client_id)
            except Busy:
                refused.add(client_id)
    alone = [queue.waiting(f"flood {one}") for one in range(floods)]
    assert max(alone) - min(alone) <= SHARE + 1, "equal clients have equal shares"
    if bound > SHARE * floods + 1:
        queue.push("mine", "B", "ann")
    if floods == 1:
        assert bound * 4 // 5 <= alone[0] <= bound * 4 // 5 + 1


def test_tasks_on_their_way_into_the_queue_count() -> None:
    queue = TaskQueue(10)
    queue.check_room("ann", admitted=7, own=7)
    with pytest.raises(Busy, match="8 of the 8 queued tasks are this client's, and the 2 places left"):
        queue.check_room("ann", admitted=8, own=8)
    queue.check_room("bob", admitted=8, own=0)
    with pytest.raises(Busy, match="10 tasks are queued"):
        queue.check_room("bob", admitted=10, own=0)


def test_a_task_put_back_goes_first_and_is_never_refused() -> None:
    queue = TaskQueue(1)
    queue.push("a", "B", "ann")
    queue.push_front("lost", "B", "bob")
    queue.push_front("bulk", "K", "bob")
    queue.check_invariants()
    assert drained(queue) == ["lost", "a", "bulk"]


def test_each_task_put_back_is_before_the_queued_tasks_of_its_client() -> None:
    queue = TaskQueue(10)
    queue.push("ann's", "B", "ann")
    queue.push("bob's", "B", "bob")
    queue.push_front("lost 1", "B", "bob")
    queue.push_front("lost 2", "B", "bob")
    assert drained(queue) == ["lost 2", "ann's", "lost 1", "bob's"]


def test_a_task_that_needs_room_to_park_keeps_its_position() -> None:
    queue = TaskQueue(10)
    for task_id in ("a", "b", "c"):
        queue.push(task_id, "B", "ann")
    queue.set_to_park("a", True)
    queue.set_to_park("a", True)
    assert queue.pop(can_park=False) == "b"
    assert queue.pop(can_park=True) == "a"
    queue.set_to_park("c", True)
    assert queue.pop(can_park=False) is None
    queue.set_to_park("c", False)
    assert queue.pop(can_park=False) == "c"


def test_a_paced_task_needs_room_to_lend_unless_it_is_to_be_parked() -> None:
    queue = TaskQueue(10)
    queue.push_admitted("paced", "B", "ann", paced=True)
    assert (queue.room("paced"), queue.pop(can_lend=False)) == ("to lend", None)
    queue.set_to_park("paced", True)
    assert (queue.room("paced"), queue.pop(can_park=False)) == ("to park", None)
    queue.check_invariants()
    queue.set_to_park("paced", False)
    assert (queue.room("paced"), queue.pop(can_park=False)) == ("to lend", "paced")


def test_a_removed_task_is_not_taken() -> None:
    queue = TaskQueue(5)
    queue.push("a", "B", "ann")
    queue.push("b", "B", "ann")
    queue.remove("a")
    queue.remove("never there")
    assert drained(queue) == ["b"]
    assert len(queue) == queue.waiting("ann") == 0
