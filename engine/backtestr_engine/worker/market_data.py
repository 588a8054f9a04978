"""This module reads the bars or ticks of a range: bars resampled if needed, with indicators beside them."""

from __future__ import annotations

import polars as pl

from backtestr_engine.backtest.tables import HandOver, Table, attach_all
from backtestr_engine.data.bars import COLUMNS, Bars
from backtestr_engine.data.catalog import Catalog, nothing_between
from backtestr_engine.data.instants import instant
from backtestr_engine.indicators import compute
from backtestr_protocol.errors import InvalidConfiguration, ValidationError
from backtestr_protocol.messages import MAX_TICKS, TICK, GetMarketData, IndicatorConfig, MarketData


def market_data(
    catalog: Catalog, request: GetMarketData, hand_over: HandOver = attach_all
) -> tuple[MarketData, list[bytes]]:
    """Return the bars that open in [startTime, endTime), or its ticks: a table, and what is left of the range.

    The first or last `skip` are left out, and the next `limit` are returned. Bars have a column for each output of the
    indicators, which are computed from the first bar of the series, whatever the range, so that the value of a bar does
    not depend on the range. The first values of the series are NaN.

    Raises what `Catalog.load`, `Catalog.open_ticks` and `indicators.compute` raise; `ValidationError` for a limit below
    1 or two columns of one name; `InvalidConfiguration` for a range that ends before it starts, for more than
    `MAX_TICKS` ticks, and for indicators or a price of ticks.
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
    return (_ticks if request.timeframe == TICK else _bars)(catalog, request, start, end, hand_over)


def _bars(
    catalog: Catalog, request: GetMarketData, start: int | None, end: int | None, hand_over: HandOver
) -> tuple[MarketData, list[bytes]]:
    symbol, timeframe, price = request.symbol, request.timeframe, request.price
    asked = catalog.load(symbol, timeframe, start, end, price=price)
    bars = catalog.load(symbol, timeframe, None, end, price=price) if request.indicators else asked
    page, rest = _page(range(len(bars) - len(asked), len(bars)), request)
    frame = bars.to_frame().with_columns(_indicator_columns(bars, request.indicators))[page.start : page.stop]
    references, attachments = hand_over([Table("bars", lambda: frame)])
    return MarketData(symbol=symbol, timeframe=timeframe, tables=references, rest=rest), attachments


def _ticks(
    catalog: Catalog, request: GetMarketData, start: int | None, end: int | None, hand_over: HandOver
) -> tuple[MarketData, list[bytes]]:
    for name, given in (("indicators", request.indicators), ("price", request.price)):
        if given:
            raise InvalidConfiguration(
                f"{name} cannot be given for ticks, which keep every price: choose a timeframe, to have bars of them",
                paths=[f"$.{name}", "$.timeframe"],
            )
    with catalog.open_ticks(request.symbol) as file:
        rows = file.rows_between(start, end)
        if not rows:
            raise nothing_between(file.info, TICK, start, end)
        page, rest = _page(rows, request)
        if len(page) > MAX_TICKS:
            raise InvalidConfiguration(
                f"an answer has up to {MAX_TICKS:,} ticks, and {len(page):,} are asked for; give a limit, and read on "
                "with skip, or choose startTime and endTime",
                paths=["$.limit", "$.startTime", "$.endTime"],
                ticks=len(page),
            )
        frame, version = file.read(page).to_frame(), file.version
    references, attachments = hand_over([Table("ticks", lambda: frame)])
    found = MarketData(symbol=request.symbol, timeframe=TICK, tables=references, rest=rest, version=version)
    return found, attachments


def _page(rows: range, request: GetMarketData) -> tuple[range, int]:
    """Return the rows to answer with, in order, and the number of those of `rows` that follow them."""
    limit = len(rows) if request.limit is None else request.limit
    skip = min(request.skip, len(rows))
    if request.keep == "first":
        page = rows[skip:][:limit]
        return page, rows.stop - page.stop
    left = rows[: len(rows) - skip]
    page = left[max(0, len(left) - limit) :]
    return page, page.start - rows.start


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


def _microseconds(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else int(milliseconds) * 1000
