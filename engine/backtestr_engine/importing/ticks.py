"""Ticks, quotes and trades, and the bars made of them."""

from __future__ import annotations

import numpy as np

from backtestr_engine.data.arrays import Floats, Integers
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.timeframes import open_times
from backtestr_protocol.messages import QuotePrice, Timeframe


def quote_price(bid: Floats, ask: Floats, side: QuotePrice) -> Floats:
    """Return one price for each quote: the bid, the ask, or the middle of both."""
    return (bid + ask) / 2 if side == "mid" else bid if side == "bid" else ask


def bars_of(symbol: str, timeframe: Timeframe, timestamp: Integers, price: Floats, size: Floats | None) -> Bars:
    """Return a bar for every stretch of `timeframe` that has a tick: first, highest, lowest and last price.

    The volume is the summed size, or the number of ticks where there is no size. Bars open on the timeframe's edges in
    UTC. `timestamp` (int64 microseconds UTC) never goes back; several ticks may share one.
    """
    opened = open_times(timestamp, timeframe)
    first = np.flatnonzero(np.diff(opened, prepend=opened[:1] - 1))
    last = np.append(first[1:], len(timestamp)) - 1
    volume = (last - first + 1).astype(np.float64) if size is None else np.add.reduceat(size, first)
    return Bars(
        symbol,
        timeframe,
        opened[first],
        price[first],
        np.maximum.reduceat(price, first),
        np.minimum.reduceat(price, first),
        price[last],
        volume,
    )
