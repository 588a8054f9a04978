"""Choose how a sweep goes through its space, and how many units that takes."""

from __future__ import annotations

import msgspec
import numpy as np

from backtestr_engine.research.sweep_draws import drawn_cells
from backtestr_engine.research.sweep_plan import SweepPlan
from backtestr_engine.research.sweep_samplers import missing_packages, without_order
from backtestr_engine.research.sweep_space import Count, Space
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.sweep_messages import (
    DEFAULT_LEARNT_TRIALS,
    DEFAULT_TRIALS,
    MAX_COMBINATIONS,
    MAX_LEARNT_TRIALS,
    StartSweep,
    SweepMethod,
)
from backtestr_protocol.sweep_tasks import USUAL_SPEED, proposing_seconds

from .sweep_proposals import batch_size_of

# Draws that are made to find the trials of a sweep whose constraint leaves out most cells: half a second of them.
MAX_DRAWS = 20_000_000
# Cells of a grid whose constraint leaves out most of them: to look at each takes a worker twenty minutes.
MAX_GRID_CELLS = 10_000_000_000
# Draws, and cells, that are looked at together: 1 MB a column.
TOGETHER = 1 << 17


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """The method of a sweep, with trials for every one but a grid, and the size of batches for those that learn.

    `scheduler` is that of the cluster that computes it, if one does. `notes` say what is not as it was asked for.
    """

    method: SweepMethod
    trials: int | None = None
    batch_size: int | None = None
    scheduler: str | None = None
    units: int
    notes: list[str]


def choose_method(asked: StartSweep, plan: SweepPlan, count: Count, bars: int) -> Chosen:
    """Choose how a sweep over `bars` bars goes through its space, of which `count` is known.

    Raises `InvalidConfiguration` for what does not go together, for a method whose packages are not installed, for more
    combinations than a sweep may have, and for a constraint that leaves fewer than the trials.
    """
    method, notes = asked.method, list[str]()
    if asked.batch_size is not None and method not in ("tpe", "cmaes"):
        raise InvalidConfiguration(
            f"a batch size is that of methods tpe and cmaes, and this one is {method}: leave it out",
            paths=["$.batchSize", "$.method"],
        )
    if method == "grid" and asked.trials is not None:
        raise InvalidConfiguration(
            "trials are those of methods random, tpe and cmaes; a grid runs every combination",
            paths=["$.trials", "$.method"],
        )
    if method == "tpe" or method == "cmaes":
        _check_learning(asked, plan.space)
    trials = min(asked.trials or (DEFAULT_TRIALS if method == "random" else DEFAULT_LEARNT_TRIALS), count.cells)
    if method != "grid" and count.exact and trials >= count.admissible:
        notes.append(f"all {count.admissible:,} combinations are run: there are no more than the trials")
        method = "grid"
    elif method in ("tpe", "cmaes") and count.exact and count.admissible <= MAX_COMBINATIONS:
        row = USUAL_SPEED[plan.path.name] * bars
        every, learnt = count.admissible * row, trials * row + proposing_seconds(method, trials)
        if every <= learnt:
            notes.append(
                f"all {count.admissible:,} combinations are run: that takes some {every:,.2g} s of a worker, and "
                f"{trials:,} trials of {method} {learnt:,.2g} s"
            )
            method = "grid"
    if method == "grid":
        _check_grid(count)
        return Chosen(method=method, units=count.cells, notes=notes, scheduler=asked.scheduler)
    draws = _draws_of(plan.space, asked.seed, trials)
    if method == "random":
        return Chosen(method=method, trials=trials, units=draws, notes=notes, scheduler=asked.scheduler)
    if asked.scheduler:
        notes.append(f"the broker's own workers compute it: method {method} is not computed on a cluster")
    size = batch_size_of(asked)
    return Chosen(method=method, trials=trials, batch_size=size, units=trials, notes=notes, scheduler="")


def _check_learning(asked: StartSweep, space: Space) -> None:
    method = asked.method
    assert method == "tpe" or method == "cmaes"
    if missing := missing_packages(method):
        raise InvalidConfiguration(
            f"method {method} needs {' and '.join(missing)}, which the broker's Python does not have: pip install "
            "'backtestr[optimise]' there, or use method random",
            paths=["$.method"],
        )
    if asked.trials is not None and asked.trials > MAX_LEARNT_TRIALS:
        raise InvalidConfiguration(
            f"method {method} makes up to {MAX_LEARNT_TRIALS:,} trials, and not {asked.trials:,}: each takes longer to "
            "propose than the one before; use method random for more",
            paths=["$.trials", "$.method"],
        )
    if method == "cmaes" and (names := without_order(space)):
        raise InvalidConfiguration(
            f"method cmaes learns numbers alone, and not {' and '.join(names)}, which can be true or false: use method "
            "tpe, or fix one value",
            paths=[*(f"$.space.{name}" for name in names), "$.method"],
        )


def _check_grid(count: Count) -> None:
    if count.admissible > MAX_COMBINATIONS or count.cells > MAX_GRID_CELLS:
        raise InvalidConfiguration(
            f"the grid has {count}, and a sweep runs up to {MAX_COMBINATIONS:,} of {MAX_GRID_CELLS:,}: take "
            'fewer values, or larger steps, or trials of them with method "random" or "tpe"',
            paths=["$.space", "$.method"],
            combinations=count.admissible,
            cells=count.cells,
        )


def first_admissible(space: Space) -> int:
    """Return a cell that the constraint admits: the first one, or one of those that are looked at."""
    constraints, cells = space.constraints(), space.cells
    for first in range(0, min(cells, MAX_DRAWS), TOGETHER):
        if len(found := space.combinations(first, TOGETHER, constraints)):
            return int(found.cells[0])
    for first in range(0, min(cells, MAX_DRAWS), TOGETHER):
        drawn = drawn_cells(0, cells, first, TOGETHER)
        if (admissible := space.admissible(drawn, constraints)).any():
            return int(drawn[admissible][0])
    raise InvalidConfiguration(
        f"the constraint leaves none of {2 * MAX_DRAWS:,} combinations that were looked at, of {cells:,}: widen it",
        paths=["$.where"],
    )


def _draws_of(space: Space, seed: int, trials: int) -> int:
    """Return how many draws it takes to find so many admissible cells. Raises `InvalidConfiguration`."""
    constraints, cells = space.constraints(), space.cells
    if not constraints:
        return trials
    found = 0
    for first in range(0, min(cells, MAX_DRAWS), TOGETHER):
        admissible = space.admissible(drawn_cells(seed, cells, first, TOGETHER), constraints)
        before, found = found, found + int(np.count_nonzero(admissible))
        if found >= trials:
            return first + int(np.flatnonzero(admissible)[trials - before - 1]) + 1
    raise InvalidConfiguration(
        f"the constraint leaves {found:,} of {min(cells, MAX_DRAWS):,} combinations that were drawn, fewer than the "
        f"{trials:,} trials: ask for fewer trials, or widen the constraint",
        paths=["$.where", "$.trials"],
    )
