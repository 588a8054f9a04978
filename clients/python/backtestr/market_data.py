"""The part of a client that is about market data: bars and ticks, imported, asked for, described and deleted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from backtestr.core.instants import Instant, as_ms
from backtestr_protocol.import_messages import DateOrder, DecimalMark, Imported, ImportMarketData, TimeUnit
from backtestr_protocol.messages import (
    TICK,
    DeletedMarketData,
    DeleteMarketData,
    DescribeMarketData,
    GetMarketData,
    IndicatorConfig,
    Keep,
    Nothing,
    Repair,
    ResampleMarketData,
    SeriesFacts,
    SeriesInfo,
    SeriesList,
    SeriesTimeframe,
    StoredSeries,
    TickPrice,
)

from .market_tables import market_table, tick_pages
from .memory_bars import BarsFromMemory
from .requester import BULK_TIMEOUT


class MarketDataRequests(BarsFromMemory):
    """The methods of a client for market data."""

    def list_market_data(self) -> list[SeriesInfo]:
        """List the stored series."""
        return self._ask("ListMarketData", Nothing(), SeriesList).series

    def market_data(
        self,
        symbol: str,
        timeframe: str,
        *,
        start: Instant | None = None,
        end: Instant | None = None,
        limit: int | None = None,
        keep: Keep = "last",
        price: TickPrice | None = None,
        indicators: Sequence[str | IndicatorConfig] = (),
        timeout: float = BULK_TIMEOUT,
    ) -> pl.DataFrame:
        """Return bars as `timestamp open high low close volume`, with a column for each output of each indicator.

        `end` is exclusive; `limit` keeps the last or first bars of the range, as `keep` says. An indicator is TA-Lib's
        name, or an `IndicatorConfig` where it has parameters. Longer timeframes are resampled where not stored, and
        made of ticks where no bars are: of their `price`, the middle of bid and ask when None, or the last price.

        The timeframe `"tick"` gives the ticks themselves, `timestamp bid ask last volume`, null where there is none.
        """
        request = GetMarketData(
            symbol=symbol,
            timeframe=timeframe,
            start_time=None if start is None else as_ms(start),
            end_time=None if end is None else as_ms(end),
            limit=limit,
            keep=keep,
            price=price,
            indicators=[IndicatorConfig(name=one) if isinstance(one, str) else one for one in indicators],
        )
        return market_table(self._ask, request, timeout)

    def ticks(
        self, symbol: str, *, start: Instant | None = None, end: Instant | None = None, timeout: float = BULK_TIMEOUT
    ) -> Iterator[pl.DataFrame]:
        """Yield the ticks of a range as tables of up to 1,000,000, as `market_data` gives them, however many they are.

        Raises `DataError` when they are stored anew meanwhile.
        """
        request = GetMarketData(
            symbol=symbol,
            timeframe=TICK,
            start_time=None if start is None else as_ms(start),
            end_time=None if end is None else as_ms(end),
            keep="first",
        )
        return tick_pages(self._ask, request, timeout)

    def import_market_data(
        self,
        path: str | Path,
        symbol: str | None = None,
        *,
        timeframe: str | None = None,
        format: str | None = None,
        time_zone: str | None = None,
        price: TickPrice | None = None,
        repair: Repair | None = None,
        time_unit: TimeUnit | None = None,
        date_order: DateOrder | None = None,
        decimal: DecimalMark | None = None,
        symbol_column: str | None = None,
        timeout: float = BULK_TIMEOUT,
    ) -> Imported:
        """Have the broker import a file of this machine as `symbol`.

        `timeframe` None means the spacing of the bars; ticks are then kept as ticks, and with a timeframe made into
        bars. `format` None means the format that the content shows. `time_zone` (an IANA name) is for times without an
        offset. `price` is that of ticks to make bars of, "mid" when None, or else "last". `repair` "drop" leaves out
        rows that cannot be used, and the answer counts them; without it `DataError` names the first. `symbol_column`
        names the column of a file of several symbols: each becomes a series (`Imported.series`), or `symbol` alone
        where it is given. `time_unit` ("s", "ms", "us", "ns"), `date_order` ("dmy", "mdy") and `decimal` (".", ",")
        decide what a file leaves open; such a file is refused with both readings.
        """
        request = ImportMarketData(
            path=str(Path(path).expanduser().resolve()),
            symbol=symbol,
            timeframe=timeframe,
            format=format,
            time_zone=time_zone,
            price=price,
            repair=repair,
            time_unit=time_unit,
            date_order=date_order,
            decimal=decimal,
            symbol_column=symbol_column,
        )
        return self._ask("ImportMarketData", request, Imported, timeout)

    def describe_market_data(
        self, symbol: str, timeframe: str, timeout: float = BULK_TIMEOUT, *, price: TickPrice | None = None
    ) -> SeriesFacts:
        """Return range, prices and gaps of a series, stored, resampled, or made of the `price` of ticks."""
        request = DescribeMarketData(symbol=symbol, timeframe=timeframe, price=price)
        return self._ask("DescribeMarketData", request, SeriesFacts, timeout)

    def resample_market_data(
        self,
        symbol: str,
        from_timeframe: str,
        to_timeframe: str,
        timeout: float = BULK_TIMEOUT,
        *,
        price: TickPrice | None = None,
    ) -> StoredSeries:
        """Have the broker resample a stored series, or the `price` of its ticks, and store the result."""
        request = ResampleMarketData(
            symbol=symbol, from_timeframe=from_timeframe, to_timeframe=to_timeframe, price=price
        )
        return self._ask("ResampleMarketData", request, StoredSeries, timeout)

    def delete_market_data(self, symbol: str, timeframe: str | None = None) -> list[SeriesTimeframe]:
        """Delete a series, or with `timeframe` None all series of a symbol; return the deleted timeframes."""
        request = DeleteMarketData(symbol=symbol, timeframe=timeframe)
        return self._ask("DeleteMarketData", request, DeletedMarketData).timeframes
