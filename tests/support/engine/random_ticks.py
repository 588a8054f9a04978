"""Random ticks, many of which share their time."""

from __future__ import annotations

import numpy as np

from backtestr_engine.data.ticks import Ticks

START = 1_577_836_800_000_000


def random_quotes(
    count: int, seed: int = 1, *, symbol: str = "X", step_us: int = 20_000_000, start: int = START
) -> Ticks:
    """Return quotes of which every second or so has the time of the one before; the bid numbers them."""
    chance = np.random.default_rng(seed)
    steps = chance.integers(0, 2, count) * chance.integers(0, step_us, count)
    bid = 1.0 + np.arange(count) / 1024
    return Ticks(symbol, start + np.cumsum(steps), bid, bid + chance.random(count))


def random_trades(count: int, seed: int = 1, *, symbol: str = "X") -> Ticks:
    chance = np.random.default_rng(seed)
    steps = chance.integers(0, 2, count) * chance.integers(0, 20_000_000, count)
    return Ticks(symbol, START + np.cumsum(steps), last=1.0 + np.arange(count) / 1024, volume=chance.random(count))
