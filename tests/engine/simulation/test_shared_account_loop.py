"""Laws of the shared account simulation, and examples of its conventions.

It agrees with a slow reference, one symbol alone is the symbol simulation, chunks do not matter, the books balance.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.algorithms.weights import targets_of
from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_engine.simulation.account import kernel_rules, totals
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.simulation.records import LIQUIDATED, REASONS, REJECTED, SIDES, rejections
from backtestr_engine.simulation.shared_account_loop import SharedAccountSimulation
from support.engine.cases import (
    CAPITAL,
    Case,
    random_bars,
    random_conventions,
    random_costs,
    random_signals,
    shipped_conventions,
    slow_input,
)
from support.engine.reference_portfolio import Series, SharedReference

CASES = 1500
DEFAULTS = shipped_conventions()
AT_CLOSE = msgspec.structs.replace(DEFAULTS, fill_at="close")
MINUTE = 60_000_000


@dataclass(frozen=True)
class Shared:
    """A random case of several symbols."""

    panel: Panel
    signals: tuple[Signals, ...]
    conventions: Conventions
    commission: float
    slippage: float

    def simulate(self) -> SharedAccountSimulation:
        rules = kernel_rules(self.conventions, commission=self.commission, slippage=self.slippage)
        return SharedAccountSimulation(self.panel, self.signals, rules, CAPITAL)


def random_shared(generator: np.random.Generator) -> Shared:
    """Return up to four symbols, each with some of the times."""
    conventions = random_conventions(generator, DEFAULTS, shared=True)
    rows = int(generator.integers(2, 30))
    series = []
    for symbol in range(int(generator.integers(1, 5))):
        there = np.flatnonzero(generator.random(rows) < float(generator.choice([0.5, 1.0, 1.0])))
        there = there if len(there) else np.array([0])
        drawn = random_bars(generator, len(there))
        columns = (getattr(drawn, name) for name in ("open", "high", "low", "close", "volume"))
        series.append(Bars(f"S{symbol}", "1m", there * MINUTE, *columns))
    signals = tuple(random_signals(generator, bars, conventions) for bars in series)
    return Shared(Panel.of(series), signals, conventions, *random_costs(generator))


def test_the_kernel_agrees_with_the_slow_reference(generator: np.random.Generator) -> None:
    for number in range(CASES):
        case = random_shared(generator)
        walk = case.simulate()
        orders = walk.advance(len(case.panel)).orders
        slow = SharedReference(
            case.conventions,
            case.commission,
            case.slippage,
            CAPITAL,
            [
                Series(bars.timestamp.tolist(), *slow_input(bars, signals, case.conventions))
                for bars, signals in zip(case.panel.series, case.signals, strict=True)
            ],
        )
        slow.simulate()

        where = f"case {number}: {case.conventions}"
        assert walk.equity.tolist() == pytest.approx(slow.equity, rel=1e-9, abs=1e-7), where
        assert [(int(o["symbol"]), SIDES[int(o["side"])], REASONS[o["reason"]]) for o in orders] == [
            (symbol, order.side, order.reason) for symbol, order in slow.orders
        ], where
        for order, (symbol, expected) in zip(orders, slow.orders, strict=True):
            assert order["timestamp"] == case.panel.series[symbol].timestamp[expected.bar], where
            assert order["quantity"] == pytest.approx(expected.asked, rel=1e-9, abs=1e-7), where
            assert order["fill_quantity"] == pytest.approx(expected.filled, rel=1e-9, abs=1e-7), where
            assert order["fee"] == pytest.approx(expected.fee, rel=1e-9, abs=1e-7), where


def test_one_symbol_alone_is_the_symbol_simulation_bit_for_bit(generator: np.random.Generator) -> None:
    for _ in range(500):
        bars, conventions = random_bars(generator, 30), random_conventions(generator, DEFAULTS, shared=True)
        case = Case(bars, random_signals(generator, bars, conventions), conventions, *random_costs(generator))
        plain, rules = (
            case.simulate(),
            kernel_rules(case.conventions, commission=case.commission, slippage=case.slippage),
        )
        shared = SharedAccountSimulation(Panel.of([case.bars]), [case.signals], rules, CAPITAL)
        ours, theirs = shared.advance(100), plain.advance(100)

        assert shared.equity.tobytes() == plain.equity.tobytes()
        for name in ("orders", "positions", "trades"):
            assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes()
        assert totals(shared.account) == totals(plain.account)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 30), max_size=20))
def test_chunks_equal_one_chunk_bit_for_bit(seed: int, cuts: list[int]) -> None:
    case = random_shared(np.random.default_rng(seed))
    whole, chunked = case.simulate(), case.simulate()
    at_once = whole.advance(100)
    parts = [chunked.advance(size) for size in [*cuts, 100]]

    assert chunked.equity.tobytes() == whole.equity.tobytes()
    assert totals(chunked.account) == totals(whole.account)
    for name in ("orders", "positions", "trades"):
        together = b"".join(getattr(part, name).tobytes() for part in parts)
        assert together == getattr(at_once, name).tobytes() == getattr(chunked.events(), name).tobytes()


def test_the_books_balance_at_every_row(generator: np.random.Generator) -> None:
    for _ in range(200):
        case = random_shared(generator)
        walk = case.simulate()
        for row in range(len(case.panel)):
            walk.advance(1)
            at = totals(walk.account)
            scale = max(CAPITAL, at.traded_value)
            assert CAPITAL + at.realized + at.unrealized == pytest.approx(walk.equity[row], abs=1e-9 * scale)
        events = walk.events()
        for symbol, account in enumerate(walk.account):
            mine = events.orders[events.orders["symbol"] == symbol]
            bought = (mine["side"] * mine["fill_quantity"]).sum()
            assert account["quantity"] == pytest.approx(bought, abs=1e-6)
        ids = events.positions["position_id"]
        assert all(len(set(events.positions["symbol"][ids == one])) == 1 for one in np.unique(ids))
        assert at.positions_opened == ids.max(initial=0)


def series(symbol: str, closes: list[float], *, times: list[int] | None = None) -> Bars:
    prices = np.array(closes, dtype=float)
    minutes = np.arange(len(closes)) if times is None else np.array(times)
    return Bars(symbol, "1m", minutes * MINUTE, prices, prices, prices, prices, 0 * prices)


def held(*bars: Bars, targets: list[Floats], conventions: Conventions) -> SharedAccountSimulation:
    signals = [Signals.of(target=target) for target in targets]
    walk = SharedAccountSimulation(Panel.of(bars), signals, kernel_rules(conventions, commission=0, slippage=0), 1000.0)
    walk.advance(100)
    return walk


def test_cash_from_a_sale_can_be_spent_at_the_same_moment() -> None:
    bars = series("A", [10, 10]), series("B", [10, 10])
    targets = [np.array([0.0, 1.0]), np.array([1.0, 0.0])]
    moved = held(*bars, targets=targets, conventions=AT_CLOSE)
    stuck = held(*bars, targets=targets, conventions=msgspec.structs.replace(AT_CLOSE, symbol_order="given"))

    assert moved.account["quantity"].tolist() == [100, 0]
    assert stuck.account["quantity"].tolist() == [0, 0]
    assert "not enough cash" in [REASONS[reason] for reason in stuck.events().orders["reason"]]


def test_a_symbol_without_a_bar_does_not_trade_and_keeps_its_last_price() -> None:
    a = series("A", [10, 20, 40], times=[0, 1, 3])
    b = series("B", [10, 10, 10, 10])
    walk = held(a, b, targets=[np.array([0.5, np.nan, 0.0]), np.full(4, np.nan)], conventions=AT_CLOSE)

    assert walk.equity.tolist() == [1000, 1500, 1500, 2500]
    assert walk.events().orders["timestamp"].tolist() == [0, 3 * MINUTE]


def test_symbols_share_equity_and_cash() -> None:
    """Half of equity in each: cash that the first spends is missing for the second, but counts for its size."""
    half = msgspec.structs.replace(AT_CLOSE, size="fraction", size_value=0.5)
    of_cash = msgspec.structs.replace(half, size_base="cash")
    bars = series("A", [10, 10]), series("B", [10, 10])
    entry = Signals.of(entries=np.array([True, False]))
    for conventions, expected in ((half, [50, 50]), (of_cash, [50, 25])):
        rules = kernel_rules(conventions, commission=0, slippage=0)
        walk = SharedAccountSimulation(Panel.of(bars), [entry, entry], rules, 1000.0)
        walk.advance(2)
        assert walk.account["quantity"].tolist() == expected


ENTERS = Signals.of(entries=np.array([True, False, False]))
SHORTS = Signals.of(short_entries=np.array([True, False, False]))


def walked(panel: Panel, signals: list[Signals], **changed: object) -> SharedAccountSimulation:
    rules = kernel_rules(msgspec.structs.replace(DEFAULTS, **changed), commission=0, slippage=0)
    walk = SharedAccountSimulation(panel, signals, rules, 1000.0)
    walk.advance(len(panel))
    return walk


def test_without_weights_symbols_share_the_cash_equally() -> None:
    panel = Panel.of([series(name, [10, 10, 10]) for name in "ABCDEFGH"])
    equal = walked(panel, [ENTERS] * 8)
    first_come = walked(panel, [ENTERS] * 8, cash_shares="first_come")

    assert equal.account["quantity"].tolist() == pytest.approx([12.5] * 8)
    assert not np.any(equal.events().orders["status"] == REJECTED)
    assert first_come.account["quantity"].tolist() == [100, *[0] * 7]
    assert rejections(first_come.events().orders) == {"not enough cash": 7}


def test_a_symbol_that_trades_alone_leaves_the_parts_of_the_others() -> None:
    """B holds nothing yet, and has bars until the end; C has none left at the second moment."""
    later = Signals.of(entries=np.array([False, True, False, False]))
    never = Signals.of(entries=np.zeros(4, dtype=bool))
    panel = Panel.of([series("A", [10] * 4), series("B", [10] * 4), series("C", [10, 10])])
    walk = walked(panel, [later, never, Signals.of(entries=np.zeros(2, dtype=bool))])

    assert walk.account["quantity"].tolist() == [50, 0, 0]


def test_a_reversal_spends_the_symbols_own_part() -> None:
    turns = Signals.of(entries=np.array([True, False, False]), short_entries=np.array([False, True, False]))
    panel = Panel.of([series("A", [10, 10, 10]), series("B", [10, 10, 10])])
    walk = walked(panel, [turns, ENTERS])

    assert walk.account["quantity"].tolist() == [-50, 50]


def ohlc(symbol: str, *rows: tuple[float, float, float, float]) -> Bars:
    opened, high, low, close = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    return Bars(symbol, "1m", np.arange(len(rows)) * MINUTE, opened, high, low, close, 0 * opened)


FLAT = (10.0, 10.0, 10.0, 10.0)


def liquidations(walk: SharedAccountSimulation) -> list[tuple[int, int, float]]:
    """Return row, symbol and price of each."""
    orders = walk.events().orders
    those = orders[orders["reason"] == LIQUIDATED]
    return [(int(one["timestamp"]) // MINUTE, int(one["symbol"]), float(one["fill_price"])) for one in those]


def test_a_symbol_is_liquidated_within_its_bar_while_the_others_stand_still() -> None:
    """Fifty units sold short and fifty bought for 10: when the short ones cost 30 nothing is left, and all ends."""
    panel = Panel.of([ohlc("A", FLAT, FLAT, (10, 40, 10, 12)), ohlc("B", FLAT, FLAT, FLAT)])
    walk = walked(panel, [SHORTS, ENTERS])

    assert liquidations(walk) == [(2, 0, 30.0), (2, 1, 10.0)]
    assert walk.equity[-1] == 0


def test_an_account_with_nothing_left_at_the_close_ends_all_positions() -> None:
    """Each may rise to 30 by itself; both are at 25 at the close, where 1,500 in cash owe 2,500."""
    rises = (10.0, 26.0, 10.0, 25.0)
    panel = Panel.of([ohlc("A", FLAT, FLAT, rises, FLAT), ohlc("B", FLAT, FLAT, rises, FLAT)])
    both = [Signals.of(short_entries=np.array([True, False, False, False]))] * 2
    walk = walked(panel, both)

    assert liquidations(walk) == [(2, 0, 25.0), (2, 1, 25.0)]
    assert walk.equity.tolist() == [1000, 1000, -500, -500]
    assert walked(panel, both, liquidation="on_credit").equity.tolist() == [1000, 1000, -500, 1000]


def test_a_long_position_ends_with_the_account_that_a_short_one_ruins() -> None:
    gap = (60.0, 60.0, 60.0, 60.0)
    panel = Panel.of([ohlc("A", FLAT, FLAT, gap), ohlc("B", FLAT, FLAT, FLAT)])
    walk = walked(panel, [SHORTS, ENTERS])

    assert liquidations(walk) == [(2, 0, 60.0), (2, 1, 10.0)]
    assert walk.equity[-1] == -1500.0


def test_a_symbol_without_a_bar_is_liquidated_at_its_next() -> None:
    a = ohlc("A", FLAT, FLAT, (60.0, 60.0, 60.0, 60.0), FLAT)
    late = series("B", [10, 10, 11], times=[0, 1, 3])
    walk = walked(Panel.of([a, late]), [Signals.of(short_entries=np.array([True, False, False, False])), ENTERS])

    assert liquidations(walk) == [(2, 0, 60.0), (3, 1, 11.0)]


def test_a_short_sale_holds_its_proceeds_and_as_much_again() -> None:
    conventions = msgspec.structs.replace(AT_CLOSE, size="value", size_value=600.0)
    bars = series("A", [10, 10]), series("B", [10, 10])
    short = Signals.of(short_entries=np.array([True, False]))
    walk = SharedAccountSimulation(
        Panel.of(bars), [short, short], kernel_rules(conventions, commission=0, slippage=0), 1000.0
    )
    walk.advance(2)

    assert walk.account["quantity"].tolist() == [-60, 0]


@pytest.mark.parametrize(
    ("fills_at_close", "expected"),
    [(False, [[0.1, 0.3, 0.5], [0.2, np.nan, np.nan]]), (True, [[0.1, 0.2, 0.5], [0.2, 0.4, np.nan]])],
)
def test_weights_wait_for_the_next_price(fills_at_close: bool, expected: list[list[float]]) -> None:
    panel = Panel.of([series("A", [1, 1, 1], times=[0, 1, 3]), series("B", [1, 1, 1], times=[1, 2, 4])])
    weights = np.array([[0.1, np.nan], [0.2, 0.2], [0.3, np.nan], [0.5, np.nan], [np.nan, np.nan]])
    if not fills_at_close:
        weights[0, 1] = 0.9  # before its first bar: that bar's own weight comes later
    else:
        weights[2] = np.nan, 0.4  # A has no bar there, B has

    targets = [one.target for one in targets_of(panel, weights, fills_at_close=fills_at_close)]

    assert np.array_equal(np.array(targets), np.array(expected), equal_nan=True)


def test_the_market_is_equal_parts_of_the_present_symbols() -> None:
    panel = Panel.of([series("A", [10, 20, 30]), series("B", [5, 10], times=[1, 2])])

    assert panel.market().tolist() == [1.0, 1.5, 2.5]
