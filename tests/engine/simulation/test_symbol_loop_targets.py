"""Targets: positions that follow a fraction of equity, by hand-computed examples."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.data.bars import Bars
from backtestr_engine.simulation.account import kernel_rules
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.simulation.records import REASONS, STATUSES
from backtestr_engine.simulation.symbol_loop import SymbolSimulation
from backtestr_protocol.errors import AlgorithmError
from support.engine.cases import shipped_conventions

NAN = float("nan")
AT_CLOSE = msgspec.structs.replace(shipped_conventions(), fill_at="close")


def walked(
    target: list[float], closes: list[float], conventions: Conventions = AT_CLOSE, *, commission: float = 0.0
) -> SymbolSimulation:
    """Return a finished simulation with capital 1,000; every bar opens and closes at one price."""
    prices = np.array(closes, dtype=float)
    times = np.arange(len(closes), dtype=np.int64) * 60_000_000
    bars = Bars("LINE", "1m", times, prices, prices, prices, prices, 0 * prices)
    walk = SymbolSimulation(
        bars, Signals.of(target=np.array(target)), kernel_rules(conventions, commission=commission, slippage=0), 1000.0
    )
    walk.advance(len(bars))
    return walk


def test_a_position_grows_shrinks_and_ends_with_its_target() -> None:
    events = walked([0.5, NAN, 0.8, 0.2, 0.0], [10, 20, 20, 20, 20]).events()

    # 50 units at 10; equity 1,500 at 20: 60 units, then 15, then none.
    assert events.orders["side"].tolist() == [1, 1, -1, -1]
    assert events.orders["fill_quantity"].tolist() == pytest.approx([50, 10, 45, 15])
    assert events.positions["position_id"].tolist() == [1, 1, 1, 1]
    assert events.positions["quantity"].tolist() == pytest.approx([50, 60, 15, 0])
    average = (50 * 10 + 10 * 20) / 60
    assert events.positions["average_price"].tolist() == pytest.approx([10, average, average, average])
    assert events.trades["quantity"].tolist() == pytest.approx([45, 15])
    assert events.trades["pnl"].sum() == pytest.approx(500)


def test_under_next_open_equity_and_price_are_those_of_the_open() -> None:
    events = walked([0.5, NAN, NAN], [10, 20, 40], shipped_conventions()).events()

    assert events.orders["timestamp"].tolist() == [60_000_000]
    assert events.orders["fill_quantity"].tolist() == [0.5 * 1000 / 20]


def test_a_target_on_the_other_side_reverses_in_one_order() -> None:
    walk = walked([1.0, -0.5], [10, 10])
    orders, positions = walk.events().orders, walk.events().positions

    assert orders["side"].tolist() == [1, -1]
    assert orders["fill_quantity"].tolist() == pytest.approx([100, 150])
    assert positions["position_id"].tolist() == [1, 1, 2]
    assert positions["quantity"].tolist() == pytest.approx([100, 0, -50])


def test_a_constant_target_trades_back_to_it_as_prices_move() -> None:
    walk = walked([0.5, 0.5, 0.5], [10, 20, 10])

    # 50 units; equity 1,500 at 20: 37.5 units; equity 1,125 at 10: 56.25 units.
    assert walk.events().positions["quantity"].tolist() == pytest.approx([50, 37.5, 56.25])


def test_a_rounding_difference_to_a_target_makes_no_order() -> None:
    assert len(walked([1 / 3] * 50, [10.1] * 50).events().orders) == 1


def test_a_target_of_all_equity_is_cut_to_the_cash_after_costs() -> None:
    walk = walked([1.0, 1.0], [10, 10], commission=0.01)

    assert [(STATUSES[o["status"]], REASONS[o["reason"]]) for o in walk.events().orders] == [
        ("filled", "cut to the cash there was")
    ]
    assert walk.account["cash"][0] == pytest.approx(0.0, abs=1e-9)


def test_a_target_beyond_the_leverage_is_cut_to_it() -> None:
    doubled = msgspec.structs.replace(AT_CLOSE, leverage=2.0)

    assert walked([3.0], [10]).account["quantity"][0] == pytest.approx(100)
    assert walked([3.0], [10], doubled).account["quantity"][0] == pytest.approx(200)
    assert walked([1.0, 3.0], [10, 10], doubled).account["quantity"][0] == pytest.approx(200)
    assert walked([-1.0, -3.0], [10, 10]).account["quantity"][0] == pytest.approx(-100)


def test_direction_and_whole_units_hold_for_targets() -> None:
    long_only = msgspec.structs.replace(AT_CLOSE, direction="long", whole_units=True)

    assert walked([0.55, -1.0], [30, 30], long_only).events().positions["quantity"].tolist() == [18, 0]


def test_the_target_of_an_account_without_equity_is_no_position() -> None:
    walk = walked([-1.0, -1.0, -1.0], [10, 30, 30])

    assert walk.events().positions["quantity"].tolist() == [-100, 0]
    assert walk.equity.tolist() == pytest.approx([1000, -1000, -1000])


def test_a_target_on_the_last_bar_has_no_next_bar() -> None:
    orders = walked([0.5, 0.2], [10, 10], shipped_conventions()).events().orders

    assert [(REASONS[o["reason"]], o["side"], o["quantity"]) for o in orders] == [
        ("", 1, 50),
        ("no next bar to fill at", -1, pytest.approx(30)),
    ]


def test_a_stop_closes_the_position_of_a_target_and_the_next_target_opens_it_again() -> None:
    armed = msgspec.structs.replace(AT_CLOSE, stop_loss=0.1)
    events = walked([0.5, NAN, 0.5], [10, 8, 8], armed).events()

    assert [REASONS[o["reason"]] for o in events.orders] == ["", "stop loss", ""]
    assert events.positions["position_id"].tolist() == [1, 1, 2]


@pytest.mark.parametrize(
    ("target", "others", "said"),
    [
        ([0.5, np.inf], {}, "bar 1 has inf"),
        ([[0.5]], {}, "of shape (1, 1)"),
        ([True, False], {}, "not bool"),
        ([0.5, 0.5], {"entries": np.array([True, False])}, "without entries"),
        ([0.5, 0.5], {"limit_price": 10.0}, "without entries"),
    ],
)
def test_invalid_targets_are_refused(target: list[float], others: dict[str, object], said: str) -> None:
    with pytest.raises(AlgorithmError) as refused:
        Signals.of(target=np.array(target), **others)  # type: ignore[arg-type]  # that is what is tested

    assert said in refused.value.message
