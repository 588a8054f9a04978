"""Stored bars and ticks as tables; ticks that are too many for one answer are read page after page."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import polars as pl

from backtestr_protocol.errors import DataError
from backtestr_protocol.messages import MAX_TICKS, TICK, GetMarketData, MarketData

from .requester import BULK_TIMEOUT, Requester
from .tables import fetch_tables


def market_table(ask: Requester, request: GetMarketData, timeout: float = BULK_TIMEOUT) -> pl.DataFrame:
    """Return the bars or ticks that are asked for as one table, in the order of time.

    Raises `DataError` as `tick_pages` does.
    """
    if request.timeframe != TICK:
        return _page(ask, request, timeout)[0]
    pages = list(tick_pages(ask, request, timeout))
    return pl.concat(pages if request.keep == "first" else reversed(pages))


def tick_pages(
    ask: Requester, request: GetMarketData, timeout: float = BULK_TIMEOUT, *, page_ticks: int = MAX_TICKS
) -> Iterator[pl.DataFrame]:
    """Yield the ticks that are asked for, up to `page_ticks` at a time, from the side that `keep` names.

    Raises `DataError` when they are stored anew meanwhile: the pages would not fit together.
    """
    skip, left, version = request.skip, request.limit, None
    while left is None or left > 0:
        limit = page_ticks if left is None else min(left, page_ticks)
        frame, answer = _page(ask, msgspec.structs.replace(request, skip=skip, limit=limit), timeout)
        if version not in (None, answer.version):
            raise DataError(
                f"the ticks of {request.symbol} were stored anew while they were read; read them again",
                symbol=request.symbol,
            )
        yield frame
        if not answer.rest:
            return
        version, skip = answer.version, skip + frame.height
        left = None if left is None else left - frame.height


def _page(ask: Requester, request: GetMarketData, timeout: float) -> tuple[pl.DataFrame, MarketData]:
    answer, frames = fetch_tables(ask, request, MarketData, timeout)
    return pl.concat(frames, how="horizontal") if len(frames) > 1 else frames[0], answer
