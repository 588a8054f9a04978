"""The built-in algorithms, and finding one by its name or id."""

from __future__ import annotations

from collections.abc import Mapping

from backtestr_engine.algorithm import Algorithm
from backtestr_protocol.errors import unknown
from backtestr_protocol.messages import AlgorithmInfo

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


def algorithm_infos(algorithms: Mapping[str, Algorithm] = BUILT_IN) -> list[AlgorithmInfo]:
    """What `ListAlgorithms` answers, sorted by name."""
    return [algorithms[name].info for name in sorted(algorithms)]


def find_algorithm(name_or_id: str, algorithms: Mapping[str, Algorithm] = BUILT_IN) -> Algorithm:
    """The one of `algorithms` (by name) that has that name or id, or `NotFound` naming the near miss."""
    for one in algorithms.values():
        if name_or_id in (one.name, one.algorithm_id):
            return one
    raise unknown("algorithm", name_or_id, algorithms)
