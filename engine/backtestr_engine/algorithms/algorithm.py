"""Algorithms: functions from bars and parameters to signals, with their declaration and a checked call.

    @algorithm("sma_cross", fast=Int(10, low=2, high=500), slow=Int(30, low=3, high=1000), requires=["fast < slow"])
    def sma_cross(bars: Bars, fast: int, slow: int) -> Signals:
        \"\"\"Long above, short below.\"\"\"
        return Signals.from_cross(sma(bars.close, fast), sma(bars.close, slow))

An algorithm gets whole arrays and must not look ahead: the signal of a bar may depend on that bar and those before it.
On several symbols it is called for each of them. An algorithm that compares symbols is declared with `@portfolio`; it
takes a `Panel` and returns weights, fractions of equity of shape (rows, symbols).
"""

from __future__ import annotations

import hashlib
import inspect
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_protocol.errors import AlgorithmError, InvalidConfiguration
from backtestr_protocol.messages import ALGORITHM_NAME_RULE, AlgorithmInfo, is_algorithm_name
from backtestr_protocol.texts import bounded, described

from .declared_warm_up import WarmUp, check_declaration, warm_up_bars
from .parameters import MAX_DESCRIPTION_BYTES, Parameter, Value, check_values, describe
from .signals import Signals
from .tracebacks import authors_traceback
from .weights import checked_weights

SignalFunction = Callable[..., Signals]
WeightFunction = Callable[..., Floats]
T = TypeVar("T")

VERSION_CHARACTERS = 16
"""64 bits of the source's SHA-256: enough that two versions of one algorithm never share it."""

_RELATIONS: dict[str, Callable[[Value, Value], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "!=": operator.ne,
}


class Interrupted(BaseException):
    """The interruption of late code; it is no `Exception`, so that handlers of those do not catch it."""


class Requirement(msgspec.Struct, frozen=True):
    """A relation that two parameters must have: `fast < slow`."""

    left: str
    relation: str
    right: str

    def __str__(self) -> str:
        return f"{self.left} {self.relation} {self.right}"

    def holds(self, values: Mapping[str, Value]) -> bool:
        return _RELATIONS[self.relation](values[self.left], values[self.right])


class Algorithm(msgspec.Struct, frozen=True):
    """A named function of signals, or of weights where `across` is true. `version` is a hash of its source.

    `warmup` is what it declares of its warm-up; None where it declares nothing.
    """

    name: str
    version: str
    description: str
    parameters: dict[str, Parameter]
    requirements: tuple[Requirement, ...]
    function: SignalFunction | WeightFunction
    across: bool = False
    warmup: WarmUp | None = None

    @property
    def algorithm_id(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def info(self) -> AlgorithmInfo:
        return AlgorithmInfo(
            algorithm_id=self.algorithm_id,
            name=self.name,
            version=self.version,
            description=self.description,
            parameters=[describe(name, parameter) for name, parameter in self.parameters.items()],
            requires=[str(requirement) for requirement in self.requirements],
            across=self.across,
            warmup=self._default_warm_up(),
        )

    def check(self, given: Mapping[str, Any]) -> dict[str, Value]:
        """Return every parameter with its given value or default.

        Raises `ValidationError` for a value that a parameter cannot have, and `InvalidConfiguration` for two values
        that contradict each other.
        """
        values = check_values(self.name, self.parameters, given)
        for requirement in self.requirements:
            if not requirement.holds(values):
                left, right = requirement.left, requirement.right
                raise InvalidConfiguration(
                    f"{self.name} requires {requirement}; {left} is {values[left]} and {right} is {values[right]}",
                    paths=[f"$.parameters.{left}", f"$.parameters.{right}"],
                    requires=str(requirement),
                )
        return values

    def warm_up(self, values: Mapping[str, Value]) -> int | None:
        """Return the bars before a backtest that the algorithm needs with these values; None if it declares none.

        Raises `AlgorithmError` where its declaration gives no number of bars.
        """
        declared = self.warmup
        return None if declared is None else self._guarded(lambda: warm_up_bars(self.name, declared, values))

    def _default_warm_up(self) -> int | None:
        return self.warm_up({name: parameter.default for name, parameter in self.parameters.items()})

    def signals(self, bars: Bars, values: Mapping[str, Value]) -> Signals:
        """Return the signals on `bars`; values as `check` returned them.

        Raises `AlgorithmError` when the algorithm raises (with `details.traceback`) or returns anything but `Signals`
        of one byte per bar.
        """
        return self._guarded(lambda: _checked_signals(self._called(bars, values), bars, self.name))

    def weights(self, panel: Panel, values: Mapping[str, Value]) -> Floats:
        """Return the weights on `panel` of an algorithm that is `across`: float64 of shape (rows, symbols).

        NaN changes nothing. Raises `AlgorithmError` as `signals` does.
        """
        return self._guarded(lambda: checked_weights(self._called(panel, values), panel, self.name))

    def _called(self, sample: Bars | Panel, values: Mapping[str, Value]) -> object:
        try:
            return self.function(sample, **values)
        except AlgorithmError as error:
            details = {"traceback": authors_traceback(error), **(error.details or {})}
            raise AlgorithmError(f"{self.name}: {error.message}", **details) from error

    def _guarded(self, work: Callable[[], T]) -> T:
        """Return `work()`, which runs code of a user: all that it raises is an `AlgorithmError`.

        So is what is no `Exception`, such as `KeyboardInterrupt`. Ctrl-C does not arrive here: it belongs to the main
        thread, and a worker's algorithms run in others.
        """
        try:
            return work()
        except (AlgorithmError, Interrupted):
            raise
        except BaseException as error:
            raise AlgorithmError(
                f"{self.name} raised {described(error)}", traceback=authors_traceback(error)
            ) from error


def algorithm(
    name: str, /, *, requires: Sequence[str] = (), warmup: WarmUp | Parameter | None = None, **parameters: Parameter
) -> Callable[[SignalFunction], Algorithm]:
    """Make an `Algorithm` of the decorated function, described by the first line of its docstring.

    `requires` states relations between parameters, such as `["fast < slow"]`. `warmup` is the number of bars before the
    start of a backtest that the indicators need: a number, a parameter's name, or a function of parameters; with 0 the
    algorithm is never given any. Raises `ValueError` for a function whose arguments are not bars and these parameters,
    for a name that an algorithm cannot have, for a default out of range, for a relation of another form, and for a
    warm-up that is no number of bars.
    """
    return _declaration(name, requires, warmup, parameters, across=False)


def portfolio(
    name: str, /, *, requires: Sequence[str] = (), warmup: WarmUp | Parameter | None = None, **parameters: Parameter
) -> Callable[[WeightFunction], Algorithm]:
    """Make an `Algorithm` of a function that takes a `Panel` and returns weights, else as `algorithm` does."""
    return _declaration(name, requires, warmup, parameters, across=True)


def _declaration(
    name: str,
    requires: Sequence[str],
    warmup: WarmUp | Parameter | None,
    parameters: dict[str, Parameter],
    *,
    across: bool,
) -> Callable[[Callable[..., Any]], Algorithm]:
    def declare(function: Callable[..., Any]) -> Algorithm:
        arguments = list(inspect.signature(function).parameters)[1:]
        if "warmup" in parameters:  # Python gave it apart from the others, so its place among them is not known
            parameters.update({key: parameters.pop(key) for key in arguments if key in parameters})
        if arguments != list(parameters):
            what = "panel" if across else "bars"
            raise ValueError(f"{name} takes {arguments} after the {what}, but declares {list(parameters)}")
        return Algorithm(
            name=name,
            version=version_of(_source(function)),
            description=bounded((inspect.getdoc(function) or "").partition("\n")[0], MAX_DESCRIPTION_BYTES),
            parameters=parameters,
            requirements=tuple(_parse_requirement(text, parameters) for text in requires),
            function=function,
            across=across,
            warmup=declared,
        )

    declared = None if isinstance(warmup, Parameter) else warmup
    if isinstance(warmup, Parameter):
        parameters["warmup"] = warmup
    if not is_algorithm_name(name):
        shown = repr(name) if len(str(name)) <= 64 else f"one of {len(str(name)):,} characters"
        raise ValueError(f"{ALGORITHM_NAME_RULE}, not {shown}")
    for parameter, kind in parameters.items():
        check_values(name, {parameter: kind}, {parameter: kind.default})
    if declared is not None:
        check_declaration(name, declared, parameters)
    return declare


def _checked_signals(signals: object, bars: Bars, name: str) -> Signals:
    if not isinstance(signals, Signals):
        raise AlgorithmError(f"{name} returned {type(signals).__name__}, not Signals")
    if len(signals) != len(bars):
        raise AlgorithmError(f"{name} returned signals for {len(signals)} bars; there are {len(bars)}")
    return signals


def version_of(source: str) -> str:
    """Return the version of the algorithms that `source` defines: a hash of it."""
    return hashlib.sha256(source.encode()).hexdigest()[:VERSION_CHARACTERS]


def _source(function: Callable[..., Any]) -> str:
    """Return the text of the file that defines `function`: a change of a helper there is a new version too."""
    return inspect.getsource(inspect.getmodule(function) or function)


def _parse_requirement(text: str, parameters: Mapping[str, Parameter]) -> Requirement:
    match = re.fullmatch(r"(\w+) (<=|>=|!=|<|>) (\w+)", text)
    if match is None or match[1] not in parameters or match[3] not in parameters:
        raise ValueError(f"a requirement relates two parameters, as in 'fast < slow': {text!r} does not")
    return Requirement(match[1], match[2], match[3])
