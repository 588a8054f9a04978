"""Blocks cover every unit once, whatever comes back, and shrink to the one unit that ends workers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_broker.core.scheduling.sweep_blocks import (
    BATCHED_SECONDS,
    BLOCK_SECONDS,
    MAX_GROWTH,
    MAX_KILLED,
    MAX_LOSSES,
    SPAN_SECONDS,
    Block,
    BlockPlan,
)


def test_a_block_grows_from_a_probe_to_a_quarter_of_a_second() -> None:
    plan = BlockPlan(1_000_000, 1e-4, None)
    sizes = []
    for _ in range(6):
        block = plan.take("w")
        sizes.append(block.count)
        plan.finished("w", 1e-4 * block.count)
    assert sizes[0] < BLOCK_SECONDS / 1e-4
    assert sizes[-1] == BLOCK_SECONDS / 1e-4
    assert all(after <= MAX_GROWTH * before for before, after in pairwise(sizes))


def test_a_size_that_was_asked_for_is_kept() -> None:
    plan = BlockPlan(25, 1.0, 10)
    sizes = []
    while plan.has_left():
        sizes.append(plan.take("w").count)
        plan.finished("w", 100.0)
    assert sizes == [10, 10, 5]


def test_a_slow_unit_is_a_block_of_its_own() -> None:
    plan = BlockPlan(10, 30.0, None)
    block = plan.take("w")
    assert block.count == 1
    assert plan.limit_ms(block) is None, "a unit alone has the time of a backtest"


def test_a_block_that_comes_back_is_the_next_one() -> None:
    plan = BlockPlan(100, 1.0, 10)
    first = plan.take("a")
    plan.take("b")
    plan.gave_back("a")
    again = plan.take("c")
    assert (again.first, again.count) == (first.first, first.count)
    plan.check_invariants()


def test_a_block_that_ends_its_worker_is_halved_until_the_unit_is_found() -> None:
    plan = BlockPlan(64, 1e-3, 64)
    losses, found = 0, None
    for _ in range(200):
        if not plan.has_left():
            break
        block = plan.take("w")
        if block.reason is not None:
            found = (block.first, block.count, block.reason)
            plan.finished("w", 0.0)
        elif block.first <= 37 < block.first + block.count:
            losses += 1
            plan.lost("w", "it crashed", killed=False)
        else:
            plan.finished("w", 1e-3 * block.count)
        plan.check_invariants()
    assert plan.units_left == 0
    assert found is not None
    assert found[:2] == (37, 1)
    assert "it crashed" in found[2]
    assert losses == 6 + 1 + MAX_LOSSES, "64 units are halved six times"


def test_a_kill_from_outside_halves_nothing_at_first() -> None:
    block = Block(0, 64)
    for _ in range(MAX_KILLED - 1):
        [block] = block.lost("killed by signal 9", killed=True)
    assert block.count == 64
    assert [one.count for one in block.lost("killed by signal 9", killed=True)] == [32, 32]


STEPS = ("take", "finish", "lose", "kill", "return")


@settings(max_examples=100, deadline=None)
@given(
    units=st.integers(0, 500),
    size=st.none() | st.integers(1, 70),
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3)), max_size=80),
)
def test_every_unit_is_done_once_in_whatever_order(units: int, size: int | None, steps: list[tuple[str, int]]) -> None:
    plan = BlockPlan(units, 1e-3, size)
    done: list[int] = []

    def finish(worker: str) -> None:
        block = plan.in_flight[worker]
        done.extend(range(block.first, block.first + block.count))
        plan.finished(worker, 1e-3 * block.count)

    for step, number in steps:
        worker = f"w{number}"
        at_work = worker in plan.in_flight
        if step == "take" and not at_work and plan.has_left():
            plan.take(worker)
        elif step == "finish" and at_work:
            finish(worker)
        elif step in ("lose", "kill") and at_work:
            plan.lost(worker, "it ended", killed=step == "kill")
        elif step == "return" and at_work:
            plan.gave_back(worker)
        plan.check_invariants()
    for worker in list(plan.in_flight):
        finish(worker)
    while plan.has_left():
        plan.take("last")
        finish("last")
    assert sorted(done) == list(range(units))
    assert plan.units_left == 0


@given(done=st.lists(st.tuples(st.integers(0, 99), st.integers(1, 30)), max_size=12))
def test_a_survey_leaves_the_units_between(done: list[tuple[int, int]]) -> None:
    plan = BlockPlan(100, 1e-3, 7)
    inside = sorted((first, min(count, 100 - first)) for first, count in done)
    plan.surveyed(inside, 1.0)
    plan.check_invariants()
    missing = set(range(100)) - {unit for first, count in inside for unit in range(first, first + count)}
    left: set[int] = set()
    while plan.has_left():
        block = plan.take("w")
        left |= set(range(block.first, block.first + block.count))
        plan.finished("w", 0.01)
    assert left == missing


def test_a_span_is_a_second_of_all_workers_of_a_cluster() -> None:
    plan = BlockPlan(10_000_000, 1e-4, None, in_spans=True)
    sizes = []
    for _ in range(9):
        span = plan.take("w")
        sizes.append(span.count)
        plan.finished_but("w", [], 1e-4 * span.count, 8)
    assert sizes[0] < SPAN_SECONDS / 1e-4, "a probe, whose speed is a guess"
    assert sizes[-1] == 8 * SPAN_SECONDS / 1e-4
    assert all(after <= MAX_GROWTH * before for before, after in pairwise(sizes))


def test_a_span_with_blocks_of_a_size_has_one_for_each_worker() -> None:
    plan = BlockPlan(1_000, 1.0, 10, in_spans=True)
    assert plan.take("w").count == 10
    plan.finished_but("w", [], 10.0, 8)
    assert plan.take("w").count == 80


def test_what_a_span_leaves_is_given_out_again_before_all_else() -> None:
    plan = BlockPlan(100, 1.0, 20, in_spans=True)
    span = plan.take("a")
    assert (span.first, span.count) == (0, 20)
    plan.finished_but("a", [(3, 2), (9, 1)], 17.0, 2)
    plan.check_invariants()
    assert plan.units_left == 83
    assert [(one.first, one.count) for one in (plan.take("a"), plan.take("b"))] == [(3, 2), (9, 1)]
    assert plan.take("c").first == 20
    plan.check_invariants()


def test_units_of_a_batch_are_given_out_once_it_is_proposed() -> None:
    plan = BlockPlan(20, 1e-3, 5, batch=8)
    assert not plan.has_left()
    assert plan.next_batch() == 0
    plan.take_proposed(8)
    assert plan.next_batch() is None
    blocks = [plan.take("a"), plan.take("b")]
    assert [(block.first, block.count) for block in blocks] == [(0, 5), (5, 3)]
    assert not plan.has_left()
    plan.finished("a", 0.005)
    plan.check_invariants()
    assert plan.next_batch() is None, "a block of the batch is not done"
    plan.finished("b", 0.003)
    assert plan.next_batch() == 1
    plan.take_proposed(16)
    plan.take_proposed(8)  # it was said already
    assert plan.proposed == 16
    while plan.has_left():
        plan.take("a")
        plan.finished("a", 0.005)
    assert plan.next_batch() == 2
    plan.take_proposed(20)
    assert plan.take("a").count == 4, "the last batch is smaller"
    plan.finished("a", 0.004)
    assert plan.next_batch() is None
    assert plan.units_left == 0


def test_a_batch_is_shared_by_all_workers_though_its_blocks_are_small() -> None:
    plan = BlockPlan(1_000, 5e-3, None, batch=16)
    plan.take_proposed(16)
    sizes: list[int] = []
    while plan.has_left():
        sizes.append(plan.take(f"w{len(sizes)}").count)
    assert sizes == [round(BATCHED_SECONDS / 5e-3)] * 4


def test_a_block_of_a_batch_that_is_lost_is_given_out_again_before_the_next_batch() -> None:
    plan = BlockPlan(32, 1e-3, 8, batch=16)
    plan.take_proposed(16)
    plan.take("a")
    plan.take("b")
    plan.finished("b", 0.01)
    plan.lost("a", "it ended", killed=True)
    assert plan.next_batch() is None
    assert plan.has_left()
    assert plan.take("c").first == 0


def test_a_survey_tells_what_of_a_batch_is_left() -> None:
    plan = BlockPlan(32, 1e-3, 8, batch=16)
    plan.surveyed([(0, 4), (6, 10)], 1.0)
    plan.take_proposed(16)
    block = plan.take("a")
    assert (block.first, block.count) == (4, 2)
    assert plan.next_batch() is None
    plan.finished("a", 0.01)
    assert plan.next_batch() == 1
