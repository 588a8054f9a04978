"""What a file with algorithms imports: everything there is for it, in one place. See docs/algorithms.md."""

from __future__ import annotations

from .algorithm import algorithm, portfolio
from .bars import Bars
from .crossings import falls_below, rises_above
from .higher import Higher
from .indicators import bbands, ema, highest, indicator, lowest, macd, rsi, sma
from .panel import Panel
from .parameters import Bool, Float, Int
from .signals import Signals

__all__ = [
    "Bars",
    "Bool",
    "Float",
    "Higher",
    "Int",
    "Panel",
    "Signals",
    "algorithm",
    "bbands",
    "ema",
    "falls_below",
    "highest",
    "indicator",
    "lowest",
    "macd",
    "portfolio",
    "rises_above",
    "rsi",
    "sma",
]
