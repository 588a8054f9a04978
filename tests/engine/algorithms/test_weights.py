"""Weights: the check of an array of them, and the targets of each symbol."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backtestr_engine.algorithms.weights import checked_weights, targets_of
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_protocol.errors import AlgorithmError

NAN = np.nan
# Rows 0 to 3; the second symbol has bars on rows 1 and 3.
BARS = synthetic_bars("1h", 4, symbol="ONE")
PANEL = Panel.of(
    [
        BARS,
        type(BARS)(
            "OTHER",
            "1h",
            *(getattr(BARS, name)[1::2] for name in ("timestamp", "open", "high", "low", "close", "volume")),
        ),
    ]
)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (None, "mine returned NoneType, not weights"),
        (np.zeros(4), r"mine returned float64 of shape \(4,\), not weights"),
        (np.zeros((4, 2), dtype=np.bool_), "mine returned bool of shape"),
        (np.array([[0, 0], [0, 0], [0, np.inf], [0, 0]]), "row 2 has inf for OTHER"),
    ],
)
def test_other_values_are_no_weights(weights: Any, message: str) -> None:
    with pytest.raises(AlgorithmError, match=message):
        checked_weights(weights, PANEL, "mine")


def test_whole_numbers_are_weights() -> None:
    assert checked_weights(np.ones((4, 2), dtype=np.int64), PANEL, "mine").dtype == np.float64


@pytest.mark.parametrize(
    ("other", "at_open", "at_close"),
    [
        ([NAN, 0.5, NAN, 0.25], [0.5, 0.25], [0.5, 0.25]),
        ([NAN, NAN, 0.5, NAN], [0.5, NAN], [NAN, 0.5]),  # row 2 has no bar of the symbol
        ([0.1, NAN, NAN, NAN], [0.1, NAN], [0.1, NAN]),  # before the first bar
        ([NAN, 0.1, 0.2, 0.3], [0.2, 0.3], [0.1, 0.3]),  # a later weight replaces an earlier one
    ],
)
def test_a_weight_without_a_bar_belongs_to_the_bar_that_can_trade_it(
    other: list[float], at_open: list[float], at_close: list[float]
) -> None:
    weights = np.column_stack((np.full(4, 0.5), other))
    for fills_at_close, expected in ((False, at_open), (True, at_close)):
        one, two = targets_of(PANEL, weights, fills_at_close=fills_at_close)
        np.testing.assert_array_equal(one.target, np.full(4, 0.5))
        np.testing.assert_array_equal(two.target, expected)
