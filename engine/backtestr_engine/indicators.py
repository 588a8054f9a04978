"""Indicators by their TA-Lib names, parameters and outputs, for `GetMarketData` and for algorithms; and crossings.

TA-Lib (https://ta-lib.org) is the reference for every formula. Values during the warm-up are NaN.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any, TypeAlias, TypeVar, cast

import msgspec
import numpy as np
import talib
from talib import abstract

from backtestr_engine.data.arrays import Booleans, Floats
from backtestr_engine.data.bars import COLUMNS, Bars
from backtestr_protocol.errors import ValidationError, did_you_mean, quoted, unknown
from backtestr_protocol.messages import IndicatorConfig

PERIOD_MAX = 100_000
"""TA-Lib's own upper bound for every period."""

_LARGEST_WHOLE = 2**31 - 1


_Outputs: TypeAlias = Floats | tuple[Floats, ...]
"""The output of an indicator, or all of them where it has several."""


class RememberedIndicators:
    """Outputs of indicators on columns of bars, which cannot change; at most `max_bytes`, the latest used.

    Combinations of a sweep ask for the same ones again and again. Each caller gets a copy, as it may write to it. What
    is asked for once is not kept: most combinations may have an average that no other has, and a copy takes as long as
    a third of an average.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        # With the input, which lives as long as its id is a key.
        self._outputs: OrderedDict[Hashable, tuple[Any, _Outputs]] = OrderedDict()
        # The hashes of keys, of which two may be the same: outputs are then kept when they are asked for once.
        self._asked_for: set[int] = set()

    def get(self, key: Hashable) -> _Outputs | None:
        """Return copies of the outputs of a key, or None where they are not known."""
        known = self._outputs.get(key)
        if known is None:
            return None
        self._outputs.move_to_end(key)
        return _copied(known[1])

    def put(self, key: Hashable, source: Any, outputs: _Outputs) -> None:
        """Keep copies of the outputs of a key the second time; `source` is what they were computed of."""
        if hash(key) not in self._asked_for:
            if len(self._asked_for) == _MOST_ASKED_FOR:
                self._asked_for.clear()
            self._asked_for.add(hash(key))
            return
        size = _bytes_of(outputs)
        if size > self._max_bytes:
            return
        self._outputs[key] = source, _copied(outputs)
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, (_, dropped) = self._outputs.popitem(last=False)
            self._bytes -= _bytes_of(dropped)


_MOST_ASKED_FOR = 1 << 14
"""The most indicators of which it is known that they were asked for: they take 1 MB."""


def _copied(outputs: _Outputs) -> _Outputs:
    return tuple([array.copy() for array in outputs]) if isinstance(outputs, tuple) else outputs.copy()


def _bytes_of(outputs: _Outputs) -> int:
    return sum(array.nbytes for array in outputs) if isinstance(outputs, tuple) else outputs.nbytes


_remembered: ContextVar[RememberedIndicators | None] = ContextVar("remembered indicators", default=None)


@contextlib.contextmanager
def remembering(indicators_so_far: RememberedIndicators) -> Iterator[None]:
    """Have the indicators that are called within remember their outputs."""
    token = _remembered.set(indicators_so_far)
    try:
        yield
    finally:
        _remembered.reset(token)


_Function = TypeVar("_Function", bound=Callable[..., Any])


def _remembers(function: _Function) -> _Function:
    """Take outputs of an indicator from those that are remembered, where its values are a column of bars."""

    @wraps(function)
    def remembered(values: Floats, *parameters: Any, **named: Any) -> Any:
        known = _remembered.get()
        if known is None or not isinstance(values, np.ndarray) or values.flags.writeable:
            return function(values, *parameters, **named)
        key: Hashable = (function, id(values), parameters)
        if named:
            key = (key, *named.items())
        for one in (*parameters, *named.values()) if named else parameters:
            if type(one) is not int:  # 5.0 and True are equal to whole numbers, for which TA-Lib may not take them
                key = (key, *map(type, parameters), *map(type, named.values()))
                break
        try:
            outputs = known.get(key)
        except TypeError:  # a parameter that is no key, such as an array of one number
            return function(values, *parameters, **named)
        if outputs is None:
            outputs = function(values, *parameters, **named)
            known.put(key, values, outputs)
        return outputs

    return cast("_Function", remembered)


def _at_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a TA-Lib function that looks for Series among its arguments only where its values are no array.

    TA-Lib looks for those of pandas and polars in each call, which takes a fifth of an average over 2,000 bars.
    """
    on_arrays = inspect.unwrap(function)

    def call(values: Any, *parameters: Any) -> Any:
        return (on_arrays if isinstance(values, np.ndarray) else function)(values, *parameters)

    return call


_SMA, _EMA, _RSI = _at_once(talib.SMA), _at_once(talib.EMA), _at_once(talib.RSI)
_BBANDS, _MACD = _at_once(talib.BBANDS), _at_once(talib.MACD)
_MAX, _MIN = _at_once(talib.MAX), _at_once(talib.MIN)


@_remembers
def sma(values: Floats, timeperiod: int) -> Floats:
    """Return the simple moving average: the mean of the last `timeperiod` values; NaN on timeperiod − 1 bars."""
    average: Floats = _SMA(values, timeperiod)
    return average


@_remembers
def ema(values: Floats, timeperiod: int) -> Floats:
    """Return the exponential moving average with α = 2 / (timeperiod + 1), started by the first simple average."""
    average: Floats = _EMA(values, timeperiod)
    return average


@_remembers
def rsi(values: Floats, timeperiod: int) -> Floats:
    """Return the relative strength index, 0 to 100; NaN on the first timeperiod bars.

    Gains and losses are smoothed by Wilder's average.
    """
    index: Floats = _RSI(values, timeperiod)
    return index


@_remembers
def bbands(values: Floats, timeperiod: int, nbdev: float) -> tuple[Floats, Floats, Floats]:
    """Return Bollinger's upper, middle and lower band: the simple average, and `nbdev` deviations (1/n) around it."""
    upper, middle, lower = _BBANDS(values, timeperiod, nbdev, nbdev)
    return upper, middle, lower


@_remembers
def macd(values: Floats, fastperiod: int, slowperiod: int, signalperiod: int) -> tuple[Floats, Floats]:
    """Return the fast exponential average less the slow one, and the exponential average of that, the signal.

    Both averages start on the bar that completes the slow one; both outputs are NaN until the signal starts.
    """
    line, signal, _ = _MACD(values, fastperiod, slowperiod, signalperiod)
    return line, signal


@_remembers
def highest(values: Floats, timeperiod: int) -> Floats:
    """Return the highest of the last `timeperiod` values; NaN on the first timeperiod − 1 bars."""
    most: Floats = _MAX(values, timeperiod)
    return most


@_remembers
def lowest(values: Floats, timeperiod: int) -> Floats:
    """Return the lowest of the last `timeperiod` values; NaN on the first timeperiod − 1 bars."""
    least: Floats = _MIN(values, timeperiod)
    return least


# A line crosses a level on the bar on which it is beyond the level while the bar before was not. A NaN on the bar
# before, as at the end of a warm-up, makes no crossing.


def rises_above(line: Floats, level: Floats | float) -> Booleans:
    """Return the bars on which `line` is above `level` and was not on the bar before."""
    return _begins(line > level, line <= level)


def falls_below(line: Floats, level: Floats | float) -> Booleans:
    """Return the bars on which `line` is below `level` and was not on the bar before."""
    return _begins(line < level, line >= level)


def _begins(beyond: Booleans, within: Booleans) -> Booleans:
    began = np.zeros(beyond.shape, dtype=np.bool_)  # a third of what zeros_like takes
    np.logical_and(beyond[1:], within[:-1], out=began[1:])
    return began


class Indicator(msgspec.Struct, frozen=True):
    """One TA-Lib function over bars: description, parameters with their defaults, names of its outputs."""

    name: str
    description: str
    group: str
    parameters: dict[str, int | float]
    outputs: tuple[str, ...]


@cache
def indicators() -> dict[str, Indicator]:
    """Return every TA-Lib function that needs nothing but bars, by name."""
    found = {}
    for name in _names():
        function = _function(name)
        needed = [column for value in function.input_names.values() for column in _columns(value)]
        if all(column in COLUMNS for column in needed):
            found[name] = Indicator(
                name=name,
                description=function.info["display_name"],
                group=function.info["group"],
                parameters=dict(function.parameters),
                outputs=tuple(function.output_names),
            )
    return found


def _names() -> list[str]:
    names: list[str] = talib.get_functions()  # type: ignore[no-untyped-call]  # TA-Lib's stubs do not type it
    return names


def _function(name: str) -> Any:
    """Return TA-Lib's own description of a function, which can also be called (its stubs leave it out)."""
    return abstract.Function(name)  # type: ignore[attr-defined]  # see above


def _columns(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def compute(bars: Bars, config: IndicatorConfig, *, path: str = "$.indicators[0]") -> dict[str, Floats]:
    """Return the outputs of one indicator over `bars`, float64, one value per bar, by output name (renamed in order).

    Raises `NotFound` for an unknown indicator and `ValidationError` for an unknown, ill-typed or out-of-range parameter
    or for another number of `output_names` than of outputs; `path` is the path of `config` in the request.
    """
    indicator = _find(config.name)
    parameters = _check_parameters(indicator, config.parameters, path)
    names = _output_names(indicator, config.output_names, path)
    columns = {name: getattr(bars, name) for name in COLUMNS[1:]}
    try:
        values = _function(indicator.name)(columns, **parameters)
    except Exception as error:  # TA-Lib raises plain Exception for a parameter outside its own bounds.
        if "TA_BAD_PARAM" not in str(error):
            raise
        raise ValidationError(
            f"{indicator.name} does not take {_listing(parameters)}: at least one is out of TA-Lib's range",
            path=f"{path}.parameters",
            got=parameters,
        ) from None
    arrays = values if isinstance(values, (list, tuple)) else [values]
    return {name: np.asarray(array, dtype=np.float64) for name, array in zip(names, arrays, strict=True)}


def indicator(bars: Bars, name: str, /, **parameters: int | float) -> dict[str, Floats]:
    """Return the outputs of an indicator by its TA-Lib name, as `GetMarketData` computes them.

    Parameters that are left out have their defaults. Raises as `compute`.

    indicator(bars, "MACD", fastperiod=8)["macdhist"]
    """

    config, known = IndicatorConfig(name=name, parameters=parameters), _remembered.get()
    if known is None:
        return compute(bars, config, path="indicator")
    key = (name, id(bars), *parameters.items(), *map(type, parameters.values()))
    try:
        outputs = known.get(key)
    except TypeError:  # a parameter that is no key, which is refused
        return compute(bars, config, path="indicator")
    if outputs is not None:
        return dict(zip(_find(name).outputs, outputs, strict=True))
    computed = compute(bars, config, path="indicator")
    known.put(key, bars, tuple(computed.values()))
    return computed


def _find(name: str) -> Indicator:
    known = indicators()
    if name.upper() not in known:
        raise unknown("indicator", name, known)
    return known[name.upper()]


def _check_parameters(indicator: Indicator, given: Mapping[str, Any], path: str) -> dict[str, int | float]:
    checked: dict[str, int | float] = {}
    for name, value in given.items():
        where = f"{path}.parameters.{name}"
        if name not in indicator.parameters:
            raise ValidationError(
                f"unknown parameter {name!r} of {indicator.name}{did_you_mean(name, indicator.parameters)} "
                f"({_listing(indicator.parameters) or 'it has none'})",
                path=where,
                expected=sorted(indicator.parameters),
                got=name,
            )
        checked[name] = _check_number(indicator, name, value, where)
    return checked


def _check_number(indicator: Indicator, name: str, value: Any, where: str) -> int | float:
    whole = isinstance(indicator.parameters[name], int)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or (whole and (value != int(value) or abs(value) > _LARGEST_WHOLE)):
        expected = "a whole number" if whole else "a finite number"
        raise ValidationError(
            f"{name} of {indicator.name} must be {expected}, not {quoted(value)}",
            path=where,
            expected=expected,
            got=quoted(value),
        )
    if name.endswith("period") and not 1 <= value <= PERIOD_MAX:
        raise ValidationError(
            f"{name} of {indicator.name} must be within 1..{PERIOD_MAX}, not {value!r}",
            path=where,
            expected=f"1..{PERIOD_MAX}",
            got=value,
        )
    return int(value) if whole else float(value)


def _output_names(indicator: Indicator, renamed: list[str], path: str) -> list[str]:
    """Return the names in `renamed`, one for each output in order, or TA-Lib's if there is none."""
    if renamed and len(renamed) != len(indicator.outputs):
        raise ValidationError(
            f"{indicator.name} has {len(indicator.outputs)} outputs ({', '.join(indicator.outputs)}), "
            f"outputNames gives {len(renamed)}; name each of them in this order, or leave outputNames out",
            path=f"{path}.outputNames",
            expected=list(indicator.outputs),
            got=renamed,
        )
    return renamed or list(indicator.outputs)


def _listing(parameters: Mapping[str, int | float]) -> str:
    return ", ".join(f"{name}={value}" for name, value in parameters.items())
