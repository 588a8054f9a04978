"""Ticks as prices: every number that a price has, also where a tick has none."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest

from backtestr_engine.data.ticks import Ticks
from backtestr_engine.publishing.tick_prices import encoded_ticks

TIMES = np.array([1_999, 2_000], dtype=np.int64)
BID, ASK = np.array([1.0, 2.0]), np.array([3.0, 5.0])


@pytest.mark.parametrize(
    ("ticks", "prices"),
    [
        (Ticks("X", TIMES, BID, ASK), [(1.0, 3.0, 2.0, 0.0), (2.0, 5.0, 3.5, 0.0)]),
        (Ticks("X", TIMES, last=BID), [(1.0, 1.0, 1.0, 0.0), (2.0, 2.0, 2.0, 0.0)]),
        (Ticks("X", TIMES, last=BID, volume=ASK), [(1.0, 1.0, 1.0, 3.0), (2.0, 2.0, 2.0, 5.0)]),
        (
            Ticks("X", TIMES, BID, ASK, np.array([np.nan, 4.0]), np.array([np.nan, 7.0])),
            [(1.0, 3.0, 2.0, 0.0), (2.0, 5.0, 4.0, 7.0)],
        ),
    ],
)
def test_a_price_has_all_of_its_numbers(ticks: Ticks, prices: list[tuple[float, ...]]) -> None:
    encoded = encoded_ticks(ticks, replayId="r")
    found = [msgpack.unpackb(encoded.between(row, row + 1)) for row in range(2)]
    assert found == [
        {
            "type": "PriceUpdate",
            "data": {
                **{"symbol": "X", "timestamp": time, "timeframe": "tick", "replayId": "r"},
                **dict(zip(("bid", "ask", "last", "volume"), price, strict=True)),
            },
        }
        for time, price in zip((1, 2), prices, strict=True)
    ]
