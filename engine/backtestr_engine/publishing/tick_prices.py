"""Ticks as prices: a PriceUpdate for each, with all of its numbers, as readers of prices expect them."""

from __future__ import annotations

import numpy as np

from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.tick_bars import quote_price
from backtestr_engine.data.ticks import Ticks

from .record_encoding import EncodedMaps, Number, encode_payloads


def encoded_ticks(ticks: Ticks, **source: str) -> EncodedMaps:
    """Return a PriceUpdate for each tick.

    A quote that is no trade has the middle of bid and ask as its last price, and a trade without a quote its price as
    bid and ask. Without a volume it is 0. `source` is the origin of the prices, under its name on the wire.
    """
    bid, ask, last = _prices(ticks)
    volume = np.zeros(len(ticks)) if ticks.volume is None else np.nan_to_num(ticks.volume)
    return encode_payloads(
        "PriceUpdate",
        {
            "symbol": ticks.symbol,
            "timestamp": Number(ticks.timestamp // 1000),
            "bid": Number(bid),
            "ask": Number(ask),
            "last": Number(last),
            "volume": Number(volume),
            "timeframe": ticks.timeframe,
            **source,
        },
        len(ticks),
    )


def _prices(ticks: Ticks) -> tuple[Floats, Floats, Floats]:
    if ticks.bid is None or ticks.ask is None:
        assert ticks.last is not None
        return ticks.last, ticks.last, ticks.last
    middle = quote_price(ticks.bid, ticks.ask, "mid")
    last = middle if ticks.last is None else np.where(np.isnan(ticks.last), middle, ticks.last)
    return ticks.bid, ticks.ask, last
