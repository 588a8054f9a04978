"""Tables: equity curve, orders and trades from records, and their bytes."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
import pytest

from backtestr_engine.backtest.tables import _BLOCK, DrawdownFrom, attach, equity_frame, orders_frame, trades_frame
from backtestr_engine.simulation.records import BUY, FILLED, NO_CASH, ORDER, REJECTED, SELL, TRADE

MINUTE_US = 60_000_000


def test_the_equity_curve_has_drawdown_and_returns() -> None:
    table = equity_frame(
        np.arange(4, dtype=np.int64) * MINUTE_US, np.array([100.0, 120.0, 90.0, 0.0]), 100.0, "capital"
    )
    assert table["drawdown"].to_list() == [0.0, 0.0, 0.25, 1.0]
    assert table["returns"].to_list() == np.subtract([1.0, 1.2, 0.9, 0.0], 1.0).tolist()
    assert table["timestamp"].to_physical().to_list() == [0, MINUTE_US, 2 * MINUTE_US, 3 * MINUTE_US]


@pytest.mark.parametrize(("start", "drawdowns"), [("capital", [0.05, 0.1, 0.0]), ("first_close", [0.0, 0.05263, 0.0])])
def test_a_loss_on_the_first_bar_counts_from_the_capital(start: DrawdownFrom, drawdowns: list[float]) -> None:
    table = equity_frame(np.arange(3, dtype=np.int64), np.array([95.0, 90.0, 101.0]), 100.0, start)
    assert table["drawdown"].to_list() == pytest.approx(drawdowns, abs=1e-5)


def test_an_equity_that_was_never_above_zero_has_no_drawdown() -> None:
    table = equity_frame(np.zeros(1, dtype=np.int64), np.zeros(1), 100.0, "first_close")
    assert table["drawdown"].to_list() == [0.0]


def test_the_fill_of_a_rejected_order_is_null() -> None:
    orders = np.zeros(2, dtype=ORDER)
    orders["order_id"] = 1, 2
    orders["symbol"] = 0, 1
    orders["side"] = BUY, SELL
    orders["status"] = FILLED, REJECTED
    orders["reason"] = 0, NO_CASH
    orders["fill_price"], orders["fill_quantity"] = (10.0, np.nan), (2.0, 0.0)
    table = orders_frame(orders, ["A", "B"])
    assert table.select("order_id", "symbol", "side", "status", "fill_price", "fill_quantity", "reason").rows() == [
        ("1", "A", "buy", "filled", 10.0, 2.0, None),
        ("2", "B", "sell", "rejected", None, None, "not enough cash"),
    ]


def test_open_trades_follow_the_closed_ones() -> None:
    closed, still_open = np.zeros(2, dtype=TRADE), np.zeros(1, dtype=TRADE)
    assert trades_frame(closed, still_open, ["A"])["status"].to_list() == ["closed", "closed", "open"]


def test_attached_tables_are_arrow_streams_in_their_order() -> None:
    tables = [("equity", pl.DataFrame({"a": [1, 2]})), ("orders", pl.DataFrame({"b": ["x"]}))]
    references, attachments = attach(tables)
    assert [(one.name, one.frame, one.rows) for one in references] == [("equity", 0, 2), ("orders", 1, 1)]
    for (_, table), data in zip(tables, attachments, strict=True):
        assert pl.read_ipc_stream(io.BytesIO(data)).equals(table)


@pytest.mark.parametrize("start", ["capital", "first_close"])
@pytest.mark.parametrize("bars", [_BLOCK - 1, _BLOCK, _BLOCK + 1, 3 * _BLOCK + 7])
def test_drawdowns_are_the_same_bit_for_bit_however_many_bars_are_computed_at_a_time(
    bars: int, start: DrawdownFrom
) -> None:
    equity = 100.0 + np.cumsum(np.random.default_rng(bars).normal(size=bars))  # it falls below 0 and comes back
    peak = np.maximum.accumulate(equity)
    if start == "capital":
        peak = np.maximum(peak, 100.0)
    ratio = np.divide(equity, peak, out=np.ones(bars), where=peak > 0)
    table = equity_frame(np.arange(bars, dtype=np.int64), equity, 100.0, start)
    assert table["drawdown"].to_numpy().tobytes() == (1.0 - ratio).tobytes()
    assert table["returns"].to_numpy().tobytes() == (equity / 100.0 - 1.0).tobytes()
