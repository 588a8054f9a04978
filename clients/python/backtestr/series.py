"""The stored series, and the range of time that covers all of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backtestr_protocol.messages import SeriesInfo

_MINUTE = 60_000
_DAY = 86_400_000
LENGTH_MS: Mapping[str, int] = {
    "1m": _MINUTE,
    "5m": 5 * _MINUTE,
    "15m": 15 * _MINUTE,
    "30m": 30 * _MINUTE,
    "1h": 60 * _MINUTE,
    "4h": 240 * _MINUTE,
    "1d": _DAY,
    "1w": 7 * _DAY,
}
# What stands for "all there is" of a series that the broker does not have: it answers with what it has.
_EVER = (0, 50 * 365 * _DAY)


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
        return exact[0].start_time, exact[0].end_time + LENGTH_MS[timeframe]
    if not of_symbol:
        return _EVER
    first = min(one.start_time for one in of_symbol)
    midnight = first - first % _DAY
    end = max(one.end_time + LENGTH_MS[one.timeframe] for one in of_symbol)
    return (midnight - LENGTH_MS["1w"] if timeframe == "1w" else midnight), end
