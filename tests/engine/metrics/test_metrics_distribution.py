"""Metrics of whole distributions: against numpy, against slow loops, and against what empyrical-reloaded prints."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.timeframes import LENGTH_US
from backtestr_engine.metrics.annualisation import Annualisation
from backtestr_engine.metrics.excursions import drawdowns, excursions
from backtestr_engine.metrics.metrics import Walked, compute_metrics
from backtestr_engine.metrics.returns import moments, tails
from backtestr_engine.simulation.account import ACCOUNT, totals
from backtestr_engine.simulation.records import TRADE
from backtestr_protocol.metrics import Metrics
from support.engine.cases import random_bars

CAPITAL = 1_000.0
DAY = LENGTH_US["1d"]

COMPILING = settings(deadline=None, max_examples=60)
"""The first example of all waits for its kernel."""

changes = st.lists(st.one_of(st.floats(-0.5, 0.9), st.sampled_from([0.0, 0.01, -0.01])), min_size=2, max_size=60)


def grown(start: float, returns: Floats) -> Floats:
    """What `start` comes to after each of the returns."""
    return np.asarray(start * np.cumprod(1.0 + returns), dtype=np.float64)


def of_returns(returns: Floats, market: Floats, rule: Annualisation) -> Metrics:
    close = grown(100.0, market)
    times = np.arange(len(returns), dtype=np.int64) * DAY
    return compute_metrics(
        Walked(
            initial_capital=CAPITAL,
            timestamp=times,
            closed_at=int(times[-1]) + DAY,
            market=close,
            equity=grown(CAPITAL, returns),
            trades=np.zeros(0, dtype=TRADE),
            totals=totals(np.zeros(1, dtype=ACCOUNT)),
        ),
        rule,
    )


def test_against_empyrical() -> None:
    """What empyrical-reloaded 0.7.1 (and scipy 1.17 for skew and kurtosis) gives for these returns, A = 252, and a
    risk-free return of 0.0001 per bar where the formula has one. alpha and beta are of all bars but the first."""
    i = np.arange(1.0, 251.0)
    returns = 0.01 * np.sin(i) + 0.005 * np.cos(i * i) + 0.001
    market = 0.008 * np.sin(i + 0.5) + 0.004 * np.cos(3 * i) + 0.0005

    metrics = of_returns(returns, market, Annualisation(252.0, 1.0001**252 - 1))

    assert {
        "total_return": metrics.total_return,
        "annual_return": metrics.annual_return,
        "volatility": metrics.volatility,
        "sharpe": metrics.sharpe_ratio,
        "sortino": metrics.sortino_ratio,
        "calmar": metrics.calmar_ratio,
        "omega": metrics.omega_ratio,
        "value_at_risk": metrics.value_at_risk_95,
        "conditional_value_at_risk": metrics.conditional_value_at_risk_95,
        "tail_ratio": metrics.tail_ratio,
        "alpha": metrics.alpha,
        "beta": metrics.beta,
        "skew": metrics.skew,
        "kurtosis": metrics.kurtosis,
    } == pytest.approx(
        {
            "total_return": 0.31924870257311877,
            "annual_return": 0.3221760594145666,
            "volatility": 0.12569266953014085,
            "sharpe": 2.08519546108332,
            "sortino": 3.3171694387288393,
            "calmar": 9.44913571362836,
            "omega": 1.3578080102332242,
            "value_at_risk": -0.011769664161194347,
            "conditional_value_at_risk": -0.013051767158323678,
            "tail_ratio": 1.1427638082300302,
            "alpha": 0.18364594982682325,
            "beta": 0.9144538634272186,
            "skew": -0.022707010814532642,
            "kurtosis": -1.0450170390327567,
        },
        rel=1e-9,
    )


@COMPILING
@given(changes, st.floats(0.0, 0.001))
def test_moments_are_those_of_numpy(changed: list[float], risk_free: float) -> None:
    returns = np.array(changed)
    market = np.sin(np.arange(len(returns), dtype=np.float64)) / 10
    equity, close = grown(CAPITAL, returns), grown(1.0, market)

    found = moments(equity, close, CAPITAL, risk_free)

    assert found.mean == pytest.approx(returns.mean(), abs=1e-12)
    assert found.deviation == pytest.approx(returns.std(ddof=1), abs=1e-8)
    assert found.downside == pytest.approx(math.sqrt(np.mean(np.minimum(returns - risk_free, 0) ** 2)), abs=1e-12)
    assert found.gains == pytest.approx(np.maximum(returns - risk_free, 0).sum(), abs=1e-12)
    assert found.losses == pytest.approx(np.maximum(risk_free - returns, 0).sum(), abs=1e-12)
    assert found.mean_equity == pytest.approx(equity.mean())
    if len(returns) > 2:
        covariance = np.cov(returns[1:], market[1:], bias=True)
        assert found.beta == pytest.approx(covariance[0, 1] / covariance[1, 1], abs=1e-9)
        assert found.market_mean == pytest.approx(market[1:].mean(), abs=1e-12)
        assert found.paired_mean == pytest.approx(returns[1:].mean(), abs=1e-12)
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
def test_tails_of_many_bars_are_exact_whatever_the_sample_says(kind: str, chance: np.random.Generator) -> None:
    returns = chance.normal(0, 0.001, size=50_000)
    if kind == "idle":
        returns[chance.random(len(returns)) < 0.97] = 0.0
    elif kind == "still":
        returns[:] = 0.0
    elif kind == "late":
        returns[:45_000] *= 1e-3
    elif kind == "alternating":
        returns[::12] = -0.0005  # every row that the sample takes

    assert_tails_are_exact(grown(CAPITAL, returns))


@COMPILING
@given(st.lists(st.integers(1, 6), min_size=1, max_size=30))
def test_the_deepest_drawdown_bounds_the_others(levels: list[int]) -> None:
    equity = np.array(levels, dtype=np.float64)
    falls = 1 - equity / np.maximum.accumulate(equity)

    found = drawdowns(equity, np.arange(len(levels), dtype=np.int64))

    assert found.deepest == pytest.approx(falls.max())
    assert found.ulcer == pytest.approx(math.sqrt(np.mean(falls**2)))
    assert (found.peak, found.lowest) == (equity.max(), equity.min())
    assert found.mean_us <= found.longest_us < max(len(levels), 1)
    if found.deepest > 0:
        assert found.ulcer <= found.deepest
        assert 0 < found.mean_depth <= found.deepest + 1e-12


@COMPILING
@given(st.integers(0, 10_000), st.booleans())
def test_excursions_against_a_loop_over_every_trade(seed: int, at_close: bool) -> None:
    chance = np.random.default_rng(seed)
    bars = random_bars(chance, 40)
    ends = np.sort(chance.integers(0, 40, size=(12, 2)), axis=1)
    entry_price, exit_price = chance.uniform(5, 15, size=(2, 12))
    side = chance.choice(np.array([1, -1], dtype=np.int8), size=12)

    adverse, favourable = excursions(
        bars.timestamp,
        bars.high,
        bars.low,
        bars.timestamp[ends[:, 0]],
        bars.timestamp[ends[:, 1]],
        entry_price,
        exit_price,
        side,
        at_close,
    )

    for trade, (entry, exit) in enumerate(ends):
        rows = range(entry + at_close, exit)
        ends_of_it = [entry_price[trade], exit_price[trade]]
        up = max([*ends_of_it, *(bars.high[row] for row in rows)]) / entry_price[trade] - 1
        down = 1 - min([*ends_of_it, *(bars.low[row] for row in rows)]) / entry_price[trade]
        expected = (down, up) if side[trade] > 0 else (up, down)
        assert (adverse[trade], favourable[trade]) == pytest.approx(expected)
