"""This module computes the metrics of a run by empyrical-reloaded and scipy, the sources that metrics name.

They are computed from the equity alone. Returns are per bar, the first relative to the initial capital. Rates per year
use the annualisation of the run. Alpha and beta are relative to the closes, whose return over the first bar is 0.
"""

from __future__ import annotations

import numpy as np
import oracles

from backtestr_engine.backtest.run import Run


def metrics_of_empyrical(run: Run) -> dict[str, float]:
    """Return the metrics by their names on the wire."""
    empyrical, stats = oracles.library("empyrical"), oracles.library("scipy.stats")
    result, rule = run.finish(), run.plan.annualisation
    capital, close = run.plan.config.initial_capital, run.plan.bars.close
    returns = np.diff(result.equity, prepend=capital) / np.concatenate(([capital], result.equity[:-1]))
    market = np.diff(close, prepend=close[0]) / np.concatenate((close[:1], close[:-1]))
    per_year, risk_free = rule.bars_per_year, rule.risk_free_per_bar
    yearly = {"annualization": per_year}
    figures = {
        "totalReturn": empyrical.cum_returns_final(returns),
        "annualReturn": empyrical.annual_return(returns, **yearly),
        "volatility": empyrical.annual_volatility(returns, **yearly),
        "sharpeRatio": empyrical.sharpe_ratio(returns, risk_free, **yearly),
        "sortinoRatio": empyrical.sortino_ratio(returns, risk_free, **yearly),
        "calmarRatio": empyrical.calmar_ratio(returns, **yearly),
        "omegaRatio": empyrical.omega_ratio(returns, risk_free, **yearly),
        "maxDrawdown": -empyrical.max_drawdown(returns),
        "valueAtRisk95": empyrical.value_at_risk(returns, 0.05),
        "conditionalValueAtRisk95": empyrical.conditional_value_at_risk(returns, 0.05),
        "tailRatio": empyrical.tail_ratio(returns),
        "alpha": empyrical.alpha(returns, market, risk_free, **yearly),
        "beta": empyrical.beta(returns, market, risk_free),
        "skew": stats.skew(returns),
        "kurtosis": stats.kurtosis(returns),
    }
    return {name: float(value) for name, value in figures.items()}
