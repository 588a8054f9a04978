"""Metrics of a whole distribution of returns against results of empyrical-reloaded."""

from __future__ import annotations

import numpy as np
import pytest

from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.timeframes import DAY_US
from backtestr_engine.metrics.annualisation import Annualisation
from backtestr_engine.metrics.metrics import Simulated, compute_metrics
from backtestr_engine.simulation.account import ACCOUNT, totals
from backtestr_engine.simulation.records import TRADE
from backtestr_protocol.metrics import Metrics
from support.engine.cases import grown

CAPITAL = 1_000.0
DAY = DAY_US


def of_returns(returns: Floats, market: Floats, rule: Annualisation) -> Metrics:
    close = grown(100.0, market)
    times = np.arange(len(returns), dtype=np.int64) * DAY
    return compute_metrics(
        Simulated(
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
    """Compare with empyrical-reloaded 0.7.1 (and scipy 1.17 for skew and kurtosis) for these returns.

    A is 252, and the risk-free return is 0.0001 per bar where the formula has one. The market has no return on the
    first bar, at whose close it is bought.
    """
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
            "alpha": 0.19741847455608386,
            "beta": 0.9139335021465553,
            "skew": -0.022707010814532642,
            "kurtosis": -1.0450170390327567,
        },
        rel=1e-9,
    )
