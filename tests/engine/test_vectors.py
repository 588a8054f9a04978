"""Steps of several bars beside numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numba.core.errors import TypingError

from backtestr_engine.data.arrays import Booleans, Bytes, Floats
from backtestr_engine.simulation.numba_kernel import kernel
from backtestr_engine.vectors import (
    BARS_PER_MASK,
    FALLS_TOGETHER,
    MARKED_TOGETHER,
    fallen,
    falls_of_64,
    falls_of_few,
    flagged,
    mark_together,
    reaching,
    risen,
    sides_of_64,
)

BEFORE = 3
"""A step begins at any bar, of which the address is a multiple of no vector."""

values = st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 1.0, 2.5, np.inf, np.nan])
finite = st.floats(-1e6, 1e6)


@kernel
def sides(over: Floats, under: Floats, first: int) -> tuple[int, int, int]:
    return sides_of_64(over, under, first)


@kernel
def reached(column: Floats, level: float, first: int) -> int:
    mask: int = reaching(column, level, first)
    return mask


@kernel
def has_flags(flags: Bytes, first: int) -> int:
    mask: int = flagged(flags, first)
    return mask


@kernel
def moves(equity: Floats, first: int, factor: float) -> tuple[int, int]:
    return fallen(equity, first, factor), risen(equity, first, factor)


@kernel
def falls(equity: Floats, first: int, per_peak: float) -> tuple[tuple[float, float], tuple[float, float]]:
    return falls_of_64(equity, first, per_peak), falls_of_few(equity, first, per_peak)


@kernel
def mark(equity: Floats, close: Floats, first: int, cash: float, quantity: float) -> None:
    mark_together(equity, close, first, cash, quantity)


def mask_of(bars: Booleans) -> int:
    return sum(1 << int(at) for at in np.flatnonzero(bars))


def column(elements: st.SearchStrategy[float], bars: int) -> st.SearchStrategy[Floats]:
    return arrays(np.float64, BEFORE + bars, elements=elements)


@given(column(values, BARS_PER_MASK), column(values, BARS_PER_MASK))
def test_sides_are_comparisons(over: Floats, under: Floats) -> None:
    a, b = over[BEFORE:], under[BEFORE:]

    assert sides(over, under, BEFORE) == (mask_of(a > b), mask_of(a < b), mask_of(a == b))


@given(column(values, BARS_PER_MASK), values)
def test_a_level_is_reached_at_and_above_it(given_values: Floats, level: float) -> None:
    assert reached(given_values, level, BEFORE) == mask_of(given_values[BEFORE:] >= level)


@given(column(finite, BARS_PER_MASK), st.floats(0.5, 1.5))
def test_falls_and_rises_are_told_from_the_bar_before(equity: Floats, factor: float) -> None:
    now, level = equity[BEFORE:], equity[BEFORE - 1 : -1] * factor

    assert moves(equity, BEFORE, factor) == (mask_of(now < level), mask_of(now > level))


@given(arrays(np.uint8, BEFORE + BARS_PER_MASK))
def test_a_bar_is_flagged_by_any_flag(flags: Bytes) -> None:
    assert has_flags(flags, BEFORE) == mask_of(flags[BEFORE:] != 0)


@given(column(finite, BARS_PER_MASK), st.floats(1e-6, 10))
def test_falls_have_the_lowest_equity_and_the_sum_of_squares(equity: Floats, per_peak: float) -> None:
    for found, bars in zip(falls(equity, BEFORE, per_peak), (BARS_PER_MASK, FALLS_TOGETHER), strict=True):
        some = equity[BEFORE : BEFORE + bars]

        assert found[0] == some.min()
        assert found[1] == pytest.approx(np.sum((1 - some * per_peak) ** 2), rel=1e-13)


@given(column(finite, MARKED_TOGETHER), finite, finite)
def test_marks_have_the_bits_of_a_mark_alone(close: Floats, cash: float, quantity: float) -> None:
    equity = np.full(BEFORE + MARKED_TOGETHER + 1, 7.0)

    mark(equity, close, BEFORE, cash, quantity)

    assert equity[BEFORE:-1].tobytes() == (cash + quantity * close[BEFORE:]).tobytes()
    assert [*equity[:BEFORE].tolist(), equity[-1]] == [7.0] * (BEFORE + 1)


@pytest.mark.parametrize(
    "given_values", [np.zeros(200, dtype=np.float32), np.zeros(400)[::2], np.zeros(200, dtype=int)]
)
def test_another_kind_of_column_is_refused(given_values: Floats) -> None:
    with pytest.raises(TypingError):
        reached(given_values, 1.0, 0)
    with pytest.raises(TypingError):
        sides(given_values, np.zeros(200), 0)
    with pytest.raises(TypingError):
        falls(given_values, 0, 1.0)
    with pytest.raises(TypingError):
        mark(np.zeros(200), given_values, 0, 1.0, 1.0)
    with pytest.raises(TypingError):
        has_flags(given_values.view(), 0)  # type: ignore[arg-type]  # that is what is tested
