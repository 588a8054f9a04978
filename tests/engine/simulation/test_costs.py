"""Fees and sizes: laws of what cash pays for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.simulation.account import kernel_rules
from backtestr_engine.simulation.costs import FIRST_PART, affordable, fee_of, further_fee, listed_fee, slipped
from support.engine.cases import shipped_conventions

COMPILING = settings(deadline=None, max_examples=100)
"""The first example waits for its kernel."""
DEFAULTS = shipped_conventions()

rules = st.builds(
    lambda fixed, per_unit, minimum, commission: kernel_rules(
        msgspec.structs.replace(
            DEFAULTS, commission_fixed=fixed, commission_per_unit=per_unit, commission_minimum=minimum
        ),
        commission=commission,
        slippage=0.01,
    )[0],
    st.sampled_from([0.0, 1.3, 40.0]),
    st.sampled_from([0.0, 0.013]),
    st.sampled_from([0.0, 2.7, 55.0]),
    st.sampled_from([0.0, 0.001, 0.05]),
)


@COMPILING
@given(rules, st.floats(0.0, 10_000.0), st.floats(0.5, 500.0))
def test_cash_pays_for_what_is_affordable_and_not_for_more(rule: Any, cash: float, price: float) -> None:
    most = affordable(cash, price, FIRST_PART, 1.0, rule)
    if most > 0.0:
        assert most * price + fee_of(most, price, rule) <= cash * (1 + 1e-12)
    more = most + 1e-6 * (1.0 + most)
    assert more * price + fee_of(more, price, rule) > cash


@COMPILING
@given(rules, st.floats(0.001, 100.0), st.floats(0.001, 100.0), st.floats(0.5, 500.0))
def test_an_order_of_two_parts_pays_one_fee(rule: Any, first: float, second: float, price: float) -> None:
    so_far = listed_fee(first, price, rule)
    both = fee_of(first, price, rule) + further_fee(second, price, so_far, rule)
    assert both == pytest.approx(fee_of(first + second, price, rule), rel=1e-9)


@COMPILING
@given(rules, st.floats(0.5, 500.0))
def test_slippage_is_against_the_account(rule: Any, price: float) -> None:
    assert slipped(1, price, rule) > price > slipped(-1, price, rule)
