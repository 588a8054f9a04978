"""A source of bars by symbol and timeframe: all that the check of a backtest needs of the catalogue."""

from __future__ import annotations

from typing import Protocol

from backtestr_protocol.messages import TickPrice

from .bars import Bars


class BarSource(Protocol):
    """Gives stored bars; `data.catalog.Catalog` is the one that reads files, and says what its methods raise."""

    def load(
        self,
        symbol: str,
        timeframe: str,
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        price: TickPrice | None = None,
    ) -> Bars:
        """Return the bars that open in [start, end), microseconds UTC; None is unbounded."""
        ...

    def tick_price(self, symbol: str, timeframe: str, price: TickPrice | None) -> TickPrice | None:
        """Return the price of ticks that `load` makes bars of; None where it reads stored bars."""
        ...
