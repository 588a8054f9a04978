"""Figures by the rules of backtesting.py, against plain Python; `test_run_golden` has that library's own numbers."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from backtestr_engine.data.timeframes import DAY_US
from backtestr_engine.metrics.geometric_figures import with_geometric_figures
from backtestr_engine.metrics.metrics import Simulated
from backtestr_engine.simulation.account import ACCOUNT, totals
from backtestr_engine.simulation.records import TRADE
from backtestr_protocol.metrics import Metrics


def figures_of(equity: list[float], market: list[float], *trades: tuple[int, int, float]) -> Metrics:
    """Return the figures of a capital of 100 and of trades: the bars of entry and exit, and the return."""
    records = np.zeros(len(trades), dtype=TRADE)
    for record, (entered, left, made) in zip(records, trades, strict=True):
        record["entry_time"], record["exit_time"], record["return"] = entered * DAY_US, left * DAY_US, made
    simulated = Simulated(
        initial_capital=100.0,
        timestamp=np.arange(len(equity), dtype=np.int64) * DAY_US,
        closed_at=len(equity) * DAY_US,
        market=np.array(market),
        equity=np.array(equity),
        trades=records,
        totals=totals(np.zeros(1, dtype=ACCOUNT)),
    )
    kept = {"sharpeRatio": "returns do not vary", "beta": "of bars"}
    return with_geometric_figures(Metrics(reasons=kept), simulated, 0.01)


def test_the_figures_follow_their_formulas() -> None:
    equity, market = [100.0, 104.0, 99.0, 110.0, 108.0], [10.0, 11.0, 10.5, 12.0, 11.0]
    figures = figures_of(equity, market, (0, 1, 0.04), (1, 2, -0.05), (3, 3, 0.1))
    ours, theirs = ([math.log(b / a) for a, b in pairwise(one)] for one in (equity, market))
    beta = statistics.covariance(ours, theirs) / statistics.variance(theirs)

    assert figures.exposure == 0.8
    assert figures.cagr == pytest.approx(1.08 ** (365.25 / 4) - 1)
    assert figures.beta == pytest.approx(beta)
    assert figures.alpha == pytest.approx(0.08 - 0.01 - beta * (0.1 - 0.01))
    assert figures.average_trade == pytest.approx((1.04 * 0.95 * 1.1) ** (1 / 3) - 1)
    assert figures.profit_factor == pytest.approx(0.14 / 0.05)
    assert figures.undefined == {"sharpe_ratio": "returns do not vary"}


def test_a_trade_that_lost_everything_leaves_no_geometric_mean() -> None:
    assert figures_of([100.0, 1.0], [10.0, 9.0], (0, 1, -1.0), (0, 1, 0.5)).average_trade == 0.0


@pytest.mark.parametrize(
    ("equity", "trades", "reasons"),
    [
        (
            [100.0],
            [],
            {
                "cagr": "it needs at least two bars",
                "beta": "it needs at least three bars",
                "average_trade": "there is no closed trade",
            },
        ),
        ([100.0, -1.0, -1.0], [], dict.fromkeys(("cagr", "alpha", "beta"), "equity fell to zero or below")),
        ([100.0, 101.0, 102.0], [(0, 1, 0.1)], {"profit_factor": "no closed trade lost", "beta": "prices do not vary"}),
    ],
)
def test_an_undefined_figure_has_a_reason(equity: list[float], trades: list[Any], reasons: dict[str, str]) -> None:
    figures = figures_of(equity, [10.0] * len(equity), *trades)

    assert {name: figures.undefined[name] for name in reasons} == reasons
    assert all(getattr(figures, name) is None for name in reasons)
