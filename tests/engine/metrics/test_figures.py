"""Rows of figures: their places, their codes, and what is computed only where it is asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backtestr_engine.data.arrays import Floats
from backtestr_engine.metrics import figures
from backtestr_engine.metrics.annualisation import Annualisation
from backtestr_engine.metrics.figures import (
    DEFINED,
    NOT_COMPUTED,
    REASONS_WHY_UNDEFINED,
    Activity,
    Row,
    add_tails,
    compute_figures,
    measure_of,
    new_row,
)
from backtestr_engine.simulation.records import TRADE
from backtestr_protocol.metrics import METRICS

TIMES = np.arange(50, dtype=np.int64) * 60_000_000
RULE = Annualisation(525_600.0, 0.0)
LEFT_OUT = {
    "market": {"alpha", "beta"},
    "excursions": {"average_mae", "average_mfe"},
    "tails": {"value_at_risk_95", "conditional_value_at_risk_95", "tail_ratio"},
}


def row_of(equity: Floats, *, market: bool = False, excursions: bool = False) -> Row:
    row = new_row()
    by = measure_of(1000.0, TIMES, int(TIMES[-1]) + 60_000_000, RULE, from_capital=True)
    trades = np.zeros(2, dtype=TRADE)
    trades["pnl"] = 1.0, -2.0
    closes = np.linspace(10, 12, len(equity))
    compute_figures(row, by, TIMES, closes, equity, trades, Activity(0, 0.0, 0.0, 0.0, 0), market, excursions)
    return row


def test_every_metric_has_its_place() -> None:
    assert [getattr(figures, metric.name.upper()) for metric in METRICS] == list(range(len(METRICS)))


def names(row: Row, code: int) -> set[str]:
    return {METRICS[at].name for at in np.flatnonzero(row.codes == code)}


def test_what_is_not_asked_for_says_so_and_changes_nothing_else(generator: np.random.Generator) -> None:
    equity = 1000.0 * np.exp(np.cumsum(generator.normal(0, 0.01, size=50)))
    bare, whole = row_of(equity), row_of(equity, market=True, excursions=True)
    assert names(bare, NOT_COMPUTED) == set().union(*LEFT_OUT.values())
    assert names(whole, NOT_COMPUTED) == LEFT_OUT["tails"]
    add_tails(whole, equity, 1000.0)
    assert names(whole, NOT_COMPUTED) == set()
    both = (bare.codes == DEFINED) & (whole.codes == DEFINED)
    assert bare.values[both].tobytes() == whole.values[both].tobytes()
    assert bare.block_sums.tobytes() == whole.block_sums.tobytes()


def test_a_ruined_account_has_no_returns() -> None:
    equity = np.full(50, 1000.0)
    equity[20] = -5.0
    row = row_of(equity, market=True)
    add_tails(row, equity, 1000.0)

    assert REASONS_WHY_UNDEFINED[row.codes[figures.SHARPE_RATIO]] == "equity fell to zero or below"
    assert row.codes[figures.VALUE_AT_RISK_95] == row.codes[figures.BETA] == row.codes[figures.SHARPE_RATIO]
    assert math.isnan(row.values[figures.SHARPE_RATIO])
    assert np.isnan(row.block_sums).all()
    assert row.values[figures.MAX_DRAWDOWN] == pytest.approx(1.005)
