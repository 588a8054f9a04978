"""Requests about stored series besides their bars: describe one, store another timeframe, delete."""

from __future__ import annotations

from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.messages import (
    TICK,
    DeletedMarketData,
    DeleteMarketData,
    DescribeMarketData,
    ResampleMarketData,
    SeriesFacts,
    StoredSeries,
)
from backtestr_protocol.timeframes import COMMON_TIMEFRAMES

from .bars import Bars, resample
from .catalog import Catalog, describe_series
from .gaps import gaps_of
from .tick_facts import describe_ticks
from .ticks import check_price
from .timeframes import divides, is_dated, parse_timeframe
from .zones import UTC


def describe(catalog: Catalog, request: DescribeMarketData) -> SeriesFacts:
    """Return range, prices and gaps of a series, stored or made. Raises as `Catalog.load` does."""
    if request.timeframe == TICK:
        return describe_ticks(catalog, request)
    timeframe = parse_timeframe(request.timeframe)
    made_from = catalog.source_of(request.symbol, timeframe, request.price)
    bars = catalog.load(request.symbol, timeframe, price=request.price)
    gaps, missing, longest = gaps_of(bars)
    return SeriesFacts(
        symbol=request.symbol,
        timeframe=timeframe,
        start_time=int(bars.timestamp[0]) // 1000,
        end_time=int(bars.timestamp[-1]) // 1000,
        bars=len(bars),
        time_zone=None if bars.zone == UTC or is_dated(timeframe) else bars.zone,
        made_from=made_from,
        low=float(bars.low.min()),
        high=float(bars.high.max()),
        volume=float(bars.volume.sum()),
        gaps=gaps,
        missing_bars=missing,
        longest_gaps=longest,
    )


def store_resampled(catalog: Catalog, request: ResampleMarketData) -> StoredSeries:
    """Make a higher timeframe of a stored one, or of ticks, and store it; a warning names the series that it replaces.

    Raises `ValidationError` for an unknown timeframe, `InvalidConfiguration` for one that cannot be made of the other
    and for a price that there is not, and `DataError` for a series that is not stored.
    """
    made = _made_of_ticks(catalog, request) if request.from_timeframe == TICK else _resampled(catalog, request)
    replaced = [info for info in catalog.series() if (info.symbol, info.timeframe) == (made.symbol, made.timeframe)]
    info = catalog.write(made)
    return StoredSeries(
        symbol=info.symbol,
        timeframe=info.timeframe,
        start_time=info.start_time,
        end_time=info.end_time,
        bars=info.bars,
        warnings=[f"replaced {describe_series(one)}" for one in replaced],
    )


def _made_of_ticks(catalog: Catalog, request: ResampleMarketData) -> Bars:
    coarser = parse_timeframe(request.to_timeframe, path="$.toTimeframe")
    with catalog.open_ticks(request.symbol) as file:
        price = check_price(request.symbol, file.columns, request.price)
    return catalog.load(request.symbol, coarser, price=price)


def _resampled(catalog: Catalog, request: ResampleMarketData) -> Bars:
    if request.price is not None:
        raise InvalidConfiguration(
            f"price {request.price!r} chooses the price of ticks, and {request.from_timeframe} are bars",
            paths=["$.price", "$.fromTimeframe"],
        )
    finer = parse_timeframe(request.from_timeframe, path="$.fromTimeframe")
    coarser = parse_timeframe(request.to_timeframe, path="$.toTimeframe")
    if finer == coarser or not divides(finer, coarser):
        longer = [one for one in COMMON_TIMEFRAMES if one != finer and divides(finer, one)]
        choices = f"among others {', '.join(longer)}" if longer else "nothing longer"
        raise InvalidConfiguration(
            f"{coarser} bars cannot be made of {finer} bars ({finer} makes {choices})",
            paths=["$.fromTimeframe", "$.toTimeframe"],
        )
    return resample(catalog.load_stored(request.symbol, finer), coarser)


def delete(catalog: Catalog, request: DeleteMarketData) -> DeletedMarketData:
    """Remove the series that the request names. Raises as `Catalog.delete` does."""
    timeframes = catalog.delete(request.symbol, request.timeframe)
    return DeletedMarketData(symbol=request.symbol, timeframes=timeframes)
