"""Bars made of ticks, which may come in parts: the bars are the same wherever one part ends and the next begins."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from backtestr_protocol.messages import QuotePrice, TickPrice, Timeframe

from .arrays import Booleans, Floats, Integers
from .bars import Bars
from .ticks import Ticks
from .timeframes import open_times
from .zones import UTC


def quote_price(bid: Floats, ask: Floats, side: QuotePrice) -> Floats:
    """Return one price for each quote: the bid, the ask, or the middle of both."""
    return (bid + ask) / 2 if side == "mid" else bid if side == "bid" else ask


def bars_of_ticks(symbol: str, timeframe: Timeframe, price: TickPrice, parts: Iterable[Ticks], zone: str = UTC) -> Bars:
    """Return a bar for every stretch of `timeframe` that has a tick with that price: first, highest, lowest, last.

    The volume is the number of quotes; of the price `last` it is the summed volume of the trades, or their number where
    ticks have no volume. Bars open on the timeframe's edges in UTC. `parts` follow each other in time and may be empty;
    a bar whose ticks lie in several of them is one bar. Bars of a day and longer hold the ticks of their dates in
    `zone`.
    """
    making = _Making(symbol, timeframe, zone)
    for ticks in parts:
        making.add(*_priced(ticks, price))
    return making.bars()


def _priced(ticks: Ticks, price: TickPrice) -> tuple[Integers, Floats, Floats | None]:
    """Return times, prices and volumes of the ticks that have that price; no volumes where ticks are counted."""
    if price != "last":
        assert ticks.bid is not None
        assert ticks.ask is not None
        return ticks.timestamp, quote_price(ticks.bid, ticks.ask, price), None
    assert ticks.last is not None
    last, volume = ticks.last, ticks.volume
    traded = np.isfinite(last)
    if not traded.all():
        volume = None if volume is None else volume[traded]
        return ticks.timestamp[traded], last[traded], None if volume is None else np.nan_to_num(volume)
    return ticks.timestamp, last, None if volume is None else np.nan_to_num(volume)


class _Making:
    """Bars as far as they are made, as one array for each column; the last bar of all may go on."""

    def __init__(self, symbol: str, timeframe: Timeframe, zone: str) -> None:
        self._symbol = symbol
        self._zone = zone
        self._timeframe = timeframe
        self._parts: list[tuple[Integers, Floats, Floats, Floats, Floats, Floats]] = []

    def add(self, timestamp: Integers, price: Floats, volume: Floats | None) -> None:
        """Add ticks, none earlier than those before; they are counted where there is no volume."""
        if not len(timestamp):
            return
        times = open_times(timestamp, self._timeframe, self._zone)
        begins = np.concatenate(([True], times[1:] != times[:-1]))
        first = np.flatnonzero(begins)
        last = np.append(first[1:], len(timestamp)) - 1
        opened, high, low = price[first], np.maximum.reduceat(price, first), np.minimum.reduceat(price, first)
        begun = self._taken_back(int(times[0]))
        if begun is not None:
            opened[0], high[0], low[0] = begun[0], max(high[0], begun[1]), min(low[0], begun[2])
        before = 0.0 if begun is None else begun[4]
        amount = _counts(first, last, before) if volume is None else _sums(begins, volume, before)
        self._parts.append((times[first], opened, high, low, price[last], amount))

    def _taken_back(self, opens_at: int) -> list[float] | None:
        """Remove the last bar if it opens at that time, and return its open, high, low, close and volume."""
        if not self._parts or int(self._parts[-1][0][-1]) != opens_at:
            return None
        times, opened, high, low, close, volume = self._parts[-1]
        self._parts[-1] = (times[:-1], opened[:-1], high[:-1], low[:-1], close[:-1], volume[:-1])
        return [float(column[-1]) for column in (opened, high, low, close, volume)]

    def bars(self) -> Bars:
        none = (np.zeros(0, np.int64), *(np.zeros(0) for _ in range(5)))
        times, *prices = map(np.concatenate, zip(none, *self._parts, strict=True))
        opened, high, low, close, volume = prices
        return Bars(self._symbol, self._timeframe, times, opened, high, low, close, volume, zone=self._zone)


def _counts(first: Integers, last: Integers, before: float) -> Floats:
    """Return the number of ticks of each bar; the first had `before` of them already."""
    counts = (last - first + 1).astype(np.float64)
    counts[0] += before
    return counts


def _sums(begins: Booleans, volume: Floats, before: float) -> Floats:
    """Return the volume of each bar; the first had `before` already.

    Volumes are added one after another, as `bincount` does: pairwise sums would depend on where a part ends.
    """
    bar = np.concatenate(([0], np.cumsum(begins) - 1))
    return np.asarray(np.bincount(bar, np.concatenate(([before], volume))), np.float64)
