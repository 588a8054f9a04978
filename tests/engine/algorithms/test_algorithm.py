"""Algorithms: their description, their parameters, refused signals, and errors in their code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backtestr_engine.algorithms.algorithm import algorithm, portfolio
from backtestr_engine.algorithms.parameters import MAX_DESCRIPTION_BYTES, Bool, Float, Int
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.built_in import BUILT_IN, find_algorithm
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.library.library import Library
from backtestr_protocol.errors import AlgorithmError, BacktestrError, InvalidConfiguration, NotFound, ValidationError
from backtestr_protocol.texts import MAX_TEXT_BYTES

BARS = synthetic_bars("1m", 50)


def test_the_built_in_algorithms_describe_themselves() -> None:
    infos = {info.name: info for info in Library().infos()}

    assert list(infos) == sorted(BUILT_IN)
    assert all(info.description.endswith(".") for info in infos.values())
    cross = infos["sma_cross"]
    assert cross.algorithm_id == f"sma_cross@{cross.version}"
    assert cross.description.startswith("Long when the fast average")
    assert [(p.name, p.type, p.default, p.low, p.high) for p in cross.parameters] == [
        ("fast", "int", 10, 2, 500),
        ("slow", "int", 30, 3, 1000),
    ]
    assert cross.requires == ["fast < slow"]
    assert infos["buy_and_hold"].requires == []


def test_an_algorithm_is_found_by_name_and_by_id() -> None:
    by_name = find_algorithm("sma_cross")

    assert find_algorithm(by_name.algorithm_id) is by_name


def test_an_unknown_algorithm_names_the_near_miss() -> None:
    with pytest.raises(NotFound, match="unknown algorithm 'sma_cros'; did you mean 'sma_cross'") as caught:
        find_algorithm("sma_cros")
    assert caught.value.details == {
        "kind": "algorithm",
        "name": "sma_cros",
        "known": sorted(BUILT_IN),
    }


@pytest.mark.parametrize(
    ("given", "error", "message", "path"),
    [
        (
            {"fats": 5},
            ValidationError,
            "unknown parameter 'fats' of sma_cross; did you mean 'fast'? (fast: 2..500, slow: 3..1000)",
            "$.parameters.fats",
        ),
        (
            {"fast": 1},
            ValidationError,
            "parameter 'fast' of sma_cross must be a whole number within 2..500, not 1",
            "$.parameters.fast",
        ),
        (
            {"slow": 30.5},
            ValidationError,
            "parameter 'slow' of sma_cross must be a whole number within 3..1000, not 30.5",
            "$.parameters.slow",
        ),
        (
            {"slow": "x"},
            ValidationError,
            "parameter 'slow' of sma_cross must be a whole number within 3..1000, not 'x'",
            "$.parameters.slow",
        ),
        (
            {"slow": float("nan")},
            ValidationError,
            "parameter 'slow' of sma_cross must be a whole number within 3..1000, not nan",
            "$.parameters.slow",
        ),
        (
            {"fast": True},
            ValidationError,
            "parameter 'fast' of sma_cross must be a whole number within 2..500, not True",
            "$.parameters.fast",
        ),
    ],
)
def test_parameters_are_refused_by_path(
    given: dict[str, Any], error: type[BacktestrError], message: str, path: str
) -> None:
    with pytest.raises(error) as caught:
        find_algorithm("sma_cross").check(given)
    assert caught.value.message == message
    assert caught.value.details is not None
    assert caught.value.details["path"] == path


def test_a_fast_average_that_is_not_faster_is_a_contradiction() -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        find_algorithm("sma_cross").check({"fast": 30})
    assert caught.value.message == "sma_cross requires fast < slow; fast is 30 and slow is 30"
    assert caught.value.details == {"paths": ["$.parameters.fast", "$.parameters.slow"], "requires": "fast < slow"}


def test_a_whole_number_may_come_as_a_float() -> None:
    assert find_algorithm("sma_cross").check({"fast": 5.0}) == {"fast": 5, "slow": 30}


def test_parameters_of_every_kind_reach_the_algorithm() -> None:
    seen: list[Any] = []

    @algorithm("all_kinds", share=Float(0.5, low=0, high=1), often=Bool(False), count=Int(1, low=1, high=3))
    def all_kinds(bars: Bars, share: float, often: bool, count: int) -> Signals:
        seen.extend([share, often, count])
        return Signals.of(entries=bars.close > 0)

    values = all_kinds.check({"share": 1, "often": True})
    all_kinds.signals(BARS, values)

    assert seen == [1.0, True, 1]
    assert [type(value) for value in seen] == [float, bool, int]
    assert [info.type for info in all_kinds.info.parameters] == ["float", "bool", "int"]


def test_an_exception_in_an_algorithm_is_an_algorithm_error_with_the_traceback() -> None:
    @algorithm("broken")
    def broken(bars: Bars) -> Signals:
        return 1 / 0  # type: ignore[return-value]

    with pytest.raises(AlgorithmError, match="broken raised ZeroDivisionError: division by zero") as caught:
        broken.signals(BARS, {})
    assert caught.value.details is not None
    assert "return 1 / 0" in caught.value.details["traceback"]


class Own(BaseException):
    """No `Exception`, so that `except Exception` does not catch it."""


class Silent(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class Pretender:
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise KeyboardInterrupt


class Refusing(Signals, frozen=True):
    def __len__(self) -> int:
        raise GeneratorExit("no length")


def thrown(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: thrown(KeyboardInterrupt()), "hostile raised KeyboardInterrupt$"),
        (lambda: thrown(GeneratorExit()), "hostile raised GeneratorExit$"),
        (lambda: thrown(SystemExit(3)), "hostile raised SystemExit: 3$"),
        (lambda: thrown(Own("mine")), "hostile raised Own: mine$"),
        (lambda: thrown(Silent()), "hostile raised Silent: its text could not be made$"),
        (lambda: thrown(AlgorithmError(Silent())), "hostile raised KeyboardInterrupt$"),  # type: ignore[arg-type]
        (lambda: thrown(ValueError("x" * 20_000_000)), r"cut: 20,000,012 characters$"),
        (Pretender, "hostile raised KeyboardInterrupt$"),
        (lambda: Refusing(np.zeros(50, np.uint8)), "hostile raised GeneratorExit: no length$"),
    ],
)
def test_whatever_an_algorithm_raises_or_returns_is_an_algorithm_error(made: Any, message: str) -> None:
    @algorithm("hostile")
    def hostile(bars: Bars) -> Signals:
        signals: Signals = made()
        return signals

    with pytest.raises(AlgorithmError, match=message) as caught:
        hostile.signals(BARS, {})
    assert caught.value.details is not None
    assert len(caught.value.details["traceback"].encode()) <= MAX_TEXT_BYTES


def test_weights_are_no_other() -> None:
    class Hostile(np.ndarray[Any, Any]):
        @property  # type: ignore[misc]
        def shape(self) -> Any:
            raise KeyboardInterrupt

    @portfolio("hostile")
    def hostile(panel: Panel) -> Any:
        return np.zeros((50, 1)).view(Hostile)

    with pytest.raises(AlgorithmError, match="hostile raised KeyboardInterrupt"):
        hostile.weights(Panel.of([BARS]), {})


def test_descriptions_are_cut() -> None:
    def wordy(bars: Bars, fast: int) -> Signals:
        return Signals.of(entries=bars.close > 0)

    wordy.__doc__ = "d" * 100_000
    info = algorithm("wordy", fast=Int(1, low=1, high=2, description="e" * 100_000))(wordy).info
    for text in (info.description, info.parameters[0].description or ""):
        assert text.endswith("… cut: 100,000 characters")
        assert len(text.encode()) <= MAX_DESCRIPTION_BYTES


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda bars: bars.close, "returned ndarray, not Signals"),
        (lambda bars: Signals.of(entries=bars.close[1:] > 0), "returned signals for 49 bars; there are 50"),
        (lambda bars: Signals.of(entries=bars.close), "entries must be an array of booleans, not of float64"),
        (lambda bars: Signals.of(entries=np.full(50, np.nan)), r"with NaN on 50 bars \(first: 0\)"),
        (lambda bars: Signals.of(bars.close > 0, exits=bars.close[1:] > 0), r"exits has shape \(49,\)"),
        (lambda bars: Signals.of(), "signals need at least one of"),
        (lambda bars: Signals.of(entries=np.array(True)), "entries has shape"),
        (lambda bars: Signals.from_cross(bars.close, bars.close[1:]), "crossing lines have shapes"),
    ],
)
def test_invalid_signals_are_refused(made: Any, message: str) -> None:
    @algorithm("nonsense")
    def nonsense(bars: Bars) -> Signals:
        made_signals: Signals = made(bars)
        return made_signals

    with pytest.raises(AlgorithmError, match=message):
        nonsense.signals(BARS, {})


def test_nan_among_booleans_names_its_first_bar() -> None:
    values = np.array([1.0, 0.0, np.nan])

    with pytest.raises(AlgorithmError) as caught:
        Signals.of(entries=values)
    assert caught.value.details == {"bar": 2}


def test_an_impossible_declaration_raises_at_once() -> None:
    with pytest.raises(ValueError, match="takes"):
        algorithm("one", fast=Int(1, low=1, high=2))(lambda bars: Signals.of(entries=bars.close > 0))
    with pytest.raises(ValueError, match="a requirement relates two parameters"):
        algorithm("two", requires=["fast < slow"])(lambda bars: Signals.of(entries=bars.close > 0))
    with pytest.raises(ValidationError, match=r"within 1\.\.2, not 5"):
        algorithm("three", fast=Int(5, low=1, high=2))


def test_an_algorithm_cannot_change_the_bars() -> None:
    @algorithm("vandal")
    def vandal(bars: Bars) -> Signals:
        bars.close[0] = 0.0
        return Signals.of(entries=bars.close > 0)

    with pytest.raises(AlgorithmError, match="read-only"):
        vandal.signals(BARS, {})
