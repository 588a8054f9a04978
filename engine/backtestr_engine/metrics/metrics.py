"""The computation of all metrics of a backtest; `backtestr_protocol.metrics` states their formulas, units and sources.

A metric that is undefined is None, with its reason: there is never a wrong number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
import numpy as np

from backtestr_engine.data.arrays import Floats, Integers, Records
from backtestr_engine.data.timeframes import DAY_US
from backtestr_engine.simulation.account import Totals
from backtestr_protocol.metrics import WIRE_NAMES, Metrics

from .annualisation import Annualisation
from .excursions import Drawdowns, drawdowns
from .returns import Moments, Tails, moments, tails

_YEAR_US = 365.25 * DAY_US


class Simulated(msgspec.Struct, frozen=True):
    """The simulated bars and the account on them, from which the metrics are computed.

    `timestamp` (µs UTC, of opens), `market` and `equity` have one value per bar. `market` is the close; of several
    symbols it is equal parts of each, bought and held. `closed_at` is the close time of the last bar. `trades` are
    records of `TRADE`: the closed trades with their excursions. `rejected_orders` are counted by reason.
    """

    initial_capital: float
    timestamp: Integers
    closed_at: int
    market: Floats
    equity: Floats
    trades: Records
    totals: Totals
    drawdown_from: Literal["capital", "first_close"] = "capital"
    rejected_orders: Mapping[str, int] = msgspec.field(default_factory=dict)

    def drawdowns(self) -> Drawdowns:
        """Return the drawdowns of the equity, by the convention `drawdown_from`.

        The capital is there at the open of the first bar, which is a bar's length before the first value of equity.
        """
        first, first_time = float(self.equity[0]), int(self.timestamp[0])
        if self.drawdown_from == "capital":
            first, first_time = self.initial_capital, first_time - (self.closed_at - int(self.timestamp[-1]))
        return drawdowns(self.equity, self.timestamp, first, first_time)


class _Reasons:
    """The reasons why figures are undefined, by their names."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def figure(self, name: str, reason: str | None, value: Callable[[], float]) -> float | None:
        """Return `value()` if there is no `reason` against it and it is a number; else keep the reason."""
        if reason is None:
            try:
                computed = value()
            except OverflowError:
                computed = math.inf
            if math.isfinite(computed):
                return computed
            reason = "beyond the range of a number"
        self.reasons[name] = reason
        return None

    def duration_ms(self, name: str, reason: str | None, microseconds: Callable[[], float]) -> int | None:
        """Return a duration in whole milliseconds, if there is no `reason` against it."""
        found = self.figure(name, reason, microseconds)
        return None if found is None else round(found / 1000)


def compute_metrics(simulated: Simulated, rule: Annualisation) -> Metrics:
    """Compute all metrics of at least one simulated bar."""
    market, equity, at, capital = simulated.market, simulated.equity, simulated.totals, simulated.initial_capital
    reasons = _Reasons()
    figure, duration = reasons.figure, reasons.duration_ms
    final, per_year, risk_free = float(equity[-1]), rule.bars_per_year, rule.risk_free_per_bar
    total_return = final / capital - 1.0
    years = (simulated.closed_at - int(simulated.timestamp[0])) / _YEAR_US

    fell = simulated.drawdowns()
    ruined = "equity fell to zero or below" if fell.lowest <= 0 else None
    no_drawdown = "there is no drawdown" if fell.deepest == 0 else None
    annual_return = figure("annual_return", ruined, lambda: _compounded(final / capital, per_year / len(equity)))
    no_annual = None if annual_return is not None else reasons.reasons["annual_return"]

    of = moments(equity, market, capital, risk_free) if ruined is None else _NO_MOMENTS
    too_short = ruined or ("it needs at least two bars" if len(equity) < 2 else None)
    no_spread = too_short or ("returns do not vary" if of.deviation < _NO_SPREAD else None)
    no_loss = too_short or ("no return is below the risk-free rate" if of.downside < _NO_SPREAD else None)
    no_pairs = ruined or ("it needs at least three bars" if len(equity) < 3 else None)
    no_market = no_pairs or ("prices do not vary" if of.market_deviation < _NO_SPREAD else None)
    tail = tails(equity, capital) if too_short is None else _NO_TAILS
    no_tail = too_short or ("the 5 % quantile of returns is zero" if abs(tail.low) < _NO_SPREAD else None)

    pnl, returns = (np.ascontiguousarray(simulated.trades[name]) for name in ("pnl", "return"))
    wins, losses = pnl[pnl > 0], pnl[pnl < 0]
    no_trade = None if len(pnl) else "there is no closed trade"
    no_loser = no_trade or (None if len(losses) else "no closed trade lost")
    no_payoff = no_loser or (None if len(wins) else "no closed trade won")
    spread_of_pnl = float(pnl.std(ddof=1)) if len(pnl) > 1 else 0.0
    is_spread = spread_of_pnl > _NO_SPREAD * float(abs(pnl).max(initial=0.0))
    no_pnl_spread = None if is_spread else "all closed trades made the same"
    no_quality = no_trade or ("it needs at least two closed trades" if len(pnl) < 2 else no_pnl_spread)
    win_rate = len(wins) / max(len(pnl), 1)
    payoff = -float(wins.mean() / losses.mean()) if no_payoff is None else math.nan
    lasted = simulated.trades["exit_time"] - simulated.trades["entry_time"]

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
            "sharpe_ratio", no_spread, lambda: (of.mean - risk_free) / of.deviation * math.sqrt(per_year)
        ),
        sortino_ratio=figure(
            "sortino_ratio", no_loss, lambda: (of.mean - risk_free) / of.downside * math.sqrt(per_year)
        ),
        calmar_ratio=figure("calmar_ratio", no_annual or no_drawdown, lambda: (annual_return or 0.0) / fell.deepest),
        omega_ratio=figure("omega_ratio", no_loss, lambda: of.gains / of.losses),
        skew=figure("skew", no_spread, lambda: of.skew),
        kurtosis=figure("kurtosis", no_spread, lambda: of.kurtosis),
        value_at_risk_95=figure("value_at_risk_95", too_short, lambda: tail.low),
        conditional_value_at_risk_95=figure("conditional_value_at_risk_95", too_short, lambda: tail.low_mean),
        tail_ratio=figure("tail_ratio", no_tail, lambda: abs(tail.high) / abs(tail.low)),
        max_drawdown=fell.deepest,
        average_drawdown=figure("average_drawdown", no_drawdown, lambda: fell.mean_depth),
        max_drawdown_duration_ms=fell.longest_us // 1000,
        average_drawdown_duration_ms=duration("average_drawdown_duration_ms", no_drawdown, lambda: fell.mean_us),
        recovery_factor=figure("recovery_factor", no_drawdown, lambda: total_return / fell.deepest),
        ulcer_index=figure("ulcer_index", ruined, lambda: fell.ulcer),
        exposure=at.bars_exposed / len(equity),
        turnover=figure("turnover", ruined, lambda: at.traded_value / of.mean_equity),
        total_fees=at.fees,
        total_slippage=at.slippage,
        total_trades=len(pnl) + at.open_positions,
        open_trades=at.open_positions,
        win_rate=figure("win_rate", no_trade, lambda: win_rate),
        best_trade=figure("best_trade", no_trade, lambda: float(returns.max())),
        worst_trade=figure("worst_trade", no_trade, lambda: float(returns.min())),
        average_trade=figure("average_trade", no_trade, lambda: float(returns.mean())),
        profit_factor=figure("profit_factor", no_loser, lambda: -float(wins.sum() / losses.sum())),
        payoff_ratio=figure("payoff_ratio", no_payoff, lambda: payoff),
        expectancy=figure("expectancy", no_trade, lambda: float(pnl.mean())),
        sqn=figure("sqn", no_quality, lambda: math.sqrt(len(pnl)) * float(pnl.mean()) / spread_of_pnl),
        kelly=figure("kelly", no_payoff, lambda: win_rate - (1.0 - win_rate) / payoff),
        average_trade_duration_ms=duration("average_trade_duration_ms", no_trade, lambda: float(lasted.mean())),
        max_trade_duration_ms=duration("max_trade_duration_ms", no_trade, lambda: float(lasted.max())),
        average_mae=figure("average_mae", no_trade, lambda: float(simulated.trades["mae"].mean())),
        average_mfe=figure("average_mfe", no_trade, lambda: float(simulated.trades["mfe"].mean())),
        rejections=dict(simulated.rejected_orders),
        reasons={WIRE_NAMES[name]: reason for name, reason in reasons.reasons.items()},
    )


_NO_MOMENTS = Moments(*[math.nan] * len(Moments._fields))
_NO_TAILS = Tails(*[math.nan] * len(Tails._fields))
_NO_SPREAD = 4 * float(np.finfo(np.float64).eps)
"""Returns that differ by less than this differ by the rounding of a division."""


def _compounded(growth: float, times: float) -> float:
    """Return growth^times − 1, or −1 where nothing is left to grow."""
    return math.expm1(math.log(growth) * times) if growth > 0 else -1.0


def _alpha_per_bar(of: Moments, risk_free: float) -> float:
    return of.mean - risk_free - of.beta * (of.market_mean - risk_free)
