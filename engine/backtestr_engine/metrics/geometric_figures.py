"""Further figures by the rules of backtesting.py 0.6: the convention `statistics: daily_geometric`.

`daily_statistics.py` has the ratios of daily returns. With c the market's closes, e the equity and f the risk-free
rate, and of closed trades only:

    exposure        bars from the one of a trade's entry to the one of its exit, both included / all bars
    CAGR            (eₙ / e₀)^(1 / years) − 1, years of 365.25 days from the first bar's time to the last bar's
    beta            cov(log(eᵢ / eᵢ₋₁), log(cᵢ / cᵢ₋₁)) / var(log(cᵢ / cᵢ₋₁)), i = 2 … n
    alpha           total return − f − beta · (buy and hold − f), over the whole backtest and not a year
    average trade   the geometric mean of the trades' returns, 0 if one lost everything
    profit factor   Σ returns of the winners / −Σ returns of the losers
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from backtestr_engine.data.arrays import Floats, Integers, Records
from backtestr_engine.data.timeframes import DAY_US
from backtestr_protocol.metrics import WIRE_NAMES, Metrics

from .figures import BEYOND_RANGE
from .metrics import Simulated

_YEAR_US = 365.25 * DAY_US
_RUINED = "equity fell to zero or below"


def with_geometric_figures(metrics: Metrics, simulated: Simulated, risk_free: float) -> Metrics:
    """Return `metrics` with these figures in place of the usual ones; an undefined one is None, with reason."""
    figures: dict[str, float | str] = {
        "exposure": _exposure(simulated.timestamp, simulated.trades),
        "cagr": _cagr(simulated),
        **_market_figures(simulated, risk_free),
        **_trade_figures(np.ascontiguousarray(simulated.trades["return"])),
    }
    ours = {WIRE_NAMES[name] for name in figures}
    reasons = {name: reason for name, reason in metrics.reasons.items() if name not in ours}
    reasons |= {WIRE_NAMES[name]: value for name, value in figures.items() if isinstance(value, str)}
    values = {name: None if isinstance(value, str) else value for name, value in figures.items()}
    return msgspec.structs.replace(metrics, **values, reasons=reasons)


def _exposure(timestamp: Integers, trades: Records) -> float:
    held = np.zeros(len(timestamp) + 1, dtype=np.int64)
    np.add.at(held, np.searchsorted(timestamp, trades["entry_time"]), 1)
    np.add.at(held, np.searchsorted(timestamp, trades["exit_time"]) + 1, -1)
    return float(np.mean(np.cumsum(held)[:-1] > 0))


def _cagr(simulated: Simulated) -> float | str:
    """Return the figure or the reason why there is none, as the functions below do."""
    years = (int(simulated.timestamp[-1]) - int(simulated.timestamp[0])) / _YEAR_US
    growth = float(simulated.equity[-1]) / simulated.initial_capital
    if growth <= 0.0:
        return _RUINED
    if years <= 0.0:
        return "it needs at least two bars"
    try:
        return math.expm1(math.log(growth) / years)
    except OverflowError:
        return BEYOND_RANGE


def _market_figures(simulated: Simulated, risk_free: float) -> dict[str, float | str]:
    equity, market = simulated.equity, simulated.market
    if equity.min() <= 0.0:
        return {"alpha": _RUINED, "beta": _RUINED}
    if len(equity) < 3:
        return dict.fromkeys(("alpha", "beta"), "it needs at least three bars")
    ours, markets = _log_returns(equity), _log_returns(market)
    covariance = np.cov(ours, markets)
    if covariance[1, 1] == 0.0:
        return dict.fromkeys(("alpha", "beta"), "prices do not vary")
    beta = float(covariance[0, 1] / covariance[1, 1])
    held = float(market[-1] / market[0]) - 1.0 - risk_free
    total = float(equity[-1]) / simulated.initial_capital - 1.0
    return {"alpha": total - risk_free - beta * held, "beta": beta}


def _log_returns(values: Floats) -> Floats:
    returns: Floats = np.log(values[1:] / values[:-1])
    return returns


def _trade_figures(returns: Floats) -> dict[str, float | str]:
    if not len(returns):
        return dict.fromkeys(("average_trade", "profit_factor"), "there is no closed trade")
    lost = float(returns[returns < 0.0].sum())
    return {
        "average_trade": float(np.expm1(np.log1p(returns).mean())) if returns.min() > -1.0 else 0.0,
        "profit_factor": -float(returns[returns > 0.0].sum()) / lost if lost else "no closed trade lost",
    }
