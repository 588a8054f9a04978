"""Propose the trials of a sweep from the rows of earlier ones, in batches.

    first = propose(space, sampling, [], {}, count=16)
    second = propose(space, sampling, [first], {cell: sharpe_ratio, …}, count=16)

A proposal follows from the earlier batches and their rows. So another process proposes the same, and one after a
restart too. Each trial is another combination. What a sampler asks for again has a row already, which would be the
same bit for bit.

Samplers see places on axes in place of values: numbers in their order, and true and false.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal, Protocol, TypeAlias

import msgspec
import numpy as np

from backtestr_engine.data.arrays import Floats, Integers

from .constraint import Constraint
from .sweep_draws import drawn_cells, seed_of
from .sweep_space import Axis, Space, Values

LearningMethod: TypeAlias = Literal["tpe", "cmaes"]

PACKAGES: Mapping[LearningMethod, tuple[str, ...]] = {"tpe": ("optuna",), "cmaes": ("cmaes",)}

ASKS = 8
"""A sampler is asked so often for each trial of a batch, before the rest of the batch is drawn at random."""

MOST_WHOLE = 64
"""The most values of an axis that TPE takes as whole numbers: of more, it takes a fifth of the time for numbers."""

START_SIGMA = 0.2
"""The standard deviation with which CMA-ES begins around the best row of a batch, as a share of each axis."""

_TOGETHER = 1 << 13
"""Draws that are looked at together."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """The way in which a sweep learns: its method, its seed, whether the highest value is the best, and its batches."""

    method: LearningMethod
    seed: int
    maximize: bool
    batch_size: int


class Proposal(msgspec.Struct, frozen=True):
    """A batch of trials: their `cells`, and all that a sampler was `asked` for them, in order.

    What is asked and no trial had a row already, or is left out by the constraint. A trial that was not asked is drawn.
    """

    cells: list[int]
    asked: list[int] = []


Losses: TypeAlias = Mapping[int, float | None]
"""By cell that is done, the value that is to be low; None for a failed row, and one whose objective is undefined."""


class _Sampler(Protocol):
    def ask(self) -> int:
        """Return the cell of a proposal."""

    def left_out(self) -> None:
        """Tell that the constraint leaves out the latest proposal."""


def missing_packages(method: LearningMethod) -> list[str]:
    """Return the packages that a method needs and this Python does not have, without importing any."""
    return [name for name in PACKAGES[method] if find_spec(name) is None]


class Proposer:
    """The proposals of one sweep. What CMA-ES has learnt from earlier batches is kept, and not learnt again."""

    def __init__(self, space: Space, sampling: Sampling) -> None:
        self._space = space
        self._sampling = sampling
        self._constraints = space.constraints()
        self._axes = _Axes(space)
        self._cma_es: _CmaEs | None = None

    def propose(self, past: Sequence[Proposal], values: Mapping[int, float | None], count: int) -> Proposal:
        """Return `count` trials behind those of `past`, or as many as there are admissible cells.

        `values` has the objective of each cell of `past`; None where its row failed, or where it is undefined. The
        first batch is drawn at random, as the first trials of a sweep with method random are.
        """
        space, taken = self._space, {cell for one in past for cell in one.cells}
        cells: list[int] = []
        asked: list[int] = []
        sampler = self._sampler(past, values) if past else None
        if sampler is not None:
            while len(cells) < count and len(asked) < ASKS * count:
                cell = sampler.ask()
                asked.append(cell)
                if cell in taken:
                    continue
                if not space.admissible(np.array([cell], dtype=np.int64), self._constraints)[0]:
                    sampler.left_out()
                    continue
                taken.add(cell)
                cells.append(cell)
        cells += _drawn(space, self._constraints, self._sampling.seed, taken, count - len(cells))
        return Proposal(cells, asked)

    def _sampler(self, past: Sequence[Proposal], values: Mapping[int, float | None]) -> _Sampler | None:
        """Return what is asked for the next batch; None where it does not know where to go."""
        sign = -1.0 if self._sampling.maximize else 1.0
        losses = {cell: None if value is None else sign * value for cell, value in values.items()}
        seed = seed_of(self._sampling.seed, len(past))
        if self._sampling.method == "tpe":
            return _Tpe(self._axes, seed, past, losses)
        if self._cma_es is None or self._cma_es.learnt > len(past):
            self._cma_es = _CmaEs(self._axes, self._sampling)
        for one in past[self._cma_es.learnt :]:
            self._cma_es.learn(one, losses)
        if self._cma_es.is_lost:
            return None
        self._cma_es.begin(seed)
        return self._cma_es


def without_order(space: Space) -> list[str]:
    """Return the parameters that are true or false, and are swept over both: CMA-ES knows only what has an order."""
    return [name for name, axis in space.axes.items() if len(axis) > 1 and _has_no_order(axis)]


def _has_no_order(axis: Axis) -> bool:
    return isinstance(axis, Values) and isinstance(axis.values[0], bool)


def propose(
    space: Space, sampling: Sampling, past: Sequence[Proposal], values: Mapping[int, float | None], count: int
) -> Proposal:
    """Return what a new `Proposer` proposes."""
    return Proposer(space, sampling).propose(past, values, count)


def _drawn(space: Space, constraints: Sequence[Constraint], seed: int, taken: set[int], count: int) -> list[int]:
    """Return the first admissible draws of a seed that are not taken."""
    found: list[int] = []
    first = 0
    while len(found) < count and first < space.cells:
        admissible = space.at(drawn_cells(seed, space.cells, first, _TOGETHER), constraints).cells
        found += [cell for cell in admissible.tolist() if cell not in taken]
        first += _TOGETHER
    return found[:count]


class _Axes:
    """The axes of a space that have more than one value, and the cells that places on them make."""

    def __init__(self, space: Space) -> None:
        self.strides: dict[str, int] = {}
        self.lengths: dict[str, int] = {}
        self.ordered: dict[str, Integers | None] = {}  # the places in the order of their values; None for all in order
        self.unordered: set[str] = set()
        stride = space.cells
        for name, axis in space.axes.items():
            stride //= len(axis)
            if len(axis) == 1:
                continue
            self.strides[name], self.lengths[name] = stride, len(axis)
            self.ordered[name] = None
            if _has_no_order(axis):
                self.unordered.add(name)
            elif isinstance(axis, Values):
                self.ordered[name] = np.argsort(np.array(axis.values), kind="stable")

    def cell(self, ranks: Mapping[str, int]) -> int:
        """Return the cell at a rank on each axis."""
        places = {
            name: rank if (order := self.ordered[name]) is None else int(order[rank]) for name, rank in ranks.items()
        }
        return sum(self.strides[name] * place for name, place in places.items())

    def ranks(self, cell: int) -> dict[str, int]:
        """Return the rank on each axis of a cell."""
        found: dict[str, int] = {}
        for name, stride in self.strides.items():
            place = cell // stride % self.lengths[name]
            order = self.ordered[name]
            found[name] = place if order is None else int(np.flatnonzero(order == place)[0])
        return found


class _Tpe:
    """Optuna's tree-structured Parzen estimator, over all axes together.

    What was asked for in this batch counts as running: the estimator keeps away from it. What the constraint leaves out
    is told as infeasible, for the batches that follow too, and so is a row without a value: of those that Optuna takes
    as failed, its estimator knows nothing, and comes back to them.
    """

    def __init__(self, axes: _Axes, seed: int, past: Sequence[Proposal], losses: Losses) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._axes = axes
        self._distributions = {name: self._distribution(name) for name in axes.lengths}
        self._states = states = optuna.trial.TrialState
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        self._study = optuna.create_study(sampler=sampler, direction="minimize")

        def trial(cell: int, **how: Any) -> Any:
            return optuna.trial.create_trial(params=axes.ranks(cell), distributions=self._distributions, **how)

        for one in past:
            left_out = [cell for cell in one.asked if cell not in losses]
            self._study.add_trials([trial(cell, state=states.PRUNED, constraints=_INFEASIBLE) for cell in left_out])
            for cell in one.cells:
                loss = losses[cell]
                how = {"state": states.PRUNED, "constraints": _INFEASIBLE} if loss is None else {"value": loss}
                self._study.add_trial(trial(cell, **how))

    def _distribution(self, name: str) -> Any:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        length = self._axes.lengths[name]
        if name in self._axes.unordered:
            return CategoricalDistribution(range(length))
        if length <= MOST_WHOLE:
            return IntDistribution(0, length - 1)
        return FloatDistribution(-0.5, length - 0.5)

    def ask(self) -> int:
        self._latest = self._study.ask(self._distributions)
        lengths = self._axes.lengths
        return self._axes.cell(
            {name: min(round(rank), lengths[name] - 1) for name, rank in self._latest.params.items()}
        )

    def left_out(self) -> None:
        for name, by in _INFEASIBLE.items():
            self._latest.set_constraint(name, by)
        self._study.tell(self._latest, state=self._states.PRUNED)


_INFEASIBLE = {"infeasible": 1.0}


class _CmaEs:
    """CMA-ES on the unit cube, of the package that Optuna's own sampler calls.

    It begins around the best row of a batch that was drawn: of the first one, of one for which it asked for nothing
    new, and of the one behind a generation whose rows have all one value, as where nothing is traded. A generation is
    the first proposals of a distribution that have a row, failed ones behind all others; where fewer than half of them
    have a value, it is not learnt from.
    """

    def __init__(self, axes: _Axes, sampling: Sampling) -> None:
        self._axes = axes
        self._seed = sampling.seed
        self._lengths = np.array(list(axes.lengths.values()), dtype=np.float64)
        self._size = max(sampling.batch_size, 4 + math.floor(3 * math.log(len(self._lengths))))
        self._generation: list[tuple[Floats, float]] = []
        self.learnt = 0  # batches
        self.is_lost = False  # on a plain, from which no way is better than another

    def learn(self, one: Proposal, losses: Losses) -> None:
        """Take the rows of the next batch."""
        if set(one.asked).isdisjoint(one.cells):
            self._begin_around(min(one.cells, key=lambda cell: (_rank(losses[cell]), cell)), losses)
        else:
            self._generation += [(self._point(cell), _rank(losses[cell])) for cell in one.asked if cell in losses]
            if len(self._generation) >= self._size:
                told, self._generation = self._generation[: self._size], []
                finite = [loss for _, loss in told if math.isfinite(loss)]
                self.is_lost = len(set(finite)) < 2
                if len(finite) >= self._size // 2 and not self.is_lost:
                    self._optimizer.tell(told)
        self.learnt += 1

    def _begin_around(self, best: int, losses: Losses) -> None:
        from cmaes import CMA

        dimensions = len(self._lengths)
        mean = np.full(dimensions, 0.5) if losses[best] is None else self._point(best)
        cube = np.array([[0.0, 1.0]] * dimensions)
        self._optimizer = CMA(mean=mean, sigma=START_SIGMA, bounds=cube, population_size=self._size)
        self._generation, self.is_lost = [], False

    def begin(self, seed: int) -> None:
        """Begin a batch: its proposals follow from the seed and what was learnt, and not from those before it."""
        self._optimizer.reseed_rng(seed)

    def ask(self) -> int:
        ranks = np.minimum(self._optimizer.ask() * self._lengths, self._lengths - 1).astype(np.int64)
        return self._axes.cell(dict(zip(self._axes.lengths, ranks.tolist(), strict=True)))

    def left_out(self) -> None:
        """Do nothing: another proposal of the same distribution takes its place."""

    def _point(self, cell: int) -> Floats:
        """Return the middle of a cell in the cube."""
        point: Floats = (np.array(list(self._axes.ranks(cell).values())) + 0.5) / self._lengths
        return point


def _rank(loss: float | None) -> float:
    """Return a loss to compare: that of a failed row is behind all others."""
    return math.inf if loss is None else loss
