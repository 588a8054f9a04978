"""Drawdowns and excursions against numpy and a loop over every trade."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.metrics.excursions import drawdowns, fill_in_excursions
from backtestr_engine.simulation.records import TRADE
from support.engine.cases import random_bars

COMPILING = settings(deadline=None, max_examples=60)
"""The first example waits for its kernel."""


@COMPILING
@given(st.integers(1, 6), st.lists(st.integers(1, 6), min_size=1, max_size=30))
def test_the_deepest_drawdown_bounds_the_others(first: int, levels: list[int]) -> None:
    equity = np.array(levels, dtype=np.float64)
    falls = 1 - equity / np.maximum(np.maximum.accumulate(equity), first)

    found = drawdowns(equity, np.arange(len(levels), dtype=np.int64), float(first), -1)

    assert found.deepest == pytest.approx(falls.max())
    assert found.ulcer == pytest.approx(math.sqrt(np.mean(falls**2)))
    assert (found.peak, found.lowest) == (max(equity.max(), first), min(equity.min(), first))
    assert found.mean_us <= found.longest_us <= len(levels)
    if found.deepest > 0:
        assert found.ulcer <= found.deepest
        assert 0 < found.mean_depth <= found.deepest + 1e-12


def drawdowns_bar_by_bar(equity: list[float], first: float) -> list[tuple[float, int]]:
    """Return the depth of each drawdown and the bars that it lasted, the bar before the first being -1."""
    found = []
    peak, since, lowest = first, -1, first
    for bar, now in enumerate(equity):
        if now >= peak:
            if lowest < peak:
                found.append((1 - lowest / peak, bar - since))
            peak, since, lowest = now, bar, now
        lowest = min(lowest, now)
    if lowest < peak:
        found.append((1 - lowest / peak, len(equity) - 1 - since))
    return found


@COMPILING
@given(st.integers(1, 6), st.lists(st.tuples(st.integers(1, 6), st.integers(1, 150)), min_size=1, max_size=8))
def test_drawdowns_are_those_of_a_walk_bar_by_bar(first: int, levels: list[tuple[int, int]]) -> None:
    """Levels that last make falls of more bars than are looked at together."""
    equity = np.repeat(*(np.array(values) for values in zip(*levels, strict=True))).astype(np.float64)
    falls = 1 - equity / np.maximum(np.maximum.accumulate(equity), first)
    alone = drawdowns_bar_by_bar(equity.tolist(), float(first))
    depths, lasted = zip(*alone, strict=True) if alone else ((0.0,), (0,))

    found = drawdowns(equity, np.arange(len(equity), dtype=np.int64), float(first), -1)

    assert (found.deepest, found.longest_us) == (max(depths), max(lasted))
    assert (found.peak, found.lowest) == (max(equity.max(), first), min(equity.min(), first))
    assert found.mean_us == pytest.approx(np.mean(lasted), rel=1e-12)
    assert found.ulcer == pytest.approx(math.sqrt(np.mean(falls**2)), rel=1e-12)
    if alone:
        assert found.mean_depth == pytest.approx(np.mean(depths), rel=1e-12)


@COMPILING
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=30).flatmap(
        lambda levels: st.tuples(
            st.just(levels), st.lists(st.integers(-4, 4), min_size=len(levels), max_size=len(levels))
        )
    )
)
def test_rounding_makes_no_drawdown_and_no_longer_one(levels_and_errors: tuple[list[int], list[int]]) -> None:
    levels, errors = (np.array(values, dtype=np.float64) for values in levels_and_errors)
    hours = np.arange(len(levels), dtype=np.int64) * 3_600_000_000

    exact = drawdowns(levels, hours, levels[0], 0)
    rounded = drawdowns(levels * (1 + errors * np.finfo(np.float64).eps), hours, levels[0], 0)

    assert (rounded.longest_us, rounded.mean_us) == (exact.longest_us, exact.mean_us)
    assert rounded[:2] == pytest.approx(exact[:2], rel=1e-12, nan_ok=True)


@COMPILING
@given(st.integers(0, 10_000), st.booleans(), st.booleans())
def test_excursions_against_a_loop_over_every_trade(seed: int, at_close: bool, still_open: bool) -> None:
    generator = np.random.default_rng(seed)
    series = [random_bars(generator, 40), random_bars(generator, 40)]
    ends = np.sort(generator.integers(0, 40, size=(12, 2)), axis=1)
    trades = np.zeros(12, dtype=TRADE)
    trades["symbol"] = generator.integers(0, 2, size=12)
    for trade, (entry, exit) in zip(trades, ends, strict=True):
        timestamp = series[trade["symbol"]].timestamp
        trade["entry_time"], trade["exit_time"] = timestamp[entry], timestamp[exit]
    trades["entry_price"], trades["exit_price"] = generator.uniform(5, 15, size=(2, 12))
    trades["side"] = generator.choice(np.array([1, -1], dtype=np.int8), size=12)

    fill_in_excursions(trades, series, fills_at_close=at_close, still_open=still_open)

    for trade, (entry, exit) in zip(trades, ends, strict=True):
        bars, rows = series[trade["symbol"]], range(entry + at_close, exit + still_open)
        ends_of_it = [trade["entry_price"], trade["exit_price"]]
        up = max([*ends_of_it, *(bars.high[row] for row in rows)]) / trade["entry_price"] - 1
        down = 1 - min([*ends_of_it, *(bars.low[row] for row in rows)]) / trade["entry_price"]
        expected = (down, up) if trade["side"] > 0 else (up, down)
        assert (trade["mae"], trade["mfe"]) == expected
