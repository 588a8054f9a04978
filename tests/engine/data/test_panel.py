"""Panels: rows along the union of open times."""

from __future__ import annotations

import numpy as np
import pytest

from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars

ONE, OTHER = synthetic_bars("1h", 6, symbol="ONE"), synthetic_bars("1h", 8, symbol="OTHER", seed=2)[2:]
PANEL = Panel.of([ONE, OTHER])


def test_a_row_is_an_open_time_that_any_symbol_has() -> None:
    assert (len(PANEL), PANEL.symbols, PANEL.timeframe) == (8, ("ONE", "OTHER"), "1h")
    assert PANEL.rows_of(1).tolist() == [2, 3, 4, 5, 6, 7]
    assert np.isnan(PANEL.close[:2, 1]).all()
    assert np.isnan(PANEL.close[6:, 0]).all()
    np.testing.assert_array_equal(PANEL.close[2:, 1], OTHER.close)


def test_the_first_rows_have_the_bars_until_then() -> None:
    part = PANEL.first(3)

    assert [len(bars) for bars in part.series] == [3, 1]
    assert [len(bars) for bars in PANEL.first(0).series] == [0, 0]


def test_the_market_is_equal_parts_that_are_cash_before_the_first_close() -> None:
    expected = [
        (ONE.close[min(row, 5)] / ONE.close[0] + (OTHER.close[row - 2] / OTHER.close[0] if row > 2 else 1.0)) / 2
        for row in range(8)
    ]

    np.testing.assert_allclose(PANEL.market(), expected)
    np.testing.assert_array_equal(Panel.of([ONE]).market(), ONE.close)


def test_a_symbol_whose_first_bar_is_not_yet_there_is_cash_in_the_market() -> None:
    np.testing.assert_allclose(PANEL.first(1).market(), [1.0])


@pytest.mark.parametrize("series", [[], [ONE, ONE], [ONE, synthetic_bars("1d", 3)]])
def test_a_panel_has_series_of_one_timeframe_and_different_symbols(series: list[object]) -> None:
    with pytest.raises(ValueError, match="a panel has one or more series of one timeframe"):
        Panel.of(series)  # type: ignore[arg-type]
