"""The compiled loops of a sweep: from lines or flags of many combinations to a row of figures for each.

A combination is simulated by the loop of a single run (`simulation/symbol_loop.py`), which writes its equity and trades
into memory that all combinations use in turn, and its figures are computed by the function of a single run
(`metrics/figures.py`). So nothing of the size of bars × combinations is made, and a row has the bits of a single run.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtestr_engine.algorithms.signals import ENTRY, EXIT, SHORT_ENTRY, SHORT_EXIT, TIED, mark_crosses
from backtestr_engine.data.arrays import Bytes, Floats, Integers, Records
from backtestr_engine.data.bars import Bars
from backtestr_engine.metrics.figures import Activity, Measure, Row, compute_figures
from backtestr_engine.metrics.returns import BLOCKS
from backtestr_engine.simulation.account import new_account
from backtestr_engine.simulation.bar_step import Prices, SignalColumns
from backtestr_engine.simulation.execution import EventBuffers
from backtestr_engine.simulation.numba_kernel import cached_kernel, inlined_kernel
from backtestr_engine.simulation.records import TRADE
from backtestr_engine.simulation.symbol_loop import busy_bars, simulate, trades_alone
from backtestr_protocol.metrics import METRICS


class FigureRows(NamedTuple):
    """Rows of figures, one per combination, as `Row` has them: values, codes, and sums of blocks of time."""

    values: Floats
    codes: Bytes
    block_sums: Floats


def new_rows(count: int) -> FigureRows:
    """Return `count` rows to be filled."""
    return FigureRows(
        np.full((count, len(METRICS)), np.nan),
        np.zeros((count, len(METRICS)), dtype=np.uint8),
        np.full((count, 2, BLOCKS), np.nan),
    )


class Scratch(NamedTuple):
    """Memory that each combination uses in turn: of the size of the bars, once per worker.

    `flags` and `busy` have room for the bars before the simulated ones too. `flags` is 0 everywhere between two
    combinations. `fresh` is the account at the start. `trades` are those of `log`.
    """

    flags: Bytes
    busy: Integers
    equity: Floats
    account: Records
    fresh: Records
    log: EventBuffers
    trades: Records


def new_scratch(bars: int, earlier: int, rules: Records, initial_capital: float) -> Scratch:
    """Return scratch memory for combinations on `bars` bars, whose signals come of up to `earlier` more."""
    log = trades_alone(bars, rules)
    return Scratch(
        np.zeros(earlier + bars, dtype=np.uint8),
        np.empty(earlier + bars, dtype=np.int64),
        np.empty(bars),
        new_account(initial_capital),
        new_account(initial_capital),
        log,
        log.trades.view(TRADE),
    )


class SweepSetting(NamedTuple):
    """All that the combinations of a sweep share.

    `levels` and `targets` are those of signals without any of their own, as in `SignalColumns`.
    """

    prices: Prices
    rules: Records
    levels: Floats
    targets: Floats
    measure: Measure
    with_market: bool


def prices_of(bars: Bars) -> Prices:
    """Return the columns of bars as kernels take them."""
    return Prices(bars.timestamp, bars.open, bars.high, bars.low, bars.close)


@inlined_kernel
def _evaluate(
    row: int,
    flags: Bytes,
    busy_count: int,
    levels: Floats,
    targets: Floats,
    setting: SweepSetting,
    rows: FigureRows,
    scratch: Scratch,
) -> None:
    """Simulate the combination of `flags`, whose bars with signals are in `scratch.busy`, and set its row."""
    scratch.account[0] = scratch.fresh[0]
    scratch.log.counts[:] = 0
    prices, equity = setting.prices, scratch.equity
    signals = SignalColumns(flags, levels, targets)
    bars = equity.size
    simulate(prices, signals, scratch.busy, busy_count, equity, setting.rules, scratch.account, scratch.log, 0, bars)
    state = scratch.account[0]
    compute_figures(
        Row(rows.values[row], rows.codes[row], rows.block_sums[row]),
        setting.measure,
        prices.timestamp,
        prices.close,
        equity,
        scratch.trades[: scratch.log.counts[2]],
        Activity(1 if state.quantity != 0.0 else 0, state.fees, state.slippage, state.traded_value, state.bars_exposed),
        setting.with_market,
        False,
    )


@cached_kernel
def evaluate_flags(
    places: Integers,
    flags: Bytes,
    levels: Floats,
    targets: Floats,
    setting: SweepSetting,
    rows: FigureRows,
    scratch: Scratch,
) -> None:
    """Set the rows at `places` to the figures of `flags`, of shape (combinations, bars)."""
    for at in range(places.size):
        count = busy_bars(flags[at], scratch.busy)
        _evaluate(places[at], flags[at], count, levels, targets, setting, rows, scratch)


@cached_kernel
def evaluate_crosses(
    places: Integers,
    pairs: Integers,
    earlier: Integers,
    lines: Floats,
    strict: bool,
    setting: SweepSetting,
    rows: FigureRows,
    scratch: Scratch,
) -> None:
    """Set the rows at `places` to the figures of crosses, as `Signals.from_cross` finds them.

    `pairs` has the places of two lines for each combination, fast and slow. `lines`, of shape (lines, bars), end with
    the last bar; the signals of the `earlier` bars before the simulated ones are dropped. A `strict` convention drops
    the crosses after a tie.
    """
    begin = lines.shape[1] - scratch.equity.size
    busy = scratch.busy
    for at in range(places.size):
        unseen = begin - earlier[at]
        found = scratch.flags[unseen:]
        crosses = mark_crosses(lines[pairs[at, 0]][unseen:], lines[pairs[at, 1]][unseen:], found, busy)
        flags = found[earlier[at] :]
        count = 0
        for index in range(crosses):
            bar = busy[index] - earlier[at]
            if bar >= 0 and not (strict and flags[bar] & TIED != 0):
                busy[count] = bar
                count += 1
            else:
                found[busy[index]] = 0
        _evaluate(places[at], flags, count, setting.levels, setting.targets, setting, rows, scratch)
        for index in range(count):
            flags[busy[index]] = 0


@cached_kernel
def flag_channels(pairs: Integers, earlier: Integers, lines: Floats, close: Floats, flags: Bytes) -> None:
    """Set the flags of breakouts from channels, as `donchian_breakout` finds them; see `evaluate_crosses`.

    `pairs` has the places of two channels for each combination, of entries and of exits. `lines`, of shape (channels,
    2, bars), has the highest high and the lowest low of each bar's channel, which ends on that bar.
    """
    begin = lines.shape[2] - close.size
    for at in range(pairs.shape[0]):
        entry, exit, own = lines[pairs[at, 0]], lines[pairs[at, 1]], flags[at]
        own[0] = 0
        for bar in range(0 if earlier[at] > 0 else 1, close.size):
            price, before = close[bar], begin + bar - 1
            own[bar] = (
                (price > entry[0, before]) * ENTRY
                | (price < exit[1, before]) * EXIT
                | (price < entry[1, before]) * SHORT_ENTRY
                | (price > exit[0, before]) * SHORT_EXIT
            )
