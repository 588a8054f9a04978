"""The space of a sweep: the values of each swept parameter, and the combinations that they make.

Combinations are counted and addressed by arithmetic; none is made before it is asked for. A cell is a combination by
its number: with the parameters in the order of the space, the last one varies first. A block is a range of cells, so
that blocks of any size cover a space in any order.

Constraints, and the relations that the algorithm requires, leave out cells. What is left is admissible.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec
import numpy as np

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.algorithms.parameters import Bool, Int, Parameter, Value, check_values
from backtestr_engine.data.arrays import AnyArray, Booleans, Floats, Integers
from backtestr_protocol.errors import InvalidConfiguration, ValidationError, did_you_mean, quoted

from .constraint import Constraint

MAX_CELLS = 10**15
"""The most cells of a space: thirty years of work at a microsecond for each."""

COUNTED_EXACTLY = 4_000_000
"""The most cells of the parameters in constraints that are counted one by one, in some 0.1 s; of more, a sample is."""

DISTRIBUTIONS = ("uniform", "log_uniform")

POINTS = (4_001, 2_001, 1_001, 501, 201, 101, 51, 21)
"""The values of a number that has a distribution: the most with which the space has no more than `MAX_CELLS`.

With one more than a round number, 0 to 1 are 0, 0.00025, 0.0005 and so on.
"""

WHOLE_GROWTH = 1.02
"""The ratio of a whole number to the one before it where `log_uniform` says so, if they are not neighbours."""

_SAMPLED = 200_000
_TOGETHER = 1 << 17
"""Cells whose constraints are computed in one go: 1 MB a column."""


class Values(msgspec.Struct, frozen=True, tag="values"):
    """Values as they were given, each once."""

    values: tuple[Value, ...]

    def __len__(self) -> int:
        return len(self.values)

    def at(self, places: Integers) -> AnyArray:
        """Return the values at `places`, counted from 0."""
        found: AnyArray = np.array(self.values)[places]
        return found


class Steps(msgspec.Struct, frozen=True, tag="steps"):
    """`count` values from `first` on, each `step` further. Fractions are rounded to twelve decimals: 0.1, 0.2, 0.3."""

    first: int | float
    step: int | float
    count: int

    def __len__(self) -> int:
        return self.count

    def at(self, places: Integers) -> AnyArray:
        """Return the values at `places`, counted from 0."""
        values: AnyArray = self.first + places * self.step
        return values if values.dtype == np.int64 else np.round(values, 12)


class Points(msgspec.Struct, frozen=True, tag="points"):
    """`count` values from `low` to `high`, both included, that lie evenly, or evenly in their logarithm.

    They are rounded to twelve digits, so that they are the same on every machine.
    """

    low: float
    high: float
    log: bool
    count: int = POINTS[0]

    def __len__(self) -> int:
        return self.count

    def at(self, places: Integers) -> AnyArray:
        """Return the values at `places`, counted from 0."""
        found: AnyArray = _points(self.low, self.high, self.log, self.count)[places]
        return found


@lru_cache(maxsize=64)
def _points(low: float, high: float, log: bool, count: int) -> Floats:
    parts = [place / (count - 1) for place in range(1, count - 1)]
    if log:
        between = [low * math.exp(math.log(high / low) * part) for part in parts]
    else:
        between = [low + (high - low) * part for part in parts]
    found = np.array([low, *(float(f"{value:.12g}") for value in between), high])
    found.setflags(write=False)
    return found


Axis: TypeAlias = Values | Steps | Points


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """The number of cells, and of the admissible ones among them.

    Where `exact` is false, `admissible` is told from the share of `sampled` cells.
    """

    cells: int
    admissible: int
    exact: bool
    sampled: int = 0

    def __str__(self) -> str:
        if self.admissible == self.cells:
            return f"{self.cells:,} combinations"
        about = "" if self.exact else "about "
        return f"{about}{self.admissible:,} of {self.cells:,} combinations"


class Combinations(msgspec.Struct, frozen=True):
    """Admissible combinations: their cells, and the value of every swept parameter, one array each."""

    cells: Integers
    columns: dict[str, AnyArray]

    def __len__(self) -> int:
        return len(self.cells)

    def at(self, row: int) -> dict[str, Value]:
        """Return the swept parameters of a row."""
        return {name: column[row].item() for name, column in self.columns.items()}


class Space(msgspec.Struct, frozen=True):
    """The axes of a sweep by parameter, the parameters that are `fixed`, and the constraints on both, as texts."""

    axes: dict[str, Axis]
    fixed: dict[str, Value]
    where: tuple[str, ...] = ()

    @property
    def cells(self) -> int:
        """The number of cells, admissible or not."""
        return math.prod(map(len, self.axes.values()))

    def constraints(self) -> list[Constraint]:
        """Return the constraints, parsed."""
        columns = {**{name: axis.at(np.zeros(1, dtype=np.int64))[0] for name, axis in self.axes.items()}, **self.fixed}
        truths = [name for name, value in columns.items() if isinstance(value, bool | np.bool_)]
        return [Constraint(text, columns, truths) for text in self.where]

    def values(self, cell: int) -> dict[str, Value]:
        """Return every parameter of a cell. Raises `IndexError` for a cell that the space does not have."""
        if not 0 <= cell < self.cells:
            raise IndexError(f"the space has cells 0 to {self.cells - 1:,}, not {cell:,}")
        columns = self._columns(np.array([cell], dtype=np.int64), self.axes)
        return {**self.fixed, **{name: column[0].item() for name, column in columns.items()}}

    def combinations(self, first: int, count: int, constraints: Sequence[Constraint] | None = None) -> Combinations:
        """Return the admissible combinations of cells [first, first + count), or up to the last one there is.

        `constraints` are those of the space, where they are parsed already.
        """
        if first < 0 or count < 0:
            raise IndexError(f"a block begins at a cell and has a number of them, not {first} and {count}")
        return self.at(np.arange(first, max(first, min(first + count, self.cells)), dtype=np.int64), constraints)

    def at(self, cells: Integers, constraints: Sequence[Constraint] | None = None) -> Combinations:
        """Return the admissible combinations among `cells`, in their order, which the space must have.

        `constraints` are those of the space, where they are parsed already.
        """
        kept = cells[self.admissible(cells, constraints)]
        return Combinations(kept, self._columns(kept, self.axes))

    def admissible(self, cells: Integers, constraints: Sequence[Constraint] | None = None) -> Booleans:
        """Return which of `cells` the constraints admit; `constraints` are as for `at`."""
        kept = np.ones(len(cells), dtype=np.bool_)
        constraints = self.constraints() if constraints is None else constraints
        named = {name for constraint in constraints for name in constraint.names}
        columns = self._columns(cells, [name for name in self.axes if name in named])
        columns |= {name: np.full(len(cells), value) for name, value in self.fixed.items() if name in named}
        for constraint in constraints:
            kept &= constraint.holds(columns)
        return kept

    def count(self) -> Count:
        """Count the cells, and the admissible ones by the parameters that constraints name.

        Raises `InvalidConfiguration` if constraints leave none.
        """
        constraints = self.constraints()
        named = {name: axis for name, axis in self.axes.items() if any(name in one.names for one in constraints)}
        cells, counted = self.cells, math.prod(map(len, named.values()))
        part = Space(named, self.fixed, self.where)
        if counted <= COUNTED_EXACTLY:
            admissible = sum(
                int(np.count_nonzero(part.admissible(np.arange(at, min(at + _TOGETHER, counted)), constraints)))
                for at in range(0, counted, _TOGETHER)
            ) * (cells // counted)
            if not admissible:
                raise self._nothing_left(part, counted, constraints)
            return Count(cells=cells, admissible=admissible, exact=True)
        found = int(np.count_nonzero(part.admissible(_spread(counted), constraints)))
        return Count(cells=cells, admissible=round(cells * (found / _SAMPLED)), exact=False, sampled=_SAMPLED)

    def _columns(self, cells: Integers, names: Iterable[str]) -> dict[str, AnyArray]:
        wanted, columns, stride = set(names), {}, self.cells
        for name, axis in self.axes.items():
            stride //= len(axis)
            if name in wanted:
                columns[name] = axis.at(cells // stride % len(axis))
        return columns

    def _nothing_left(self, part: Space, counted: int, constraints: Sequence[Constraint]) -> InvalidConfiguration:
        alone = [
            one
            for one in constraints
            if not any(
                part.admissible(np.arange(at, min(at + _TOGETHER, counted)), [one]).any()
                for at in range(0, counted, _TOGETHER)
            )
        ]
        which = " and ".join(repr(one.text) for one in (alone[:1] or constraints))
        together = "" if len(alone[:1] or constraints) == 1 else "together "
        ranges = "; ".join(
            f"{name}: {_shown(axis)}"
            for name, axis in self.axes.items()
            if any(name in one.names for one in constraints)
        )
        return InvalidConfiguration(
            f"{which} {together}leave{'' if together else 's'} no combination of {self.cells:,} ({ranges}): widen the "
            "space, or change the constraint",
            paths=["$.space", "$.where"],
            cells=self.cells,
        )


def space_of(
    algorithm: Algorithm, given: Mapping[str, Any], fixed: Mapping[str, Any] | None = None, where: str | None = None
) -> Space:
    """Return the space of an algorithm's parameters that `given` names, checked against their types and bounds.

    A value of `given` is a `range`, a sequence of values, one value, `{"low": …, "high": …, "step": …}`, both ends
    included, or `{"low": …, "high": …, "distribution": …}` with one of `DISTRIBUTIONS`. `fixed` are values of other
    parameters; all others have their defaults. `where` is a constraint, to which the relations are added that the
    algorithm requires. Raises `ValidationError` and `InvalidConfiguration`.
    """
    if not given:
        raise InvalidConfiguration(
            f"the space is empty: name parameters of {algorithm.name} and their values, such as "
            f"{_example(algorithm.parameters)}",
            paths=["$.space"],
        )
    listing = ", ".join(algorithm.parameters) or "it has none"
    for name in given:
        if name not in algorithm.parameters:
            raise ValidationError(
                f"unknown parameter {name!r} of {algorithm.name}{did_you_mean(str(name), algorithm.parameters)} "
                f"({listing})",
                path=f"$.space.{name}",
                expected=list(algorithm.parameters),
                got=quoted(name),
            )
    if twice := sorted(set(given) & set(fixed or {})):
        raise InvalidConfiguration(
            f"{twice[0]} is both swept and fixed: name it in the space, or among the parameters",
            paths=[f"$.space.{twice[0]}", f"$.parameters.{twice[0]}"],
        )
    axes = _fitted({name: _axis(algorithm, name, values) for name, values in given.items()})
    values = check_values(algorithm.name, algorithm.parameters, fixed or {})
    others = {name: value for name, value in values.items() if name not in axes}
    space = Space(axes, others, (*(() if where is None else (where,)), *map(str, algorithm.requirements)))
    space.constraints()
    if space.cells > MAX_CELLS:
        raise InvalidConfiguration(
            f"the space has {space.cells:,} combinations, more than {MAX_CELLS:,}: take fewer values, or larger steps",
            paths=["$.space"],
            cells=space.cells,
        )
    return space


def _axis(algorithm: Algorithm, name: str, given: Any) -> Axis:
    parameter, path = algorithm.parameters[name], f"$.space.{name}"

    def checked(value: Any) -> Value:
        plain = value.item() if isinstance(value, np.generic) else value
        try:
            return check_values(algorithm.name, {name: parameter}, {name: plain})[name]
        except ValidationError as error:
            raise ValidationError(error.message, **{**(error.details or {}), "path": path}) from None

    if isinstance(given, Mapping) and "distribution" in given:
        return _distributed(f"{name} of {algorithm.name}", parameter, given, checked, path)
    steps = _steps(given, path)
    if steps is not None:
        if isinstance(parameter, Bool):
            raise ValidationError(f"{name} of {algorithm.name} is true or false, and has no steps", path=path)
        first, _ = (checked(steps.at(np.array([place]))[0]) for place in (0, len(steps) - 1))
        if isinstance(parameter, Int):
            checked(steps.first + steps.step)
            return Steps(int(first), int(steps.step), len(steps))
        return Steps(float(first), float(steps.step), len(steps))
    values = list(given) if isinstance(given, Sequence | np.ndarray) and not isinstance(given, str) else [given]
    found = tuple(checked(value) for value in values)
    if not found:
        raise ValidationError(f"the space of {name} is empty: give at least one value", path=path, got=quoted(given))
    if len(set(found)) < len(found):
        again = next(value for value in found if found.count(value) > 1)
        raise ValidationError(f"the space of {name} has {again!r} more than once", path=path, expected="each once")
    return Values(found)


def _steps(given: Any, path: str) -> Steps | None:
    """Return what `given` says in steps; None where it gives values."""
    if isinstance(given, range):
        if not len(given):
            raise ValidationError(
                f"{given!r} has no value: the first number is below the second, which is not part of it",
                path=path,
                got=repr(given),
            )
        return Steps(given[0], given.step, len(given))
    if not isinstance(given, Mapping):
        return None
    numbers: list[Any] = [given.get(key) for key in ("low", "high", "step")]
    if set(given) != {"low", "high", "step"} or not all(_is_number(number) for number in numbers):
        raise ValidationError(
            f"a range is {{'low': …, 'high': …, 'step': …}}, finite numbers, both ends included, or has 'distribution' "
            f"in place of 'step', not {quoted(given)}",
            path=path,
            expected=["low", "high", "step"],
            got=quoted(given),
        )
    low, high, step = numbers
    if step <= 0 or high < low:
        raise ValidationError(
            f"a range goes from low up to high by a step above 0, not from {low} to {high} by {step}", path=path
        )
    count = math.floor((high - low) / step + 1e-9) + 1
    if count > MAX_CELLS:
        raise ValidationError(f"a range of {count:,} values is too long; take a larger step", path=path)
    return Steps(low, step, count)


def _distributed(
    which: str, parameter: Parameter, given: Mapping[str, Any], checked: Callable[[Any], Value], path: str
) -> Axis:
    """Return the values of a parameter between two numbers, by the distribution that `given` names."""
    kind, low, high = given["distribution"], given.get("low"), given.get("high")
    if kind not in DISTRIBUTIONS:
        raise ValidationError(
            f"there is no distribution {quoted(kind)}{did_you_mean(str(kind), DISTRIBUTIONS)} "
            f"({', '.join(DISTRIBUTIONS)})",
            path=path,
            expected=list(DISTRIBUTIONS),
            got=quoted(kind),
        )
    if set(given) != {"low", "high", "distribution"} or not (_is_number(low) and _is_number(high)):
        raise ValidationError(
            f"a distribution is {{'low': …, 'high': …, 'distribution': {kind!r}}}, finite numbers, not {quoted(given)}",
            path=path,
            expected=["low", "high", "distribution"],
            got=quoted(given),
        )
    if isinstance(parameter, Bool):
        raise ValidationError(f"{which} is true or false, and has no distribution: list its values", path=path)
    first, last = checked(low), checked(high)
    assert isinstance(first, int | float)
    assert isinstance(last, int | float)
    if first >= last:
        raise ValidationError(
            f"a distribution goes from low up to a higher number, not from {low} to {high}", path=path
        )
    if kind == "log_uniform" and first <= 0:
        raise ValidationError(
            f"log_uniform begins above 0, where numbers have a logarithm, and not at {low}: raise low, or use uniform",
            path=path,
        )
    if isinstance(parameter, Int):
        least, most = int(first), int(last)
        return Values(_whole_numbers(least, most)) if kind == "log_uniform" else Steps(least, 1, most - least + 1)
    return Points(float(first), float(last), kind == "log_uniform")


def _whole_numbers(low: int, high: int) -> tuple[int, ...]:
    """Return whole numbers from `low` to `high`, each one more or 2 % more than the one before."""
    found = [low]
    while found[-1] < high:
        found.append(min(high, max(found[-1] + 1, int(found[-1] * WHOLE_GROWTH))))
    return tuple(found)


def _fitted(axes: dict[str, Axis]) -> dict[str, Axis]:
    """Return axes whose distributions have as many values as leave the space within its limit."""
    spread = [name for name, axis in axes.items() if isinstance(axis, Points)]
    others = math.prod(len(axis) for axis in axes.values() if not isinstance(axis, Points))
    count = next((one for one in POINTS if others * one ** len(spread) <= MAX_CELLS), POINTS[-1])
    for name in spread:
        points = axes[name] = msgspec.structs.replace(axes[name], count=count)
        if (np.diff(points.at(np.arange(count))) <= 0).any():
            raise ValidationError(
                f"the space of {name} is too narrow for a distribution: its ends differ in the last digits alone",
                path=f"$.space.{name}",
            )
    return axes


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _spread(cells: int) -> Integers:
    """Return the sampled cells, spread over all of them by the golden ratio, which is in step with no axis."""
    parts = (np.arange(1, _SAMPLED + 1) * ((math.sqrt(5.0) - 1.0) / 2.0)) % 1.0
    return (parts * cells).astype(np.int64)


def _shown(axis: Axis) -> str:
    first, last = (axis.at(np.array([place]))[0] for place in (0, len(axis) - 1))
    return f"{first}" if len(axis) == 1 else f"{first} … {last}"


def _example(parameters: Mapping[str, Parameter]) -> str:
    for name, parameter in parameters.items():
        if isinstance(parameter, Int):
            return f"{{{name!r}: range({parameter.low}, {min(parameter.low + 20, parameter.high)})}}"
        return f"{{{name!r}: [{parameter.default!r}]}}"
    return "those of another algorithm: it has none"
