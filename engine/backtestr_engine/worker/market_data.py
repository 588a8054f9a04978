"""This module reads the bars of a range, resampled if needed, and computes indicators beside them."""

from __future__ import annotations

import polars as pl

from backtestr_engine.backtest.tables import attach
from backtestr_engine.data.bars import COLUMNS, Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.instants import instant
from backtestr_engine.indicators import compute
from backtestr_protocol.errors import InvalidConfiguration, ValidationError
from backtestr_protocol.messages import GetMarketData, IndicatorConfig, MarketData


def market_data(catalog: Catalog, request: GetMarketData) -> tuple[MarketData, list[bytes]]:
    """Return the bars that open in [startTime, endTime), the first or last `limit` of them, with indicator columns.

    There is a column for each output. Indicators are computed from the first bar of the series, whatever the range, so
    that the value of a bar does not depend on the range. The first values of the series are NaN.

    Raises what `Catalog.load` and `indicators.compute` raise; `ValidationError` for a limit below 1 or two columns of
    one name; `InvalidConfiguration` for a range that ends before it starts.
    """
    start, end = _microseconds(request.start_time), _microseconds(request.end_time)
    if start is not None and end is not None and start >= end:
        raise InvalidConfiguration(
            f"startTime {instant(start)} is not before endTime {instant(end)} (the end is exclusive)",
            paths=["$.startTime", "$.endTime"],
        )
    if request.limit is not None and request.limit < 1:
        raise ValidationError(
            f"limit must be at least 1, not {request.limit}", path="$.limit", expected="at least 1", got=request.limit
        )
    if request.indicators:
        bars = catalog.load(request.symbol, request.timeframe, None, end)
        wanted = len(catalog.load(request.symbol, request.timeframe, start, end))
    else:
        bars = catalog.load(request.symbol, request.timeframe, start, end)
        wanted = len(bars)
    frame = bars.to_frame().with_columns(_indicator_columns(bars, request.indicators)).tail(wanted)
    limit = wanted if request.limit is None else min(wanted, request.limit)
    frame = frame.head(limit) if request.keep == "first" else frame.tail(limit)
    references, attachments = attach([("bars", frame)])
    return MarketData(symbol=request.symbol, timeframe=request.timeframe, tables=references), attachments


def _indicator_columns(bars: Bars, configs: list[IndicatorConfig]) -> list[pl.Series]:
    columns: dict[str, pl.Series] = {}
    for index, config in enumerate(configs):
        path = f"$.indicators[{index}]"
        for name, values in compute(bars, config, path=path).items():
            if name in columns or name in COLUMNS:
                raise ValidationError(
                    f"two columns would be named {name!r}; give {config.name} outputNames of its own",
                    path=f"{path}.outputNames",
                    got=name,
                )
            columns[name] = pl.Series(name, values)
    return list(columns.values())


def _microseconds(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else milliseconds * 1000
