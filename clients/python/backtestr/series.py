"""The stored series, and the range of time that covers all of one."""

from __future__ import annotations

from collections.abc import Sequence

from backtestr_protocol.messages import SeriesInfo
from backtestr_protocol.timeframes import DAY_MS, LENGTH_MS

# What stands for "all there is" of a series that the broker does not have: it answers with what it has.
_EVER = (0, 50 * 365 * DAY_MS)


def covering_all(stored: Sequence[SeriesInfo], symbols: Sequence[str], timeframe: str) -> tuple[int, int]:
    """The first instant and the end (exclusive) of all bars of these series, in milliseconds since the Unix epoch."""
    ranges = [covering(stored, symbol, timeframe) for symbol in symbols]
    return min(first for first, _ in ranges), max(end for _, end in ranges)


def covering(stored: Sequence[SeriesInfo], symbol: str, timeframe: str) -> tuple[int, int]:
    """The first instant and the end (exclusive) of all bars of a series, in milliseconds since the Unix epoch.

    A series that is not stored in this timeframe is resampled from a finer one, and its first bar may open before the
    first of those: the range begins with that day, or a week earlier.
    """
    of_symbol = [one for one in stored if one.symbol == symbol]
    exact = [one for one in of_symbol if one.timeframe == timeframe]
    if exact:
        return exact[0].start_time, exact[0].end_time + LENGTH_MS[exact[0].timeframe]
    if not of_symbol:
        return _EVER
    first = min(one.start_time for one in of_symbol)
    midnight = first - first % DAY_MS
    end = max(one.end_time + LENGTH_MS[one.timeframe] for one in of_symbol)
    return (midnight - LENGTH_MS["1w"] if timeframe == "1w" else midnight), end
