"""The facts of stored ticks: their range, prices and volume, and the minutes without any."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.messages import TICK, DescribeMarketData, SeriesFacts

from .catalog import Catalog
from .gaps import gaps_of
from .tick_bars import bars_of_ticks
from .tick_file import TickFile
from .ticks import Ticks, check_price


def describe_ticks(catalog: Catalog, request: DescribeMarketData) -> SeriesFacts:
    """Return the facts of the ticks of a symbol, read part after part.

    `low` and `high` are those of all their prices, `volume` is summed. A gap is a stretch of whole minutes without a
    tick. Raises `InvalidConfiguration` for a price: ticks have all of theirs. Raises as `Catalog.open_ticks` does.
    """
    if request.price is not None:
        raise InvalidConfiguration(
            f"price {request.price!r} chooses what bars are made of, and ticks keep every price",
            paths=["$.price", "$.timeframe"],
        )
    with catalog.open_ticks(request.symbol) as file:
        seen = _Extremes()
        minutes = bars_of_ticks(request.symbol, "1m", check_price(request.symbol, file.columns, None), seen.of(file))
        columns = file.columns
        info = file.info
    gaps, missing, longest = gaps_of(minutes)
    return SeriesFacts(
        symbol=info.symbol,
        timeframe=TICK,
        start_time=info.start_time,
        end_time=info.end_time,
        bars=info.bars,
        made_from=TICK,
        low=seen.low,
        high=seen.high,
        volume=seen.volume,
        gaps=gaps,
        missing_bars=missing,
        longest_gaps=longest,
        columns=columns,
    )


class _Extremes:
    """The lowest and highest price and the volume of the ticks that have passed."""

    def __init__(self) -> None:
        self.low, self.high, self.volume = np.inf, -np.inf, 0.0

    def of(self, file: TickFile) -> Iterator[Ticks]:
        for ticks in file.parts(range(file.info.bars)):
            for prices in (ticks.bid, ticks.ask, ticks.last):
                if prices is not None and not np.isnan(prices).all():
                    self.low = min(self.low, float(np.nanmin(prices)))
                    self.high = max(self.high, float(np.nanmax(prices)))
            if ticks.volume is not None:
                self.volume += float(np.nansum(ticks.volume))
            yield ticks
