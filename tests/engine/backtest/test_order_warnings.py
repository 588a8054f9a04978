"""Warnings about orders: rejections by reason, liquidations, and a debt at the end."""

from __future__ import annotations

from backtestr_engine.backtest.run import Run
from support.engine.examples import FLAT, Row, run_of

AT_40: Row = (40.0, 40.0, 40.0, 40.0)


def warnings_of(run: Run) -> list[str]:
    run.advance(100)
    return run.finish().metrics.warnings


def test_rejected_orders_are_named_with_their_reasons() -> None:
    signals = {"entries": {0: True, 2: True}, "exits": {1: True}}
    run = run_of([FLAT, FLAT, FLAT, AT_40], signals, sizeValue=60.0)

    assert warnings_of(run) == ["1 of 3 orders were rejected: not enough cash (1)"]


def test_a_signal_on_the_last_bar_is_counted_and_no_cause_for_a_warning() -> None:
    run = run_of([FLAT, FLAT], {"entries": {1: True}})

    assert warnings_of(run) == []
    assert run.finish().metrics.rejected_orders == {"no next bar to fill at": 1}


def test_a_liquidation_and_the_debt_that_a_gap_leaves_are_said() -> None:
    run = run_of([FLAT, FLAT, AT_40], {"short_entries": {0: True}}, size="all_in")

    assert warnings_of(run) == [
        "1 position was liquidated: the account was down to its maintenance margin",
        "the account ended with a debt of 2,000.00",
    ]


def test_a_plain_result_has_no_warning() -> None:
    assert warnings_of(run_of([FLAT, FLAT, FLAT], {"entries": {0: True}})) == []
