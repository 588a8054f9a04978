"""SYNTH: a random walk, so that a new installation has data."""

from __future__ import annotations

import numpy as np

from backtestr_protocol.messages import SeriesInfo, Timeframe

from .bars import Bars
from .catalog import Catalog
from .timeframes import DAY_US, consecutive_open_times, length_us

SYMBOL = "SYNTH"
SEED = 20_240_101
START_US = 1_704_067_200_000_000
"""2024-01-01, a Monday."""

_STEPS_PER_BAR = 4
_YEARLY_VOLATILITY = 0.5
_YEAR_US = 365 * DAY_US


def synthetic_bars(timeframe: Timeframe, count: int, *, symbol: str = SYMBOL, seed: int = SEED) -> Bars:
    """Return `count` bars of a geometric random walk from 100, without drift, at 50 % yearly volatility.

    Every bar is four steps of the walk, so its high and low are prices of the walk; there are no gaps between bars. The
    same arguments give the same bars on every machine (numpy's PCG64).
    """
    generator = np.random.Generator(np.random.PCG64([seed, length_us(timeframe)]))
    scale = _YEARLY_VOLATILITY * np.sqrt(length_us(timeframe) / _YEAR_US / _STEPS_PER_BAR)
    steps = generator.normal(-scale * scale / 2, scale, size=(count, _STEPS_PER_BAR))
    paths = 100.0 * np.exp(np.cumsum(steps).reshape(steps.shape))
    opened = np.concatenate(([100.0], paths[:-1, -1]))
    return Bars(
        symbol=symbol,
        timeframe=timeframe,
        timestamp=consecutive_open_times(START_US, count, timeframe),
        open=opened,
        high=np.maximum(opened, paths.max(axis=1)),
        low=np.minimum(opened, paths.min(axis=1)),
        close=paths[:, -1],
        volume=np.round(generator.gamma(2.0, 500.0, size=count), 3),
    )


def write_synthetic(catalog: Catalog) -> list[SeriesInfo]:
    """Store SYNTH: 20,000 bars of 1m (two weeks) and 1,000 of 1d, each a walk of its own."""
    return [catalog.write(synthetic_bars("1m", 20_000)), catalog.write(synthetic_bars("1d", 1_000))]
