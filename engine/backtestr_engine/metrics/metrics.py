"""The metrics of a backtest from its row of figures; `backtestr_protocol.metrics` has their formulas and sources.

A metric that is undefined is None, with its reason: there is never a wrong number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from backtestr_engine.data.arrays import Floats, Integers, Records
from backtestr_engine.simulation.account import Totals
from backtestr_protocol.metrics import METRICS, Metrics

from .annualisation import Annualisation
from .figures import DEFINED, REASONS_WHY_UNDEFINED, Activity, Row, add_tails, compute_figures, measure_of, new_row


class Simulated(msgspec.Struct, frozen=True):
    """The simulated bars and the account on them, from which the metrics are computed.

    `timestamp` (µs UTC, of opens), `market` and `equity` have one value per bar. `market` is the close; of several
    symbols it is equal parts of each, bought and held. `closed_at` is the close time of the last bar. `trades` are
    records of `TRADE`: the closed trades with their excursions. `rejected_orders` are counted by reason.
    """

    initial_capital: float
    timestamp: Integers
    closed_at: int
    market: Floats
    equity: Floats
    trades: Records
    totals: Totals
    drawdown_from: Literal["capital", "first_close"] = "capital"
    rejected_orders: Mapping[str, int] = msgspec.field(default_factory=dict)


def compute_metrics(simulated: Simulated, rule: Annualisation) -> Metrics:
    """Compute all metrics of at least one simulated bar."""
    row, at = new_row(), simulated.totals
    by = measure_of(
        simulated.initial_capital,
        simulated.timestamp,
        simulated.closed_at,
        rule,
        from_capital=simulated.drawdown_from == "capital",
    )
    market = simulated.market.view()
    market.flags.writeable = False  # as closes are: kernels are compiled for read-only markets
    activity = Activity(at.open_positions, at.fees, at.slippage, at.traded_value, at.bars_exposed)
    compute_figures(row, by, simulated.timestamp, market, simulated.equity, simulated.trades, activity, True, True)
    add_tails(row, simulated.equity, simulated.initial_capital)
    return metrics_of(row, simulated.rejected_orders)


def metrics_of(row: Row, rejected_orders: Mapping[str, int]) -> Metrics:
    """Return a row of figures as metrics, with the reason for each that is undefined."""
    figures: dict[str, Any] = {}
    reasons = {}
    for metric, value, code in zip(METRICS, row.values.tolist(), row.codes.tolist(), strict=True):
        if code != DEFINED:
            reasons[metric.wire_name] = REASONS_WHY_UNDEFINED[code]
        whole = metric.unit in ("ms", "count")
        figures[metric.name] = None if code != DEFINED else int(value) if whole else value
    return Metrics(**figures, rejections=dict(rejected_orders), reasons=reasons)
