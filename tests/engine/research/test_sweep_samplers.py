"""Proposals follow from earlier trials and their rows alone, each is new and admissible, and they learn."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.research import sweep_samplers
from backtestr_engine.research.sweep_draws import drawn_cells
from backtestr_engine.research.sweep_samplers import (
    ASKS,
    LearningMethod,
    Proposal,
    Proposer,
    Sampling,
    missing_packages,
    propose,
    without_order,
)
from backtestr_engine.research.sweep_space import Points, Space, Steps, Values

Objective = Callable[[dict[str, Any]], float | None]
METHODS: list[LearningMethod] = ["tpe", "cmaes"]
SPACE = Space(
    {"a": Points(0.0, 1.0, log=False), "b": Points(0.1, 10.0, log=True), "c": Steps(1, 1, 100)},
    {"d": 5},
    ("c > 20 * a",),
)
SMALL = Space({"x": Values((9, 1, 4)), "y": Steps(1, 1, 9)}, {}, ("x != 4",))


def hill(values: dict[str, Any]) -> float:
    """Return the height of a hill whose top is at a = 0.3, b = √10, c = 70."""
    return -float((values["a"] - 0.3) ** 2 + (np.log10(values["b"]) - 0.5) ** 2 + ((values["c"] - 70) / 100) ** 2)


def run(
    method: LearningMethod, seed: int, space: Space, objective: Objective, trials: int = 64, size: int = 8, **how: Any
) -> tuple[list[Proposal], dict[int, float | None]]:
    sampling = Sampling(method=method, seed=seed, maximize=how.pop("maximize", True), batch_size=size)
    past: list[Proposal] = []
    values: dict[int, float | None] = {}
    while len(values) < trials:
        batch = propose(space, sampling, past, values, min(size, trials - len(values)))
        past.append(batch)
        values.update({cell: objective(space.values(cell)) for cell in batch.cells})
    return past, values


def best(values: dict[int, float | None]) -> float:
    return max(value for value in values.values() if value is not None)


@pytest.mark.parametrize("method", METHODS)
def test_a_sampler_finds_a_hill_better_than_chance(method: LearningMethod) -> None:
    """The median of five seeds is compared: its distance to the top is a third of that of as many random trials."""
    learnt = [best(run(method, seed, SPACE, hill, trials=96)[1]) for seed in range(5)]
    drawn = [SPACE.at(drawn_cells(seed, SPACE.cells, 0, 300)).cells[:96].tolist() for seed in range(5)]
    by_chance = [max(hill(SPACE.values(cell)) for cell in cells) for cells in drawn]
    assert median(learnt) > median(by_chance) / 3


@pytest.mark.parametrize("method", METHODS)
def test_the_lowest_is_found_where_it_is_asked_for(method: LearningMethod) -> None:
    _, values = run(method, 3, SPACE, lambda one: -hill(one), trials=96, maximize=False)
    drawn = SPACE.at(drawn_cells(3, SPACE.cells, 0, 300)).cells[:96].tolist()
    assert min(value for value in values.values() if value is not None) < min(-hill(SPACE.values(one)) for one in drawn)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_follows_from_what_is_stored(method: LearningMethod) -> None:
    past, values = run(method, 11, SPACE, hill)
    sampling = Sampling(method=method, seed=11, maximize=True, batch_size=8)
    keeping = Proposer(SPACE, sampling)
    for number, batch in enumerate(past):
        earlier = past[:number]
        known = {cell: values[cell] for one in earlier for cell in one.cells}
        shuffled = dict(sorted(known.items(), key=lambda item: -item[0]))
        assert propose(SPACE, sampling, earlier, shuffled, 8) == batch
        assert keeping.propose(earlier, known, 8) == batch
    assert keeping.propose(past[:2], values, 8) == past[2], "a batch before what it has learnt"
    assert run(method, 12, SPACE, hill)[0] != past


@pytest.mark.parametrize("method", METHODS)
def test_the_first_batch_has_the_first_trials_of_random(method: LearningMethod) -> None:
    [first, *_], _ = run(method, 5, SPACE, hill, trials=8)
    assert first == Proposal(SPACE.at(drawn_cells(5, SPACE.cells, 0, 100)).cells[:8].tolist(), [])


@settings(deadline=None, max_examples=20)
@given(
    method=st.sampled_from(METHODS),
    seed=st.integers(0, 2**53 - 1),
    size=st.integers(1, 7),
    trials=st.integers(1, 18),
    failing=st.sets(st.integers(0, 26)),
)
def test_every_trial_is_another_admissible_cell(
    method: LearningMethod, seed: int, size: int, trials: int, failing: set[int]
) -> None:
    def objective(one: dict[str, Any]) -> float | None:
        return None if one["y"] * one["x"] % 27 in failing else float(one["y"])

    past, values = run(method, seed, SMALL, objective, trials, size)
    cells = [cell for one in past for cell in one.cells]
    assert len(cells) == len(set(cells)) == trials == len(values)
    assert SMALL.admissible(np.array(cells)).all()
    assert all(len(one.asked) <= ASKS * len(one.cells) for one in past)


def test_what_the_constraint_leaves_out_is_learnt() -> None:
    """The constraint leaves an eighth of the space: most proposals are in it after a while, few random cells are."""
    narrow = Space(SPACE.axes, {}, ("c > 50", "a < 0.5", "b < 1"))
    past, _ = run("tpe", 2, narrow, hill, trials=96)
    asked = np.array([cell for one in past[5:] for cell in one.asked])
    assert narrow.admissible(asked).mean() > 0.5
    assert narrow.admissible(drawn_cells(2, narrow.cells, 0, 2_000)).mean() < 0.2


@pytest.mark.parametrize("method", METHODS)
def test_where_proposals_find_nothing_the_batch_is_drawn(method: LearningMethod, monkeypatch: Any) -> None:
    class Stubborn:
        def __init__(self, *_: Any) -> None:
            self.told = 0

        def ask(self) -> int:
            return 2 if self.told % 2 else 1

        def left_out(self) -> None:
            self.told += 1

    monkeypatch.setattr(Proposer, "_sampler", Stubborn)
    space = Space({"y": Steps(0, 1, 1_000)}, {}, ("y > 900",))
    past, _ = run(method, 4, space, lambda one: one["y"], trials=8, size=4)
    assert [len(one.cells) for one in past] == [4, 4]
    assert len(past[1].asked) == 4 * ASKS
    assert set(past[1].cells).isdisjoint(past[1].asked)


def test_tpe_keeps_away_from_rows_without_a_value() -> None:
    """The best rows are beside those without a value. An estimator that forgets these proposes four of them in five."""

    def barren(one: dict[str, Any]) -> float | None:
        return None if one["b"] > 0.464 else float(np.log10(one["b"]) + one["a"])

    past, _ = run("tpe", 5, SPACE, barren, trials=128)
    late = [SPACE.values(cell)["b"] for one in past[8:] for cell in one.cells]
    assert sum(b > 0.464 for b in late) < len(late) / 2


def test_cmaes_leaves_a_plain_and_draws_again() -> None:
    """Half of the space has one value, which is better than most of the hill, as where nothing is traded."""

    def plain(one: dict[str, Any]) -> float:
        return 0.0 if one["a"] > 0.5 else hill(one) + 0.05

    past, values = run("cmaes", 1, SPACE, plain, trials=240)
    drawn = [number for number, one in enumerate(past) if not one.asked]
    assert len(drawn) > 1, "it never was on the plain"
    assert best(values) > 0.045


@pytest.mark.parametrize("method", METHODS)
def test_failed_rows_are_no_numbers(method: LearningMethod) -> None:
    """A third of the space has no value, and the sampler goes to the hill that the rest has."""

    def broken(one: dict[str, Any]) -> float | None:
        return None if one["a"] > 0.6 else hill(one)

    past, values = run(method, 6, SPACE, broken, trials=96)
    assert None in values.values()
    assert best(values) > -0.02
    everything_failed, none = run(method, 6, SPACE, lambda _: None, trials=48)
    assert len(none) == 48
    assert len(everything_failed) == 6
    assert past[0] == everything_failed[0]


def test_what_is_true_or_false_is_learnt() -> None:
    space = Space({"on": Values((True, False)), "off": Values((True, False)), "n": Steps(1, 1, 4_000)}, {})

    def objective(one: dict[str, Any]) -> float:
        return float(one["on"] - one["off"] - abs(one["n"] - 1_000) / 4_000)

    assert without_order(space) == ["on", "off"]
    past, _ = run("tpe", 1, space, objective, trials=80)
    late = [space.values(cell) for one in past[5:] for cell in one.cells]
    assert sum(bool(one["on"] and not one["off"]) for one in late) > len(late) / 2


@pytest.mark.parametrize("method", METHODS)
def test_numbers_are_learnt_by_their_order_and_not_by_their_place_in_a_list(method: LearningMethod) -> None:
    rng = np.random.default_rng(3)
    shuffled = tuple(int(one) for one in rng.permutation(1_000))
    space = Space({"x": Values(shuffled), "y": Values(tuple(reversed(shuffled)))}, {})
    _, values = run(method, 8, space, lambda one: -abs(one["x"] - 300) - abs(one["y"] - 600), trials=96)
    assert best(values) > -60


def test_a_method_says_which_packages_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [missing_packages(method) for method in METHODS] == [[], []]
    monkeypatch.setattr(sweep_samplers, "find_spec", lambda _: None)
    assert [missing_packages(method) for method in METHODS] == [["optuna"], ["cmaes"]]
