"""The stored series, and the range of time that covers all of one."""

from __future__ import annotations

from collections.abc import Sequence

from backtestr_protocol.messages import SeriesInfo

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
# What stands for "all there is" of a series that the broker does not have: it answers with what it has.
_EVER = (0, 50 * 365 * DAY_MS)


def covering(stored: Sequence[SeriesInfo], symbol: str, timeframe: str) -> tuple[int, int]:
    """The first instant and the end (exclusive) of all bars of a series, in milliseconds since the Unix epoch.

    A series that is not stored in this timeframe is resampled from a finer one, and its first bar opens before the
    first of those: the range begins with that day, or a week earlier.
    """
    of_symbol = [one for one in stored if one.symbol == symbol]
    exact = [one for one in of_symbol if one.timeframe == timeframe]
    if exact:
        return exact[0].start_time, exact[0].end_time + 1
    if not of_symbol:
        return _EVER
    first = min(one.start_time for one in of_symbol)
    midnight = first - first % DAY_MS
    end = max(one.end_time for one in of_symbol) + 1
    return (midnight - WEEK_MS if timeframe == "1w" else midnight), end
