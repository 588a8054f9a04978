"""Requests about stored series besides their bars: describe one, store another timeframe, delete."""

from __future__ import annotations

import numpy as np

from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.messages import (
    DeletedMarketData,
    DeleteMarketData,
    DescribeMarketData,
    ResampleMarketData,
    SeriesFacts,
    SeriesGap,
    StoredSeries,
)

from .bars import resample
from .catalog import Catalog, describe_series
from .timeframes import LENGTH_US, divides, parse_timeframe

LONGEST_GAPS = 10
"""Number of gaps that are listed: the rest are only counted."""


def describe(catalog: Catalog, request: DescribeMarketData) -> SeriesFacts:
    """Return range, prices and gaps of a series, stored or resampled. Raises as `Catalog.load` does."""
    timeframe = parse_timeframe(request.timeframe)
    made_from = catalog.source_of(request.symbol, timeframe)
    bars = catalog.load(request.symbol, timeframe)
    length = LENGTH_US[timeframe]
    ends, opens = bars.timestamp[:-1] + length, bars.timestamp[1:]
    lengths = opens - ends
    gaps = np.flatnonzero(lengths > 0)
    longest = gaps[np.argsort(-lengths[gaps], kind="stable")[:LONGEST_GAPS]]
    return SeriesFacts(
        symbol=request.symbol,
        timeframe=timeframe,
        start_time=int(bars.timestamp[0]) // 1000,
        end_time=int(bars.timestamp[-1]) // 1000,
        bars=len(bars),
        made_from=made_from,
        low=float(bars.low.min()),
        high=float(bars.high.max()),
        volume=float(bars.volume.sum()),
        gaps=len(gaps),
        missing_bars=int((lengths[gaps] // length).sum()),
        longest_gaps=[
            SeriesGap(
                start_time=int(ends[row]) // 1000,
                end_time=int(opens[row]) // 1000,
                missing_bars=int(lengths[row]) // length,
            )
            for row in longest
        ],
    )


def store_resampled(catalog: Catalog, request: ResampleMarketData) -> StoredSeries:
    """Make a higher timeframe of a stored one and store it; a warning names the series that it replaces.

    Raises `ValidationError` for an unknown timeframe, `InvalidConfiguration` for one that cannot be made of the other,
    and `DataError` for a series that is not stored.
    """
    finer = parse_timeframe(request.from_timeframe, path="$.fromTimeframe")
    coarser = parse_timeframe(request.to_timeframe, path="$.toTimeframe")
    if finer == coarser or not divides(finer, coarser):
        choices = ", ".join(one for one in LENGTH_US if one != finer and divides(finer, one)) or "nothing longer"
        raise InvalidConfiguration(
            f"{coarser} bars cannot be made of {finer} bars ({finer} makes: {choices})",
            paths=["$.fromTimeframe", "$.toTimeframe"],
        )
    made = resample(catalog.load_stored(request.symbol, finer), coarser)
    replaced = [info for info in catalog.series() if (info.symbol, info.timeframe) == (request.symbol, coarser)]
    info = catalog.write(made)
    return StoredSeries(
        symbol=info.symbol,
        timeframe=info.timeframe,
        start_time=info.start_time,
        end_time=info.end_time,
        bars=info.bars,
        warnings=[f"replaced {describe_series(one)}" for one in replaced],
    )


def delete(catalog: Catalog, request: DeleteMarketData) -> DeletedMarketData:
    """Remove the series that the request names. Raises as `Catalog.delete` does."""
    timeframes = catalog.delete(request.symbol, request.timeframe)
    return DeletedMarketData(symbol=request.symbol, timeframes=timeframes)
