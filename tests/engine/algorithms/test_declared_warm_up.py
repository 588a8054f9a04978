"""Declarations of warm-up: numbers, parameters and functions of parameters, and those that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backtestr_engine.algorithms.algorithm import algorithm, portfolio
from backtestr_engine.algorithms.parameters import Bool, Float, Int
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars


def no_signals(bars: Bars, slow: int, wide: float) -> Signals:
    return Signals.of(entries=np.zeros(len(bars), dtype=np.bool_))


@pytest.mark.parametrize(
    ("declared", "bars"),
    [
        (None, None),
        (0, 0),
        (7, 7),
        (7.2, 8),
        ("slow", 20),
        ("wide", 3),
        (lambda slow: 5 * slow, 100),
        (lambda wide, slow: slow * wide, 50),
        (lambda: 3, 3),
    ],
)
def test_a_declaration_is_a_number_of_bars(declared: Any, bars: int | None) -> None:
    one = algorithm("one", slow=Int(20, low=2, high=500), wide=Float(2.5, low=0.1, high=9.0), warmup=declared)(
        no_signals
    )

    assert one.warm_up(one.check({})) == bars
    assert one.info.warmup == bars


def test_a_declaration_follows_the_given_parameters() -> None:
    one = algorithm("one", slow=Int(20, low=2, high=500), wide=Float(2.5, low=0.1, high=9.0), warmup="slow")(no_signals)

    assert one.warm_up(one.check({"slow": 33})) == 33


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (-1, "must be a number of bars, 0 or more, not -1"),
        (True, "must be a number of bars, 0 or more, not True"),
        (float("inf"), "must be a number of bars, 0 or more, not inf"),
        (float("nan"), "must be a number of bars, 0 or more, not nan"),
        ("slw", "is said to depend on 'slw', which is no parameter \\(slow, wide\\)"),
        (lambda bars: 1, "is said to depend on 'bars', which is no parameter"),
        (lambda slow: "many", "must be a number of bars, 0 or more, not 'many'"),
    ],
)
def test_what_is_no_number_of_bars_is_refused_when_it_is_declared(declared: Any, message: str) -> None:
    slow, wide = Int(20, low=2, high=500), Float(2.5, low=0.1, high=9.0)
    with pytest.raises(ValueError, match=message):
        algorithm("one", warmup=declared, slow=slow, wide=wide)(no_signals)


def test_a_switch_is_no_number_of_bars() -> None:
    with pytest.raises(ValueError, match="must be a number of bars, 0 or more, not False"):
        algorithm("one", warmup="chosen", chosen=Bool(False))


def test_a_parameter_may_have_that_name() -> None:
    """A file that was written before declarations existed keeps its meaning."""

    @algorithm("one", warmup=Int(3, low=0, high=9), slow=Int(20, low=2, high=500))
    def one(bars: Bars, slow: int, warmup: int) -> Signals:
        return Signals.of(entries=np.arange(len(bars)) >= slow + warmup)

    assert one.warm_up(one.check({})) is None
    assert list(one.parameters) == ["slow", "warmup"]
    assert one.check({"warmup": 5}) == {"slow": 20, "warmup": 5}
    assert one.signals(synthetic_bars("1m", 30), one.check({"warmup": 5})).entries.sum() == 5


def test_an_algorithm_over_a_panel_declares_it_too() -> None:
    @portfolio("one", slow=Int(20, low=2, high=500), warmup="slow")
    def one(panel: Panel, slow: int) -> Floats:
        return np.zeros((len(panel), len(panel.symbols)))

    assert one.warm_up({"slow": 9}) == 9
