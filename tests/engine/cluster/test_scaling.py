"""The model says what it should where that is plain: few workers share the work, and many wait for the scheduler."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.cluster.scaling import ClusterCost, expected_seconds, expected_speed, most_workers

FREE = ClusterCost(on_worker=0.0, in_passing=1e-9)
COST = ClusterCost(on_worker=0.01, in_passing=0.005)


def test_work_without_costs_is_shared() -> None:
    assert expected_seconds(100.0, 1, FREE) == pytest.approx(100.0)
    assert expected_seconds(100.0, 4, FREE) == pytest.approx(25.0 + 0.125)


def test_a_sweep_of_one_block_is_as_long_as_that_block() -> None:
    assert expected_seconds(0.25, 64, COST) == pytest.approx(0.26)


def test_beyond_some_number_workers_wait_for_the_scheduler() -> None:
    most = most_workers(COST)
    assert most == 52
    assert expected_seconds(1_000.0, most * 2, COST) == pytest.approx(expected_seconds(1_000.0, most * 8, COST))
    assert expected_seconds(1_000.0, most * 2, COST) == pytest.approx(4_000 * 0.005)


@given(st.floats(0.25, 1e6), st.integers(1, 512))
def test_more_workers_are_never_slower_and_never_faster_than_their_number(work: float, workers: int) -> None:
    one, some = expected_seconds(work, 2, COST), expected_seconds(work, workers + 2, COST)
    assert some <= one + 1e-9
    assert expected_speed(work, workers, COST) <= workers
