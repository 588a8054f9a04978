"""Metrics: what a backtest came to, in figures whose formulas, units and sources are stated.

Returns, rates and drawdowns are fractions (0.25 = 25 %), drawdowns positive, money in the account's currency. With
e₁ … eₙ the equity at the close of every bar and e₀ the initial capital, rᵢ = eᵢ / eᵢ₋₁ − 1 are the returns per bar, A
the bars per year and f the risk-free rate per bar. A metric that is undefined is None, and `undefined` says why: never
a wrong number.

Sources: empyrical is empyrical-reloaded 0.7 (Quantopian's), whose formulas are named where several are in use.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from backtestr_engine.data.arrays import Floats, Integers, Records
from backtestr_engine.data.timeframes import DAY_US
from backtestr_engine.simulation.account import Totals

from .annualisation import Annualisation as Annualisation
from .annualisation import annualisation as annualisation
from .excursions import drawdowns
from .returns import Moments, Tails, moments, tails

_YEAR_US = 365.25 * DAY_US


class Walked(msgspec.Struct, frozen=True):
    """What metrics are computed of: the bars walked so far and what the account did on them.

    `timestamp` (µs UTC, of opens), `market` and `equity` have one value per bar: the close of the market, which of
    several symbols is equal parts of each, bought and held. `closed_at`: when the last bar closed. `trades`: records of
    `fills.TRADE`, closed ones, with their excursions.
    """

    initial_capital: float
    timestamp: Integers
    closed_at: int
    market: Floats
    equity: Floats
    trades: Records
    totals: Totals


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
    """(1 + totalReturn)^(A / n) − 1: the rate that n bars at that pace compound to (vectorbt, empyrical)."""
    cagr: float | None
    """(1 + totalReturn)^(1 / years) − 1, years of 365.25 days from the first open to the last close."""
    buy_and_hold_return: float
    """Last close / first close − 1, without costs; of several symbols, with equal parts in each."""
    alpha: float | None
    """(1 + mean((r − f) − beta · (m − f)))^A − 1, a rate per year: what was earned beside the market's share (Jensen
    1968; compounded as empyrical does)."""
    beta: float | None
    """cov(r, m) / var(m), mᵢ = closeᵢ / closeᵢ₋₁ − 1 what buying and holding returned, over bars 2 … n."""

    volatility: float | None
    """σ(r) · √A, σ with n − 1 degrees of freedom."""
    sharpe_ratio: float | None
    """mean(r − f) / σ(r − f) · √A (Sharpe 1994)."""
    sortino_ratio: float | None
    """mean(r − f) · A / (√mean(min(r − f, 0)²) · √A), the mean over all bars (Sortino & Price 1994)."""
    calmar_ratio: float | None
    """annualReturn / maxDrawdown (Young 1991, over the whole run)."""
    omega_ratio: float | None
    """Σ max(r − f, 0) / Σ max(f − r, 0) (Keating & Shadwick 2002, threshold f)."""
    skew: float | None
    """m₃ / m₂^1.5, mₖ = mean((r − mean r)ᵏ) (Fisher & Pearson; scipy.stats.skew)."""
    kurtosis: float | None
    """m₄ / m₂² − 3: 0 for a normal distribution (Fisher's excess; scipy.stats.kurtosis)."""
    value_at_risk_95: float | None
    """The 5 % quantile of r, interpolated linearly: a return per bar, negative where it is a loss (empyrical)."""
    conditional_value_at_risk_95: float | None
    """The mean of the ⌊0.05 · (n − 1)⌋ + 1 lowest r: a return per bar, negative where it is a loss (empyrical)."""
    tail_ratio: float | None
    """|95 % quantile of r| / |5 % quantile of r| (empyrical)."""

    max_drawdown: float
    """max (1 − eᵢ / pᵢ), pᵢ = max(e₁ … eᵢ)."""
    average_drawdown: float | None
    """The mean, over all drawdowns from a peak to its recovery or the end, of the deepest point of each."""
    max_drawdown_duration_ms: int
    """The longest time from a peak to the bar that regains it, or to the last bar."""
    average_drawdown_duration_ms: float | None
    """The mean of these times over all drawdowns."""
    recovery_factor: float | None
    """totalReturn / maxDrawdown: how many times over the worst loss was made good."""
    ulcer_index: float | None
    """√mean((1 − eᵢ / pᵢ)²), a fraction (Martin & McCann 1989, who give it in percent)."""

    exposure: float
    """The fraction of bars that ended with a position, of several symbols with any."""
    turnover: float | None
    """Σ |fill price · fill quantity| / mean(e): how often the account was traded over."""
    total_fees: float
    """Σ fees of all fills, in money."""
    total_slippage: float
    """Σ |fill price − market price| · fill quantity, in money."""

    total_trades: int
    """Closed trades, and those that are open at the end, as vectorbt counts."""
    open_trades: int
    """The positions that are open at the end."""
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
    payoff_ratio: float | None
    """Mean pnl of winning closed trades / −mean pnl of losing ones."""
    expectancy: float | None
    """The mean pnl of the closed trades, in money."""
    sqn: float | None
    """√N · mean(pnl) / σ(pnl) of N closed trades, σ with N − 1 degrees of freedom (Tharp's system quality number)."""
    kelly: float | None
    """winRate − (1 − winRate) / payoffRatio: the share of capital that grows it fastest (Kelly 1956)."""
    average_trade_duration_ms: float | None
    """The mean time from entry to exit of the closed trades."""
    max_trade_duration_ms: float | None
    """The longest of these times."""
    average_mae: float | None
    """The mean, over the closed trades, of the largest move against the holder, a fraction of the entry price from 0 up
    (maximum adverse excursion, Sweeney 1996; which bars count: `metrics_excursions`)."""
    average_mfe: float | None
    """The same of the largest move in his favour (maximum favourable excursion)."""

    undefined: dict[str, str]
    """Why a metric is None, by its name on the wire."""

    def to_wire(self) -> dict[str, Any]:
        wire: dict[str, Any] = msgspec.to_builtins(self)
        return wire


class _Reasons:
    """Collects why figures are undefined."""

    def __init__(self) -> None:
        self.undefined: dict[str, str] = {}

    def figure(self, name: str, reason: str | None, value: Callable[[], float]) -> float | None:
        """`value()` where there is no `reason` against it and it is a number; else None, and the reason is kept."""
        if reason is None:
            try:
                computed = value()
            except OverflowError:
                computed = math.inf
            if math.isfinite(computed):
                return computed
            reason = "beyond the range of a number"
        self.undefined[name] = reason
        return None


def compute_metrics(walked: Walked, rule: Annualisation) -> Metrics:
    """All metrics of at least one bar walked."""
    market, equity, at, capital = walked.market, walked.equity, walked.totals, walked.initial_capital
    reasons = _Reasons()
    figure = reasons.figure
    final, per_year, risk_free = float(equity[-1]), rule.bars_per_year, rule.risk_free_per_bar
    total_return = final / capital - 1.0
    years = (walked.closed_at - int(walked.timestamp[0])) / _YEAR_US

    fell = drawdowns(equity, walked.timestamp)
    ruined = "equity fell to zero or below" if fell.lowest <= 0 else None
    no_drawdown = "there is no drawdown" if fell.deepest == 0 else None
    annual_return = figure("annualReturn", ruined, lambda: _compounded(final / capital, per_year / len(equity)))
    no_annual = None if annual_return is not None else reasons.undefined["annualReturn"]

    of = moments(equity, market, capital, risk_free) if ruined is None else _NO_MOMENTS
    too_short = ruined or ("it needs at least two bars" if len(equity) < 2 else None)
    no_spread = too_short or ("returns do not vary" if of.deviation < _NO_SPREAD else None)
    no_loss = too_short or ("no return is below the risk-free rate" if of.downside < _NO_SPREAD else None)
    no_pairs = ruined or ("it needs at least three bars" if len(equity) < 3 else None)
    no_market = no_pairs or ("prices do not vary" if of.market_deviation < _NO_SPREAD else None)
    tail = tails(equity, capital) if too_short is None else _NO_TAILS
    no_tail = too_short or ("the 5 % quantile of returns is zero" if tail.low == 0 else None)

    pnl, returns = (np.ascontiguousarray(walked.trades[name]) for name in ("pnl", "return"))
    wins, losses = pnl[pnl > 0], pnl[pnl < 0]
    no_trade = None if len(pnl) else "there is no closed trade"
    no_loser = no_trade or (None if len(losses) else "no closed trade lost")
    no_payoff = no_loser or (None if len(wins) else "no closed trade won")
    spread_of_pnl = float(pnl.std(ddof=1)) if len(pnl) > 1 else 0.0
    no_pnl_spread = "all closed trades made the same" if spread_of_pnl == 0 else None
    no_quality = no_trade or ("it needs at least two closed trades" if len(pnl) < 2 else no_pnl_spread)
    win_rate = len(wins) / max(len(pnl), 1)
    payoff = -float(wins.mean() / losses.mean()) if no_payoff is None else math.nan
    lasted = walked.trades["exit_time"] - walked.trades["entry_time"]

    return Metrics(
        start_equity=capital,
        final_equity=final,
        peak_equity=fell.peak,
        total_return=total_return,
        annual_return=annual_return,
        cagr=figure("cagr", ruined, lambda: _compounded(final / capital, 1.0 / years)),
        buy_and_hold_return=float(market[-1] / market[0]) - 1.0,
        alpha=figure("alpha", no_market, lambda: _compounded(1.0 + _alpha_per_bar(of, risk_free), per_year)),
        beta=figure("beta", no_market, lambda: of.beta),
        volatility=figure("volatility", too_short, lambda: of.deviation * math.sqrt(per_year)),
        sharpe_ratio=figure(
            "sharpeRatio", no_spread, lambda: (of.mean - risk_free) / of.deviation * math.sqrt(per_year)
        ),
        sortino_ratio=figure(
            "sortinoRatio", no_loss, lambda: (of.mean - risk_free) / of.downside * math.sqrt(per_year)
        ),
        calmar_ratio=figure("calmarRatio", no_annual or no_drawdown, lambda: (annual_return or 0.0) / fell.deepest),
        omega_ratio=figure("omegaRatio", no_loss, lambda: of.gains / of.losses),
        skew=figure("skew", no_spread, lambda: of.skew),
        kurtosis=figure("kurtosis", no_spread, lambda: of.kurtosis),
        value_at_risk_95=figure("valueAtRisk95", too_short, lambda: tail.low),
        conditional_value_at_risk_95=figure("conditionalValueAtRisk95", too_short, lambda: tail.low_mean),
        tail_ratio=figure("tailRatio", no_tail, lambda: abs(tail.high) / abs(tail.low)),
        max_drawdown=fell.deepest,
        average_drawdown=figure("averageDrawdown", no_drawdown, lambda: fell.mean_depth),
        max_drawdown_duration_ms=fell.longest_us // 1000,
        average_drawdown_duration_ms=figure("averageDrawdownDurationMs", no_drawdown, lambda: fell.mean_us / 1000),
        recovery_factor=figure("recoveryFactor", no_drawdown, lambda: total_return / fell.deepest),
        ulcer_index=figure("ulcerIndex", ruined, lambda: fell.ulcer),
        exposure=at.bars_exposed / len(equity),
        turnover=figure("turnover", ruined, lambda: at.traded_value / of.mean_equity),
        total_fees=at.fees,
        total_slippage=at.slippage,
        total_trades=len(pnl) + at.open_positions,
        open_trades=at.open_positions,
        win_rate=figure("winRate", no_trade, lambda: win_rate),
        best_trade=figure("bestTrade", no_trade, lambda: float(returns.max())),
        worst_trade=figure("worstTrade", no_trade, lambda: float(returns.min())),
        average_trade=figure("averageTrade", no_trade, lambda: float(returns.mean())),
        profit_factor=figure("profitFactor", no_loser, lambda: -float(wins.sum() / losses.sum())),
        payoff_ratio=figure("payoffRatio", no_payoff, lambda: payoff),
        expectancy=figure("expectancy", no_trade, lambda: float(pnl.mean())),
        sqn=figure("sqn", no_quality, lambda: math.sqrt(len(pnl)) * float(pnl.mean()) / spread_of_pnl),
        kelly=figure("kelly", no_payoff, lambda: win_rate - (1.0 - win_rate) / payoff),
        average_trade_duration_ms=figure("averageTradeDurationMs", no_trade, lambda: float(lasted.mean()) / 1000),
        max_trade_duration_ms=figure("maxTradeDurationMs", no_trade, lambda: float(lasted.max()) / 1000),
        average_mae=figure("averageMae", no_trade, lambda: float(walked.trades["mae"].mean())),
        average_mfe=figure("averageMfe", no_trade, lambda: float(walked.trades["mfe"].mean())),
        undefined=reasons.undefined,
    )


_NO_MOMENTS = Moments(*[math.nan] * len(Moments._fields))
_NO_TAILS = Tails(*[math.nan] * len(Tails._fields))
_NO_SPREAD = 4 * float(np.finfo(np.float64).eps)
"""Returns that differ by less than this differ by the rounding of a division."""


def _compounded(growth: float, times: float) -> float:
    """growth^times − 1; −1 where nothing is left to grow."""
    return math.expm1(math.log(growth) * times) if growth > 0 else -1.0


def _alpha_per_bar(of: Moments, risk_free: float) -> float:
    return of.paired_mean - risk_free - of.beta * (of.market_mean - risk_free)
