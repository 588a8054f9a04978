"""Monte Carlo analysis by resampling: the results that the same trades or returns could also have had.

Trades in another order keep the final equity and change the drawdowns on the way. Blocks of returns, drawn with
replacement, change both, and so show how much of a result was luck. The random numbers come from a numpy generator,
given as an argument: the same state gives the same result.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from backtestr_engine.compiled import compiled
from backtestr_engine.data.arrays import Floats, Integers
from backtestr_engine.metrics.annualisation import Annualisation


class Interval(msgspec.Struct, frozen=True):
    """The central part of a distribution: `low` and `high` are the quantiles (1 ∓ confidence) / 2."""

    low: float
    median: float
    high: float


class Outcomes(msgspec.Struct, frozen=True):
    """The figures of all resamples, one value per resample.

    The total return and the maximum drawdown are fractions, and the Sharpe ratio is per year (NaN where returns do not
    vary; absent for trades).
    """

    total_return: Floats
    max_drawdown: Floats
    sharpe_ratio: Floats | None

    def intervals(self, confidence: float = 0.95) -> dict[str, Interval]:
        """Return the interval of each figure by its name in camelCase.

        Resamples without a Sharpe ratio are not in its interval, which is absent if none has one. Raises `ValueError`
        unless 0 < confidence < 1.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence is a fraction between 0 and 1, not {confidence!r}")
        tail = (1 - confidence) / 2
        named = {"totalReturn": self.total_return, "maxDrawdown": self.max_drawdown, "sharpeRatio": self.sharpe_ratio}
        return {
            name: Interval(*(float(value) for value in np.quantile(known, [tail, 0.5, 1 - tail])))
            for name, values in named.items()
            if values is not None and len(known := values[~np.isnan(values)])
        }


def shuffle_trades(returns: Floats, runs: int, generator: np.random.Generator) -> Outcomes:
    """Return `runs` resamples of the same trades in a random order, each at its own return on the whole account.

    `returns` has the return of each trade on the equity at its entry, a fraction. The total return is the same in every
    resample, to rounding; a trade that loses all of the account or more leaves nothing.
    """
    _check(returns, runs)
    order = np.arange(len(returns), dtype=np.int64)
    outcomes = np.empty((runs, 2))
    for run in range(runs):
        generator.shuffle(order)
        outcomes[run] = _follow(returns, order)
    return Outcomes(outcomes[:, 0].copy(), outcomes[:, 1].copy(), None)


def bootstrap_returns(
    returns: Floats, block: int, runs: int, rule: Annualisation, generator: np.random.Generator
) -> Outcomes:
    """Return `runs` resamples of as many returns, drawn in blocks of `block` neighbours with replacement.

    The last return is followed by the first (circular block bootstrap, Politis & Romano 1992). Blocks keep the
    dependence of neighbouring returns: the usual length of a position is a good length, and 1 is the plain bootstrap.
    `returns` are fractions per bar.
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
        starts = generator.integers(0, count, size=blocks)
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


@compiled()
def _follow(returns: Floats, rows: Integers) -> tuple[float, float]:
    """Return total return and maximum drawdown of an account with `returns[rows]`, from its start on."""
    equity = peak = 1.0
    deepest = 0.0
    for row in rows:
        equity = max(equity * (1.0 + returns[row]), 0.0)
        peak = max(peak, equity)
        deepest = max(deepest, 1.0 - equity / peak)
    return equity - 1.0, deepest
