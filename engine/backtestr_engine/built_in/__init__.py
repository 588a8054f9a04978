"""The built-in algorithms by name."""

from __future__ import annotations

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_protocol.errors import unknown

from .bollinger_reversion import bollinger_reversion
from .buy_and_hold import buy_and_hold
from .donchian_breakout import donchian_breakout
from .ema_cross import ema_cross
from .macd import macd
from .rsi_reversion import rsi_reversion
from .sma_cross import sma_cross

BUILT_IN: dict[str, Algorithm] = {
    one.name: one
    for one in (bollinger_reversion, buy_and_hold, donchian_breakout, ema_cross, macd, rsi_reversion, sma_cross)
}


def find_algorithm(name_or_id: str) -> Algorithm:
    """Return the built-in algorithm of that name or id, or raise `NotFound` naming the near miss."""
    for one in BUILT_IN.values():
        if name_or_id in (one.name, one.algorithm_id):
            return one
    raise unknown("algorithm", name_or_id, BUILT_IN)
