"""Weights that an algorithm over a panel returns, and the targets of each symbol made of them."""

from __future__ import annotations

import numpy as np

from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.panel import Panel
from backtestr_protocol.errors import AlgorithmError

from .signals import Signals


def checked_weights(weights: object, panel: Panel, name: str) -> Floats:
    """Return `weights` as float64 of shape (rows, symbols), or raise `AlgorithmError`; `name` is the algorithm's."""
    shape = (len(panel), len(panel.series))
    if not isinstance(weights, np.ndarray) or weights.dtype.kind not in "fiu" or weights.shape != shape:
        got = f"{weights.dtype} of shape {weights.shape}" if isinstance(weights, np.ndarray) else type(weights).__name__
        raise AlgorithmError(f"{name} returned {got}, not weights: an array of floats of shape {shape} (rows, symbols)")
    if np.isinf(weights).any():
        row, column = (int(index[0]) for index in np.nonzero(np.isinf(weights)))
        raise AlgorithmError(
            f"{name}: weights must be finite fractions of equity, or NaN to leave things as they are; row {row} has "
            f"{weights[row, column]} for {panel.symbols[column]}",
            bar=row,
        )
    return np.asarray(weights, dtype=np.float64)


def targets_of(panel: Panel, weights: Floats, *, fills_at_close: bool) -> tuple[Signals, ...]:
    """Return `weights` as the targets of each symbol on its own bars.

    A weight on a row without a bar of the symbol is traded at the next price of the symbol, unless a later weight
    replaces it: with fills at the next open it belongs to the bar before the row, with fills at the close to the bar
    after. A weight before a symbol's first bar belongs to that bar.
    """
    signals = []
    for column, bars in enumerate(panel.series):
        asked = np.flatnonzero(~np.isnan(weights[:, column]))
        times = panel.timestamp[asked]
        if fills_at_close:
            bar = np.searchsorted(bars.timestamp, times, "left")
        else:
            bar = np.searchsorted(bars.timestamp, times, "right") - 1
        reached = bar < len(bars)
        target = np.full(len(bars), np.nan)
        # Of several weights for one bar, numpy keeps the last, which is the latest.
        target[np.maximum(bar[reached], 0)] = weights[asked[reached], column]
        signals.append(Signals.of(target=target))
    return tuple(signals)
