"""The length of a bar of each timeframe, for all programs that reckon with bars."""

from __future__ import annotations

from collections.abc import Mapping

from .messages import Timeframe

MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS

LENGTH_MS: Mapping[Timeframe, int] = {
    "1m": MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": 60 * MINUTE_MS,
    "4h": 240 * MINUTE_MS,
    "1d": DAY_MS,
    "1w": 7 * DAY_MS,
}
"""Length of a bar of each timeframe, in milliseconds, finest first."""
