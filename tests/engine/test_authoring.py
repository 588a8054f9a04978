"""The page for authors of algorithms: its examples run, and its table lists the built-in algorithms."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from backtestr_engine import authoring
from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.indicators import indicator, rsi
from backtestr_engine.library.look_ahead import check_algorithm
from backtestr_engine.library.source_files import load_source
from backtestr_protocol.errors import NotFound, ValidationError

PAGE = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text("utf-8")
BARS = synthetic_bars("15m", 3_000)


def example_of_the_page(name: str) -> Algorithm:
    codes = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (code,) = [one for one in codes if f"def {name}(" in one]
    (example,) = load_source(code, "docs/algorithms.md", name)
    return example


def test_the_example_of_the_page_runs_trades_and_does_not_look_ahead() -> None:
    example = example_of_the_page("dip_in_trend")

    signals = example.signals(BARS, example.check({}))

    assert signals.entries.sum() > 10
    assert signals.exits.sum() > 10
    assert check_algorithm(example, BARS, example.check({}), np.random.default_rng(1)).passed


def test_the_example_of_a_warm_up_declares_it() -> None:
    example = example_of_the_page("above_average")

    assert example.warm_up(example.check({"slow": 7})) == 35
    assert example.signals(BARS, example.check({})).entries.any()


def test_the_example_that_compares_symbols_runs_and_does_not_look_ahead() -> None:
    example = example_of_the_page("strongest")
    panel = Panel.of(
        [synthetic_bars("1d", 500, symbol=name, seed=seed)[seed * 9 :] for seed, name in enumerate("ABCD")]
    )

    weights = example.weights(panel, example.check({"every": 5}))

    held = np.nansum(weights, axis=1)[np.arange(500) % 5 == 0]
    assert set(held[20:]) == {1.0}
    assert len(np.unique(weights[~np.isnan(weights).any(axis=1)], axis=0)) > 3
    assert check_algorithm(example, panel, example.check({}), np.random.default_rng(1)).passed


def test_the_page_lists_the_built_in_algorithms() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(?: `(.*?)`)? \| (.*) \|$", PAGE, re.MULTILINE)

    assert rows == [
        (name, " ".join(f"{key}={parameter.default}" for key, parameter in one.parameters.items()), one.description)
        for name, one in BUILT_IN.items()
    ]


def test_every_public_name_can_be_imported() -> None:
    assert all(hasattr(authoring, name) for name in authoring.__all__)


def test_an_indicator_by_name_is_the_function() -> None:
    np.testing.assert_array_equal(indicator(BARS, "RSI", timeperiod=9)["real"], rsi(BARS.close, 9))
    assert list(indicator(BARS, "MACD")) == ["macd", "macdsignal", "macdhist"]
    with pytest.raises(NotFound, match="unknown indicator 'RSX'"):
        indicator(BARS, "RSX")
    with pytest.raises(ValidationError, match="unknown parameter 'period' of RSI"):
        indicator(BARS, "RSI", period=3)
