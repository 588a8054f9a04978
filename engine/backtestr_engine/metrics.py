"""Metrics: what a backtest came to, in figures whose formulas, units and sources are stated.

Returns, rates and drawdowns are fractions (0.25 = 25 %), drawdowns positive, money in the account's currency. With
e₁ … eₙ the equity at the close of every bar and e₀ the initial capital, rᵢ = eᵢ / eᵢ₋₁ − 1 are the returns per bar. A
metric that is undefined is None, and `undefined` says why: never a wrong number.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec
import numpy as np
from numba import njit

from backtestr_protocol.messages import Timeframe

from .arrays import Floats, Integers, Records
from .timeframes import DAY_US, LENGTH_US

Calendar = Literal["24/7", "24/5", "252d"]

_DAYS_PER_YEAR: dict[Calendar, float] = {"24/7": 365.0, "24/5": 365.0 * 5 / 7, "252d": 252.0}
_TRADING_DAY_US: dict[Calendar, float] = {"24/7": DAY_US, "24/5": DAY_US, "252d": DAY_US * 6.5 / 24}
"""How long trading lasts on such a day: an exchange's is 9:30 to 16:00."""

_YEAR_US = 365.25 * DAY_US


class Annualisation(msgspec.Struct, frozen=True):
    """How figures per bar become figures per year. `risk_free` is a yearly rate, as a fraction."""

    bars_per_year: float
    risk_free: float

    @property
    def risk_free_per_bar(self) -> float:
        """The rate that compounds to `risk_free` in a year: (1 + risk_free)^(1 / bars_per_year) − 1."""
        return math.expm1(math.log1p(self.risk_free) / self.bars_per_year)


def annualisation(timeframe: Timeframe, calendar: Calendar, risk_free: float) -> Annualisation:
    """Bars per year: trading days per year (24/7: 365, 24/5: 365 · 5/7, 252d: 252) times bars per trading day (of 24
    hours, 252d: 6.5 hours). One bar a day for 1d; 365 / 7 bars for 1w under every calendar."""
    length = LENGTH_US[timeframe]
    if timeframe == "1w":
        bars_per_year = 365.0 / 7
    elif timeframe == "1d":
        bars_per_year = _DAYS_PER_YEAR[calendar]
    else:
        bars_per_year = _DAYS_PER_YEAR[calendar] * _TRADING_DAY_US[calendar] / length
    return Annualisation(bars_per_year, risk_free)


class Walked(msgspec.Struct, frozen=True):
    """What metrics are computed of: the bars walked so far and what the account did on them.

    `equity` and `close`: float64 per bar. `started_us`, `ended_us`: open of the first bar and close of the last.
    `trades`: records of `fills.TRADE`, closed ones. `account`: one record of `account.ACCOUNT`.
    """

    initial_capital: float
    bar_length_us: int
    timestamp: Integers
    equity: Floats
    close: Floats
    trades: Records
    account: Any


class Metrics(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The figures of one backtest. On the wire it is a map with the names in camelCase."""

    start_equity: float
    """The initial capital."""
    final_equity: float
    """eₙ; an open position is marked at the last close."""
    peak_equity: float
    """max eᵢ."""
    total_return: float
    """eₙ / e₀ − 1."""
    annual_return: float | None
    """(1 + totalReturn)^(A / n) − 1, A bars a year: the rate that n bars at that pace compound to (vectorbt,
    empyrical)."""
    cagr: float | None
    """(1 + totalReturn)^(1 / years) − 1, years of 365.25 days from the first open to the last close."""
    volatility: float | None
    """σ(r) · √A, σ with n − 1 degrees of freedom."""
    sharpe_ratio: float | None
    """mean(r − f) / σ(r − f) · √A, f the risk-free rate per bar (Sharpe 1994)."""
    sortino_ratio: float | None
    """mean(r − f) · A / (√mean(min(r − f, 0)²) · √A), the mean over all bars (Sortino & Price 1994)."""
    calmar_ratio: float | None
    """annualReturn / maxDrawdown (Young 1991, over the whole run)."""
    max_drawdown: float
    """max (1 − eᵢ / pᵢ), pᵢ = max(e₁ … eᵢ)."""
    average_drawdown: float | None
    """The mean, over all drawdowns from a peak to its recovery or the end, of the deepest point of each."""
    max_drawdown_duration_ms: int
    """The longest time from a peak to the bar that regains it, or to the last bar."""
    exposure: float
    """The fraction of bars that ended with a position."""
    total_trades: int
    """Closed trades, and the one that is open at the end, as vectorbt counts."""
    open_trades: int
    """1 when a position is open at the end, else 0."""
    win_rate: float | None
    """The fraction of closed trades with pnl > 0."""
    best_trade: float | None
    """The highest return of a closed trade: pnl / (entry price · quantity)."""
    worst_trade: float | None
    """The lowest return of a closed trade."""
    average_trade: float | None
    """The mean return of the closed trades."""
    profit_factor: float | None
    """Σ pnl of winning closed trades / −Σ pnl of losing ones."""
    expectancy: float | None
    """The mean pnl of the closed trades, in money."""
    turnover: float | None
    """Σ |fill price · fill quantity| / mean(e): how often the account was traded over."""
    buy_and_hold_return: float
    """Last close / first close − 1, without costs."""
    total_fees: float
    """Σ fees of all fills, in money."""
    total_slippage: float
    """Σ |fill price − market price| · fill quantity, in money."""
    undefined: dict[str, str]
    """Why a metric is None, by its name on the wire."""

    def to_wire(self) -> dict[str, Any]:
        wire: dict[str, Any] = msgspec.to_builtins(self)
        return wire


def compute_metrics(walked: Walked, rule: Annualisation) -> Metrics:
    """All metrics of at least one bar walked."""
    equity, trades, account = walked.equity, walked.trades, walked.account
    reasons: dict[str, str] = {}
    final, peak = float(equity[-1]), float(equity.max())
    total_return = final / walked.initial_capital - 1.0
    returns = _return_statistics(equity, walked.initial_capital, rule.risk_free_per_bar)
    depth, depths, drawdowns, longest = _drawdowns(equity, walked.timestamp)

    ruined = "equity fell to zero or below" if returns[_LOWEST] <= 0 else None
    flat_or_short = ruined or ("it needs at least two bars" if len(equity) < 2 else None)
    root = math.sqrt(rule.bars_per_year)
    deviation, downside = returns[_DEVIATION], returns[_DOWNSIDE]
    years = (int(walked.timestamp[-1]) + walked.bar_length_us - int(walked.timestamp[0])) / _YEAR_US

    def defined(name: str, reason: str | None) -> bool:
        if reason is not None:
            reasons[name] = reason
        return reason is None

    def growth(name: str, exponent: float) -> float | None:
        if not defined(name, ruined):
            return None
        logarithm = math.log(final / walked.initial_capital) * exponent
        too_fast = "beyond the range of a number" if logarithm > _LARGEST_EXPONENT else None
        return math.expm1(logarithm) if defined(name, too_fast) else None

    annual_return = growth("annualReturn", rule.bars_per_year / len(equity))
    no_spread = flat_or_short or ("returns do not vary" if deviation == 0 else None)
    no_loss = flat_or_short or ("no return is below the risk-free rate" if downside == 0 else None)
    no_drawdown = "there is no drawdown" if depth == 0 else None
    no_annual = None if annual_return is not None else reasons["annualReturn"]

    pnl, trade_returns = trades["pnl"], trades["return"]
    won, lost = float(pnl[pnl > 0].sum()), -float(pnl[pnl < 0].sum())
    no_trade = None if len(trades) else "there is no closed trade"
    no_loser = no_trade or ("no closed trade lost" if lost == 0 else None)
    mean_equity = returns[_MEAN_EQUITY]
    is_open = int(account["quantity"] != 0)

    return Metrics(
        start_equity=walked.initial_capital,
        final_equity=final,
        peak_equity=peak,
        total_return=total_return,
        annual_return=annual_return,
        cagr=growth("cagr", 1.0 / years),
        volatility=deviation * root if defined("volatility", flat_or_short) else None,
        sharpe_ratio=returns[_MEAN] / deviation * root if defined("sharpeRatio", no_spread) else None,
        sortino_ratio=returns[_MEAN] / downside * root if defined("sortinoRatio", no_loss) else None,
        calmar_ratio=annual_return / depth
        if defined("calmarRatio", no_annual or no_drawdown) and annual_return is not None
        else None,
        max_drawdown=depth,
        average_drawdown=depths / drawdowns if defined("averageDrawdown", no_drawdown) else None,
        max_drawdown_duration_ms=longest // 1000,
        exposure=int(account["bars_exposed"]) / len(equity),
        total_trades=len(trades) + is_open,
        open_trades=is_open,
        win_rate=float(np.mean(pnl > 0)) if defined("winRate", no_trade) else None,
        best_trade=float(trade_returns.max()) if defined("bestTrade", no_trade) else None,
        worst_trade=float(trade_returns.min()) if defined("worstTrade", no_trade) else None,
        average_trade=float(trade_returns.mean()) if defined("averageTrade", no_trade) else None,
        profit_factor=won / lost if defined("profitFactor", no_loser) else None,
        expectancy=float(pnl.mean()) if defined("expectancy", no_trade) else None,
        turnover=float(account["traded_value"]) / mean_equity if defined("turnover", ruined) else None,
        buy_and_hold_return=float(walked.close[-1] / walked.close[0]) - 1.0,
        total_fees=float(account["fees"]),
        total_slippage=float(account["slippage"]),
        undefined=reasons,
    )


_LARGEST_EXPONENT = math.log(np.finfo(np.float64).max)
_MEAN, _DEVIATION, _DOWNSIDE, _LOWEST, _MEAN_EQUITY = range(5)


@njit(cache=True, nogil=True)
def _return_statistics(
    equity: Floats, initial_capital: float, risk_free: float
) -> tuple[float, float, float, float, float]:
    """Mean of r − f, its standard deviation (n − 1), √mean(min(r − f, 0)²), the lowest equity and the mean equity."""
    bars = equity.size
    total = below = total_equity = 0.0
    lowest = equity[0]
    before = initial_capital
    for bar in range(bars):
        excess = equity[bar] / before - 1.0 - risk_free
        before = equity[bar]
        total += excess
        below += min(excess, 0.0) ** 2
        total_equity += before
        lowest = min(lowest, before)
    mean = total / bars
    squares = 0.0
    before = initial_capital
    for bar in range(bars):
        squares += (equity[bar] / before - 1.0 - risk_free - mean) ** 2
        before = equity[bar]
    deviation = math.sqrt(squares / (bars - 1)) if bars > 1 else 0.0
    return mean, deviation, math.sqrt(below / bars), lowest, total_equity / bars


@njit(cache=True, nogil=True)
def _drawdowns(equity: Floats, timestamp: Integers) -> tuple[float, float, int, int]:
    """The deepest drawdown, the sum of the deepest points of all drawdowns, their number, and the longest in µs."""
    peak = equity[0]
    peak_time = timestamp[0]
    deepest = sum_of_depths = depth = 0.0
    count = 0
    longest = 0
    for bar in range(equity.size):
        if equity[bar] >= peak:
            if depth > 0.0:
                sum_of_depths += depth
                count += 1
                longest = max(longest, timestamp[bar] - peak_time)
                depth = 0.0
            peak = equity[bar]
            peak_time = timestamp[bar]
        elif peak > 0.0:
            depth = max(depth, 1.0 - equity[bar] / peak)
            deepest = max(deepest, depth)
    if depth > 0.0:
        sum_of_depths += depth
        count += 1
        longest = max(longest, timestamp[-1] - peak_time)
    return deepest, sum_of_depths, count, longest
