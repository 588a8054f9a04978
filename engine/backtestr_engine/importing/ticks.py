"""Ticks: quotes and trades, what is wrong with them, and the bars that they make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtestr_engine.data.arrays import Floats, Integers
from backtestr_engine.data.bars import Bars, Problem
from backtestr_engine.data.timeframes import open_times
from backtestr_protocol.messages import QuotePrice, Timeframe


@dataclass(frozen=True, slots=True, eq=False)
class Quotes:
    """`timestamp` (int64 microseconds UTC, never going back; several quotes may share one), `bid ask` float64."""

    timestamp: Integers
    bid: Floats
    ask: Floats

    def price(self, which: QuotePrice) -> Floats:
        return (self.bid + self.ask) / 2 if which == "mid" else self.bid if which == "bid" else self.ask


@dataclass(frozen=True, slots=True, eq=False)
class Trades:
    """`timestamp` as of quotes, `price` and `size` float64; `size` is None where the source has none."""

    timestamp: Integers
    price: Floats
    size: Floats | None


def quote_problems(quotes: Quotes) -> list[Problem]:
    """What makes rows no quotes, but for their order. A bid equal to the ask is none of it, one above it is."""
    problems, both_finite = [], np.ones(len(quotes.timestamp), dtype=np.bool_)
    for name, prices in (("bid", quotes.bid), ("ask", quotes.ask)):
        finite = np.isfinite(prices)
        both_finite &= finite
        problems.append(Problem(name, f"{name} is not a finite number", ~finite))
        problems.append(Problem(name, f"{name} is zero or negative", finite & (prices <= 0)))
    problems.append(Problem("ask", "ask is below bid", both_finite & (quotes.ask < quotes.bid)))
    return problems


def trade_problems(trades: Trades) -> list[Problem]:
    """What makes rows no trades, but for their order."""
    finite = np.isfinite(trades.price)
    problems = [
        Problem("price", "price is not a finite number", ~finite),
        Problem("price", "price is zero or negative", finite & (trades.price <= 0)),
    ]
    if trades.size is not None:
        sound = np.isfinite(trades.size) & (trades.size >= 0)
        problems.append(Problem("size", "size is negative or not a finite number", ~sound))
    return problems


def bars_of(symbol: str, timeframe: Timeframe, timestamp: Integers, price: Floats, size: Floats | None) -> Bars:
    """A bar for every stretch of `timeframe` that has a tick: first, highest, lowest and last price, and as volume the
    summed size, or the number of ticks where there is no size. Bars open on the timeframe's edges in UTC."""
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
