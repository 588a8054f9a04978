"""A filter passes what was asked for and nothing else, and narrows the topic where the broker can do the work."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr.core.update_filter import UpdateFilter, narrowed, update_filter
from backtestr_protocol.messages import BacktestStatus
from backtestr_protocol.stream_messages import OrderUpdate, PositionUpdate, PriceUpdate

SYMBOLS, SIDES, STATUSES = ["A", "B", "C.D"], ["buy", "sell"], ["pending", "filled", "cancelled", "rejected"]
quantities = st.floats(0, 10)


def order(symbol: Any, side: Any, status: Any, quantity: float) -> OrderUpdate:
    return OrderUpdate(
        order_id="1",
        backtest_id="b",
        symbol=symbol,
        side=side,
        quantity=quantity,
        price=1.0,
        order_type="market",
        status=status,
        timestamp=1,
    )


def position(symbol: str, quantity: float) -> PositionUpdate:
    return PositionUpdate(
        position_id="1",
        backtest_id="b",
        symbol=symbol,
        quantity=quantity,
        average_price=1.0,
        current_price=1.0,
        unrealized_pnl=0.0,
        realized_pnl=0.0,
        timestamp=1,
    )


def some(values: list[str]) -> Any:
    return st.none() | st.sampled_from(values) | st.lists(st.sampled_from(values), min_size=1)


@given(
    st.lists(st.builds(order, *map(st.sampled_from, (SYMBOLS, SIDES, STATUSES)), quantities)),
    *map(some, (SYMBOLS, SIDES, STATUSES)),
    st.none() | quantities,
)
def test_orders_pass_that_have_every_wanted_value(
    orders: list[OrderUpdate], symbol: Any, side: Any, status: Any, least: float | None
) -> None:
    wanted = update_filter("orders.", symbol=symbol, side=side, status=status, min_quantity=least)
    passed = orders if wanted is None else [one for one in orders if wanted.passes(one)]
    assert passed == [
        one
        for one in orders
        if (symbol is None or one.symbol in ([symbol] if isinstance(symbol, str) else symbol))
        and (side is None or one.side in ([side] if isinstance(side, str) else side))
        and (status is None or one.status in ([status] if isinstance(status, str) else status))
        and (least is None or one.quantity >= least)
    ]


def test_a_position_has_the_side_of_its_sign_and_its_end_always_passes() -> None:
    wanted = update_filter("positions.b1", side="sell", min_quantity=2)
    assert wanted is not None
    assert [wanted.passes(position("A", one)) for one in (3.0, -3.0, -1.0, 0.0)] == [False, True, False, True]


def test_a_backtest_of_several_symbols_is_of_each() -> None:
    status = BacktestStatus(
        backtest_id="b",
        status="running",
        algorithm_id="a",
        symbol="A",
        symbols=["A", "B"],
        progress_percent=0.0,
        submit_time=0,
    )
    passes = [
        update_filter("system.backtests", symbol=one, status=["running", "failed"]).passes(status)  # type: ignore[union-attr]
        for one in SYMBOLS
    ]
    assert passes == [True, True, False]


def test_data_of_an_unknown_type_pass() -> None:
    assert UpdateFilter(symbols=frozenset("A")).passes({"symbol": "B"})


def test_nothing_asked_is_no_filter() -> None:
    assert update_filter("orders.") is None


@pytest.mark.parametrize(
    ("prefix", "given", "said"),
    [
        ("prices.", {"side": "buy"}, "cannot be filtered by side; those of these can: orders., positions."),
        ("progress.b1", {"symbol": "A"}, "cannot be filtered by symbol"),
        ("state.ui", {"status": "filled"}, "cannot be filtered by status"),
        ("orders.", {"side": "bye"}, "side: expected one of buy, sell; 'bye' came; did you mean 'buy'"),
        ("orders.", {"status": ["filled", "canceled"]}, "'canceled' came; did you mean 'cancelled'"),
        ("system.backtests", {"status": "filled"}, "status: expected one of queued"),
        ("orders.", {"min_quantity": -1}, "min_quantity: expected a number"),
        ("orders.", {"min_quantity": float("nan")}, "min_quantity: expected a number"),
        ("orders.", {"min_quantity": "3"}, "min_quantity: expected a number"),
        ("orders.", {"symbol": []}, "an empty filter would pass nothing"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused(prefix: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        update_filter(prefix, **given)


@pytest.mark.parametrize(
    ("prefix", "symbol", "topic"),
    [
        ("prices.", "A", "prices.A."),
        ("prices.", "C.D", "prices.C.D."),
        ("prices.", ["A"], "prices.A."),
        ("prices.", ["A", "B"], "prices."),
        ("prices.A.1m", "A", "prices.A.1m"),
        ("orders.", "A", "orders."),
        ("prices.", None, "prices."),
    ],
)
def test_the_topic_is_as_narrow_as_the_filter_allows(prefix: str, symbol: Any, topic: str) -> None:
    assert narrowed(prefix, update_filter(prefix, symbol=symbol)) == topic


def test_a_price_of_another_symbol_does_not_pass() -> None:
    price = PriceUpdate(symbol="A.B", timestamp=0, bid=1, ask=1, last=1, volume=1, timeframe="1m")
    assert not UpdateFilter(symbols=frozenset("A")).passes(price)
