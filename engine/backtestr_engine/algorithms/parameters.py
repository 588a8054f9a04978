"""Parameters of algorithms: their kinds, their bounds, and the check of the values that a request gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from backtestr_protocol.errors import ValidationError, did_you_mean, quoted
from backtestr_protocol.messages import ParameterInfo
from backtestr_protocol.texts import bounded

Value: TypeAlias = int | float | bool

MAX_DESCRIPTION_BYTES = 4_000
"""The most bytes of a description: a page of text. Every worker sends those of all algorithms to the broker."""


class Int(msgspec.Struct, frozen=True):
    """A whole number from `low` to `high`, both included."""

    default: int
    low: int
    high: int
    description: str | None = None


class Float(msgspec.Struct, frozen=True):
    """A finite number from `low` to `high`, both included."""

    default: float
    low: float
    high: float
    description: str | None = None


class Bool(msgspec.Struct, frozen=True):
    """True or false."""

    default: bool
    description: str | None = None


Parameter: TypeAlias = Int | Float | Bool


def describe(name: str, parameter: Parameter) -> ParameterInfo:
    """Return the parameter as `AlgorithmInfo` shows it; an infinite bound is none."""
    given = parameter.description
    text = bounded(given, MAX_DESCRIPTION_BYTES) if isinstance(given, str) else None
    match parameter:
        case Int(default, low, high):
            return ParameterInfo(name=name, type="int", default=default, low=low, high=high, description=text)
        case Float(default, low, high):
            least, most = (bound if math.isfinite(bound) else None for bound in (low, high))
            return ParameterInfo(name=name, type="float", default=default, low=least, high=most, description=text)
        case Bool(default):
            return ParameterInfo(name=name, type="bool", default=default, description=text)


def check_values(algorithm: str, parameters: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Value]:
    """Return every parameter with its given value or its default.

    Raises `ValidationError`, with the parameter in `details.path`, for an unknown name, a wrong type, and a value that
    is out of range or not finite.
    """
    listing = ", ".join(f"{name}: {_range(parameter)}" for name, parameter in parameters.items()) or "it has none"
    for name in given:
        if name not in parameters:
            raise ValidationError(
                f"unknown parameter {name!r} of {algorithm}{did_you_mean(name, parameters)} ({listing})",
                path=f"$.parameters.{name}",
                expected=list(parameters),
                got=name,
            )
    return {
        name: _check_value(algorithm, name, parameter, given[name]) if name in given else parameter.default
        for name, parameter in parameters.items()
    }


def _range(parameter: Parameter) -> str:
    return "true or false" if isinstance(parameter, Bool) else f"{parameter.low}..{parameter.high}"


def _check_value(algorithm: str, name: str, parameter: Parameter, value: Any) -> Value:
    match parameter:
        case Bool() if isinstance(value, bool):
            return value
        case Int() if _is_number(value) and value == math.floor(value) and parameter.low <= value <= parameter.high:
            return int(value)
        case Float() if _is_number(value) and parameter.low <= value <= parameter.high:
            return float(value)
    expected = {Bool: "", Int: "a whole number within ", Float: "a number within "}[type(parameter)] + _range(parameter)
    raise ValidationError(
        f"parameter {name!r} of {algorithm} must be {expected}, not {quoted(value)}",
        path=f"$.parameters.{name}",
        expected=expected,
        got=value if _is_number(value) or isinstance(value, (bool, type(None))) else quoted(value),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
