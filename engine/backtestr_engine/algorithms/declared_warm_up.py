"""The warm-up that an algorithm declares: the number of bars before the start of a backtest that its indicators need.

    @algorithm("sma_cross", fast=Int(…), slow=Int(…), warmup="slow")
    @algorithm("macd", …, warmup=lambda slow, signal: 5 * (slow + signal))

A declaration is a number of bars, the name of a parameter, or a function of parameters by their names.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from .parameters import Parameter, Value

WarmUp: TypeAlias = int | str | Callable[..., int | float]


def check_declaration(name: str, warmup: WarmUp, parameters: Mapping[str, Parameter]) -> None:
    """Raise `ValueError` for a declaration of algorithm `name` that gives no number of bars for the defaults."""
    for argument in _arguments(warmup):
        if argument not in parameters:
            known = ", ".join(parameters) or "it has none"
            raise ValueError(
                f"the warm-up of {name} is said to depend on {argument!r}, which is no parameter ({known})"
            )
    warm_up_bars(name, warmup, {key: parameter.default for key, parameter in parameters.items()})


def warm_up_bars(name: str, warmup: WarmUp, values: Mapping[str, Value]) -> int:
    """Return the bars of warm-up that algorithm `name` needs with these values of its parameters, rounded up.

    Raises `ValueError` for what is no number of bars, and whatever a function of a user raises.
    """
    match warmup:
        case str():
            bars: Any = values[warmup]
        case int() | float():
            bars = warmup
        case _:
            bars = warmup(**{argument: values[argument] for argument in _arguments(warmup)})
    if isinstance(bars, bool) or not isinstance(bars, int | float) or not 0 <= bars < math.inf:
        raise ValueError(f"the warm-up of {name} must be a number of bars, 0 or more, not {bars!r}")
    return math.ceil(bars)


def _arguments(warmup: WarmUp) -> list[str]:
    """Return the names of the parameters on which a declaration depends."""
    if isinstance(warmup, str):
        return [warmup]
    return list(inspect.signature(warmup).parameters) if callable(warmup) else []
