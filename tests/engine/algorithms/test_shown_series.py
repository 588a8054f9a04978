"""An algorithm shows series of numbers under names of its own, and what cannot be shown is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from backtestr_engine.algorithms.shown_series import (
    MAX_NAME_CHARACTERS,
    MAX_SHOWN,
    SIGNAL_COLUMNS,
    TAKEN_NAMES,
    checked_shown,
)
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.data.bars import COLUMNS
from backtestr_protocol.errors import AlgorithmError

NEVER = np.zeros(3, dtype=np.bool_)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.array([1.5, np.nan, -np.inf]), [1.5, np.nan, -np.inf]),
        (np.array([1, 2, 3], dtype=np.int8), [1.0, 2.0, 3.0]),
        (np.array([True, False, True]), [1.0, 0.0, 1.0]),
        (np.array([1.5, 2.5, 3.5], dtype=np.float32), [1.5, 2.5, 3.5]),
        ([1, 2.5, 3], [1.0, 2.5, 3.0]),
        (pl.Series([1.0, None, 3.0]), [1.0, np.nan, 3.0]),
    ],
    ids=["floats", "integers", "booleans", "short floats", "list", "polars"],
)
def test_numbers_of_any_kind_are_shown_as_float64(given: Any, expected: list[float]) -> None:
    shown = checked_shown({"atr": given}, 3)["atr"]

    assert shown.dtype == np.float64
    np.testing.assert_array_equal(shown, expected)


def test_series_of_float64_are_not_copied_and_stay_in_order() -> None:
    one, two = np.ones(3), np.zeros(3)
    shown = checked_shown({"b": one, "a": two}, 3)

    assert list(shown) == ["b", "a"]
    assert shown["b"] is one
    assert shown["a"] is two


def test_nothing_is_shown_unless_something_is_given() -> None:
    assert checked_shown(None, 3) == checked_shown({}, 3) == {}
    assert Signals.of(NEVER).shown == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0, 2.0], r"^show: 'atr' has shape \(2,\); it needs one value per bar \(3\)$"),
        (np.ones((3, 1)), r"^show: 'atr' has shape \(3, 1\)"),
        (1.5, r"^show: 'atr' has shape \(\)"),
        (None, r"^show: 'atr' has shape \(\)"),
        ({"real": [1.0, 2.0, 3.0]}, r"^show: 'atr' has shape \(\)"),
        ([[1.0], [1.0, 2.0], []], "^show: 'atr' is no array of numbers: "),
        (["a", "b", "c"], "^show: 'atr' must be an array of numbers or booleans, not of <U1$"),
        ([1.0, None, 2.0], "^show: 'atr' must be an array of numbers or booleans, not of object$"),
        (np.array([1, 2, 3], dtype="datetime64[s]"), "^show: 'atr' must be an array of numbers or booleans, not of"),
        (np.ones(3, dtype=np.complex128), "^show: 'atr' must be an array of numbers or booleans, not of complex128$"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_that_are_no_series_are_refused_by_name(given: Any, message: str) -> None:
    with pytest.raises(AlgorithmError, match=message):
        checked_shown({"fine": np.ones(3), "atr": given}, 3)


@pytest.mark.parametrize("name", ["", " atr", "atr ", "a\nb", "\ud800", "x" * (MAX_NAME_CHARACTERS + 1)], ids=ascii)
def test_names_that_no_column_can_have_are_refused(name: str) -> None:
    with pytest.raises(AlgorithmError, match="a series has a name of 1 to 64 printable characters"):
        checked_shown({name: np.ones(3)}, 3)


@pytest.mark.parametrize("name", ["x" * MAX_NAME_CHARACTERS, "ATR 14", "Höchst", "Close"])
def test_other_names_are_taken(name: str) -> None:
    assert list(checked_shown({name: np.ones(3)}, 3)) == [name]


@pytest.mark.parametrize("name", sorted(TAKEN_NAMES))
def test_the_names_of_other_columns_are_taken_already(name: str) -> None:
    with pytest.raises(AlgorithmError, match=f"^show: '{name}' is the name of another column"):
        checked_shown({name: np.ones(3)}, 3)


def test_every_column_of_bars_and_signals_is_taken() -> None:
    assert {*COLUMNS, "symbol", *SIGNAL_COLUMNS} == TAKEN_NAMES
    fields = set(Signals.__struct_fields__) - {"flags", "shown"}
    assert {"entries", "exits", "short_entries", "short_exits"} | fields == set(SIGNAL_COLUMNS)


def test_what_is_no_map_of_names_and_too_many_series_are_refused() -> None:
    given: Any = [np.ones(3)]
    with pytest.raises(AlgorithmError, match=r'^show must be a dict of names and arrays, {"atr": atr}, not list$'):
        checked_shown(given, 3)
    given = {7: np.ones(3)}
    with pytest.raises(AlgorithmError, match=r"^show: the name of a series is text, not int$"):
        checked_shown(given, 3)
    many = {f"s{number}": np.ones(3) for number in range(MAX_SHOWN + 1)}
    with pytest.raises(AlgorithmError, match=r"^show has 65 series; up to 64 can be shown$"):
        checked_shown(many, 3)
    many.popitem()
    assert len(checked_shown(many, 3)) == MAX_SHOWN


def test_signals_of_every_kind_show_series_and_keep_them() -> None:
    shown = {"line": np.array([1.0, 2.0, 3.0])}
    made = [
        Signals.of(NEVER, show=shown),
        Signals.of(target=np.zeros(3), show=shown),
        Signals.from_cross(np.ones(3), np.zeros(3), show=shown),
    ]
    for signals in made:
        kept = signals.protected(stop_loss=0.1).from_bar(1)
        assert kept.shown["line"].tolist() == [2.0, 3.0]
    with pytest.raises(AlgorithmError, match=r"^show: 'line' has shape"):
        Signals.from_cross(np.ones(2), np.zeros(2), show=shown)
    with pytest.raises(AlgorithmError, match=r"^show: 'line' has shape"):
        Signals.of(target=np.zeros(2), show=shown)
