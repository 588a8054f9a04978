"""A backtest from its plan to its result, in chunks, at once and stopped."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.backtest.order_links import _join, _set_signal_times
from backtestr_engine.backtest.plan import Plan, prepare
from backtestr_engine.backtest.run import Run
from backtestr_engine.built_in import find_algorithm
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.metrics.excursions import _fill_in
from backtestr_engine.metrics.figures import compute_figures
from backtestr_engine.simulation.conventions import Conventions, resolve_options
from backtestr_engine.simulation.records import _count
from backtestr_engine.simulation.shared_account_loop import _simulate_rows
from backtestr_engine.simulation.symbol_loop import simulate
from backtestr_engine.worker.warm_up import warm
from backtestr_protocol.messages import BacktestConfig

CONFIG = BacktestConfig(
    algorithm_id="sma_cross",
    symbol="SYNTH",
    start_date="2024-01-01",
    end_date="2024-01-03",
    initial_capital=10_000.0,
    timeframe="1m",
    commission=0.0005,
    slippage=0.0001,
    parameters={"fast": 5, "slow": 20},
)


@pytest.fixture
def stocked(catalog: Catalog) -> Catalog:
    catalog.write(synthetic_bars("1m", 5_000))
    return catalog


@pytest.fixture
def plan(stocked: Catalog, conventions: Conventions) -> Plan:
    return prepare(CONFIG, stocked, conventions)


def test_a_run_in_chunks_is_a_run_at_once(plan: Plan, generator: np.random.Generator) -> None:
    whole, parts = Run(plan, "a"), Run(plan, "a")
    whole.advance(10**9)
    orders: list[int] = []
    positions = 0
    while not parts.done:
        chunk = parts.advance(int(generator.integers(1, 200)))
        orders += chunk.orders["order_id"].tolist()
        positions += len(chunk.positions)
        assert parts.progress().progress_percent == 100.0 * parts.bars_simulated / parts.bars_total

    assert msgspec.json.encode(parts.finish().metrics) == msgspec.json.encode(whole.finish().metrics)
    assert parts.progress() == whole.progress()
    for table in ("equity", "orders", "trades", "positions"):
        assert parts.finish().frame(table).equals(whole.finish().frame(table))
    assert orders == list(range(1, len(whole.finish().orders) + 1))
    assert positions == len(whole.finish().positions)


def test_the_last_progress_is_the_end_of_the_stored_curve(plan: Plan) -> None:
    run = Run(plan, "a")
    for _ in range(17):
        run.advance(200)
        run.progress()
    progress, equity = run.progress(), run.finish().frame("equity")

    assert progress.progress_percent == 100.0
    point = progress.equity_curve_point
    assert equity.tail(1).select("equity", "drawdown", "returns").row(0) == (
        point.equity,
        point.drawdown,
        point.returns,
    )
    assert int(equity["timestamp"][-1].timestamp() * 1000) == point.timestamp == progress.current_time
    assert 10_000.0 + progress.realized_pnl + progress.unrealized_pnl == pytest.approx(point.equity)


def test_a_loss_on_the_first_bar_is_in_the_streamed_and_the_stored_drawdown(
    stocked: Catalog, conventions: Conventions
) -> None:
    for start, expected in (("capital", 0.05), ("first_close", 0.0)):
        options = {"fillAt": "close", "size": "fraction", "sizeValue": 0.5, "drawdownFrom": start}
        config = msgspec.structs.replace(CONFIG, algorithm_id="buy_and_hold", parameters={}, options=options)
        costly = msgspec.structs.replace(config, commission=0.1 / 0.9, slippage=0.0)
        run = Run(prepare(costly, stocked, conventions), "a")
        run.advance(1)

        streamed = run.progress().equity_curve_point.drawdown
        assert streamed == run.finish().frame("equity")["drawdown"][0] == run.finish().metrics.max_drawdown
        assert streamed == pytest.approx(expected)


def test_rejected_orders_are_counted_by_reason(stocked: Catalog, conventions: Conventions) -> None:
    options = {"size": "units", "sizeValue": 1e9}
    run = Run(prepare(msgspec.structs.replace(CONFIG, options=options), stocked, conventions), "a")
    run.advance(10**9)
    orders = run.finish().orders

    assert run.finish().metrics.to_wire()["rejectedOrders"] == {"not enough cash": len(orders)}


def test_before_the_first_bar_there_is_the_capital(plan: Plan) -> None:
    run = Run(plan, "a")
    progress = run.progress()

    assert (progress.progress_percent, progress.equity_curve_point.equity) == (0.0, 10_000.0)
    assert not run.done
    assert msgspec.json.encode(run.finish().metrics) == msgspec.json.encode(
        {"undefined": {"finalEquity": "no bar was simulated"}}
    )
    assert run.finish().frame("equity").height == 0


def test_a_stopped_backtest_has_the_metrics_of_the_simulated_bars(
    plan: Plan, stocked: Catalog, conventions: Conventions
) -> None:
    stopped = Run(plan, "a")
    stopped.advance(1440)
    one_day = Run(prepare(msgspec.structs.replace(CONFIG, end_date="2024-01-02"), stocked, conventions), "b")
    one_day.advance(1440)

    # The backtest over one day alone also has the rejected order of its last bar.
    metrics = one_day.finish().metrics
    assert stopped.finish().metrics == msgspec.structs.replace(metrics, rejections={})
    assert set(metrics.rejected_orders) <= {"no next bar to fill at"}
    assert stopped.finish().frame("equity").equals(one_day.finish().frame("equity"))
    assert not stopped.done


def test_tables_have_the_columns_of_the_wire(plan: Plan) -> None:
    run = Run(plan, "a")
    run.advance(10**9)
    result = run.finish()
    time = pl.Datetime("us", "UTC")

    assert result.frame("equity").schema == {
        "timestamp": time,
        **dict.fromkeys(("equity", "drawdown", "returns"), pl.Float64),
    }
    assert result.frame("orders").columns == [
        *("order_id", "timestamp", "symbol", "side", "order_type", "quantity", "price", "status", "fill_price"),
        *("fill_quantity", "fee", "reason", "position_id", "signal_time"),
    ]
    assert result.frame("trades").columns == [
        *("position_id", "symbol", "entry_time", "exit_time", "side", "quantity", "entry_price", "exit_price"),
        *("pnl", "return", "fees", "mae", "mfe", "status"),
        *("exit_reason", "entry_order_id", "exit_order_id", "entry_signal_time", "exit_signal_time"),
    ]
    assert result.frame("positions").columns == [
        *("position_id", "timestamp", "symbol", "quantity", "average_price", "current_price"),
        *("unrealized_pnl", "realized_pnl"),
    ]
    assert set(result.frame("orders")["side"]) == {"buy", "sell"}
    assert set(result.frame("orders")["status"]) == {"filled"}
    with pytest.raises(ValueError, match="no table"):
        result.frame("bars")


def test_the_trades_add_up_to_the_profit(plan: Plan) -> None:
    run = Run(plan, "a")
    run.advance(10**9)
    result = run.finish()
    trades = result.frame("trades")

    assert trades["status"].to_list()[-2:] == ["closed", "open"]
    assert trades.height == result.metrics.total_trades
    assert 10_000.0 + float(trades["pnl"].sum()) == pytest.approx(result.metrics.final_equity)
    assert result.frame("orders")["fee"].sum() == pytest.approx(result.metrics.total_fees)


def test_a_rejected_order_has_nothing_filled(stocked: Catalog, conventions: Conventions) -> None:
    options = {"size": "units", "sizeValue": 1e9}
    plan = prepare(msgspec.structs.replace(CONFIG, options=options), stocked, conventions)
    run = Run(plan, "a")
    run.advance(10**9)
    orders = run.finish().frame("orders")

    assert set(orders["reason"]) == {"not enough cash"}
    assert orders["fill_price"].null_count() == orders["fill_quantity"].null_count() == orders.height > 0
    assert run.finish().metrics.total_trades == 0
    assert run.finish().metrics.undefined["win_rate"] == "there is no closed trade"


def test_buying_and_holding_has_the_return_of_the_market(stocked: Catalog, conventions: Conventions) -> None:
    config = msgspec.structs.replace(CONFIG, algorithm_id="buy_and_hold", parameters={}, commission=0.0, slippage=0.0)
    run = Run(prepare(config, stocked, conventions), "a")
    run.advance(10**9)
    bars, metrics = run.plan.bars, run.finish().metrics

    assert metrics.final_equity == pytest.approx(10_000 * bars.close[-1] / bars.open[1])
    assert metrics.total_trades == metrics.open_trades == 1


def test_a_run_can_start_with_given_signals(plan: Plan) -> None:
    run = Run(plan, "a")
    run.start_with(Signals.of(entries=np.zeros(len(plan.bars), dtype=bool)))
    run.advance(10**9)

    assert run.finish().metrics.final_equity == 10_000.0


def test_after_the_warm_up_nothing_is_compiled(conventions: Conventions) -> None:
    """Any kind of signals, and symbols with gaps, use the kernels of the warm-up."""
    warm(conventions)
    kernels: list[Any] = [simulate, _simulate_rows, compute_figures, _fill_in, _join, _set_signal_times, _count]
    compiled = [len(kernel.signatures) for kernel in kernels]
    bars = synthetic_bars("1m", 300)
    late = synthetic_bars("1m", 300, symbol="LATE")[100:]
    entries = bars.close > bars.open
    given = {
        "plain": Signals.of(entries=entries),
        "armed": Signals.of(entries=entries, stop_loss=bars.close * 0 + 0.1, take_profit=0.1),
        "target": Signals.of(target=bars.volume),
        "crossing": Signals.from_cross(bars.close, bars.open),
    }
    for panel in (Panel.of([bars]), Panel.of([bars, late])):
        config = msgspec.structs.replace(CONFIG, symbols=list(panel.symbols))
        options = resolve_options({}, conventions)
        for signals in given.values():
            run = Run(Plan(config, find_algorithm("sma_cross"), {}, options, panel), "a")
            run.start_with(*(signals, Signals.of(entries=late.close > late.open))[: len(panel.series)])
            run.advance(200)
            run.advance(200)
            assert run.finish().metrics.defined()

    assert [len(kernel.signatures) for kernel in kernels] == compiled


# --- the calendar ---


def rule_of(catalog: Catalog, conventions: Conventions, **options: Any) -> tuple[str, float, str]:
    config = msgspec.structs.replace(CONFIG, symbol="SHARE", timeframe="1d", start_date=None, end_date=None)
    run = Run(prepare(msgspec.structs.replace(config, options=options), catalog, conventions), "a")
    run.advance(10**9)
    rule = run.finish().metrics.annualisation
    assert rule is not None
    return rule.calendar, rule.bars_per_year, rule.reason


def test_the_calendar_is_told_from_the_bars_unless_it_is_given(catalog: Catalog, conventions: Conventions) -> None:
    days = synthetic_bars("1d", 420, symbol="SHARE")
    weekdays = np.arange(420) % 7 < 5  # the first is a Monday
    columns = (getattr(days, name)[weekdays] for name in ("timestamp", "open", "high", "low", "close", "volume"))
    catalog.write(Bars("SHARE", "1d", *columns))
    assert rule_of(catalog, conventions) == ("252d", 252.0, "0 of 118 days of weekends have bars")
    assert rule_of(catalog, conventions, calendar="24/7") == ("24/7", 365.0, "it was given")
    assert rule_of(catalog, conventions, preset="vectorbt") == ("24/7", 365.0, "the preset vectorbt has it")
    catalog.write(days)
    assert rule_of(catalog, conventions) == ("24/7", 365.0, "120 of 120 days of weekends have bars")
