"""Buy on the first bar and never sell: the measure for every other algorithm."""

from __future__ import annotations

import numpy as np

from backtestr_engine.authoring import Bars, Signals, algorithm


@algorithm("buy_and_hold", warmup=0)
def buy_and_hold(bars: Bars) -> Signals:
    """Long from the first bar to the last."""
    entries = np.zeros(len(bars), dtype=np.bool_)
    entries[:1] = True
    return Signals.of(entries=entries)
