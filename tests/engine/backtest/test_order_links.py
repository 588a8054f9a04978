"""Orders, positions and trades are linked, and the links agree with quantities, prices and times of the tables."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtestr_engine.algorithms.algorithm import Algorithm, algorithm
from backtestr_engine.algorithms.parameters import Int
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.backtest.plan import prepare
from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.backtest.run import Result, Run
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.library.library import Library
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.messages import BacktestConfig
from support.engine.earlier_results import as_earlier_version

BARS = 400
MINUTE = timedelta(minutes=1)


@algorithm("chance", seed=Int(1, low=0, high=10_000), entries=Int(10, low=1, high=50))
def chance(bars: Bars, seed: int, entries: int) -> Signals:
    """Enter and leave by chance, on both sides."""
    chosen = np.random.default_rng(seed).random((4, len(bars))) < entries / 100
    return Signals.of(*chosen, limit_price=bars.close * 0.9995, stop_price=bars.close * 1.0005)


@algorithm("targets", seed=Int(1, low=0, high=10_000))
def targets(bars: Bars, seed: int) -> Signals:
    """Hold by chance: adding, reducing and reversing."""
    generator = np.random.default_rng(seed)
    target = generator.choice([-1.0, -0.5, 0.0, 0.3, 1.0], size=len(bars))
    target[generator.random(len(bars)) < 0.8] = np.nan
    return Signals.of(target=target)


LIBRARY = Library({one.name: one for one in (chance, targets)})


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    catalog = Catalog(tmp_path_factory.mktemp("catalog"), cache_bytes=64 << 20)
    for number, symbol in enumerate(("SYNTH", "OTHER", "THIRD")):
        catalog.write(synthetic_bars("1m", BARS, symbol=symbol, seed=number)[number * 7 :])
    return catalog


def result_of(
    stocked: Catalog, conventions: Conventions, one: Algorithm, symbols: list[str], seed: int, options: dict[str, Any]
) -> Result:
    config = BacktestConfig(
        algorithm_id=one.name,
        symbols=symbols,
        initial_capital=10_000.0,
        timeframe="1m",
        commission=0.0005,
        slippage=0.0001,
        parameters={"seed": seed},
        options=options,
    )
    run = Run(prepare(config, stocked, conventions, LIBRARY.find), "links")
    run.advance(BARS)
    return run.finish()


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "onOpposite": st.sampled_from(["reverse", "close", "ignore"]),
        "reversal": st.sampled_from(["one_order", "two_orders"]),
        "fillAt": st.sampled_from(["next_open", "close"]),
        "stopLoss": st.just(0.0008),
        "takeProfit": st.just(0.0011),
        "closeAtEnd": st.booleans(),
        "shortOfCash": st.sampled_from(["reject", "cut"]),
        "orderType": st.sampled_from(["market", "limit", "stop"]),
        "validBars": st.integers(0, 5),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    one=st.sampled_from([chance, targets]),
    symbols=st.sampled_from([["SYNTH"], ["SYNTH", "OTHER", "THIRD"]]),
    seed=st.integers(0, 10_000),
    options=OPTIONS,
)
def test_links_agree_with_the_tables(
    one: Algorithm,
    symbols: list[str],
    seed: int,
    options: dict[str, Any],
    stocked: Catalog,
    conventions: Conventions,
) -> None:
    if one is targets:
        options = {name: value for name, value in options.items() if name != "orderType"}
    if options.get("fillAt") == "close":
        options = {**options, "stopActive": "next_bar"}
    result = result_of(stocked, conventions, one, symbols, seed, options)
    orders, trades = result.frame("orders"), result.frame("trades")
    filled = orders.filter(pl.col("status") == "filled")

    assert filled["position_id"].null_count() == 0
    assert orders.filter(pl.col("status") != "filled")["position_id"].null_count() == len(orders) - len(filled)
    entries = trades.join(orders, left_on="entry_order_id", right_on="order_id", how="left", suffix="_order")
    assert entries["timestamp"].equals(trades["entry_time"].rename("timestamp"))
    assert entries["symbol_order"].equals(trades["symbol"].rename("symbol_order"))
    assert entries["side_order"].equals(trades["side"].rename("side_order"))
    closed = trades.filter(pl.col("status") == "closed")
    exits = closed.join(orders, left_on="exit_order_id", right_on="order_id", how="left", suffix="_order")
    assert exits["timestamp"].equals(closed["exit_time"].rename("timestamp"))
    assert exits["fill_price"].equals(closed["exit_price"].rename("fill_price"))
    assert (exits["side_order"] != closed["side"]).all()
    assert trades.filter(pl.col("status") == "open").select(
        pl.col("^exit_(reason|order_id|signal_time)$")
    ).is_empty() or (
        trades.filter(pl.col("status") == "open")["exit_order_id"].null_count() == (trades["status"] == "open").sum()
    )
    by_order = closed["exit_reason"].to_list()
    reasons = [reason if reason in ENGINE_REASONS else "signal" for reason in exits["reason"].to_list()]
    assert by_order == reasons
    late = MINUTE if options.get("fillAt", "next_open") == "next_open" else timedelta(0)
    market = filled.filter((pl.col("order_type") == "market") & pl.col("signal_time").is_not_null())
    if len(symbols) == 1:
        assert (market["timestamp"] - market["signal_time"]).unique().to_list() in ([late], [])
    assert orders.filter(pl.col("reason").is_in(list(ENGINE_REASONS)))["signal_time"].null_count() == (
        orders["reason"].is_in(list(ENGINE_REASONS)).sum()
    )


ENGINE_REASONS = frozenset(
    {
        "stop loss",
        "take profit",
        "trailing stop",
        "closed at the end of the data",
        "liquidated at the maintenance margin",
    }
)


def test_links_are_stored_with_the_result(tmp_path: Any, stocked: Catalog, conventions: Conventions) -> None:
    result = result_of(stocked, conventions, chance, ["SYNTH"], 3, {"stopLoss": 0.0008})
    store = ResultStore(tmp_path / "results")
    config = BacktestConfig(
        algorithm_id="chance",
        symbol="SYNTH",
        initial_capital=1.0,
        timeframe="1m",
        commission=0.0,
        slippage=0.0,
        parameters={},
    )
    store.write("linked", "completed", config, result)
    _, attachments = store.read("linked", ["orders", "trades"])
    orders, trades = (pl.read_ipc_stream(one) for one in attachments)
    assert orders.equals(result.frame("orders"))
    assert trades.equals(result.frame("trades"))
    assert {"stop loss", "signal"} <= set(trades["exit_reason"])

    as_earlier_version(tmp_path / "results" / "linked")
    for name in ("changes", "signals"):  # as version 0.1 left it
        (tmp_path / "results" / "linked" / f"{name}.arrow").unlink()
    _, attachments = store.read("linked", ["orders", "trades"])
    old_orders, old_trades = (pl.read_ipc_stream(one) for one in attachments)
    assert old_orders["position_id"].null_count() == len(orders)
    assert old_trades["exit_reason"].null_count() == len(trades)
    assert old_trades.drop(old_trades.columns[-5:]).equals(trades.drop(trades.columns[-5:]))
