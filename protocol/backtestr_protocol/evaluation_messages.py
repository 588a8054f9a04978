"""This module has the contracts of evaluations: an algorithm on stored bars, and the table of what it gives there."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from .messages import MAX_SYMBOLS, Contract, ShortText, TableRef, TickPrice
from .ranges import FreeMap, Name, NotNegative, Symbol, check_levels


class EvaluateAlgorithm(Contract, frozen=True, kw_only=True):
    """An algorithm to evaluate, without a backtest.

    The fields are those of `BacktestConfig` of the same names, and mean the same. With `mapped` the table may come as a
    table file.
    """

    algorithm_id: Name
    symbol: Symbol | None = None
    symbols: Annotated[list[Symbol], msgspec.Meta(max_length=MAX_SYMBOLS)] = []
    start_date: ShortText | None = None
    end_date: ShortText | None = None
    timeframe: ShortText
    price: TickPrice | None = None
    parameters: FreeMap = {}
    warmup: NotNegative | None = None
    mapped: bool = False

    def __post_init__(self) -> None:
        check_levels(self.parameters, "$.parameters")


class Evaluation(Contract, frozen=True, kw_only=True):
    """The table `signals`: the bars with their signals and with the series that the algorithm shows.

    `algorithm_id` has the version that was evaluated, and `parameters` all values. `warmup_bars` is the number of bars
    before the first one that the algorithm saw; of several symbols, the fewest.
    """

    algorithm_id: str
    timeframe: str
    parameters: dict[str, Any]
    tables: list[TableRef]
    warmup_bars: NotNegative = 0
