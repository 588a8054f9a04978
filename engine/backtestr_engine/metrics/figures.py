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

BEYOND_RANGE = "beyond the range of a number"

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
    BEYOND_RANGE,
    "not computed",
    "it needs at least two days",
    "it needs at least three days",
    "no day lost",
)
"""The texts that a code indexes; 0 is the code of a figure that has a value. The last are those of daily statistics."""

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
    values, codes = row.values, row.codes

    values[START_EQUITY], codes[START_EQUITY] = capital, DEFINED
    values[FINAL_EQUITY], codes[FINAL_EQUITY] = final, DEFINED
    values[PEAK_EQUITY], codes[PEAK_EQUITY] = fell.peak, DEFINED
    values[TOTAL_RETURN], codes[TOTAL_RETURN] = total_return, DEFINED
    values[ANNUAL_RETURN], codes[ANNUAL_RETURN] = _compounded(final / capital, per_year / bars), ruined
    values[CAGR], codes[CAGR] = _compounded(final / capital, 1.0 / by.years), ruined
    values[BUY_AND_HOLD_RETURN], codes[BUY_AND_HOLD_RETURN] = market[-1] / market[0] - 1.0, DEFINED
    unexplained = excess - with_it.beta * (with_it.mean - by.risk_free)
    values[ALPHA], codes[ALPHA] = _compounded(1.0 + unexplained, per_year), no_market
    values[BETA], codes[BETA] = with_it.beta, no_market
    values[VOLATILITY], codes[VOLATILITY] = of.deviation * yearly, too_short
    values[SHARPE_RATIO], codes[SHARPE_RATIO] = excess / of.deviation * yearly, no_spread
    values[SORTINO_RATIO], codes[SORTINO_RATIO] = excess / of.downside * yearly, no_loss
    no_annual = ruined or (DEFINED if math.isfinite(values[ANNUAL_RETURN]) else _BEYOND) or no_drawdown
    values[CALMAR_RATIO], codes[CALMAR_RATIO] = values[ANNUAL_RETURN] / fell.deepest, no_annual
    values[OMEGA_RATIO], codes[OMEGA_RATIO] = of.gains / of.losses, no_loss
    values[SKEW], codes[SKEW] = of.skew, no_spread
    values[KURTOSIS], codes[KURTOSIS] = of.kurtosis, no_spread
    values[VALUE_AT_RISK_95], codes[VALUE_AT_RISK_95] = nan, too_short or NOT_COMPUTED
    values[CONDITIONAL_VALUE_AT_RISK_95], codes[CONDITIONAL_VALUE_AT_RISK_95] = nan, too_short or NOT_COMPUTED
    values[TAIL_RATIO], codes[TAIL_RATIO] = nan, too_short or NOT_COMPUTED
    values[MAX_DRAWDOWN], codes[MAX_DRAWDOWN] = fell.deepest, DEFINED
    values[AVERAGE_DRAWDOWN], codes[AVERAGE_DRAWDOWN] = fell.mean_depth, no_drawdown
    values[MAX_DRAWDOWN_DURATION_MS], codes[MAX_DRAWDOWN_DURATION_MS] = float(fell.longest_us // 1000), DEFINED
    values[AVERAGE_DRAWDOWN_DURATION_MS], codes[AVERAGE_DRAWDOWN_DURATION_MS] = (
        np.rint(fell.mean_us / 1000.0),
        no_drawdown,
    )
    values[RECOVERY_FACTOR], codes[RECOVERY_FACTOR] = total_return / fell.deepest, no_drawdown
    values[ULCER_INDEX], codes[ULCER_INDEX] = fell.ulcer, ruined
    values[EXPOSURE], codes[EXPOSURE] = activity.bars_exposed / bars, DEFINED
    values[TURNOVER], codes[TURNOVER] = activity.traded_value / of.mean_equity, ruined
    values[TOTAL_FEES], codes[TOTAL_FEES] = activity.fees, DEFINED
    values[TOTAL_SLIPPAGE], codes[TOTAL_SLIPPAGE] = activity.slippage, DEFINED
    values[TOTAL_TRADES], codes[TOTAL_TRADES] = float(trades.size + activity.open_positions), DEFINED
    values[OPEN_TRADES], codes[OPEN_TRADES] = float(activity.open_positions), DEFINED
    _compute_trade_figures(values, codes, trades, with_excursions)
    for figure in range(values.size):
        if codes[figure] == DEFINED and not math.isfinite(values[figure]):
            codes[figure] = _BEYOND
        if codes[figure] != DEFINED:
            values[figure] = nan


@compiled(error_model="numpy")
def _compute_trade_figures(values: Floats, codes: Bytes, trades: Any, with_excursions: bool) -> None:
    count, winners, losers = trades.size, 0, 0
    won = lost = total = returned = largest = adverse = favourable = 0.0
    best, worst = -np.inf, np.inf
    lasted_in_all = longest = 0
    for at in range(count):
        trade = trades[at]
        pnl, own = trade.pnl, trade["return"]
        total += pnl
        returned += own
        winners += pnl > 0.0
        losers += pnl < 0.0
        won += max(pnl, 0.0)  # without a branch, which could not be foreseen
        lost += min(pnl, 0.0)
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

    values[WIN_RATE], codes[WIN_RATE] = win_rate, no_trade
    values[BEST_TRADE], codes[BEST_TRADE] = best, no_trade
    values[WORST_TRADE], codes[WORST_TRADE] = worst, no_trade
    values[AVERAGE_TRADE], codes[AVERAGE_TRADE] = returned / count, no_trade
    values[PROFIT_FACTOR], codes[PROFIT_FACTOR] = -won / lost, no_loser
    values[PAYOFF_RATIO], codes[PAYOFF_RATIO] = payoff, no_payoff
    values[EXPECTANCY], codes[EXPECTANCY] = mean, no_trade
    values[SQN], codes[SQN] = math.sqrt(count) * mean / spread, no_quality
    values[KELLY], codes[KELLY] = win_rate - (1.0 - win_rate) / payoff, no_payoff
    values[AVERAGE_TRADE_DURATION_MS], codes[AVERAGE_TRADE_DURATION_MS] = (
        np.rint(lasted_in_all / count / 1000.0),
        no_trade,
    )
    values[MAX_TRADE_DURATION_MS], codes[MAX_TRADE_DURATION_MS] = np.rint(longest / 1000.0), no_trade
    values[AVERAGE_MAE], codes[AVERAGE_MAE] = adverse / count, no_excursion
    values[AVERAGE_MFE], codes[AVERAGE_MFE] = favourable / count, no_excursion


def add_tails(row: Row, equity: Floats, initial_capital: float) -> None:
    """Set the figures of the tails of the returns, where a row has any: they need all returns at once."""
    if row.codes[VALUE_AT_RISK_95] != NOT_COMPUTED:
        return
    tail = tails(equity, initial_capital)
    no_tail = abs(tail.low) < _ROUNDING
    for figure, code, value in (
        (VALUE_AT_RISK_95, DEFINED, tail.low),
        (CONDITIONAL_VALUE_AT_RISK_95, DEFINED, tail.low_mean),
        (TAIL_RATIO, *((_NO_TAIL, math.nan) if no_tail else (DEFINED, abs(tail.high) / abs(tail.low)))),
    ):
        row.codes[figure] = code if code != DEFINED or math.isfinite(value) else _BEYOND
        row.values[figure] = value if row.codes[figure] == DEFINED else math.nan
