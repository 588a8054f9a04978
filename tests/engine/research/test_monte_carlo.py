"""Laws of resampling: they hold for every draw, and the same random state gives the same result."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.data.arrays import Floats
from backtestr_engine.metrics.annualisation import Annualisation
from backtestr_engine.research.monte_carlo import (
    Interval,
    Outcomes,
    bootstrap_returns,
    shuffle_trades,
)

DAILY = Annualisation(252.0, 0.02)
RUNS = 20

some_returns = st.lists(st.floats(-0.9, 0.9), min_size=1, max_size=40).map(np.array)
COMPILING = settings(deadline=None, max_examples=60)


def generator(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def worst_order_drawdown(returns: Floats) -> float:
    """Return the drawdown of all losses in a row: no order has a deeper one."""
    return 1.0 - float(np.prod(1 + returns[returns < 0]))


def drawdown(returns: Floats) -> float:
    equity = np.concatenate(([1.0], np.cumprod(1 + returns)))
    return float((1 - equity / np.maximum.accumulate(equity)).max())


@COMPILING
@given(some_returns, st.integers(0, 99))
def test_another_order_keeps_the_final_equity_and_is_bounded_by_all_losses_in_a_row(returns: Floats, seed: int) -> None:
    outcomes = shuffle_trades(returns, RUNS, generator(seed))

    np.testing.assert_allclose(1 + outcomes.total_return, np.prod(1 + returns), rtol=1e-9)
    assert (outcomes.max_drawdown <= worst_order_drawdown(returns) + 1e-12).all()
    assert (outcomes.max_drawdown >= max(0.0, -float(returns.min())) - 1e-12).all()
    assert outcomes.sharpe_ratio is None


@COMPILING
@given(some_returns, st.integers(0, 99), st.data())
def test_drawn_returns_stay_within_the_range_of_the_returns(returns: Floats, seed: int, data: st.DataObject) -> None:
    block = data.draw(st.integers(1, len(returns)))

    outcomes = bootstrap_returns(returns, block, RUNS, DAILY, generator(seed))

    low, high = (1 + float(bound(returns)) for bound in (np.min, np.max))
    assert (1 + outcomes.total_return >= low ** len(returns) * (1 - 1e-9)).all()
    assert (1 + outcomes.total_return <= high ** len(returns) * (1 + 1e-9)).all()
    assert ((outcomes.max_drawdown >= 0) & (outcomes.max_drawdown <= 1)).all()


@COMPILING
@given(some_returns, st.integers(0, 99))
def test_one_block_of_all_is_the_series_turned_round(returns: Floats, seed: int) -> None:
    outcomes = bootstrap_returns(returns, len(returns), RUNS, DAILY, generator(seed))

    np.testing.assert_allclose(1 + outcomes.total_return, np.prod(1 + returns), rtol=1e-9)
    turned = [drawdown(np.roll(returns, shift)) for shift in range(len(returns))]
    assert all(np.isclose(turned, found, rtol=1e-9, atol=1e-12).any() for found in outcomes.max_drawdown)
    if len(returns) > 1 and returns.std() > 1e-9:
        expected = (returns.mean() - DAILY.risk_free_per_bar) / returns.std(ddof=1) * math.sqrt(252)
        assert outcomes.sharpe_ratio is not None
        np.testing.assert_allclose(outcomes.sharpe_ratio, expected, rtol=1e-6, atol=1e-9)


def test_the_same_random_state_gives_the_same_result() -> None:
    returns = generator(5).normal(0.001, 0.02, size=100)

    for one, other in (
        (shuffle_trades(returns, RUNS, generator()), shuffle_trades(returns, RUNS, generator())),
        (
            bootstrap_returns(returns, 7, RUNS, DAILY, generator()),
            bootstrap_returns(returns, 7, RUNS, DAILY, generator()),
        ),
    ):
        assert one.max_drawdown.tolist() == other.max_drawdown.tolist()
        assert one.intervals() == other.intervals()
    assert len(set(shuffle_trades(returns, RUNS, generator()).max_drawdown)) > 1


def test_the_interval_of_the_mean_is_as_wide_as_theory_says() -> None:
    returns = generator(3).normal(0.0, 0.01, size=400)

    outcomes = bootstrap_returns(returns, 1, 2_000, DAILY, generator())

    assert outcomes.sharpe_ratio is not None
    # The standard error of a Sharpe ratio per bar is nearly 1 / √n (Lo 2002).
    assert np.std(outcomes.sharpe_ratio) == pytest.approx(math.sqrt(252 / 400), rel=0.1)
    interval = outcomes.intervals(0.9)["sharpeRatio"]
    assert interval.low < interval.median < interval.high
    inside = (outcomes.sharpe_ratio >= interval.low) & (outcomes.sharpe_ratio <= interval.high)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.01)


def test_a_figure_without_interval_is_absent() -> None:
    still = bootstrap_returns(np.zeros(5), 2, 3, DAILY, generator())

    assert still.intervals() == {"totalReturn": Interval(0.0, 0.0, 0.0), "maxDrawdown": Interval(0.0, 0.0, 0.0)}
    for confidence in (0.0, 1.0):
        with pytest.raises(ValueError, match=f"confidence is a fraction between 0 and 1, not {confidence}"):
            Outcomes(np.zeros(1), np.zeros(1), None).intervals(confidence)


@pytest.mark.parametrize(
    ("returns", "block", "runs", "message"),
    [
        ([], 1, 1, "returns must be at least one, and finite"),
        ([math.nan], 1, 1, "returns must be at least one, and finite"),
        ([0.1], 1, 0, "runs must be at least 1, not 0"),
        ([0.1], 2, 1, "a block is 1 to 1 returns long, not 2"),
        ([0.1], 0, 1, "a block is 1 to 1 returns long, not 0"),
    ],
)
def test_invalid_resamples_are_refused(returns: list[float], block: int, runs: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_returns(np.array(returns), block, runs, DAILY, generator())


def test_an_account_that_lost_everything_stays_empty() -> None:
    outcomes = shuffle_trades(np.array([-1.5, 0.5, 0.5]), RUNS, generator())

    assert set(outcomes.total_return) == {-1.0}
    assert set(outcomes.max_drawdown) == {1.0}
