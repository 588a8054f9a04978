"""Moments and tails of returns against numpy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.data.arrays import Floats
from backtestr_engine.metrics.returns import BLOCKS, market_moments, moments, tails
from support.engine.cases import CAPITAL, grown

COMPILING = settings(deadline=None, max_examples=60)
"""The first example waits for its kernel."""

changes = st.lists(st.one_of(st.floats(-0.5, 0.9), st.sampled_from([0.0, 0.01, -0.01])), min_size=2, max_size=60)


@COMPILING
@given(changes, st.floats(0.0, 0.001))
def test_moments_are_those_of_numpy(changed: list[float], risk_free: float) -> None:
    returns = np.array(changed)
    market = np.sin(np.arange(len(returns), dtype=np.float64)) / 10
    equity, close = grown(CAPITAL, returns), grown(1.0, market)

    block_sums = np.empty((2, BLOCKS))
    found = moments(equity, CAPITAL, risk_free, block_sums)

    assert found.mean == pytest.approx(returns.mean(), abs=1e-12)
    assert found.deviation == pytest.approx(returns.std(ddof=1), abs=1e-8)
    assert found.downside == pytest.approx(math.sqrt(np.mean(np.minimum(returns - risk_free, 0) ** 2)), abs=1e-12)
    assert found.gains == pytest.approx(np.maximum(returns - risk_free, 0).sum(), abs=1e-12)
    assert found.losses == pytest.approx(np.maximum(risk_free - returns, 0).sum(), abs=1e-12)
    assert found.mean_equity == pytest.approx(equity.mean())
    bounds = np.arange(BLOCKS + 1) * len(returns) // BLOCKS
    for power in (1, 2):
        sums = [(returns[first:end] ** power).sum() for first, end in itertools.pairwise(bounds)]
        assert block_sums[power - 1] == pytest.approx(sums, abs=1e-12 * max(1, len(returns)))
    if len(returns) > 2:
        with_market = market_moments(equity, close, CAPITAL)
        market[0] = 0.0
        covariance = np.cov(returns, market, bias=True)
        assert with_market.beta == pytest.approx(covariance[0, 1] / covariance[1, 1], abs=1e-9)
        assert with_market.mean == pytest.approx(market.mean(), abs=1e-12)
        assert with_market.deviation == pytest.approx(market.std(), abs=1e-9)
    if returns.std() > 1e-3:
        centred = returns - returns.mean()
        assert found.skew == pytest.approx((centred**3).mean() / returns.std() ** 3, abs=1e-6)
        assert found.kurtosis == pytest.approx((centred**4).mean() / returns.std() ** 4 - 3, abs=1e-6)


def assert_tails_are_exact(equity: Floats) -> None:
    before = np.concatenate(([CAPITAL], equity[:-1]))
    returns = equity / before - 1
    lowest = np.sort(returns)[: int((len(returns) - 1) * 0.05) + 1]

    found = tails(equity, CAPITAL)

    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(returns, [0.05, 0.95])), rel=1e-12, abs=1e-15)
    assert found.low_mean == pytest.approx(lowest.mean(), rel=1e-12, abs=1e-15)


@COMPILING
@given(changes)
def test_tails_are_quantiles(changed: list[float]) -> None:
    assert_tails_are_exact(grown(CAPITAL, np.array(changed)))


@pytest.mark.parametrize("kind", ["mixed", "idle", "still", "late", "alternating"])
def test_tails_of_many_bars_are_exact_for_a_misleading_sample(kind: str, generator: np.random.Generator) -> None:
    returns = generator.normal(0, 0.001, size=50_000)
    if kind == "idle":
        returns[generator.random(len(returns)) < 0.97] = 0.0
    elif kind == "still":
        returns[:] = 0.0
    elif kind == "late":
        returns[:45_000] *= 1e-3
    elif kind == "alternating":
        returns[::12] = -0.0005  # every row that the sample takes

    assert_tails_are_exact(grown(CAPITAL, returns))
