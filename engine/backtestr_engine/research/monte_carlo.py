"""Robustness: what else the same trades, or the same returns, could have come to.

Monte Carlo by resampling. Trades in another order keep the end and change the way there: how deep it might have gone.
Blocks of returns, drawn with replacement, change both: how much of the result was luck. Chance comes in as a numpy
generator; the same state gives the same answer.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numba import njit

from backtestr_engine.data.arrays import Floats, Integers
from backtestr_engine.metrics.annualisation import Annualisation


class Interval(msgspec.Struct, frozen=True):
    """The central part of a distribution: `low` and `high` are the quantiles (1 ∓ confidence) / 2 from either end."""

    low: float
    median: float
    high: float


class Outcomes(msgspec.Struct, frozen=True):
    """What each of the resampled runs came to, one value per run: the total return and the maximum drawdown as
    fractions, and the Sharpe ratio per year (NaN where returns do not vary; for trades it is absent)."""

    total_return: Floats
    max_drawdown: Floats
    sharpe_ratio: Floats | None

    def intervals(self, confidence: float = 0.95) -> dict[str, Interval]:
        """By name in camelCase; runs without a Sharpe ratio are not in its interval, and where none has one it is
        absent. Raises `ValueError` unless 0 < confidence < 1."""
        if not 0 < confidence < 1:
            raise ValueError(f"confidence is a fraction between 0 and 1, not {confidence!r}")
        tail = (1 - confidence) / 2
        named = {"totalReturn": self.total_return, "maxDrawdown": self.max_drawdown, "sharpeRatio": self.sharpe_ratio}
        return {
            name: Interval(*(float(value) for value in np.quantile(known, [tail, 0.5, 1 - tail])))
            for name, values in named.items()
            if values is not None and len(known := values[~np.isnan(values)])
        }


def shuffle_trades(returns: Floats, runs: int, chance: np.random.Generator) -> Outcomes:
    """`runs` times the same trades in a random order, each at its own return on the whole account.

    `returns`: of each trade on the equity at its entry, a fraction. The total return is the same in every run, to
    rounding; a trade that loses all of the account or more leaves nothing.
    """
    _check(returns, runs)
    order = np.arange(len(returns), dtype=np.int64)
    outcomes = np.empty((runs, 2))
    for run in range(runs):
        chance.shuffle(order)
        outcomes[run] = _follow(returns, order)
    return Outcomes(outcomes[:, 0].copy(), outcomes[:, 1].copy(), None)


def bootstrap_returns(
    returns: Floats, block: int, runs: int, rule: Annualisation, chance: np.random.Generator
) -> Outcomes:
    """`runs` times as many returns, drawn in blocks of `block` neighbours with replacement; the last is followed by
    the first (circular block bootstrap, Politis & Romano 1992).

    Blocks keep what hangs together in neighbouring returns: as long as a position is usually held is a good length, and
    1 is the plain bootstrap. `returns`: per bar, fractions.
    """
    _check(returns, runs)
    count = len(returns)
    if not 1 <= block <= count:
        raise ValueError(f"a block is 1 to {count} returns long, not {block}")
    blocks = -(-count // block)
    within = np.arange(block, dtype=np.int64)
    outcomes = np.empty((runs, 2))
    sharpe = np.full(runs, np.nan)
    for run in range(runs):
        starts = chance.integers(0, count, size=blocks)
        rows = ((starts[:, np.newaxis] + within).ravel() % count)[:count]
        outcomes[run] = _follow(returns, rows)
        drawn = returns[rows]
        deviation = float(drawn.std(ddof=1)) if count > 1 else 0.0
        if deviation > 0:
            sharpe[run] = (float(drawn.mean()) - rule.risk_free_per_bar) / deviation * math.sqrt(rule.bars_per_year)
    return Outcomes(outcomes[:, 0].copy(), outcomes[:, 1].copy(), sharpe)


def _check(returns: Floats, runs: int) -> None:
    if runs < 1:
        raise ValueError(f"runs must be at least 1, not {runs}")
    if not len(returns) or not np.isfinite(returns).all():
        raise ValueError("returns must be at least one, and finite")


@njit(cache=True, nogil=True)
def _follow(returns: Floats, rows: Integers) -> tuple[float, float]:
    """Total return and maximum drawdown of an account that makes `returns[rows]`, from its start on."""
    equity = peak = 1.0
    deepest = 0.0
    for row in rows:
        equity = max(equity * (1.0 + returns[row]), 0.0)
        peak = max(peak, equity)
        deepest = max(deepest, 1.0 - equity / peak)
    return equity - 1.0, deepest
