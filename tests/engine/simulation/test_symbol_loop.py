"""Laws of the simulation: it agrees with a slow reference, chunks do not matter, the books balance at every bar."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.algorithms.signals import ENTRY, EXIT, SHORT_ENTRY, SHORT_EXIT, Signals
from backtestr_engine.data.bars import Bars
from backtestr_engine.simulation.account import kernel_rules, new_account
from backtestr_engine.simulation.bar_step import Prices, SignalColumns
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.simulation.records import (
    FILLED,
    ORDER_TYPES,
    PENDING,
    REASONS,
    SIDES,
    STATUSES,
    Events,
    final_states,
)
from backtestr_engine.simulation.symbol_loop import (
    SymbolSimulation,
    busy_bars,
    kept_flags,
    levels,
    simulate,
    targets,
    trades_alone,
)
from support.engine.cases import CAPITAL, Case, random_bars, random_case, shipped_conventions

CASES = 3000
DEFAULTS = shipped_conventions()


def test_the_kernel_agrees_with_the_slow_reference(generator: np.random.Generator, conventions: Conventions) -> None:
    for number in range(CASES):
        case = random_case(generator, conventions)
        walk = case.simulate()
        events = walk.advance(len(case.bars))
        slow = case.reference()

        where = f"case {number}: {case.conventions}"
        assert walk.equity.tolist() == pytest.approx(slow.equity, rel=1e-9, abs=1e-7), where
        assert [(SIDES[int(o["side"])], REASONS[o["reason"]]) for o in events.orders] == [
            (o.side, o.reason) for o in slow.orders
        ], where
        times = case.bars.timestamp
        for order, expected in zip(events.orders, slow.orders, strict=True):
            assert order["timestamp"] == times[expected.bar], where
            assert order["quantity"] == pytest.approx(expected.asked, rel=1e-9, abs=1e-7), where
            assert order["fill_quantity"] == pytest.approx(expected.filled, rel=1e-9, abs=1e-7), where
            assert order["fee"] == pytest.approx(expected.fee, rel=1e-9, abs=1e-7), where
            assert ORDER_TYPES[order["order_type"]] == expected.kind, where
            ended = "rejected" if expected.price is None else "filled"
            assert STATUSES[order["status"]] == (expected.status or ended), where
            assert expected.price is None or order["fill_price"] == pytest.approx(expected.price, rel=1e-9, abs=1e-7), (
                where
            )
        for trade, expected_trade in zip(events.trades, slow.trades, strict=True):
            assert SIDES[int(trade["side"])] == expected_trade.side, where
            assert trade["entry_time"] == times[expected_trade.entry_bar], where
            assert trade["exit_time"] == times[expected_trade.exit_bar], where
            assert trade["quantity"] == pytest.approx(expected_trade.quantity, rel=1e-9, abs=1e-7), where
            assert trade["pnl"] == pytest.approx(expected_trade.pnl, rel=1e-9, abs=1e-7), where
            assert trade["fees"] == pytest.approx(expected_trade.fees, rel=1e-9, abs=1e-7), where


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 60), max_size=20))
def test_chunks_equal_one_chunk_bit_for_bit(seed: int, cuts: list[int]) -> None:
    case = random_case(np.random.default_rng(seed), DEFAULTS, bars=60)
    whole, chunked = case.simulate(), case.simulate()
    at_once = whole.advance(60)
    parts = [chunked.advance(size) for size in [*cuts, 60]]

    assert chunked.bars_simulated == 60
    assert chunked.equity.tobytes() == whole.equity.tobytes()
    assert chunked.account.tobytes() == whole.account.tobytes()
    for name in ("orders", "positions", "trades"):
        together = b"".join(getattr(part, name).tobytes() for part in parts)
        assert together == getattr(at_once, name).tobytes() == getattr(chunked.events(), name).tobytes()


def test_the_books_balance_at_every_bar(generator: np.random.Generator, conventions: Conventions) -> None:
    for _ in range(300):
        case = random_case(generator, conventions)
        walk = case.simulate()
        for bar in range(len(case.bars)):
            walk.advance(1)
            account = walk.account[0]
            marked = account["cash"] + account["quantity"] * case.bars.close[bar]
            unrealized = account["quantity"] * (case.bars.close[bar] - account["average_price"])
            scale = max(CAPITAL, float(account["traded_value"]))
            assert walk.equity[bar] == marked
            assert CAPITAL + account["realized"] + unrealized == pytest.approx(marked, abs=1e-9 * scale)
        events, account = walk.events(), walk.account[0]
        filled = events.orders[events.orders["status"] == FILLED]
        assert account["fees"] == pytest.approx(filled["fee"].sum())
        assert account["quantity"] == pytest.approx((filled["side"] * filled["fill_quantity"]).sum(), abs=1e-6)
        trades_and_open_fees = events.trades["pnl"].sum() - account["entry_fees"]
        assert trades_and_open_fees == pytest.approx(account["realized"], abs=1e-9 * scale)


def test_positions_follow_from_orders(generator: np.random.Generator, conventions: Conventions) -> None:
    for _ in range(300):
        case = random_case(generator, conventions)
        events = case.simulate().advance(100)
        ids = events.positions["position_id"]
        assert np.all(np.diff(ids) >= 0)
        final = final_states(events.orders)
        assert final["order_id"].tolist() == list(range(1, len(final) + 1))
        assert not np.any(final["status"] == PENDING)
        for position_id in np.unique(ids):
            quantities = events.positions["quantity"][ids == position_id]
            assert len(set(np.sign(quantities[quantities != 0]))) == 1, "a position has one side"
            assert np.all(quantities[:-1] != 0), "a position that has ended does nothing more"
            if case.signals.target is None:
                assert np.all(np.diff(np.abs(quantities)) < 0), "without targets it opens once and only shrinks"


def test_a_reversal_is_one_order_and_two_changes_of_position(conventions: Conventions) -> None:
    events = walk_through([ENTRY, SHORT_ENTRY, 0], [10, 10, 10], conventions)

    assert events.orders["side"].tolist() == [1, -1]
    assert events.orders["fill_quantity"].tolist() == [100, 200]
    assert events.positions["position_id"].tolist() == [1, 1, 2]
    assert events.positions["quantity"].tolist() == [100, 0, -100]


def test_a_signal_on_the_last_bar_has_no_next_bar(conventions: Conventions) -> None:
    events = walk_through([0, ENTRY], [10, 10], conventions)

    assert [REASONS[reason] for reason in events.orders["reason"]] == ["no next bar to fill at"]
    assert np.isnan(events.orders["fill_price"][0])


def test_an_order_beyond_the_cash_is_rejected_or_cut(conventions: Conventions) -> None:
    large = msgspec.structs.replace(conventions, size="units", size_value=150.0)
    rejected = walk_through([ENTRY, 0], [10, 10], large)
    cut = walk_through([ENTRY, 0], [10, 10], msgspec.structs.replace(large, short_of_cash="cut"))

    assert [(REASONS[o["reason"]], o["quantity"]) for o in rejected.orders] == [("not enough cash", 150)]
    assert [(REASONS[o["reason"]], o["fill_quantity"]) for o in cut.orders] == [("cut to the cash there was", 100)]


def test_an_order_below_one_whole_unit_is_too_small(conventions: Conventions) -> None:
    events = walk_through([ENTRY, 0], [3000, 3000], msgspec.structs.replace(conventions, whole_units=True))

    assert [REASONS[reason] for reason in events.orders["reason"]] == ["too small"]


def test_orders_of_a_ruined_account_are_rejected(conventions: Conventions) -> None:
    """Nobody has liquidated it, by convention: the reversal covers at 30, with debt."""
    on_credit = msgspec.structs.replace(conventions, liquidation="on_credit")
    events = walk_through([SHORT_ENTRY, ENTRY, 0], [10, 30, 30], on_credit, opens=[10, 10, 30])

    assert [(STATUSES[o["status"]], REASONS[o["reason"]]) for o in events.orders] == [
        ("filled", ""),
        ("filled", ""),
        ("rejected", "not enough cash"),
    ]


def test_an_exit_outweighs_an_entry_and_contradicting_entries_do_nothing(conventions: Conventions) -> None:
    events = walk_through([ENTRY | EXIT, ENTRY | SHORT_ENTRY, 0], [10, 10, 10], conventions)

    assert len(events.orders) == 0


def test_all_in_spends_exactly_all_cash(generator: np.random.Generator, conventions: Conventions) -> None:
    for _ in range(200):
        bars = random_bars(generator, 3)
        flags = np.array([ENTRY, 0, 0], dtype=np.uint8)
        walk = SymbolSimulation(
            bars, Signals(flags), kernel_rules(conventions, commission=0.001, slippage=0.002), CAPITAL
        )
        walk.advance(3)
        assert 0 <= walk.account["cash"][0] < 1e-9


def test_short_exits_close_short_positions(conventions: Conventions) -> None:
    events = walk_through([SHORT_ENTRY, SHORT_EXIT, 0], [10, 9, 8], conventions)

    assert events.positions["quantity"].tolist() == [-CAPITAL / 9, 0]
    assert events.trades["pnl"].tolist() == pytest.approx([CAPITAL / 9])


def walk_through(
    flags: list[int], closes: list[float], conventions: Conventions, *, opens: list[float] | None = None
) -> Events:
    opened = np.array(opens or closes, dtype=float)
    closed = np.array(closes, dtype=float)
    bars = Bars(
        "LINE",
        "1m",
        np.arange(len(closes), dtype=np.int64) * 60_000_000,
        opened,
        np.maximum(opened, closed),
        np.minimum(opened, closed),
        closed,
        np.zeros(len(closes)),
    )
    case = Case(bars, Signals(np.array(flags, dtype=np.uint8)), conventions, 0.0, 0.0)
    return case.simulate().advance(len(closes))


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_with_trades_alone_all_else_is_the_same_bit_for_bit(seed: int) -> None:
    case = random_case(np.random.default_rng(seed), DEFAULTS, bars=60)
    whole = case.simulate()
    events = whole.advance(60)
    rules = kernel_rules(case.conventions, commission=case.commission, slippage=case.slippage)
    prices = Prices(*(getattr(case.bars, name) for name in Prices._fields))
    columns = SignalColumns(kept_flags(case.signals, rules), levels(case.signals, rules), targets(case.signals))
    busy, equity, account = np.empty(60, dtype=np.int64), np.empty(60), new_account(CAPITAL)
    log = trades_alone(60, rules)
    simulate(prices, columns, busy, busy_bars(columns.flags, busy), equity, rules, account, log, 0, 60)

    assert equity.tobytes() == whole.equity.tobytes()
    assert account.tobytes() == whole.account.tobytes()
    assert log.trades[: log.counts[2]].tobytes() == events.trades.tobytes()
    assert log.counts.tolist() == [len(events.orders), len(events.positions), len(events.trades)]


@settings(max_examples=50, deadline=None)
@given(flags=st.lists(st.sampled_from([0, 0, 0, 0, 1, 4, 128]), max_size=200))
def test_busy_bars_are_those_with_signals(flags: list[int]) -> None:
    busy = np.empty(len(flags), dtype=np.int64)
    count = busy_bars(np.array(flags, dtype=np.uint8), busy)

    assert busy[:count].tolist() == [bar for bar, flag in enumerate(flags) if flag]
