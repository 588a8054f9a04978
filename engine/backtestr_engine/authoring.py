"""All names that a file with algorithms needs, in one module. See docs/algorithms.md."""

from __future__ import annotations

from backtestr_engine.algorithms.algorithm import algorithm, portfolio
from backtestr_engine.algorithms.parameters import Bool, Float, Int
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.data.bars import Bars, Higher
from backtestr_engine.data.panel import Panel

from .indicators import bbands, ema, falls_below, highest, indicator, lowest, macd, rises_above, rsi, sma

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
