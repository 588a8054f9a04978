"""Gaps of a series: the stretches of time without bars between its first and its last."""

from __future__ import annotations

import numpy as np

from backtestr_protocol.messages import SeriesGap

from .bars import Bars
from .timeframes import bars_between, close_times

LONGEST_GAPS = 10
"""Number of gaps that are listed: the rest are only counted."""


def gaps_of(bars: Bars) -> tuple[int, int, list[SeriesGap]]:
    """Return the number of gaps, the number of bars that are missing in them, and the longest, the longest first."""
    ends, opens = close_times(bars.timestamp[:-1], bars.timeframe), bars.timestamp[1:]
    lengths, missing = opens - ends, bars_between(ends, opens, bars.timeframe)
    gaps = np.flatnonzero(lengths > 0)
    longest = gaps[np.argsort(-lengths[gaps], kind="stable")[:LONGEST_GAPS]]
    listed = [
        SeriesGap(
            start_time=int(ends[row]) // 1000,
            end_time=int(opens[row]) // 1000,
            missing_bars=int(missing[row]),
        )
        for row in longest
    ]
    return len(gaps), int(missing[gaps].sum()), listed
