"""Returns per bar: their moments, their sums in blocks of time, their tails, and their covariance with the market.

With e₀ the initial capital and e₁ … eₙ the equity at the close of every bar, rᵢ = eᵢ / eᵢ₋₁ − 1. The market's return
mᵢ = cᵢ / cᵢ₋₁ − 1 is that of the closes, and m₁ = 0: it is bought at the first close. No array of returns is made: one
pass computes all sums, which the compiler may add in any order (to the last bits; the same on one machine), one those
with the market, and one finds the tails.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtestr_engine.bit_masks import put_bars
from backtestr_engine.compiled import compiled
from backtestr_engine.data.arrays import Floats, Integers
from backtestr_engine.vectors import BARS_PER_MASK, fallen, risen

BLOCKS = 16
"""The blocks of time that returns are summed up in: block b has the bars from b · n // 16 up to (b + 1) · n // 16."""

TAIL = 0.05
"""The share of the returns in a tail, for value at risk and tail ratio."""

_SAMPLE = 4096
_SAMPLED_TAIL = 0.08
"""A sample's 8 % quantile lies above the 5 % quantile of the whole by nine standard errors of a sample of 4,096. Where
the sample misleads, as returns are not mixed evenly, the tail is searched in all of them."""


class Moments(NamedTuple):
    """The moments of the returns r.

    `mean`, `deviation` (n − 1 degrees of freedom), `skew` m₃ / m₂^1.5 and excess `kurtosis` m₄ / m₂² − 3 of the central
    moments mₖ (each 1/n); NaN or infinite where the moments do not allow one. With f the risk-free rate per bar,
    `downside` is √mean(min(r − f, 0)²), and `gains` and `losses` are Σ max(±(r − f), 0). `mean_equity` is the mean of
    e.
    """

    mean: float
    deviation: float
    skew: float
    kurtosis: float
    downside: float
    gains: float
    losses: float
    mean_equity: float


class MarketMoments(NamedTuple):
    """The mean and deviation (1/n) of the market's returns m, and `beta`, cov(r, m) / var(m)."""

    beta: float
    mean: float
    deviation: float


class Tails(NamedTuple):
    """The 5 % and 95 % quantiles of r, interpolated linearly, and the mean of the ⌊0.05 · (n − 1)⌋ + 1 lowest."""

    low: float
    high: float
    low_mean: float


@compiled(error_model="numpy", fastmath={"reassoc", "contract"})
def moments(equity: Floats, initial_capital: float, risk_free: float, block_sums: Floats) -> Moments:
    """Compute every sum over returns in one pass; `equity` is above zero on every bar.

    The powers are those of r − g, with g the rate at which the account compounds: g is next to the mean, so nothing
    cancels. `block_sums`, of shape (2, 16), is set to Σ r and Σ r² of each block of time.
    """
    bars = equity.size
    shift = _compound_rate(equity[-1] / initial_capital, bars)
    s1 = s2 = s3 = s4 = gains = losses = squares_below = 0.0
    total_equity = 0.0
    for block in range(BLOCKS):
        first, end = block * bars // BLOCKS, (block + 1) * bars // BLOCKS
        of_block = squares = 0.0
        if first == 0 and end > 0:
            x = equity[0] / initial_capital - 1.0 - shift
            of_block, squares = x, x * x
            s3 += x * x * x
            s4 += squares * squares
            excess = x + shift - risk_free
            gains += excess if excess > 0.0 else 0.0
            loss = -excess if excess < 0.0 else 0.0
            losses += loss
            squares_below += loss * loss
            total_equity += equity[0]
            first = 1
        if end > first:
            now, before = equity[first:end], equity[first - 1 : end - 1]
            for at in range(now.size):
                r = now[at] / before[at] - 1.0
                x = r - shift
                square = x * x
                of_block += x
                squares += square
                s3 += square * x
                s4 += square * square
                excess = r - risk_free
                gains += excess if excess > 0.0 else 0.0
                loss = -excess if excess < 0.0 else 0.0
                losses += loss
                squares_below += loss * loss
                total_equity += now[at]
        s1 += of_block
        s2 += squares
        length = end - block * bars // BLOCKS
        block_sums[0, block] = of_block + length * shift
        block_sums[1, block] = squares + shift * (2.0 * of_block + length * shift)
    d, a2, a3, a4 = s1 / bars, s2 / bars, s3 / bars, s4 / bars
    m2 = max(a2 - d * d, 0.0)
    m3 = a3 - 3.0 * d * a2 + 2.0 * d * d * d
    m4 = a4 - 4.0 * d * a3 + 6.0 * d * d * a2 - 3.0 * d * d * d * d
    return Moments(
        shift + d,
        math.sqrt(m2 * bars / max(bars - 1, 1)),
        m3 / m2**1.5,
        m4 / (m2 * m2) - 3.0,
        math.sqrt(squares_below / bars),
        gains,
        losses,
        total_equity / bars,
    )


@compiled(error_model="numpy", fastmath={"reassoc", "contract"})
def market_moments(equity: Floats, close: Floats, initial_capital: float) -> MarketMoments:
    """Compute the sums over the market's returns, and those of both; `equity` is above zero on every bar."""
    bars = equity.size
    shift = _compound_rate(equity[-1] / initial_capital, bars)
    market_shift = _compound_rate(close[-1] / close[0], bars)
    x, y = equity[0] / initial_capital - 1.0 - shift, -market_shift
    s1, y1, y2, xy = x, y, y * y, x * y
    for bar in range(1, bars):
        x = equity[bar] / equity[bar - 1] - 1.0 - shift
        y = close[bar] / close[bar - 1] - 1.0 - market_shift
        s1 += x
        y1 += y
        y2 += y * y
        xy += x * y
    market = y1 / bars
    variance = max(y2 / bars - market * market, 0.0)
    return MarketMoments((xy / bars - s1 / bars * market) / variance, market_shift + market, math.sqrt(variance))


@compiled()
def _compound_rate(growth: float, bars: int) -> float:
    return math.expm1(math.log(growth) / bars)


def tails(equity: Floats, initial_capital: float) -> Tails:
    """Return both tails exactly; `equity` has at least two bars and is above zero on every one.

    Only returns that a sample puts near a tail are partitioned: on a million bars two to four times as fast as a
    partition of all (22 ms and 42 to 82 ms; medians of 31 interleaved rounds on a busy machine).
    """
    bars = len(equity)
    wanted = int((bars - 1) * TAIL) + 2
    sampled = min(bars - 1, _SAMPLE)
    rows = np.arange(sampled) * (bars - 1) // sampled + 1
    sample = np.sort(equity[rows] / equity[rows - 1] - 1.0)
    at = int(sampled * _SAMPLED_TAIL)
    below, above = float(sample[at]), float(sample[-1 - at])
    low_rows, high_rows = _beyond(equity, initial_capital, below, above)
    low = _returns_at(equity, initial_capital, low_rows)
    negated_high = -_returns_at(equity, initial_capital, high_rows)
    # An account without positions has many returns of zero, which are all equal: as many as can matter are enough.
    if below == 0.0 or above == 0.0:
        still = int(np.count_nonzero(equity[1:] == equity[:-1])) + int(equity[0] == initial_capital)
        zeros = np.zeros(min(still, wanted))
        low = np.append(low, zeros) if below == 0.0 else low
        negated_high = np.append(negated_high, zeros) if above == 0.0 else negated_high
    if min(np.count_nonzero(low <= below), np.count_nonzero(negated_high <= -above)) < wanted:
        low = _returns_at(equity, initial_capital, np.arange(bars, dtype=np.int64))
        negated_high = -low
    return _tails_of(low, negated_high, bars)


def _tails_of(low: Floats, negated_high: Floats, bars: int) -> Tails:
    """Return the tails of `bars` returns, of which `low` and `negated_high` hold at least the outermost."""
    position = (bars - 1) * TAIL
    index = int(position)
    ordered_low, ordered_high = (np.partition(values, (index, index + 1)) for values in (low, negated_high))
    share = position - index
    low_quantile, high_quantile = (
        float(ordered[index] + (ordered[index + 1] - ordered[index]) * share) for ordered in (ordered_low, ordered_high)
    )
    return Tails(low_quantile, -high_quantile, float(ordered_low[: index + 1].mean()))


@compiled()
def _beyond(equity: Floats, initial_capital: float, below: float, above: float) -> tuple[Integers, Integers]:
    """Return the rows with a return at or below `below`, and those with one at or above `above`.

    There may be a few more rows within rounding of the bounds: products are compared, as one costs a fifth of a
    division. Where a bound is zero, returns of zero are left out.
    """
    low, high = np.empty(equity.size, dtype=np.int64), np.empty(equity.size, dtype=np.int64)
    lows = highs = 0
    rounding = 1e-14
    below_factor = 1.0 + below + rounding if below != 0.0 else 1.0
    above_factor = 1.0 + above - rounding if above != 0.0 else 1.0
    bar = 0
    while bar < equity.size:
        if 0 < bar <= equity.size - BARS_PER_MASK:
            lows = put_bars(fallen(equity, bar, below_factor), bar, low, lows)
            highs = put_bars(risen(equity, bar, above_factor), bar, high, highs)
            bar += BARS_PER_MASK
        else:
            now, before = equity[bar], equity[bar - 1] if bar > 0 else initial_capital
            low[lows] = bar  # without a branch: it is overwritten unless the count grows
            lows += now < before * below_factor
            high[highs] = bar
            highs += now > before * above_factor
            bar += 1
    return low[:lows].copy(), high[:highs].copy()


@compiled()
def _returns_at(equity: Floats, initial_capital: float, rows: Integers) -> Floats:
    returns = np.empty(rows.size, dtype=np.float64)
    for index in range(rows.size):
        row = rows[index]
        returns[index] = equity[row] / (equity[row - 1] if row else initial_capital) - 1.0
    return returns
