"""The figures of a backtest as numbers in a row, each with a code where it is undefined.

One compiled function has every formula. A backtest makes its `Metrics` of its row (`metrics.py`), and a sweep makes a
table of thousands of them, so that a figure of a sweep has the bits of that of the single run.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from backtestr_engine.compiled import compiled
from backtestr_engine.data.arrays import Bytes, Floats, Integers
from backtestr_engine.data.timeframes import DAY_US
from backtestr_protocol.metrics import METRICS

from .annualisation import Annualisation
from .excursions import drawdowns
from .returns import MarketMoments, Moments, market_moments, moments, tails

START_EQUITY, FINAL_EQUITY, PEAK_EQUITY, TOTAL_RETURN, ANNUAL_RETURN, CAGR, BUY_AND_HOLD_RETURN, ALPHA, BETA = range(9)
VOLATILITY, SHARPE_RATIO, SORTINO_RATIO, CALMAR_RATIO, OMEGA_RATIO, SKEW, KURTOSIS = range(9, 16)
VALUE_AT_RISK_95, CONDITIONAL_VALUE_AT_RISK_95, TAIL_RATIO = range(16, 19)
MAX_DRAWDOWN, AVERAGE_DRAWDOWN, MAX_DRAWDOWN_DURATION_MS, AVERAGE_DRAWDOWN_DURATION_MS = range(19, 23)
RECOVERY_FACTOR, ULCER_INDEX, EXPOSURE, TURNOVER, TOTAL_FEES, TOTAL_SLIPPAGE, TOTAL_TRADES, OPEN_TRADES = range(23, 31)
WIN_RATE, BEST_TRADE, WORST_TRADE, AVERAGE_TRADE, PROFIT_FACTOR, PAYOFF_RATIO, EXPECTANCY, SQN, KELLY = range(31, 40)
AVERAGE_TRADE_DURATION_MS, MAX_TRADE_DURATION_MS, AVERAGE_MAE, AVERAGE_MFE = range(40, 44)
"""The places of the figures in a row: the order of `backtestr_protocol.metrics.METRICS`."""

REASONS_WHY_UNDEFINED = (
    "",
    "equity fell to zero or below",
    "there is no drawdown",
    "it needs at least two bars",
    "returns do not vary",
    "no return is below the risk-free rate",
    "it needs at least three bars",
    "prices do not vary",
    "the 5 % quantile of returns is zero",
    "there is no closed trade",
    "no closed trade lost",
    "no closed trade won",
    "all closed trades made the same",
    "it needs at least two closed trades",
    "beyond the range of a number",
    "not computed",
)
"""The texts that a code indexes; 0 is the code of a figure that has a value."""

_YEAR_US = 365.25 * DAY_US

DEFINED, _RUINED, _NO_DRAWDOWN, _TWO_BARS, _NO_SPREAD, _NO_LOSS, _THREE_BARS, _NO_MARKET, _NO_TAIL = range(9)
_NO_TRADE, _NO_LOSER, _NO_WINNER, _ALL_THE_SAME, _TWO_TRADES, _BEYOND, NOT_COMPUTED = range(9, 16)

_ROUNDING = 4 * float(np.finfo(np.float64).eps)
"""Returns that differ by less than this differ by the rounding of a division."""


class Measure(NamedTuple):
    """All that the figures depend on beside the simulation.

    Drawdowns count from the initial capital, or else from the equity at the first close, which was there at
    `first_time` (µs UTC). `years` are of 365.25 days. `risk_free` is a rate per bar.
    """

    initial_capital: float
    from_capital: bool
    first_time: int
    years: float
    bars_per_year: float
    risk_free: float


class Activity(NamedTuple):
    """The sums of an account that figures are made of, as in `simulation.account.Totals`."""

    open_positions: int
    fees: float
    slippage: float
    traded_value: float
    bars_exposed: int


class Row(NamedTuple):
    """A row of figures: a value (NaN where undefined) and a code each, and Σ r and Σ r² of the blocks of time."""

    values: Floats
    codes: Bytes
    block_sums: Floats


def measure_of(
    initial_capital: float, timestamp: Integers, closed_at: int, rule: Annualisation, *, from_capital: bool
) -> Measure:
    """Return what figures depend on; `timestamp` has the opens of all bars, and `closed_at` is the last close, µs UTC.

    The capital is there at the open of the first bar, which is a bar's length before the first value of equity.
    """
    first, last = int(timestamp[0]), int(timestamp[-1])
    return Measure(
        initial_capital=initial_capital,
        from_capital=from_capital,
        first_time=first - (closed_at - last) if from_capital else first,
        years=(closed_at - first) / _YEAR_US,
        bars_per_year=rule.bars_per_year,
        risk_free=rule.risk_free_per_bar,
    )


def new_row() -> Row:
    """Return an empty row."""
    return Row(np.empty(len(METRICS)), np.empty(len(METRICS), dtype=np.uint8), np.empty((2, 16)))


@compiled(error_model="numpy")
def _put(row: Row, figure: int, code: int, value: float) -> None:
    if code == DEFINED and not math.isfinite(value):
        code = _BEYOND
    row.values[figure] = value if code == DEFINED else np.nan
    row.codes[figure] = code


@compiled(error_model="numpy")
def _compounded(growth: float, times: float) -> float:
    """Return growth^times − 1, or −1 where nothing is left to grow."""
    return math.expm1(math.log(growth) * times) if growth > 0.0 else -1.0


@compiled(error_model="numpy")
def compute_figures(
    row: Row,
    by: Measure,
    timestamp: Integers,
    market: Floats,
    equity: Floats,
    trades: Any,
    activity: Activity,
    with_market: bool,
    with_excursions: bool,
) -> None:
    """Set every figure of a row but those of the tails, which `add_tails` sets; the codes say which are not computed.

    `timestamp`, `market` and `equity` have at least one value, one per bar; `trades` are the closed ones. Without
    `with_market` there is no alpha and no beta, and without `with_excursions` no MAE and no MFE.
    """
    bars, capital, per_year = equity.size, by.initial_capital, by.bars_per_year
    final = equity[-1]
    total_return = final / capital - 1.0
    fell = drawdowns(equity, timestamp, capital if by.from_capital else equity[0], by.first_time)
    ruined = _RUINED if fell.lowest <= 0.0 else DEFINED
    no_drawdown = _NO_DRAWDOWN if fell.deepest == 0.0 else DEFINED
    nan = np.nan
    of, with_it = Moments(nan, nan, nan, nan, nan, nan, nan, nan), MarketMoments(nan, nan, nan)
    if ruined == DEFINED:
        of = moments(equity, capital, by.risk_free, row.block_sums)
        if with_market:
            with_it = market_moments(equity, market, capital)
    else:
        row.block_sums[:] = nan
    too_short = ruined or (_TWO_BARS if bars < 2 else DEFINED)
    no_spread = too_short or (_NO_SPREAD if of.deviation < _ROUNDING else DEFINED)
    no_loss = too_short or (_NO_LOSS if of.downside < _ROUNDING else DEFINED)
    no_market = ruined or (_THREE_BARS if bars < 3 else DEFINED)
    if not with_market:
        no_market = no_market or NOT_COMPUTED
    no_market = no_market or (_NO_MARKET if with_it.deviation < _ROUNDING else DEFINED)
    yearly, excess = math.sqrt(per_year), of.mean - by.risk_free

    _put(row, START_EQUITY, DEFINED, capital)
    _put(row, FINAL_EQUITY, DEFINED, final)
    _put(row, PEAK_EQUITY, DEFINED, fell.peak)
    _put(row, TOTAL_RETURN, DEFINED, total_return)
    _put(row, ANNUAL_RETURN, ruined, _compounded(final / capital, per_year / bars))
    _put(row, CAGR, ruined, _compounded(final / capital, 1.0 / by.years))
    _put(row, BUY_AND_HOLD_RETURN, DEFINED, market[-1] / market[0] - 1.0)
    unexplained = excess - with_it.beta * (with_it.mean - by.risk_free)
    _put(row, ALPHA, no_market, _compounded(1.0 + unexplained, per_year))
    _put(row, BETA, no_market, with_it.beta)
    _put(row, VOLATILITY, too_short, of.deviation * yearly)
    _put(row, SHARPE_RATIO, no_spread, excess / of.deviation * yearly)
    _put(row, SORTINO_RATIO, no_loss, excess / of.downside * yearly)
    no_annual = row.codes[ANNUAL_RETURN] or no_drawdown
    _put(row, CALMAR_RATIO, no_annual, row.values[ANNUAL_RETURN] / fell.deepest)
    _put(row, OMEGA_RATIO, no_loss, of.gains / of.losses)
    _put(row, SKEW, no_spread, of.skew)
    _put(row, KURTOSIS, no_spread, of.kurtosis)
    _put(row, VALUE_AT_RISK_95, too_short or NOT_COMPUTED, nan)
    _put(row, CONDITIONAL_VALUE_AT_RISK_95, too_short or NOT_COMPUTED, nan)
    _put(row, TAIL_RATIO, too_short or NOT_COMPUTED, nan)
    _put(row, MAX_DRAWDOWN, DEFINED, fell.deepest)
    _put(row, AVERAGE_DRAWDOWN, no_drawdown, fell.mean_depth)
    _put(row, MAX_DRAWDOWN_DURATION_MS, DEFINED, float(fell.longest_us // 1000))
    _put(row, AVERAGE_DRAWDOWN_DURATION_MS, no_drawdown, np.rint(fell.mean_us / 1000.0))
    _put(row, RECOVERY_FACTOR, no_drawdown, total_return / fell.deepest)
    _put(row, ULCER_INDEX, ruined, fell.ulcer)
    _put(row, EXPOSURE, DEFINED, activity.bars_exposed / bars)
    _put(row, TURNOVER, ruined, activity.traded_value / of.mean_equity)
    _put(row, TOTAL_FEES, DEFINED, activity.fees)
    _put(row, TOTAL_SLIPPAGE, DEFINED, activity.slippage)
    _put(row, TOTAL_TRADES, DEFINED, float(trades.size + activity.open_positions))
    _put(row, OPEN_TRADES, DEFINED, float(activity.open_positions))
    _compute_trade_figures(row, trades, with_excursions)


@compiled(error_model="numpy")
def _compute_trade_figures(row: Row, trades: Any, with_excursions: bool) -> None:
    count, winners, losers = trades.size, 0, 0
    won = lost = total = returned = largest = adverse = favourable = 0.0
    best, worst = -np.inf, np.inf
    lasted_in_all = longest = 0
    for at in range(count):
        trade = trades[at]
        pnl, own = trade.pnl, trade["return"]
        total += pnl
        returned += own
        if pnl > 0.0:
            winners += 1
            won += pnl
        elif pnl < 0.0:
            losers += 1
            lost += pnl
        largest, best, worst = max(largest, abs(pnl)), max(best, own), min(worst, own)
        lasted = trade.exit_time - trade.entry_time
        lasted_in_all += lasted
        longest = max(longest, lasted)
        if with_excursions:
            adverse += trade.mae
            favourable += trade.mfe
    mean = total / count
    squares = 0.0
    for at in range(count):
        apart = trades[at].pnl - mean
        squares += apart * apart
    spread = math.sqrt(squares / (count - 1)) if count > 1 else 0.0
    no_trade = _NO_TRADE if count == 0 else DEFINED
    no_loser = no_trade or (_NO_LOSER if losers == 0 else DEFINED)
    no_payoff = no_loser or (_NO_WINNER if winners == 0 else DEFINED)
    no_spread = _ALL_THE_SAME if spread <= _ROUNDING * largest else DEFINED
    no_quality = no_trade or (_TWO_TRADES if count < 2 else no_spread)
    no_excursion = no_trade or (DEFINED if with_excursions else NOT_COMPUTED)
    win_rate = winners / max(count, 1)
    payoff = -(won / winners) / (lost / losers)

    _put(row, WIN_RATE, no_trade, win_rate)
    _put(row, BEST_TRADE, no_trade, best)
    _put(row, WORST_TRADE, no_trade, worst)
    _put(row, AVERAGE_TRADE, no_trade, returned / count)
    _put(row, PROFIT_FACTOR, no_loser, -won / lost)
    _put(row, PAYOFF_RATIO, no_payoff, payoff)
    _put(row, EXPECTANCY, no_trade, mean)
    _put(row, SQN, no_quality, math.sqrt(count) * mean / spread)
    _put(row, KELLY, no_payoff, win_rate - (1.0 - win_rate) / payoff)
    _put(row, AVERAGE_TRADE_DURATION_MS, no_trade, np.rint(lasted_in_all / count / 1000.0))
    _put(row, MAX_TRADE_DURATION_MS, no_trade, np.rint(longest / 1000.0))
    _put(row, AVERAGE_MAE, no_excursion, adverse / count)
    _put(row, AVERAGE_MFE, no_excursion, favourable / count)


def add_tails(row: Row, equity: Floats, initial_capital: float) -> None:
    """Set the figures of the tails of the returns, where a row has any: they need all returns at once."""
    if row.codes[VALUE_AT_RISK_95] != NOT_COMPUTED:
        return
    tail = tails(equity, initial_capital)
    _put(row, VALUE_AT_RISK_95, DEFINED, tail.low)
    _put(row, CONDITIONAL_VALUE_AT_RISK_95, DEFINED, tail.low_mean)
    no_tail = _NO_TAIL if abs(tail.low) < _ROUNDING else DEFINED
    _put(row, TAIL_RATIO, no_tail, abs(tail.high) / abs(tail.low) if no_tail == DEFINED else math.nan)
