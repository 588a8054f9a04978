"""An evaluation is what an algorithm gives on the bars of a plan, as a table, without a simulation.

The signals come from the function that a backtest takes them from, so that both have the same.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.algorithms.shown_series import SIGNAL_COLUMNS
from backtestr_engine.algorithms.signals import EXIT, SHORT_EXIT, Signals
from backtestr_engine.algorithms.weights import targets_of
from backtestr_engine.built_in import find_algorithm
from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.bar_source import BarSource
from backtestr_engine.data.bars import Bars
from backtestr_engine.simulation.account import kernel_rules
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.simulation.symbol_loop import kept_flags
from backtestr_protocol.evaluation_messages import EvaluateAlgorithm
from backtestr_protocol.messages import BacktestConfig

from .plan import Plan, prepare

_OF_FLAGS = SIGNAL_COLUMNS[:4]
_OF_ARRAYS = SIGNAL_COLUMNS[4:]


def signals_of(plan: Plan) -> tuple[Signals, ...]:
    """Run the algorithm of a plan, and return the signals of each symbol on its own bars, without those of the warm-up.

    Raises `AlgorithmError`.
    """
    algorithm, panel, seen, parameters = plan.algorithm, plan.panel, plan.seen, plan.parameters
    if algorithm.across:
        weights = algorithm.weights(seen, parameters)[len(seen) - len(panel) :]
        return targets_of(panel, weights, fills_at_close=plan.options.conventions.fill_at == "close")
    return tuple(
        algorithm.signals(longer, parameters).from_bar(len(longer) - len(bars))
        for bars, longer in zip(panel.series, seen.series, strict=True)
    )


def prepare_evaluation(
    request: EvaluateAlgorithm,
    catalog: BarSource,
    conventions: Conventions,
    find: Callable[[str], Algorithm] = find_algorithm,
) -> Plan:
    """Check a request as that of a backtest is checked, and load its bars. Raises what `plan.prepare` raises."""
    config = BacktestConfig(
        algorithm_id=request.algorithm_id,
        symbol=request.symbol,
        symbols=request.symbols,
        start_date=request.start_date,
        end_date=request.end_date,
        initial_capital=1.0,  # nothing is traded
        timeframe=request.timeframe,
        price=request.price,
        commission=0.0,
        slippage=0.0,
        parameters=request.parameters,
        warmup=request.warmup,
    )
    return prepare(config, catalog, conventions, find)


def evaluated(plan: Plan) -> pl.DataFrame:
    """Run the algorithm of a plan, and return a row per bar: the bar, its signals, and the series that are shown.

    The columns are `timestamp open high low close volume`; then `entries exits short_entries short_exits`, or `target`;
    then those of `stop_loss take_profit trailing_stop limit_price stop_price` that the algorithm gives, NaN where it
    leaves them to an option; then the shown series. Of several symbols, `symbol` comes after `timestamp`, and their
    rows follow each other symbol by symbol, with null where only another symbol has a column. Entries are those that a
    backtest with the conventions of the plan counts. Raises `AlgorithmError`.
    """
    several = len(plan.panel.series) > 1
    frames = [
        _frame(bars, signals, plan.options.conventions, named=several)
        for bars, signals in zip(plan.panel.series, signals_of(plan), strict=True)
    ]
    return pl.concat(frames, how="diagonal") if several else frames[0]


def _frame(bars: Bars, signals: Signals, conventions: Conventions, *, named: bool) -> pl.DataFrame:
    columns: list[pl.Series] = []
    if signals.target is None:
        columns += _boolean_columns(signals, conventions)
    for name in _OF_ARRAYS:
        values: Floats | None = getattr(signals, name)
        if values is not None:
            column = pl.Series(name, values)
            columns.append(column if len(values) == len(bars) else column.new_from_index(0, len(bars)))
    columns += [pl.Series(name, values) for name, values in signals.shown.items()]
    frame = bars.to_frame()
    if named:
        frame.insert_column(1, pl.Series("symbol", [bars.symbol], dtype=pl.String).new_from_index(0, len(bars)))
    return frame.with_columns(columns)


def _boolean_columns(signals: Signals, conventions: Conventions) -> list[pl.Series]:
    """Return the columns of entries and exits that the conventions count: which crosses, and which directions."""
    rules = kernel_rules(conventions, commission=0.0, slippage=0.0)
    flags = kept_flags(signals, rules)
    counted = (rules["entry_flags"][0], EXIT, rules["short_entry_flags"][0], SHORT_EXIT)
    return [pl.Series(name, (flags & flag) != 0) for name, flag in zip(_OF_FLAGS, counted, strict=True)]
