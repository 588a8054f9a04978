"""Interactive tasks go to interactive workers in the order of the queue, and each gets exactly one result."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_broker.core.clients.admission import Admission
from backtestr_broker.core.clients.answers import Answer, RequestKey
from backtestr_broker.core.clients.idempotency import AnsweredRequests
from backtestr_broker.core.envelopes import Envelopes
from backtestr_broker.core.events import Effect, Instruct, Reply
from backtestr_broker.core.outbox import Outbox
from backtestr_broker.core.scheduling.interactive_tasks import InteractiveTasks, Result
from backtestr_broker.core.scheduling.workers import Worker, Workers
from backtestr_protocol import worker_channel
from backtestr_protocol.codec import Signer, encode
from backtestr_protocol.errors import Busy, ErrorData, NotFound, SystemFault, TimedOut, TimeLimitExceeded, WorkersLost
from backtestr_protocol.message_types import PRIORITIES, Priority
from backtestr_protocol.messages import Pong
from support.protocol.independent import Fields, Requests

KEY = bytes(32)
ANN: RequestKey = ("ann", "r1")
WALL_MS = 1_790_000_000_000
NOT_FOUND = NotFound("no such series").to_data(component="engine", timestamp=WALL_MS)
LOST = "killed by signal 9"

_client = Requests(KEY, "ann", now_ms=lambda: WALL_MS)


class Machine:
    """The machine with workers of its own; a task's data is its name, and `results` has the calls of its callback."""

    def __init__(self, *, workers: int = 0, bound: int = 1000) -> None:
        answers = AnsweredRequests()
        self.outbox = Outbox(Envelopes(Signer(KEY), KEY, "instance"), answers, Admission({}, answers), now=5.0)
        self.outbox.wall_ms = WALL_MS
        self.workers = Workers({"compute": 9, "interactive": 9})
        self.tasks = InteractiveTasks(self.outbox, self.workers, bound)
        self.results: defaultdict[str, list[tuple[Worker | None, Result]]] = defaultdict(list)
        self.assigned: list[tuple[bytes, worker_channel.Assign, str]] = []  # connection, message and name
        self.other_effects: list[Effect] = []
        self.started = 0
        for _ in range(workers):
            self.start_worker()

    def start_worker(self, kind: worker_channel.WorkerKind = "interactive") -> Worker:
        self.started += 1
        worker_id = f"{kind}-{self.started}"
        self.workers.start(worker_id, kind, 1000, 5.0)
        worker = self.workers.ready(worker_id, worker_id.encode(), 5.0)
        assert worker is not None
        self.tasks.assign()
        self.collect()
        return worker

    def ask(
        self,
        name: str,
        client_id: str = "ann",
        priority: Priority = "I",
        *,
        admitted: bool = False,
        then: Callable[[], None] | None = None,
    ) -> None:
        def done(worker: Worker | None, result: Result) -> None:
            self.results[name].append((worker, result))
            if then is not None:
                then()

        key = (client_id, f"request of {name}")
        self.tasks.ask("GetMarketData", name.encode(), key, priority, done=done, admitted=admitted)
        self.collect()

    def finish(self, worker: Worker, *frames: bytes, error: ErrorData | None = None) -> None:
        """Have a worker finish its task, as the scheduler does."""
        task_id, worker.task_id = worker.task_id, None
        assert task_id is not None
        outcome: worker_channel.Outcome = "failed" if error else "completed"
        message = worker_channel.Finished(task_id=task_id, outcome=outcome, error=error)
        self.tasks.finished(worker, message, list(frames))
        self.tasks.assign()
        self.collect()

    def lose(self, worker: Worker, *, overdue: bool = False) -> None:
        """End a worker, as the scheduler does."""
        task_id, _ = self.workers.lost(worker.worker_id)
        self.tasks.lost(task_id, LOST, overdue=overdue)
        self.tasks.assign()
        self.collect()

    def collect(self) -> None:
        for effect in self.outbox.take_effects():
            if isinstance(effect, Instruct):
                message, (data,) = worker_channel.decode_to_worker(effect.frames)
                assert isinstance(message, worker_channel.Assign)
                self.assigned.append((effect.peer, message, data.decode()))
            else:
                self.other_effects.append(effect)
        self.tasks.check_invariants()

    @property
    def names_assigned(self) -> list[str]:
        return [name for _, _, name in self.assigned]

    def error_of(self, name: str) -> Any:
        """Return the error that the one call of a callback got, without a worker."""
        ((worker, error),) = self.results[name]
        assert worker is None
        return error

    def drain(self) -> None:
        """Have an additional worker do all that is queued, and then all workers finish."""
        self.start_worker()
        while busy := [one for one in self.workers if one.task_id is not None]:
            self.finish(busy[0], b"data")


# --- assignment ---


def test_an_idle_interactive_worker_gets_the_task_at_once_with_its_request() -> None:
    machine = Machine()
    machine.start_worker("compute")
    worker = machine.start_worker()
    machine.ask("bars")
    ((peer, message, name),) = machine.assigned
    assert (peer, name, message.work) == (worker.peer, "bars", "GetMarketData")
    assert (message.client_id, message.request_id) == ("ann", "request of bars")
    assert worker.task_id == message.task_id


def test_tasks_go_by_priority_and_within_it_from_each_client_in_turn() -> None:
    machine = Machine()
    machine.ask("bulk", "ann", "K")
    for name in ("ann 1", "ann 2", "ann 3"):
        machine.ask(name, "ann", "I")
    machine.ask("bob 1", "bob", "I")
    machine.ask("first", "carl", "R")
    machine.drain()
    assert machine.names_assigned == ["first", "ann 1", "bob 1", "ann 2", "ann 3", "bulk"]


def test_each_idle_worker_gets_one_task_and_the_rest_wait() -> None:
    machine = Machine(workers=2)
    for name in ("a", "b", "c"):
        machine.ask(name)
    assert machine.names_assigned == ["a", "b"]
    assert len({peer for peer, _, _ in machine.assigned}) == 2
    assert (len(machine.tasks.queue), machine.tasks.queue.waiting("ann")) == (1, 1)


# --- bounds ---


def test_a_task_beyond_the_bound_is_refused_and_leaves_nothing_behind() -> None:
    machine = Machine(bound=2)
    machine.ask("a", "ann")
    machine.ask("b", "bob")
    with pytest.raises(Busy, match="2 tasks are queued"):
        machine.ask("c", "carl")
    machine.tasks.check_invariants()
    machine.drain()
    assert machine.names_assigned == ["a", "b"]
    assert "c" not in machine.results


def test_one_client_cannot_fill_the_queue() -> None:
    machine = Machine(bound=5)
    for name in ("1", "2", "3", "4"):
        machine.ask(name, "ann")
    with pytest.raises(Busy, match="4 of the 4 queued tasks are this client's"):
        machine.ask("5", "ann")
    machine.ask("bob's", "bob")
    assert machine.tasks.queue.waiting("bob") == 1


def test_a_task_that_was_admitted_before_and_one_that_comes_back_pass_a_full_queue() -> None:
    machine = Machine(workers=1, bound=1)
    (worker,) = machine.workers
    machine.ask("runs")
    machine.ask("queued")
    machine.ask("admitted", admitted=True)
    machine.lose(worker)
    assert len(machine.tasks.queue) == 3
    machine.drain()
    assert {name: len(calls) for name, calls in machine.results.items()} == {"runs": 1, "queued": 1, "admitted": 1}


# --- results ---


def test_the_callback_gets_the_worker_and_its_frames() -> None:
    machine = Machine(workers=1)
    (worker,) = machine.workers
    machine.ask("bars")
    machine.finish(worker, b"data", b"table")
    assert machine.results == {"bars": [(worker, [b"data", b"table"])]}
    assert worker.task_id is None


def test_the_callback_gets_the_error_of_a_worker_instead_of_frames() -> None:
    machine = Machine(workers=1)
    (worker,) = machine.workers
    machine.ask("bars")
    machine.finish(worker, b"not used", error=NOT_FOUND)
    assert machine.results == {"bars": [(worker, NOT_FOUND)]}


@pytest.mark.parametrize("lost", [False, True])
def test_a_callback_may_ask_for_another_task(lost: bool) -> None:
    machine = Machine(workers=2)
    first, second = machine.workers
    machine.ask("one", then=lambda: machine.ask("two"))
    if lost:
        machine.lose(first, overdue=True)
    else:
        machine.finish(first, b"data")
    assert machine.names_assigned == ["one", "two"]
    machine.finish(second if lost else first, b"data")
    assert [len(machine.results[name]) for name in ("one", "two")] == [1, 1]


# --- lost workers ---


def test_the_task_of_a_lost_worker_goes_to_another_before_all_that_are_queued() -> None:
    machine = Machine(workers=1)
    (first,) = machine.workers
    for name in ("runs", "queued 1", "queued 2"):
        machine.ask(name)
    machine.lose(first)
    assert machine.results == {}
    second = machine.start_worker()
    assert machine.names_assigned == ["runs", "runs"]
    machine.finish(second, b"data")
    assert machine.results == {"runs": [(second, [b"data"])]}


def test_the_second_loss_ends_a_task() -> None:
    machine = Machine(workers=3)
    first, second, third = machine.workers
    machine.ask("runs")
    machine.lose(first)
    assert (machine.results, second.task_id) == ({}, machine.assigned[0][1].task_id)
    machine.lose(second)
    error = machine.error_of("runs")
    assert isinstance(error, WorkersLost)
    assert error.message == f"the worker that answered GetMarketData ended, for the second time: {LOST}"
    assert (third.task_id, machine.names_assigned) == (None, ["runs", "runs"])


def test_losses_are_counted_for_each_task() -> None:
    machine = Machine(workers=1)
    (first,) = machine.workers
    machine.ask("a")
    machine.lose(first)
    second = machine.start_worker()
    machine.finish(second, b"data")
    machine.ask("b")
    machine.lose(second)
    machine.drain()
    ((_, result),) = machine.results["b"]
    assert result == [b"data"]


def test_an_overdue_task_ends_at_the_first_loss() -> None:
    machine = Machine(workers=2)
    first, second = machine.workers
    machine.ask("endless")
    machine.lose(first, overdue=True)
    error = machine.error_of("endless")
    assert isinstance(error, TimedOut)
    assert error.message == f"the worker that answered GetMarketData was {LOST}"
    assert (second.task_id, machine.names_assigned) == (None, ["endless"])


# --- requests that a result answers ---


def replies(machine: Machine) -> list[tuple[Fields, list[bytes]]]:
    """Return the payload and the attachments of each answer."""
    machine.collect()
    found = [_client.answer(one.frames) for one in machine.other_effects if isinstance(one, Reply)]
    return [(envelope["payload"], attachments) for envelope, attachments in found]


@pytest.fixture
def machine() -> Machine:
    """Return a machine with one worker, in whose outbox the request `ANN` is running."""
    machine = Machine(workers=1)
    assert machine.outbox.answers.begin(*ANN, b"peer of ann", 5.0) is True
    machine.outbox.counters.began(ANN, "GetMarketData", 5.0)
    return machine


def test_without_a_callback_data_and_attachments_are_the_answer(machine: Machine) -> None:
    machine.tasks.ask("GetMarketData", b"asked", ANN, "I")
    machine.collect()
    (worker,) = machine.workers
    machine.finish(worker, encode({"tables": [1]}), b"arrow 0", b"arrow 1")
    assert replies(machine) == [({"type": "Success", "data": {"tables": [1]}}, [b"arrow 0", b"arrow 1"])]


@pytest.mark.parametrize("lost", [False, True])
def test_without_a_callback_an_error_is_the_answer(machine: Machine, lost: bool) -> None:
    machine.tasks.ask("GetMarketData", b"asked", ANN, "I")
    machine.collect()
    (worker,) = machine.workers
    if lost:
        machine.lose(worker, overdue=True)
    else:
        machine.finish(worker, error=NOT_FOUND)
    ((payload, _),) = replies(machine)
    expected = "TIMEOUT" if lost else "NOT_FOUND"
    assert (payload["type"], payload["data"]["code"]) == ("Failure", expected)


def test_an_answer_is_made_of_the_frames(machine: Machine) -> None:
    made_of: list[list[bytes]] = []

    def make(frames: list[bytes]) -> Pong:
        made_of.append(frames)
        return Pong(timestamp=7)

    machine.tasks.answering("GetMarketData", ANN, make)(None, [b"data", b"table"])
    assert made_of == [[b"data", b"table"]]
    assert replies(machine) == [({"type": "Success", "data": {"timestamp": 7}}, [])]


def test_an_error_while_an_answer_is_made_is_the_answer(machine: Machine) -> None:
    def make(_frames: list[bytes]) -> Answer:
        raise NotFound("no such backtest")

    machine.tasks.answering("GetMarketData", ANN, make)(None, [b"data"])
    ((payload, _),) = replies(machine)
    assert (payload["data"]["code"], payload["data"]["message"]) == ("NOT_FOUND", "no such backtest")


def test_a_worker_that_sends_no_data_is_a_fault(machine: Machine) -> None:
    def make(_frames: list[bytes]) -> Answer:
        raise AssertionError("there are no frames to make an answer of")

    machine.tasks.answering("GetMarketData", ANN, make)(None, [])
    ((payload, _),) = replies(machine)
    assert payload["data"]["code"] == SystemFault.code
    assert payload["data"]["message"] == "the worker that answered GetMarketData sent no data"


def test_an_answer_that_comes_later_is_not_sent_now(machine: Machine) -> None:
    machine.tasks.answering("GetMarketData", ANN, lambda _frames: None)(None, [b"data"])
    assert replies(machine) == []
    assert machine.outbox.answers.running("ann") == 1


# --- the law ---

actions = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from(["ann", "bob"]), st.sampled_from(PRIORITIES)),
    st.tuples(st.just("start")),
    st.tuples(st.sampled_from(["finish", "fail", "lose", "overdue"]), st.integers(0, 3)),
)


@settings(deadline=None)
@given(st.lists(actions, max_size=60))
def test_every_callback_is_called_exactly_once_while_workers_answer_fail_and_are_lost(
    steps: list[tuple[Any, ...]],
) -> None:
    machine = Machine(workers=1)
    expected: dict[str, type] = {}
    losses: defaultdict[str, int] = defaultdict(int)
    asked = 0
    for action, *arguments in steps:
        if action == "ask":
            asked += 1
            machine.ask(f"task {asked}", *arguments)
        elif action == "start":
            machine.start_worker()
        else:
            busy = [one for one in machine.workers if one.task_id is not None]
            if not busy:
                continue
            worker = busy[arguments[0] % len(busy)]
            (*_, name) = (name for _, message, name in machine.assigned if message.task_id == worker.task_id)
            if action == "finish":
                expected[name] = list
                machine.finish(worker, b"data")
            elif action == "fail":
                expected[name] = ErrorData
                machine.finish(worker, error=NOT_FOUND)
            else:
                losses[name] += 1
                if action == "overdue":
                    expected[name] = TimeLimitExceeded
                elif losses[name] == 2:
                    expected[name] = WorkersLost
                machine.lose(worker, overdue=action == "overdue")
        assert {name: [type(result) for _, result in calls] for name, calls in machine.results.items()} == {
            name: [kind] for name, kind in expected.items()
        }
    machine.drain()
    assert {name: len(calls) for name, calls in machine.results.items()} == {
        f"task {number}": 1 for number in range(1, asked + 1)
    }
