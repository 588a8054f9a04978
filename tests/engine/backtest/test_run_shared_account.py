"""Backtests of several symbols: refusals, streams and results, and algorithms that compare symbols."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from backtestr_engine.algorithms.algorithm import portfolio
from backtestr_engine.algorithms.parameters import Int
from backtestr_engine.backtest.plan import Plan, prepare
from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.backtest.run import Run
from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.library.library import Library
from backtestr_engine.publishing.backtest_streams import BacktestStreams
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.errors import AlgorithmError, BacktestrError, DataError, InvalidConfiguration, ValidationError
from backtestr_protocol.messages import BacktestConfig, StreamOptions
from support.engine.examples import unpacked

CONFIG = BacktestConfig(
    algorithm_id="sma_cross",
    symbols=["AAA", "BBB"],
    start_date="2024-01-01",
    end_date="2024-01-05",
    initial_capital=10_000.0,
    timeframe="1m",
    commission=0.0005,
    slippage=0.0,
    parameters={"fast": 5, "slow": 20},
    options={"size": "fraction", "sizeValue": 0.4},
)


@portfolio("equal_parts", every=Int(100, low=1, high=10_000))
def equal_parts(panel: Panel, every: int) -> Floats:
    """Return equal weights of all symbols that trade, on every so many rows."""
    there = ~np.isnan(panel.close)
    weights: Floats = there / np.maximum(there.sum(axis=1, keepdims=True), 1)
    weights[np.arange(len(panel)) % every != 0] = np.nan
    return weights


LIBRARY = Library({"equal_parts": equal_parts})


@pytest.fixture
def stocked(catalog: Catalog) -> Catalog:
    """Provide AAA and BBB, of which BBB begins later and lacks every seventh minute."""
    catalog.write(synthetic_bars("1m", 4_000, symbol="AAA", seed=1))
    late = synthetic_bars("1m", 4_000, symbol="BBB", seed=2)
    kept = np.arange(4_000)[(np.arange(4_000) >= 500) & (np.arange(4_000) % 7 != 0)]
    names = ("timestamp", "open", "high", "low", "close", "volume")
    catalog.write(Bars("BBB", "1m", *(getattr(late, name)[kept] for name in names)))
    return catalog


def planned(stocked: Catalog, conventions: Conventions, **changed: Any) -> Plan:
    return prepare(msgspec.structs.replace(CONFIG, **changed), stocked, conventions, LIBRARY.find)


@pytest.mark.parametrize(
    ("changed", "error", "message", "path"),
    [
        ({"symbols": []}, ValidationError, "give symbol, or symbols for several", "$.symbol"),
        ({"symbols": ["AAA", "BBB", "AAA"]}, ValidationError, "names 'AAA' more than once", "$.symbols"),
        ({"symbols": ["AAA", "BB"]}, DataError, "unknown symbol 'BB'; did you mean 'BBB'?", "$.symbol"),
        ({"symbol": "CCC"}, InvalidConfiguration, "symbol 'CCC' is not among symbols (AAA, BBB)", None),
        ({"symbols": [str(n) for n in range(1001)]}, ValidationError, "up to 1000 symbols", "$.symbols"),
        (
            {"options": {"leverage": 2.0}},
            InvalidConfiguration,
            "leverage as given is for a backtest of one",
            None,
        ),
        ({"options": {"preset": "backtesting.py"}}, InvalidConfiguration, "sizeCosts as given is for", None),
    ],
)
def test_invalid_symbols_are_refused(
    changed: dict[str, Any],
    error: type[BacktestrError],
    message: str,
    path: str | None,
    stocked: Catalog,
    conventions: Conventions,
) -> None:
    with pytest.raises(error) as refused:
        planned(stocked, conventions, **changed)

    assert message in refused.value.message
    assert (refused.value.details or {}).get("path") == path


def test_one_symbol_is_one_symbol_however_it_is_given(stocked: Catalog, conventions: Conventions) -> None:
    configs = [
        planned(stocked, conventions, **given).config
        for given in ({"symbols": ["AAA"]}, {"symbols": [], "symbol": "AAA"}, {"symbols": ["AAA"], "symbol": "AAA"})
    ]

    assert configs[0] == configs[1] == configs[2]
    assert (configs[0].symbol, configs[0].symbols) == ("AAA", [])


def test_the_first_symbol_stands_for_all(stocked: Catalog, conventions: Conventions) -> None:
    config = planned(stocked, conventions, symbol="BBB").config

    assert (config.symbol, config.symbols) == ("AAA", ["AAA", "BBB"])


def test_streams_results_and_metrics_cover_every_symbol(
    stocked: Catalog, conventions: Conventions, tmp_path: Path
) -> None:
    run = Run(planned(stocked, conventions), "shared")
    publisher = BacktestStreams("shared", run.plan.panel, StreamOptions(prices=True), {})
    streamed: list[dict[str, Any]] = []
    while not run.done:
        first = run.bars_simulated
        for _, events in publisher.chunk(run.advance(777), first, run.bars_simulated):
            streamed += unpacked(events)
    result = run.finish()
    store = ResultStore(tmp_path)
    store.write("shared", "completed", run.plan.resolved_config(), result)
    read, _ = store.read("shared", ["equity", "orders", "trades", "positions"])
    progress = run.progress()

    tables = {table.name: table.rows for table in read.tables}
    assert tables == {
        "equity": 4_000,
        "orders": len(result.orders),
        "positions": len(result.positions),
        "trades": len(result.trades) + len(result.open_trades),
    }
    assert read.config["symbols"] == ["AAA", "BBB"]
    for kind, table in (("OrderUpdate", "orders"), ("PositionUpdate", "positions")):
        symbols = [one["data"]["symbol"] for one in streamed if one["type"] == kind]
        assert symbols == result.frame(table)["symbol"].to_list()
        assert set(symbols) == {"AAA", "BBB"}
    prices = [one["data"] for one in streamed if one["type"] == "PriceUpdate"]
    for bars in run.plan.panel.series:
        mine = [one for one in prices if one["symbol"] == bars.symbol]
        assert [one["last"] for one in mine] == bars.close.tolist()
    assert progress.orders_executed == int((result.orders["fill_quantity"] > 0).sum())
    assert progress.equity_curve_point.equity == result.equity[-1]
    assert result.metrics.total_trades == tables["trades"]
    a, b = (bars.close for bars in run.plan.panel.series)
    assert result.metrics.buy_and_hold_return == pytest.approx((a[-1] / a[0] + b[-1] / b[0]) / 2 - 1)


def test_excursions_are_those_of_the_trades_own_symbol(stocked: Catalog, conventions: Conventions) -> None:
    run = Run(planned(stocked, conventions), "shared")
    run.advance(10**9)
    result = run.finish()
    trades = result.frame("trades")

    assert trades.height > 50
    for row in trades.iter_rows(named=True):
        bars = next(one for one in run.plan.panel.series if one.symbol == row["symbol"])
        entered, left = (int(row[name].timestamp() * 1e6) for name in ("entry_time", "exit_time"))
        among = (bars.timestamp >= entered) & ((bars.timestamp < left) | (row["status"] == "open"))
        highest = max([row["entry_price"], row["exit_price"], *bars.high[among]])
        lowest = min([row["entry_price"], row["exit_price"], *bars.low[among]])
        up, down = highest / row["entry_price"] - 1, 1 - lowest / row["entry_price"]
        expected = (down, up) if row["side"] == "buy" else (up, down)
        assert (row["mae"], row["mfe"]) == pytest.approx(expected, abs=1e-12)


def test_an_algorithm_across_symbols_holds_its_weights(stocked: Catalog, conventions: Conventions) -> None:
    run = Run(planned(stocked, conventions, algorithm_id="equal_parts", parameters={}, options={}), "shared")
    run.advance(3_950)

    result = run.finish()
    parts = result.open_trades["quantity"] * result.open_trades["exit_price"] / result.equity[-1]
    assert parts.tolist() == pytest.approx([0.5, 0.5], abs=0.02)
    assert run.plan.algorithm.info.across


def test_an_algorithm_across_symbols_runs_on_one_too(stocked: Catalog, conventions: Conventions) -> None:
    config = {"symbols": ["AAA"], "algorithm_id": "equal_parts", "parameters": {}, "options": {}}
    run = Run(planned(stocked, conventions, **config), "alone")
    run.advance(10**9)

    assert run.progress().positions_opened == 1


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (lambda panel: [0.5], "returned list, not weights"),
        (lambda panel: panel.close[:-1], "of shape (3, 2), not weights: an array of floats of shape (4, 2)"),
        (lambda panel: panel.close > 0, "returned bool of shape"),
        (lambda panel: np.where(panel.close > 0, np.inf, 0.0), "row 0 has inf for AAA"),
        (lambda panel: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_invalid_weights_are_an_algorithm_error(weights: Any, said: str) -> None:
    @portfolio("wrong")
    def wrong(panel: Panel) -> Floats:
        found: Floats = weights(panel)
        return found

    panel = Panel.of([synthetic_bars("1h", 4, symbol=symbol) for symbol in ("AAA", "BBB")])
    with pytest.raises(AlgorithmError) as refused:
        wrong.weights(panel, {})

    assert said in refused.value.message


@pytest.mark.parametrize("order_type", ["limit", "stop", "stop_limit"])
def test_pending_orders_need_a_price_from_the_algorithm(
    order_type: str, stocked: Catalog, conventions: Conventions
) -> None:
    for given in ({}, {"symbols": ["AAA"]}, {"algorithm_id": "equal_parts", "parameters": {}}):
        run = Run(planned(stocked, conventions, **given, options={"orderType": order_type}), "waits")
        with pytest.raises(InvalidConfiguration) as refused:
            run.advance(1)

        assert f"orderType {order_type} makes entries wait for a price" in refused.value.message
        assert ("gives targets" if given.get("parameters") == {} else "_price") in refused.value.message
