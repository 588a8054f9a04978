"""Numbers that vectorbt computed for three symbols on one account, to 1e-9 relative.

vectorbt 1.2.0 (engine numba), `group_by=True, cash_sharing=True`, cash 10,000, freq 1D, on `synthetic_bars("1d", 900)`
of seeds 100, 101 and 102; the crosses are of `vbt.MA.run(close, 10)` and `(close, 50)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backtestr_engine.algorithms.algorithm import Algorithm, portfolio
from backtestr_engine.backtest.plan import prepare
from backtestr_engine.backtest.run import Result, Run
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.library.library import Library
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.messages import BacktestConfig

SYMBOLS = ["S0", "S1", "S2"]


@portfolio("waves")
def waves(panel: Panel) -> Floats:
    """Return weights that follow a formula, on every fifth row."""
    row, column = np.arange(len(panel))[:, np.newaxis], np.arange(len(panel.symbols))
    weights: Floats = 0.3 + 0.3 * np.sin(row / 20 + 2 * column)
    weights[row[:, 0] % 5 != 0] = np.nan
    return weights


def run(catalog: Catalog, conventions: Conventions, algorithm: Algorithm, slippage: float, **options: Any) -> Result:
    for number, symbol in enumerate(SYMBOLS):
        catalog.write(synthetic_bars("1d", 900, symbol=symbol, seed=100 + number))
    config = BacktestConfig(
        algorithm_id=algorithm.name,
        symbols=SYMBOLS,
        start_date="2024-01-01",
        end_date="2030-01-01",
        initial_capital=10_000.0,
        timeframe="1d",
        commission=0.001,
        slippage=slippage,
        parameters={} if algorithm.across else {"fast": 10, "slow": 50},
        options={"preset": "vectorbt", **options},
    )
    one = Run(prepare(config, catalog, conventions, Library({algorithm.name: algorithm}).find), "golden")
    while not one.done:
        one.advance(100)
    return one.finish()


def check(result: Result, orders: int, golden: dict[str, float]) -> None:
    metrics = result.metrics.to_wire()
    assert {name: metrics[name] for name in golden} == pytest.approx(golden, rel=1e-9)
    assert int(np.count_nonzero(result.orders["fill_quantity"])) == orders


def test_reversals_that_share_cash(catalog: Catalog, conventions: Conventions) -> None:
    """from_signals, entries above, short entries below, fees 0.001."""
    result = run(catalog, conventions, BUILT_IN["sma_cross"], 0.0)

    golden = {"finalEquity": 1012.8840795389242, "totalTrades": 32, "sharpeRatio": -0.7263664205963359}
    golden |= {"sortinoRatio": -0.9928953330172418, "maxDrawdown": 0.9251621293508513, "totalFees": 483.8254271719429}
    check(result, 44, golden)


def test_parts_of_the_cash_with_stops_and_costs(catalog: Catalog, conventions: Conventions) -> None:
    """from_signals, entries above, exits below, size 0.4 percent, fees 0.001, with stops and costs.

    fixed_fees 2, slippage 0.001, sl_stop 0.05, tp_stop 0.2.
    """
    options = {"direction": "long", "size": "fraction", "sizeValue": 0.4, "commissionFixed": 2.0}
    result = run(catalog, conventions, BUILT_IN["sma_cross"], 0.001, **options, stopLoss=0.05, takeProfit=0.2)

    golden = {"finalEquity": 8457.931928532293, "totalTrades": 40, "sharpeRatio": -0.48032976645892184}
    golden |= {"sortinoRatio": -0.6789716929519826, "maxDrawdown": 0.2210050285778078, "totalFees": 406.32279560508385}
    check(result, 80, golden)


def test_weights_with_sales_first(catalog: Catalog, conventions: Conventions) -> None:
    """from_orders, size_type targetpercent, call_seq auto, fees 0.001, slippage 0.001."""
    result = run(catalog, conventions, waves, 0.001, symbolOrder="sells_first")

    golden = {"finalEquity": 4880.138713704051, "totalTrades": 275, "sharpeRatio": -0.7650856056965748}
    golden |= {"sortinoRatio": -1.0592958203467373, "maxDrawdown": 0.5828367772045677, "totalFees": 176.63236908293405}
    check(result, 540, golden)
