"""Gaps of a series: the stretches of time without bars between its first and its last."""

from __future__ import annotations

import numpy as np

from backtestr_protocol.messages import SeriesGap

from .bars import Bars
from .timeframes import LENGTH_US

LONGEST_GAPS = 10
"""Number of gaps that are listed: the rest are only counted."""


def gaps_of(bars: Bars) -> tuple[int, int, list[SeriesGap]]:
    """Return the number of gaps, the number of bars that are missing in them, and the longest, the longest first."""
    length = LENGTH_US[bars.timeframe]
    ends, opens = bars.timestamp[:-1] + length, bars.timestamp[1:]
    lengths = opens - ends
    gaps = np.flatnonzero(lengths > 0)
    longest = gaps[np.argsort(-lengths[gaps], kind="stable")[:LONGEST_GAPS]]
    listed = [
        SeriesGap(
            start_time=int(ends[row]) // 1000,
            end_time=int(opens[row]) // 1000,
            missing_bars=int(lengths[row]) // length,
        )
        for row in longest
    ]
    return len(gaps), int((lengths[gaps] // length).sum()), listed
