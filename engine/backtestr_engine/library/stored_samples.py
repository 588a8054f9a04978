"""Parts of stored series for the look-ahead check: real bars have gaps, ties and sessions that made ones have not.

A registration is checked in a process of its own, so the bars travel there, as bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from backtestr_engine.data.bars import COLUMNS, Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.panel import Panel
from backtestr_protocol.errors import DataError
from backtestr_protocol.messages import TICK, SeriesInfo, Timeframe

from .samples import SHORT_BARS, SHORT_CUTS, Sample

MAX_SERIES = 4
"""The most series that a registration is checked on: milliseconds for each, and much longer for Python loops."""

_GAPS = 4
"""The part of a series is looked for within so many times the time that it would take without gaps."""


class SeriesPart(msgspec.Struct, frozen=True):
    """Bars of one series as bytes, a column each."""

    symbol: str
    timeframe: Timeframe
    columns: list[bytes]

    @classmethod
    def of(cls, bars: Bars) -> SeriesPart:
        return cls(bars.symbol, bars.timeframe, [getattr(bars, name).tobytes() for name in COLUMNS])

    def bars(self) -> Bars:
        times, *prices = self.columns
        return Bars(
            self.symbol, self.timeframe, np.frombuffer(times, np.int64), *(np.frombuffer(one) for one in prices)
        )


def series_parts(catalog: Catalog) -> list[SeriesPart]:
    """Return parts from the middle of up to `MAX_SERIES` stored series; one that cannot be read is left out.

    The longest series of each timeframe come first, and then the longest others.
    """
    longest = sorted((one for one in catalog.series() if one.timeframe != TICK), key=lambda one: -one.bars)
    first = {one.timeframe: one for one in reversed(longest)}
    chosen = sorted(longest, key=lambda one: first[one.timeframe] is not one)[:MAX_SERIES]  # a stable sort
    parts = (_middle(catalog, one) for one in chosen)
    return [SeriesPart.of(bars) for bars in parts if bars is not None and len(bars) >= 2]


def stored_samples(series: Sequence[Bars], *, across: bool) -> list[Sample]:
    """Return these parts of series as samples; for `across`, those of each timeframe as one panel."""
    if not across:
        return [Sample(f"{bars.symbol} {bars.timeframe}", bars, SHORT_CUTS) for bars in series]
    panels: dict[Timeframe, list[Bars]] = {}
    for bars in series:
        panels.setdefault(bars.timeframe, []).append(bars)
    return [
        Sample(f"{', '.join(bars.symbol for bars in group)} {timeframe}", Panel.of(group), SHORT_CUTS)
        for timeframe, group in panels.items()
    ]


def _middle(catalog: Catalog, one: SeriesInfo) -> Bars | None:
    middle_us = (one.start_time + one.end_time) // 2 * 1000
    spacing_us = max(1, one.end_time - one.start_time) * 1000 // max(1, one.bars - 1)
    reach_us = _GAPS * SHORT_BARS * spacing_us
    try:
        if one.bars <= SHORT_BARS:
            return catalog.load(one.symbol, one.timeframe)
        return catalog.load(one.symbol, one.timeframe, middle_us, middle_us + reach_us)[:SHORT_BARS]
    except DataError:
        return None
