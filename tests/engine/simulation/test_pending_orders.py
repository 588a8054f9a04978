"""Pending orders: one case per rule of docs/conventions.md, "The life of an order"."""

from __future__ import annotations

from typing import Any

import pytest

from support.engine.cases import CAPITAL
from support.engine.examples import FLAT, Row, SignalsByBar, order_history, published_orders, run_of

BUY_AT_9: SignalsByBar = {"entries": {0: True}, "limit_price": {0: 9.0}}
SELL_AT_11: SignalsByBar = {"short_entries": {0: True}, "limit_price": {0: 11.0}}
BUY_ABOVE_11: SignalsByBar = {"entries": {0: True}, "stop_price": {0: 11.0}}
SELL_BELOW_9: SignalsByBar = {"short_entries": {0: True}, "stop_price": {0: 9.0}}
BUY_ABOVE_11_UP_TO_11_5: SignalsByBar = {**BUY_ABOVE_11, "limit_price": {0: 11.5}}
SELL_BELOW_9_DOWN_TO_8_5: SignalsByBar = {**SELL_BELOW_9, "limit_price": {0: 8.5}}

AT_THE_END = "not filled before the data ended"


def pending_then(status: str, bar: int, what: str | float) -> list[tuple[str, int, str, str | float | None]]:
    """Return the changes of a first order that is placed on bar 0."""
    return [("1", 0, "pending", None), ("1", bar, status, what)]


# --- the price of the fill ---


@pytest.mark.parametrize(
    ("order_type", "signals", "bar", "price"),
    [
        pytest.param("limit", BUY_AT_9, (10, 10, 8.5, 9.5), 9, id="limit buy within the bar"),
        pytest.param("limit", BUY_AT_9, (10, 10, 9, 9.5), 9, id="limit buy when its price is just touched"),
        pytest.param("limit", BUY_AT_9, (8, 9.5, 7.5, 8), 8, id="limit buy below its limit, at the open"),
        pytest.param("limit", SELL_AT_11, (10, 11.5, 10, 10.5), 11, id="limit sale within the bar"),
        pytest.param("limit", SELL_AT_11, (10, 11, 10, 10.5), 11, id="limit sale when its price is just touched"),
        pytest.param("limit", SELL_AT_11, (12, 12, 10, 10.5), 12, id="limit sale above its limit, at the open"),
        pytest.param("stop", BUY_ABOVE_11, (10, 12, 10, 11.5), 11, id="stop buy within the bar"),
        pytest.param("stop", BUY_ABOVE_11, (11.75, 12, 10, 11), 11.75, id="stop buy above its stop, at the open"),
        pytest.param("stop", SELL_BELOW_9, (10, 10, 8, 8.5), 9, id="stop sale within the bar"),
        pytest.param("stop", SELL_BELOW_9, (8.25, 9.5, 8, 8.5), 8.25, id="stop sale below its stop, at the open"),
        pytest.param("stop_limit", BUY_ABOVE_11_UP_TO_11_5, (10, 12, 10, 11), 11, id="stop-limit buy at its stop"),
        pytest.param(
            "stop_limit",
            BUY_ABOVE_11_UP_TO_11_5,
            (11.25, 12, 11, 11),
            11.25,
            id="stop-limit buy between the two, at the open",
        ),
        pytest.param(
            "stop_limit",
            BUY_ABOVE_11_UP_TO_11_5,
            (11.5, 12, 11, 11),
            11.5,
            id="stop-limit buy at its limit, at the open",
        ),
        pytest.param("stop_limit", SELL_BELOW_9_DOWN_TO_8_5, (10, 10, 8, 9), 9, id="stop-limit sale at its stop"),
        pytest.param(
            "stop_limit", SELL_BELOW_9_DOWN_TO_8_5, (8.75, 9, 8, 9), 8.75, id="stop-limit sale between the two"
        ),
    ],
)
def test_an_order_is_filled_at(order_type: str, signals: SignalsByBar, bar: Row, price: float) -> None:
    assert order_history(run_of([FLAT, bar, FLAT], signals, orderType=order_type)) == pending_then("filled", 1, price)


@pytest.mark.parametrize(
    ("order_type", "signals", "bar"),
    [
        ("limit", BUY_AT_9, (10, 12, 9.01, 10)),
        ("limit", SELL_AT_11, (10, 10.99, 8, 10)),
        ("stop", BUY_ABOVE_11, (10, 10.99, 8, 10)),
        ("stop", SELL_BELOW_9, (10, 12, 9.01, 10)),
        ("stop_limit", BUY_ABOVE_11_UP_TO_11_5, (10, 10.99, 8, 10)),  # its limit alone is not enough
        ("stop_limit", SELL_BELOW_9_DOWN_TO_8_5, (10, 12, 9.01, 10)),
    ],
)
def test_an_order_whose_price_is_not_reached_stays_pending_until_the_end(
    order_type: str, signals: SignalsByBar, bar: Row
) -> None:
    assert order_history(run_of([FLAT, bar, bar], signals, orderType=order_type)) == pending_then(
        "cancelled", 2, AT_THE_END
    )


def test_a_stop_limit_buy_that_is_triggered_beyond_its_limit_waits_for_it_from_the_next_bar_on() -> None:
    triggers, comes_back = (12.0, 13.0, 11.4, 12.0), (12.0, 12.0, 11.2, 12.0)
    run = run_of([FLAT, triggers, comes_back], BUY_ABOVE_11_UP_TO_11_5, orderType="stop_limit")

    assert order_history(run) == pending_then("filled", 2, 11.5)


def test_a_triggered_stop_limit_order_does_not_need_its_stop_again() -> None:
    triggers, below_the_stop = (12.0, 13.0, 11.4, 12.0), (10.5, 10.5, 10.0, 10.0)
    run = run_of([FLAT, triggers, below_the_stop], BUY_ABOVE_11_UP_TO_11_5, orderType="stop_limit")

    assert order_history(run) == pending_then("filled", 2, 10.5)


def test_a_stop_limit_sale_that_is_triggered_beyond_its_limit_waits_for_it() -> None:
    triggers, comes_back = (8.0, 8.6, 7.0, 8.0), (8.0, 8.8, 8.0, 8.0)
    run = run_of([FLAT, triggers, comes_back], SELL_BELOW_9_DOWN_TO_8_5, orderType="stop_limit")

    assert order_history(run) == pending_then("filled", 2, 8.5)


def test_the_bar_of_the_signal_itself_fills_nothing() -> None:
    run = run_of([(10.0, 10.0, 8.0, 10.0), FLAT, (10.0, 10.0, 9.0, 10.0)], BUY_AT_9, orderType="limit")

    assert order_history(run) == pending_then("filled", 2, 9)


@pytest.mark.parametrize(
    ("order_type", "signals", "bar", "price"),
    [
        ("limit", BUY_AT_9, (10, 10, 8.5, 9.5), 9),
        ("limit", SELL_AT_11, (10, 11.5, 10, 10.5), 11),
        ("stop", BUY_ABOVE_11, (10, 12, 10, 11.5), 11 * 1.01),
        ("stop", SELL_BELOW_9, (10, 10, 8, 8.5), 9 * 0.99),
        ("stop_limit", BUY_ABOVE_11_UP_TO_11_5, (10, 12, 10, 11), 11),
    ],
)
def test_slippage_is_paid_on_stops_and_never_on_limits(
    order_type: str, signals: SignalsByBar, bar: Row, price: float
) -> None:
    filled = published_orders(run_of([FLAT, bar], signals, slippage=0.01, orderType=order_type))[-1]

    assert filled["fillPrice"] == pytest.approx(price, rel=1e-12)


def test_an_order_is_sized_again_when_it_is_filled() -> None:
    run = run_of([FLAT, (8.0, 8.0, 8.0, 8.0)], BUY_AT_9, orderType="limit", size="all_in")
    pending, filled = published_orders(run)

    assert pending["quantity"] == pytest.approx(CAPITAL / 9)
    assert filled["fillQuantity"] == pytest.approx(CAPITAL / 8)


# --- unfilled orders ---

MISSES: Row = (10.0, 10.5, 9.5, 10.0)
REACHES_9: Row = (10.0, 10.0, 9.0, 10.0)


def test_an_order_expires_after_its_valid_bars() -> None:
    run = run_of([FLAT, MISSES, MISSES, REACHES_9], BUY_AT_9, orderType="limit", validBars=2)

    assert order_history(run) == pending_then("cancelled", 2, "not filled within its bars")


def test_an_order_is_filled_on_the_last_of_its_valid_bars() -> None:
    run = run_of([FLAT, MISSES, REACHES_9, MISSES], BUY_AT_9, orderType="limit", validBars=2)

    assert order_history(run) == pending_then("filled", 2, 9)


def test_an_order_without_valid_bars_does_not_expire() -> None:
    run = run_of([FLAT, *[MISSES] * 500, REACHES_9], BUY_AT_9, orderType="limit")

    assert order_history(run) == pending_then("filled", 501, 9)


def test_a_later_entry_replaces_an_order() -> None:
    signals: SignalsByBar = {"entries": {0: True, 1: True}, "limit_price": {0: 9.0, 1: 8.0}}
    run = run_of([FLAT, MISSES, REACHES_9, (10.0, 10.0, 7.5, 9.0)], signals, orderType="limit")

    assert order_history(run) == [
        *pending_then("cancelled", 1, "replaced by a later order"),
        ("2", 1, "pending", None),
        ("2", 3, "filled", 8),
    ]


def test_an_entry_on_the_other_side_replaces_an_order_too() -> None:
    signals: SignalsByBar = {"entries": {0: True}, "short_entries": {1: True}, "limit_price": {0: 9.0, 1: 11.0}}
    run = run_of([FLAT, MISSES, REACHES_9, (10.0, 11.0, 10.0, 10.0)], signals, orderType="limit")

    assert order_history(run) == [
        *pending_then("cancelled", 1, "replaced by a later order"),
        ("2", 1, "pending", None),
        ("2", 3, "filled", 11),
    ]


def test_an_exit_of_its_side_withdraws_an_order() -> None:
    run = run_of([FLAT, MISSES, REACHES_9], {**BUY_AT_9, "exits": {1: True}}, orderType="limit")

    assert order_history(run) == pending_then("cancelled", 1, "withdrawn by an exit")


def test_an_exit_of_the_other_side_does_not_withdraw_an_order() -> None:
    run = run_of([FLAT, MISSES, REACHES_9], {**BUY_AT_9, "short_exits": {1: True}}, orderType="limit")

    assert order_history(run) == pending_then("filled", 2, 9)


def test_an_order_is_rejected_when_its_price_is_reached_without_enough_cash() -> None:
    run = run_of([FLAT, REACHES_9], BUY_AT_9, orderType="limit", sizeValue=200.0)

    assert order_history(run) == pending_then("rejected", 1, "not enough cash")


def test_an_entry_without_a_price_is_rejected_at_once() -> None:
    run = run_of([FLAT, REACHES_9], {"entries": {0: True}, "limit_price": {1: 9.0}}, orderType="limit")

    assert order_history(run) == [("1", 0, "rejected", "no price to wait for")]


def test_an_order_that_is_placed_on_the_last_bar_is_cancelled_there() -> None:
    assert order_history(run_of([FLAT], BUY_AT_9, orderType="limit")) == pending_then("cancelled", 0, AT_THE_END)


# --- orders and positions ---


def test_a_reversal_happens_when_the_pending_order_is_filled() -> None:
    signals: SignalsByBar = {"entries": {0: True}, "short_entries": {1: True}, "limit_price": {0: 10.0, 1: 12.0}}
    run = run_of([FLAT, FLAT, FLAT, (10.0, 12.5, 10.0, 12.0)], signals, orderType="limit")
    orders = published_orders(run)
    result = run.finish()

    assert [(one["orderId"], one["bar"], one["status"]) for one in orders] == [
        *(("1", 0, "pending"), ("1", 1, "filled")),
        *(("2", 1, "pending"), ("2", 3, "filled")),
    ]
    assert (orders[-1]["fillPrice"], orders[-1]["fillQuantity"]) == (12, 20)
    assert result.frame("positions")["quantity"].to_list() == [10, 0, -10]
    assert result.frame("trades")["pnl"].to_list() == [20, 0]


def test_an_exit_is_a_market_order_whatever_the_order_type() -> None:
    signals: SignalsByBar = {"entries": {0: True}, "exits": {1: True}, "limit_price": {0: 10.0}}
    orders = published_orders(run_of([FLAT, FLAT, (11.0, 11.0, 11.0, 11.0)], signals, orderType="limit"))

    assert [(one["orderType"], one["status"], one.get("fillPrice")) for one in orders] == [
        ("limit", "pending", None),
        ("limit", "filled", 10),
        ("market", "filled", 11),
    ]


def test_protective_exits_come_before_the_pending_order() -> None:
    """The stop at 9 ends the long position, so the sale at 8.5 opens a short one and reverses nothing."""
    signals: SignalsByBar = {"entries": {0: True}, "short_entries": {1: True}, "stop_price": {0: 10.0, 1: 8.5}}
    run = run_of([FLAT, FLAT, (10.0, 10.0, 8.0, 8.25)], signals, orderType="stop", stopLoss=0.1)
    orders = published_orders(run)

    assert [(one["orderId"], one["status"], one.get("fillPrice"), one.get("fillQuantity")) for one in orders] == [
        ("1", "pending", None, None),
        ("1", "filled", 10, 10),
        ("2", "pending", None, None),
        ("3", "filled", 9, 10),
        ("2", "filled", 8.5, 10),
    ]


PROTECTED: dict[str, Any] = {"orderType": "limit", "stopLoss": 0.1}


@pytest.mark.parametrize("active", ["same_bar", "same_bar_at_open"])
def test_a_fill_at_the_open_may_be_stopped_on_the_same_bar(active: str) -> None:
    run = run_of([FLAT, (8.0, 8.0, 7.0, 7.5)], BUY_AT_9, **PROTECTED, stopActive=active)

    assert order_history(run) == [*pending_then("filled", 1, 8), ("2", 1, "filled", pytest.approx(7.2))]


def test_a_fill_is_protected_from_the_next_bar_on_by_convention() -> None:
    run = run_of([FLAT, (8.0, 8.0, 7.0, 7.5), (7.0, 7.5, 7.0, 7.5)], BUY_AT_9, **PROTECTED, stopActive="next_bar")

    assert order_history(run) == [*pending_then("filled", 1, 8), ("2", 2, "filled", 7)]


def test_a_fill_within_a_bar_is_protected_from_the_next_bar_on_by_convention() -> None:
    rows: list[Row] = [FLAT, (10.0, 10.0, 8.0, 9.0), (9.0, 9.0, 8.0, 8.5)]
    run = run_of(rows, BUY_AT_9, **PROTECTED, stopActive="same_bar_at_open")

    assert order_history(run) == [*pending_then("filled", 1, 9), ("2", 2, "filled", pytest.approx(8.1))]


@pytest.mark.parametrize(
    ("order_type", "signals", "bar", "exits"),
    [
        pytest.param("limit", BUY_AT_9, (10, 10, 8, 9), [(1, 8.1)], id="limit: the low is later than the fill"),
        pytest.param("limit", SELL_AT_11, (10, 12.5, 10, 11), [(1, 12.1)], id="limit: so is the high for a sale"),
        pytest.param("limit", BUY_AT_9, (10, 10.8, 9, 10), [], id="limit: the high may be earlier"),
        pytest.param("limit", BUY_AT_9, (10, 11, 9, 10.9), [(1, 10.8)], id="limit: the close is later"),
        pytest.param("stop", BUY_ABOVE_11, (10, 13.5, 10, 12), [(1, 13.2)], id="stop: the high is later"),
        pytest.param("stop", BUY_ABOVE_11, (10, 11.5, 9.8, 11), [(1, 9.9)], id="stop: the worse of the low"),
        pytest.param("stop", BUY_ABOVE_11, (9.5, 11.5, 9, 11), [], id="stop: passed before the fill"),
        pytest.param("stop", BUY_ABOVE_11, (9.5, 11.5, 9, 9.6), [(1, 9.9)], id="stop: and back by the close"),
        pytest.param("stop", SELL_BELOW_9, (9.5, 10, 8.5, 9), [(1, 9.9)], id="stop: the worse of a sale's high"),
        pytest.param("stop", SELL_BELOW_9, (10.5, 11, 8.5, 9), [], id="stop: passed before a sale"),
        pytest.param("stop", BUY_ABOVE_11, (10, 13.5, 9.8, 12), [(1, 9.9)], id="stop: both reached: the stop loss"),
    ],
)
def test_a_fill_within_a_bar_is_protected_by_what_came_later(
    order_type: str, signals: SignalsByBar, bar: Row, exits: list[tuple[int, float]]
) -> None:
    run = run_of([FLAT, bar], signals, orderType=order_type, stopLoss=0.1, takeProfit=0.2)

    got = [(one["bar"], one["fillPrice"]) for one in published_orders(run)[2:]]
    assert got == [(at, pytest.approx(price)) for at, price in exits]


# --- the published messages ---


@pytest.mark.parametrize("bars_at_once", [1, 2, 1000])
def test_each_change_is_published_under_one_id_and_the_table_has_the_last(bars_at_once: int) -> None:
    signals: SignalsByBar = {"entries": {0: True, 1: True}, "limit_price": {0: 9.0, 1: 8.0}}
    run = run_of([FLAT, MISSES, MISSES, (10.0, 10.0, 7.5, 9.0)], signals, orderType="limit")
    common: dict[str, Any] = {"backtestId": "b", "symbol": "LINE", "side": "buy", "orderType": "limit", "quantity": 10}
    first, second = {**common, "orderId": "1", "price": 9}, {**common, "orderId": "2", "price": 8}

    assert [
        {name: value for name, value in one.items() if name != "timestamp"}
        for one in published_orders(run, bars_at_once=bars_at_once)
    ] == [
        {**first, "bar": 0, "status": "pending"},
        {**first, "bar": 1, "status": "cancelled", "reason": "replaced by a later order"},
        {**second, "bar": 1, "status": "pending"},
        {**second, "bar": 3, "status": "filled", "fillPrice": 8, "fillQuantity": 10},
    ]
    table = run.finish().frame("orders")
    assert table.select("order_id", "status", "fill_price", "fill_quantity", "reason").rows() == [
        ("1", "cancelled", None, None, "replaced by a later order"),
        ("2", "filled", 8.0, 10.0, None),
    ]
