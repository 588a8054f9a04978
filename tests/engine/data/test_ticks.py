"""Ticks: what they hold, their table, and the price that bars are made of when none is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from backtestr_engine.data.ticks import Ticks, check_price, ticks_from_frame
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.messages import TickPrice

TIMES = np.array([10, 10, 20], dtype=np.int64)
BID, ASK = np.array([1.0, 1.1, 1.2]), np.array([1.5, 1.6, 1.7])
LAST, VOLUME = np.array([np.nan, 1.3, np.nan]), np.array([np.nan, 4.0, np.nan])


def test_quotes_trades_and_both_become_a_table_and_come_back() -> None:
    for ticks in (
        Ticks("X", TIMES, BID, ASK),
        Ticks("X", TIMES, last=BID, volume=ASK),
        Ticks("X", TIMES, BID, ASK, LAST, VOLUME),
    ):
        frame = ticks.to_frame()
        again = ticks_from_frame("X", frame.select("timestamp", *ticks.columns))
        assert frame.columns == ["timestamp", "bid", "ask", "last", "volume"]
        assert frame.schema["timestamp"] == pl.Datetime("us", "UTC")
        assert again.columns == ticks.columns
        assert again.to_frame().equals(frame)


def test_what_a_tick_has_not_is_null() -> None:
    assert Ticks("X", TIMES, BID, ASK, LAST).to_frame().row(0)[1:] == (1.0, 1.5, None, None)


def test_a_slice_shares_memory_and_a_copy_does_not() -> None:
    ticks = Ticks("X", TIMES, BID, ASK)
    part = ticks[1:]
    assert part.bid is not None
    assert (len(part), part.bid.tolist(), part.timestamp.tolist()) == (2, [1.1, 1.2], [10, 20])
    assert np.shares_memory(part.bid, BID)
    assert not np.shares_memory(part.copy().timestamp, TIMES)
    assert not part.bid.flags.writeable
    with pytest.raises(ValueError, match="without a step"):
        ticks[::2]


@pytest.mark.parametrize("columns", [{}, {"bid": BID}, {"ask": ASK, "last": LAST}, {"volume": VOLUME}])
def test_ticks_have_bid_and_ask_or_a_last_price(columns: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="bid and ask, or last"):
        Ticks("X", TIMES, **columns)


def test_columns_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="last has shape"):
        Ticks("X", TIMES, last=np.ones(2))


@pytest.mark.parametrize(
    ("columns", "price", "chosen"),
    [
        (["bid", "ask"], None, "mid"),
        (["bid", "ask", "last"], None, "mid"),
        (["last", "volume"], None, "last"),
        (["bid", "ask", "last"], "last", "last"),
        (["bid", "ask"], "ask", "ask"),
    ],
)
def test_the_price_that_bars_are_made_of(columns: list[str], price: TickPrice | None, chosen: str) -> None:
    assert check_price("X", columns, price) == chosen


@pytest.mark.parametrize(
    ("columns", "price", "reason"),
    [
        (["bid", "ask"], "last", "quotes without a last price: price must be mid or bid or ask, not last"),
        (["last"], "mid", "trades, which have no bid and ask: price must be last, not mid"),
    ],
)
def test_a_price_that_ticks_do_not_have_is_refused(columns: list[str], price: TickPrice, reason: str) -> None:
    with pytest.raises(InvalidConfiguration, match=reason) as caught:
        check_price("X", columns, price)
    assert caught.value.details == {"paths": ["$.price"]}
