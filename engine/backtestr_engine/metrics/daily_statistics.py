"""Statistics of daily returns, by the rules of backtesting.py 0.6: the convention `statistics: daily_geometric`.

Equity is taken at the last bar of every day (of the series' zone; bars of weeks and months as they are). With r the
returns from one to the next, g their geometric mean and A the periods a year (252, or 365 where weekends trade; 52 for
weeks, 12 for months):

    annual return   (1 + g)^A − 1
    volatility      √((var(r) + (1 + g)²)^A − (1 + g)^(2A)), var with n − 1 degrees of freedom
    Sharpe ratio    (annual return − risk-free rate) / volatility
    Sortino ratio   (annual return − risk-free rate) / (√mean(min(r, 0)²) · √A)
    Calmar ratio    annual return / maximum drawdown
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from backtestr_engine.data.arrays import Floats, Integers
from backtestr_engine.data.timeframes import DAY_US, WEEK_US, is_dated, length_us, months_in
from backtestr_engine.data.zones import UTC, clock_times
from backtestr_protocol.messages import Timeframe
from backtestr_protocol.metrics import WIRE_NAMES, Metrics

from .figures import BEYOND_RANGE

# 1970-01-01 was a Thursday: day 2 was a Saturday.
_SATURDAY = 2
_WEEKEND_SHARE = 2 / 7 * 0.6
"""Weekends trade when more than this share of the bars is on them."""


def with_daily_statistics(
    metrics: Metrics, timestamp: Integers, timeframe: Timeframe, equity: Floats, risk_free: float, zone: str = UTC
) -> Metrics:
    """Return `metrics` with the five daily figures in place of those per bar; an undefined one is None, with reason.

    `zone` is the one whose dates bars shorter than a day belong to.
    """
    times = timestamp if is_dated(timeframe) else clock_times(timestamp, zone)
    returns, periods = _returns(times, timeframe, equity)
    reason = None
    if not len(returns):
        reason = "it needs at least two days"
    elif returns.min() <= -1.0:
        reason = "equity fell to zero or below"
    if reason:
        return _replaced(metrics, dict.fromkeys(_NAMES, None), dict.fromkeys(_NAMES, reason))
    growth = math.exp(float(np.log1p(returns).mean()))
    annual = _power(growth, periods) - 1.0
    figures: dict[str, float | None] = {"annual_return": annual}
    reasons: dict[str, str] = {}
    volatility = 0.0
    if len(returns) > 1:
        variance = float(returns.var(ddof=1))
        spread = _power(variance + growth**2, periods)
        volatility = math.sqrt(max(spread - _power(growth, 2 * periods), 0.0)) if spread < math.inf else math.inf
    downside = math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)) * periods)
    for name, above, below, missing in (
        ("volatility", volatility, 1.0 if len(returns) > 1 else 0.0, "it needs at least three days"),
        ("sharpe_ratio", annual - risk_free, volatility, "returns do not vary"),
        ("sortino_ratio", annual - risk_free, downside, "no day lost"),
        ("calmar_ratio", annual, metrics.max_drawdown, "there is no drawdown"),
    ):
        figures[name] = above / below if below else None
        if not below:
            reasons[name] = missing
    beyond = [name for name, value in figures.items() if value is not None and not math.isfinite(value)]
    figures |= dict.fromkeys(beyond)
    return _replaced(metrics, figures, reasons | dict.fromkeys(beyond, BEYOND_RANGE))


def _power(base: float, exponent: float) -> float:
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf


_NAMES = ("annual_return", "volatility", "sharpe_ratio", "sortino_ratio", "calmar_ratio")


def _replaced(metrics: Metrics, figures: dict[str, float | None], reasons: dict[str, str]) -> Metrics:
    ours = {WIRE_NAMES[name] for name in _NAMES}
    others = {name: reason for name, reason in metrics.reasons.items() if name not in ours}
    reasons = others | {WIRE_NAMES[name]: reason for name, reason in reasons.items()}
    return msgspec.structs.replace(metrics, **figures, reasons=reasons)


def _returns(timestamp: Integers, timeframe: Timeframe, equity: Floats) -> tuple[Floats, float]:
    """Return the returns from the last bar of a day to that of the next, and the number of such returns in a year."""
    months, length = months_in(timeframe), length_us(timeframe)
    if months or length % WEEK_US == 0:
        return equity[1:] / equity[:-1] - 1.0, 12.0 / months if months else 52.0 * WEEK_US / length
    day = timestamp // DAY_US
    last = np.flatnonzero(np.append(np.diff(day) != 0, True))
    at_end = equity[last]
    weekday = (day - _SATURDAY) % 7
    weekends = float(np.mean(weekday < 2)) > _WEEKEND_SHARE
    days_per_bar = max(1, length // DAY_US)
    return at_end[1:] / at_end[:-1] - 1.0, (365.0 if weekends else 252.0) / days_per_bar
