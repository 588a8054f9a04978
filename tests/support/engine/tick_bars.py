"""Bars made of ticks in a loop over single ticks, by the calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from backtestr_engine.data.bars import Bars
from backtestr_protocol.messages import Timeframe

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Tick = tuple[datetime, float, float]
"""Time, price and size."""


def opens_at(time: datetime, timeframe: Timeframe) -> datetime:
    """Return the open time of the bar of `timeframe`, by the calendar rather than by division."""
    midnight = time.replace(hour=0, minute=0, second=0, microsecond=0)
    if timeframe == "1w":
        return midnight - timedelta(days=time.weekday())
    if timeframe == "1d":
        return midnight
    if timeframe in ("1h", "4h"):
        return midnight.replace(hour=time.hour - time.hour % int(timeframe[0]))
    minutes = int(timeframe[:-1])
    return midnight.replace(hour=time.hour, minute=time.minute - time.minute % minutes)


def one_by_one(ticks: list[Tick], timeframe: Timeframe) -> list[tuple[int, float, float, float, float, float]]:
    """Make bars of ticks in a loop: rows of open time in microseconds, open, high, low, close and volume."""
    bars: dict[datetime, list[float]] = {}
    for time, price, size in ticks:
        bar = bars.setdefault(opens_at(time, timeframe), [price, price, price, price, 0.0])
        bar[1], bar[2], bar[3] = max(bar[1], price), min(bar[2], price), price
        bar[4] += size
    return [
        ((at - EPOCH) // timedelta(microseconds=1), open, high, low, close, volume)
        for at, (open, high, low, close, volume) in bars.items()
    ]


def rows_of(bars: Bars) -> list[tuple[Any, ...]]:
    """Return the rows of bars in the form of `one_by_one`."""
    columns = (bars.timestamp, bars.open, bars.high, bars.low, bars.close, bars.volume)
    return list(zip(*(column.tolist() for column in columns), strict=True))
