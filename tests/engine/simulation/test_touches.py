"""A level that a bar touches exactly counts, however its product was rounded; a price a tick away never does."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.algorithms.signals import ENTRY, SHORT_ENTRY, Signals
from backtestr_engine.data.bars import Bars
from backtestr_engine.simulation.account import kernel_rules
from backtestr_engine.simulation.records import REASONS, Events
from backtestr_engine.simulation.symbol_loop import SymbolSimulation
from backtestr_engine.simulation.touches import TOLERANCE, tolerance
from support.engine.cases import shipped_conventions
from support.engine.examples import FLAT, SignalsByBar, published_orders, run_of

COMPILING = settings(deadline=None, max_examples=300)
"""The first example waits for its kernel."""
CENT = Decimal("0.01")
UNITS = msgspec.structs.replace(shipped_conventions(), size="units", size_value=1.0)

prices = st.integers(100, 10_000_000).map(lambda cents: cents * CENT)
percents = st.integers(1, 99).map(Decimal)


@st.composite
def whole_cents(draw: st.DrawFn) -> tuple[Decimal, Decimal, bool]:
    """Return an entry, a fraction, and whether it rises, so that the level between them is a whole cent."""
    percent, rises = draw(percents), draw(st.booleans())
    entry = draw(st.integers(1, 100_000)) * Decimal(1)
    level = entry * (100 + percent if rises else 100 - percent) / 100
    assert level % CENT == 0
    return entry, percent / 100, rises


def exits(entry: float, extreme: float, *, short: bool, **changed: Any) -> Events:
    """Return the events of an entry at the open of bar 1, and a bar 2 that reaches `extreme` and comes back."""
    opened = np.full(3, entry)
    high, low = np.maximum(opened, [0, 0, extreme]), np.minimum(opened, [entry, entry, extreme])
    bars = Bars("TOUCH", "1d", np.arange(3, dtype=np.int64) * 86_400_000_000, opened, high, low, opened, 0 * opened)
    flags = np.array([SHORT_ENTRY if short else ENTRY, 0, 0], dtype=np.uint8)
    rules = kernel_rules(msgspec.structs.replace(UNITS, **changed), commission=0.0, slippage=0.0)
    walk = SymbolSimulation(bars, Signals(flags), rules, 1e12)
    return walk.advance(3)


def exit_of(rises: bool, short: bool) -> str:
    return "take_profit" if rises != short else "stop_loss"


@COMPILING
@given(whole_cents(), st.booleans())
def test_every_touch_of_a_whole_cent_counts_and_is_the_price_of_the_fill(
    case: tuple[Decimal, Decimal, bool], short: bool
) -> None:
    entry, fraction, rises = case
    level = float(entry * (1 + fraction if rises else 1 - fraction))
    name = exit_of(rises, short)

    orders = exits(float(entry), level, short=short, **{name: float(fraction)}).orders

    assert [REASONS[one["reason"]] for one in orders] == ["", name.replace("_", " ")]
    assert orders["fill_price"][1] == level == orders["price"][1]


@COMPILING
@given(whole_cents(), st.booleans())
def test_a_price_a_cent_away_never_touches(case: tuple[Decimal, Decimal, bool], short: bool) -> None:
    entry, fraction, rises = case
    level = entry * (1 + fraction if rises else 1 - fraction)
    beside = level - CENT if rises else level + CENT

    orders = exits(float(entry), float(beside), short=short, **{exit_of(rises, short): float(fraction)}).orders

    assert len(orders) == 1


@COMPILING
@given(prices, percents, st.booleans())
def test_a_level_between_two_cents_is_reached_by_the_one_beyond_and_not_by_the_one_before(
    entry: Decimal, percent: Decimal, rises: bool
) -> None:
    level = entry * (1 + percent / 100 if rises else 1 - percent / 100)
    before = level // CENT * CENT
    if before == level or before <= 0:
        return
    near, beyond = (before, before + CENT) if rises else (before + CENT, before)
    name = exit_of(rises, short=False)

    for extreme, count in ((near, 1), (beyond, 2)):
        assert len(exits(float(entry), float(extreme), short=False, **{name: float(percent / 100)}).orders) == count


def test_the_touches_that_rounding_missed() -> None:
    """A comparison of the numbers as they are missed 335 of 2,090 targets that are whole cents."""
    targets = missed = 0
    for quarter in range(40, 800):
        for percent in (1, 2, 3, 5, 10, 20):
            entry = Decimal(quarter) / 4
            level = entry * (100 + percent) / 100
            if level % CENT:
                continue
            targets += 1
            reached = float(level)
            computed = float(entry) * (1.0 + percent / 100)
            missed += reached < computed
            assert reached >= computed - TOLERANCE * computed
    assert (targets, missed) == (2_090, 335)


@pytest.mark.parametrize(("touch", "count"), [("rounded", 2), ("exact", 1)])
def test_exact_compares_the_numbers_as_they_are(touch: str, count: int) -> None:
    assert 100 * (1 + 0.1) > 110
    assert len(exits(100.0, 110.0, short=False, touch=touch, take_profit=0.1).orders) == count
    assert len(exits(100.0, 110.0, short=True, touch=touch, stop_loss=0.1).orders) == count


@pytest.mark.parametrize(
    ("order_type", "signals", "extreme"),
    [
        pytest.param("limit", {"short_entries": {0: True}, "limit_price": {0: 100 * 1.1}}, 110.0, id="limit sale"),
        pytest.param("stop", {"entries": {0: True}, "stop_price": {0: 100 * 1.1}}, 110.0, id="stop purchase"),
        pytest.param(
            "stop_limit",
            {"entries": {0: True}, "stop_price": {0: 100 * 1.1}, "limit_price": {0: 110.0}},
            110.0,
            id="stop-limit purchase whose stop is its limit",
        ),
    ],
)
def test_a_pending_order_is_filled_by_a_touch(order_type: str, signals: SignalsByBar, extreme: float) -> None:
    assert 100 * 1.1 > 110
    flat, touches = (100.0, 100.0, 100.0, 100.0), (100.0, extreme, 100.0, 100.5)
    for touch, status in (("rounded", "filled"), ("exact", "cancelled")):
        orders = published_orders(run_of([flat, touches], signals, sizeValue=1.0, orderType=order_type, touch=touch))
        assert [one["status"] for one in orders] == ["pending", status]
        assert status == "cancelled" or orders[-1]["fillPrice"] == extreme


def test_a_trailing_stop_is_touched_too() -> None:
    for best in range(11, 200):
        rows = [
            FLAT,
            FLAT,
            (10.0, float(best), 10.0, float(best)),
            (float(best), float(best), best * 9 / 10, float(best)),
        ]
        run = run_of(rows, {"entries": {0: True}}, trailingStop=0.1)
        assert published_orders(run)[-1]["fillPrice"] == best * 9 / 10


def test_there_is_no_tolerance_beside_an_infinite_level() -> None:
    rules: Any = kernel_rules(UNITS, commission=0.0, slippage=0.0)[0]
    exact: Any = kernel_rules(msgspec.structs.replace(UNITS, touch="exact"), commission=0.0, slippage=0.0)[0]

    assert tolerance(np.inf, 10.0, rules) == tolerance(-np.inf, 10.0, rules) == tolerance(10.0, 10.0, exact) == 0.0
    assert tolerance(11.0, 10.0, rules) == TOLERANCE * 11.0
    assert tolerance(1.0, 10.0, rules) == TOLERANCE * 10.0
