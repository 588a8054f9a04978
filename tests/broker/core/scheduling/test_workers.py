"""As many workers are active as are configured, if so many are ready; a spare one waits only while none is missing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backtestr_broker.core.scheduling.workers import Workers
from backtestr_protocol.worker_channel import WorkerKind

IDS = ("compute-1", "compute-2", "compute-3", "compute-4")


def start(workers: Workers, worker_id: str, kind: WorkerKind = "compute") -> None:
    """Start a worker and have it ready, on a connection of its own."""
    workers.start(worker_id, kind, 1000, 0.0)
    workers.ready(worker_id, worker_id.encode(), 0.0)


def states(workers: Workers) -> dict[str, str]:
    return {worker.worker_id: worker.state for worker in workers}


def test_a_worker_that_is_ready_beyond_the_configured_ones_is_a_spare_and_takes_no_task() -> None:
    workers = Workers({"compute": 2, "interactive": 1})
    for worker_id in IDS[:3]:
        start(workers, worker_id)
    assert states(workers) == {"compute-1": "idle", "compute-2": "idle", "compute-3": "spare"}
    assert [worker.worker_id for worker in workers.idle("compute")] == ["compute-1", "compute-2"]


def test_the_first_that_are_ready_are_active_whatever_they_are_called() -> None:
    workers = Workers({"compute": 1})
    start(workers, "compute-2")
    start(workers, "compute-1")
    assert states(workers) == {"compute-2": "idle", "compute-1": "spare"}


def test_the_spare_that_waits_for_longest_replaces_a_lost_worker() -> None:
    workers = Workers({"compute": 2})
    for worker_id in IDS:
        start(workers, worker_id)
    assert workers.replace_by_spare("compute") is None, "none is missing"
    workers.lost("compute-1")
    replacing = workers.replace_by_spare("compute")
    assert replacing is workers.get("compute-3")
    assert replacing.state == "idle"
    start(workers, "compute-1")
    assert states(workers) == {"compute-2": "idle", "compute-1": "spare", "compute-3": "idle", "compute-4": "spare"}


def test_a_spare_takes_the_place_of_a_worker_at_bulk_work_alone() -> None:
    workers = Workers({"compute": 2})
    for worker_id in IDS[:3]:
        start(workers, worker_id)
    assert workers.swap_in_spare("compute", lambda _: False) is None, "none is at bulk work"
    for worker_id in IDS[:2]:
        workers.get(worker_id).task_id = "bulk"
    workers.get("compute-1").parked.add("b1")
    swapped = workers.swap_in_spare("compute", lambda worker: worker.task_id == "bulk")
    assert swapped is workers.get("compute-3")
    assert states(workers) == {"compute-1": "busy", "compute-2": "busy", "compute-3": "idle"}
    workers.check_invariants()
    assert workers.swap_in_spare("compute", lambda worker: worker.task_id == "bulk") is None, "no spare waits"
    workers.get("compute-2").release("bulk")
    assert states(workers) == {"compute-1": "busy", "compute-2": "spare", "compute-3": "idle"}


def test_a_lost_spare_is_replaced_by_none() -> None:
    workers = Workers({"compute": 1})
    for worker_id in IDS[:3]:
        start(workers, worker_id)
    workers.lost("compute-2")
    assert workers.replace_by_spare("compute") is None
    assert states(workers) == {"compute-1": "idle", "compute-2": "lost", "compute-3": "spare"}


def test_a_spare_replaces_no_worker_of_another_kind() -> None:
    workers = Workers({"compute": 1, "interactive": 1})
    start(workers, "interactive-1", "interactive")
    start(workers, "compute-1")
    start(workers, "compute-2")
    workers.lost("interactive-1")
    assert workers.replace_by_spare("interactive") is None
    assert not workers.any_active("interactive")
    assert not workers.are_complete()
    assert workers.are_complete("compute")


def test_a_worker_is_at_a_task_until_the_task_is_released_and_when_it_was_given_up_with_it() -> None:
    workers = Workers({"compute": 1})
    assert not workers.is_at_task("compute-1")
    start(workers, "compute-1")
    worker = workers.get("compute-1")
    assert not workers.is_at_task("compute-1")
    worker.task_id = "b1"
    assert workers.is_at_task("compute-1")
    worker.release("b1")
    assert not workers.is_at_task("compute-1")
    worker.lending.add("b2")
    assert workers.is_at_task("compute-1")
    worker.release("b2")
    worker.parked.add("b3")
    assert not workers.is_at_task("compute-1")
    workers.lost("compute-1")
    assert workers.is_at_task("compute-1")


@given(
    configured=st.integers(0, 3),
    steps=st.lists(st.tuples(st.sampled_from(["start", "ready", "lose"]), st.sampled_from(IDS))),
)
def test_no_spare_waits_while_an_active_worker_is_missing(configured: int, steps: list[tuple[str, str]]) -> None:
    workers = Workers({"compute": configured})
    running: set[str] = set()
    for step, worker_id in steps:
        if step == "start" and worker_id not in running:
            workers.start(worker_id, "compute", 1000, 0.0)
            running.add(worker_id)
        elif step == "ready":
            workers.ready(worker_id, worker_id.encode(), 0.0)
        elif step == "lose" and worker_id in running:
            workers.lost(worker_id)
            running.remove(worker_id)
            workers.replace_by_spare("compute")
        workers.check_invariants()
        ready = sum(worker.peer is not None for worker in workers)
        assert workers.active_of("compute") == min(configured, ready)
        assert workers.are_complete() == (ready >= configured)
