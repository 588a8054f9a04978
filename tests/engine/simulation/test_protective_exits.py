"""Stop loss, take profit and trailing stop: one case per rule of docs/conventions.md, "Protective exits"."""

from __future__ import annotations

from typing import Any

import pytest

from support.engine.cases import CAPITAL
from support.engine.examples import FLAT, Row, SignalsByBar, published_orders, run_of

# Ten units bought, or sold short, for 10 at the open of bar 1.
BOUGHT: SignalsByBar = {"entries": {0: True}}
SOLD: SignalsByBar = {"short_entries": {0: True}}
STOP_AT_9_PROFIT_AT_12 = {"stopLoss": 0.1, "takeProfit": 0.2}
STOP_AT_11_PROFIT_AT_8 = STOP_AT_9_PROFIT_AT_12


def left(rows: list[Row], signals: SignalsByBar, *, slippage: float = 0.0, **options: Any) -> tuple[object, ...]:
    """Return bar, order type, reason and price of the one exit of the position."""
    entry, leaving = published_orders(run_of(rows, signals, slippage=slippage, **options))
    assert (entry["bar"], entry["status"]) == (1, "filled")
    assert leaving["fillQuantity"] == entry["fillQuantity"] == 10
    return leaving["bar"], leaving["orderType"], leaving["reason"], leaving["fillPrice"]


@pytest.mark.parametrize(
    ("bar", "order_type", "reason", "price"),
    [
        pytest.param((10, 10.5, 8.5, 9), "stop", "stop loss", 9, id="a stop within the bar"),
        pytest.param((10, 10.5, 9, 9.5), "stop", "stop loss", 9, id="a stop just touched"),
        pytest.param((8, 9.5, 7.5, 9), "stop", "stop loss", 8, id="a gap through the stop, at the open"),
        pytest.param((10, 12.5, 9.5, 11), "limit", "take profit", 12, id="a profit within the bar"),
        pytest.param((10, 12, 9.5, 11), "limit", "take profit", 12, id="a profit just touched"),
        pytest.param((13, 14, 12.5, 13), "limit", "take profit", 13, id="a gap through the profit, at the open"),
        pytest.param((10, 12.5, 8.5, 10), "stop", "stop loss", 9, id="both within the bar: the stop"),
        pytest.param(
            (13, 13, 8.5, 10), "stop", "stop loss", 9, id="a gap through the profit and then the stop: the stop"
        ),
    ],
)
def test_a_long_position_is_closed_at(bar: Row, order_type: str, reason: str, price: float) -> None:
    got = left([FLAT, FLAT, bar, FLAT], BOUGHT, **STOP_AT_9_PROFIT_AT_12)

    assert got == (2, order_type, reason, pytest.approx(price))


@pytest.mark.parametrize(
    ("bar", "order_type", "reason", "price"),
    [
        pytest.param((10, 11.5, 9.5, 11), "stop", "stop loss", 11, id="a stop within the bar"),
        pytest.param((12, 12.5, 10.5, 11), "stop", "stop loss", 12, id="a gap through the stop, at the open"),
        pytest.param((10, 10.5, 7.5, 9), "limit", "take profit", 8, id="a profit within the bar"),
        pytest.param((7, 7.5, 6.5, 7), "limit", "take profit", 7, id="a gap through the profit, at the open"),
        pytest.param((10, 11.5, 7.5, 10), "stop", "stop loss", 11, id="both within the bar: the stop"),
    ],
)
def test_a_short_position_is_closed_at(bar: Row, order_type: str, reason: str, price: float) -> None:
    got = left([FLAT, FLAT, bar, FLAT], SOLD, **STOP_AT_11_PROFIT_AT_8)

    assert got == (2, order_type, reason, pytest.approx(price))


RISES_TO_12: Row = (10.0, 12.0, 10.0, 11.5)
FALLS_TO_8: Row = (10.0, 10.0, 8.0, 8.5)


@pytest.mark.parametrize(
    ("signals", "before", "bar", "price"),
    [
        pytest.param(BOUGHT, RISES_TO_12, (11.5, 11.5, 10.5, 11), 10.8, id="a long one within the bar"),
        pytest.param(BOUGHT, RISES_TO_12, (10, 10.5, 9.5, 10), 10, id="a long one through a gap, at the open"),
        pytest.param(SOLD, FALLS_TO_8, (8.5, 9, 8.5, 8.5), 8.8, id="a short one within the bar"),
        pytest.param(SOLD, FALLS_TO_8, (9.5, 10, 9, 9.5), 9.5, id="a short one through a gap, at the open"),
    ],
)
def test_a_trailing_stop_follows_the_best_price_since(
    signals: SignalsByBar, before: Row, bar: Row, price: float
) -> None:
    got = left([FLAT, before, bar, FLAT], signals, trailingStop=0.1)

    assert got == (2, "stop", "trailing stop", pytest.approx(price))


def test_a_trailing_stop_is_compared_before_the_bars_own_high_moves_it() -> None:
    """On bar 2 the stop is still at 9: its high of 14 and its low of 10 may have come in either order."""
    got = left([FLAT, FLAT, (10.0, 14.0, 10.0, 13.0), (13.0, 13.0, 12.0, 12.5)], BOUGHT, trailingStop=0.1)

    assert got == (3, "stop", "trailing stop", pytest.approx(12.6))


def test_the_nearer_of_stop_loss_and_trailing_stop_counts() -> None:
    falls: Row = (10.0, 10.0, 8.0, 8.5)
    assert left([FLAT, FLAT, falls], BOUGHT, stopLoss=0.05, trailingStop=0.1)[2:] == ("stop loss", 9.5)
    assert left([FLAT, FLAT, falls], BOUGHT, stopLoss=0.15, trailingStop=0.1)[2:] == ("trailing stop", 9)


def test_exits_act_on_the_bar_of_an_entry_at_its_open_unless_asked_otherwise() -> None:
    falls: Row = (10.0, 10.0, 8.5, 10.0)
    assert left([FLAT, falls, falls], BOUGHT, stopLoss=0.1)[0] == 1
    assert left([FLAT, falls, falls], BOUGHT, stopLoss=0.1, stopActive="same_bar_at_open")[0] == 1
    assert left([FLAT, falls, falls], BOUGHT, stopLoss=0.1, stopActive="next_bar")[0] == 2


def test_a_loss_is_bounded_by_the_stop_on_the_bar_of_the_entry_too() -> None:
    """The risk of 1 % of the account is what is lost, though the bar falls to 2.6 times the distance of the stop."""
    crashes: Row = (10.0, 10.0, 7.4, 7.4)
    run = run_of([FLAT, crashes, crashes], BOUGHT, stopLoss=0.1, size="risk", sizeValue=0.01)
    run.advance(3)

    assert run.finish().metrics.final_equity == pytest.approx(CAPITAL * 0.99)


@pytest.mark.parametrize("given", [{"fillAt": "close"}, {"stopBase": "entry_close"}])
def test_where_nothing_is_left_of_the_bar_exits_act_on_the_next(given: dict[str, Any]) -> None:
    """A fill at the close, and a base that is the close, are known when the bar is over."""
    falls: Row = (10.0, 10.0, 8.5, 10.0)
    entered = {"entries": {1: True}} if given == {"fillAt": "close"} else BOUGHT

    assert left([FLAT, falls, falls], entered, stopLoss=0.1, **given)[0] == 2


def test_slippage_is_paid_on_a_stop_and_not_on_a_profit() -> None:
    """Bought for 10.10, from which the fractions count."""
    stopped = left([FLAT, FLAT, (10.0, 10.0, 8.0, 9.0)], BOUGHT, slippage=0.01, **STOP_AT_9_PROFIT_AT_12)
    profited = left([FLAT, FLAT, (10.0, 13.0, 10.0, 12.0)], BOUGHT, slippage=0.01, **STOP_AT_9_PROFIT_AT_12)

    assert stopped[-1] == pytest.approx(10.1 * 0.9 * 0.99)
    assert profited[-1] == pytest.approx(10.1 * 1.2)


def test_a_gap_counts_from_the_price_of_the_signals_own_entry() -> None:
    signals: SignalsByBar = {**BOUGHT, "stop_loss": {0: 0.3}}
    assert left([FLAT, FLAT, (6.0, 6.5, 6.0, 6.0)], signals, stopLoss=0.1) == (2, "stop", "stop loss", 6)
    assert left([FLAT, FLAT, (8.0, 8.0, 6.5, 8.0)], signals, stopLoss=0.1) == (2, "stop", "stop loss", 7)


# --- liquidation ---


@pytest.mark.parametrize(
    ("bar", "price", "equity"),
    [
        pytest.param((10, 25, 10, 12), 20, 0, id="within the bar, where nothing is left"),
        pytest.param((10, 20, 10, 12), 20, 0, id="at a touch"),
        pytest.param((30, 32, 28, 28), 30, -1000, id="a gap beyond, at the open, with debt"),
    ],
)
def test_a_short_position_ends_where_the_account_has_nothing_left(bar: Row, price: float, equity: float) -> None:
    """A hundred units sold for 10 with a capital of 1,000: there is nothing left at 20."""
    run = run_of([FLAT, FLAT, bar, FLAT], SOLD, size="all_in")
    entry, ended = published_orders(run)

    assert entry["fillQuantity"] == 100
    assert (ended["bar"], ended["orderType"], ended["reason"]) == (2, "market", "liquidated at the maintenance margin")
    assert ended["fillPrice"] == pytest.approx(price)
    assert run.finish().equity.tolist()[2:] == pytest.approx([equity, equity])


def test_a_liquidated_account_trades_no_more() -> None:
    signals: SignalsByBar = {"short_entries": {0: True}, "entries": {3: True}}
    rows: list[Row] = [FLAT, FLAT, (30.0, 30.0, 30.0, 30.0), (10.0, 10.0, 10.0, 10.0), FLAT, FLAT]
    orders = published_orders(run_of(rows, signals, size="all_in"))

    assert [(one["status"], one["reason"]) for one in orders[1:]] == [
        ("filled", "liquidated at the maintenance margin"),
        ("rejected", "not enough cash"),
    ]


def test_a_maintenance_margin_liquidates_earlier() -> None:
    """At 1,600 / 100 the equity of 400 is a quarter of the position's value."""
    run = run_of([FLAT, FLAT, (10.0, 25.0, 10.0, 12.0)], SOLD, size="all_in", maintenanceMargin=0.25)

    assert published_orders(run)[-1]["fillPrice"] == pytest.approx(16)


def test_without_leverage_nothing_is_liquidated_by_convention() -> None:
    run = run_of([FLAT, FLAT, (10.0, 25.0, 10.0, 25.0), FLAT], SOLD, size="all_in", liquidation="on_credit")

    assert len(published_orders(run)) == 1
    assert run.finish().equity.tolist()[2:] == pytest.approx([-500, 1000])


def test_a_long_position_without_leverage_is_never_liquidated() -> None:
    run = run_of([FLAT, FLAT, (10.0, 10.0, 1e-6, 1e-6), FLAT], BOUGHT, size="all_in")

    assert len(published_orders(run)) == 1
