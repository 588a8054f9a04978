"""An evaluation has the signals that a backtest trades, and the series that the algorithm shows."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtestr_engine.algorithms.algorithm import algorithm, portfolio
from backtestr_engine.algorithms.parameters import Int
from backtestr_engine.algorithms.shown_series import SIGNAL_COLUMNS
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.authoring import sma
from backtestr_engine.backtest.evaluation import evaluated, prepare_evaluation, signals_of
from backtestr_engine.backtest.plan import Plan, prepare
from backtestr_engine.backtest.run import Result, Run
from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.bars import COLUMNS, Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.library.library import Library
from backtestr_engine.simulation.conventions import Conventions, resolve_options
from backtestr_protocol.errors import AlgorithmError, DataError, InvalidConfiguration, NotFound, ValidationError
from backtestr_protocol.evaluation_messages import EvaluateAlgorithm
from backtestr_protocol.messages import BacktestConfig

COUNT = 1_500
FIRST = "2024-01-01T05:00:00Z"

ASKED = EvaluateAlgorithm(algorithm_id="lines", symbol="SYNTH", start_date=FIRST, timeframe="1m")


@algorithm("lines", slow=Int(20, low=2, high=500), warmup="slow")
def lines(bars: Bars, slow: int) -> Signals:
    """Long above the average, with levels and series of every kind."""
    average = sma(bars.close, slow)
    above = bars.close > average
    stops = np.where(above, 0.01, np.nan)
    show = {"average": average, "above": above, "number": np.arange(len(bars))}
    return Signals.of(above, ~above, stop_loss=stops, take_profit=0.05, show=show)


@algorithm("halves")
def halves(bars: Bars) -> Signals:
    """Half of equity on every second bar."""
    target = np.where(np.arange(len(bars)) % 2 == 0, 0.5, np.nan)
    return Signals.of(target=target, stop_loss=0.1, show={"twice": 2 * target})


@algorithm("ties")
def ties(bars: Bars) -> Signals:
    """Cross after a tie on bar 2; above, tie, above on bar 4; cross below without a tie on bar 6."""
    line = np.zeros(len(bars))
    line[:8] = [-1, 0, 1, 0, 1, 1, -1, -1]
    return Signals.from_cross(line, np.zeros(len(bars)), show={"line": line})


@algorithm("picky")
def picky(bars: Bars) -> Signals:
    """Give a stop price, and a series, for one of the symbols alone."""
    up = bars.close > bars.open
    if bars.symbol == "OTHER":
        return Signals.of(up, ~up, stop_price=bars.high, show={"high of other": bars.high})
    return Signals.of(up, ~up)


@algorithm("shows_too_few")
def shows_too_few(bars: Bars) -> Signals:
    """Show a series that is one bar too short."""
    return Signals.of(bars.close > bars.open, show={"change": np.diff(bars.close)})


@portfolio("trend", slow=Int(30, low=2, high=500), warmup="slow")
def trend(panel: Panel, slow: int) -> Floats:
    """Weigh by what is above its average, on every third row."""
    above = panel.close > panel.each(lambda bars: sma(bars.close, slow))
    weights = np.where(above, 0.5, 0.0)
    weights[np.arange(len(panel)) % 3 != 0] = np.nan
    return weights


OWN = {one.name: one for one in (lines, halves, ties, picky, shows_too_few, trend)}
LIBRARY = Library(OWN)


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    catalog = Catalog(tmp_path_factory.mktemp("catalog"), cache_bytes=64 << 20)
    catalog.write(synthetic_bars("1m", COUNT))
    other = synthetic_bars("1m", COUNT, symbol="OTHER", seed=2)
    kept = np.flatnonzero(np.arange(COUNT) % 7 != 0)
    catalog.write(Bars("OTHER", "1m", *(getattr(other, name)[kept] for name in COLUMNS)))
    return catalog


@pytest.fixture
def evaluate(stocked: Catalog, conventions: Conventions) -> Any:
    def evaluate(name: str = "lines", **changed: Any) -> pl.DataFrame:
        request = msgspec.structs.replace(ASKED, algorithm_id=name, **changed)
        return evaluated(prepare_evaluation(request, stocked, conventions, LIBRARY.find))

    return evaluate


def backtest_plan(stocked: Catalog, conventions: Conventions, request: EvaluateAlgorithm, **options: Any) -> Plan:
    shared = set(request.__struct_fields__) & set(BacktestConfig.__struct_fields__)
    fields = {name: getattr(request, name) for name in shared}
    config = BacktestConfig(**fields, initial_capital=1e5, commission=0.001, slippage=0.0, options=options)
    return prepare(config, stocked, conventions, LIBRARY.find)


def result_of(plan: Plan) -> Result:
    run = Run(plan, "b")
    while not run.done:
        run.advance(200)
    return run.finish()


# --- the signals are those of a backtest ---


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["lines", "halves", "ties", "trend", "sma_cross", "donchian_breakout", "bollinger_reversion"]),
    symbols=st.sampled_from([["SYNTH"], ["OTHER"], ["OTHER", "SYNTH"]]),
    warmup=st.none() | st.integers(0, 400),
    start=st.none() | st.sampled_from([FIRST, "2024-01-01T00:03:00Z", "2024-01-01T20:00:00Z"]),
)
def test_signals_are_those_of_a_backtest_and_of_the_algorithm_itself(
    name: str, symbols: list[str], warmup: int | None, start: str | None, stocked: Catalog, conventions: Conventions
) -> None:
    request = msgspec.structs.replace(
        ASKED, algorithm_id=name, symbol=None, symbols=symbols, warmup=warmup, start_date=start
    )
    frame = evaluated(prepare_evaluation(request, stocked, conventions, LIBRARY.find))

    plan = backtest_plan(stocked, conventions, request)
    assert [one.symbol for one in plan.panel.series] == symbols
    of_symbol = frame.partition_by("symbol", maintain_order=True) if len(symbols) > 1 else [frame]
    for bars, signals, rows in zip(plan.panel.series, signals_of(plan), of_symbol, strict=True):
        np.testing.assert_array_equal(rows["timestamp"].to_physical(), bars.timestamp)
        np.testing.assert_array_equal(rows["close"], bars.close)
        given = ("target",) if signals.target is not None else SIGNAL_COLUMNS[:4]
        for column in given:
            np.testing.assert_array_equal(rows[column], getattr(signals, column))
    if not plan.algorithm.across and len(symbols) == 1:
        # Called directly on the longer range, and cut where the backtest begins.
        alone = plan.algorithm.signals(plan.seen.series[0], plan.parameters)
        first = len(plan.seen) - len(plan.panel)
        np.testing.assert_array_equal(alone.flags[first:], signals_of(plan)[0].flags)
        for shown, values in alone.shown.items():
            np.testing.assert_array_equal(frame[shown], values[first:])


@pytest.mark.parametrize("warmup", [None, 0, 7, 300])
def test_a_backtest_trades_on_the_bars_that_have_a_signal(
    warmup: int | None, stocked: Catalog, conventions: Conventions
) -> None:
    """Every order of a signal stands on a bar with that signal, and the first entry is the first order's signal."""
    request = msgspec.structs.replace(ASKED, algorithm_id="sma_cross", warmup=warmup)
    frame = evaluated(prepare_evaluation(request, stocked, conventions, LIBRARY.find))
    orders = result_of(backtest_plan(stocked, conventions, request)).frame("orders").drop_nulls("signal_time")

    long, short = (frame.filter(pl.col(name))["timestamp"] for name in ("entries", "short_entries"))
    crossings = pl.concat([long, short]).sort()
    assert len(crossings) > 20
    assert orders.height >= len(crossings) - 1, "a signal on the last bar has no next open"
    assert set(orders.filter(pl.col("side") == "buy")["signal_time"]) <= set(long)
    assert set(orders.filter(pl.col("side") == "sell")["signal_time"]) <= set(short)
    assert set(orders["signal_time"]) >= set(crossings.filter(crossings < frame["timestamp"][-1]))


def test_the_conventions_say_which_crosses_and_directions_count(stocked: Catalog, conventions: Conventions) -> None:
    def entries(**options: Any) -> tuple[list[int], list[int]]:
        changed = resolve_options(options, conventions).conventions
        frame = evaluated(prepare_evaluation(request, stocked, changed, LIBRARY.find))
        assert frame["exits"].arg_true().to_list() in ([6], [])
        return frame["entries"].arg_true().to_list(), frame["short_entries"].arg_true().to_list()

    request = msgspec.structs.replace(ASKED, algorithm_id="ties", start_date=None)
    assert entries() == ([2], [6])
    assert entries(crossTies="fire") == ([2, 4], [6])
    assert entries(crossTies="strict") == ([], [6])
    assert entries(direction="long") == ([2], [])
    assert entries(direction="short") == ([], [6])


# --- the table ---


def test_the_columns_are_bars_signals_levels_and_what_is_shown(evaluate: Any) -> None:
    frame = evaluate()

    assert frame.schema == {
        "timestamp": pl.Datetime("us", "UTC"),
        **{name: pl.Float64 for name in COLUMNS[1:]},
        **{name: pl.Boolean for name in SIGNAL_COLUMNS[:4]},
        "stop_loss": pl.Float64,
        "take_profit": pl.Float64,
        "average": pl.Float64,
        "above": pl.Float64,
        "number": pl.Float64,
    }
    assert frame.height == COUNT - 300
    assert frame["number"].to_list() == [float(20 + row) for row in range(frame.height)]
    assert not frame["average"].is_nan().any(), "the warm-up was seen"
    assert frame["above"].to_list() == frame["entries"].cast(pl.Float64).to_list()
    assert set(frame["take_profit"]) == {0.05}
    assert frame["stop_loss"].is_nan().to_list() == frame["exits"].to_list()


def test_a_target_stands_in_place_of_entries(evaluate: Any) -> None:
    frame = evaluate("halves", start_date=None)

    assert frame.columns == [*COLUMNS, "target", "stop_loss", "twice"]
    assert frame["target"][:2].to_list()[0] == 0.5
    assert np.isnan(frame["target"][1])
    np.testing.assert_array_equal(frame["twice"], 2 * frame["target"])


def test_symbols_follow_each_other_with_null_where_only_another_has_a_column(evaluate: Any) -> None:
    frame = evaluate("picky", symbol=None, symbols=["SYNTH", "OTHER"])

    assert frame.columns[:3] == ["timestamp", "symbol", "open"]
    assert frame.columns[-2:] == ["stop_price", "high of other"]
    assert frame["symbol"].rle().struct.field("value").to_list() == ["SYNTH", "OTHER"]
    synth, other = frame.partition_by("symbol", maintain_order=True)
    assert synth["high of other"].null_count() == synth["stop_price"].null_count() == synth.height
    assert other["high of other"].to_list() == other["stop_price"].to_list() == other["high"].to_list()
    assert evaluate("picky", symbol=None, symbols=["OTHER"]).equals(other.drop("symbol"))


# --- what is refused ---


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"name": "line"}, NotFound, "did you mean 'lines'"),
        ({"symbol": "SYNTHH"}, DataError, "SYNTH"),
        ({"symbol": None}, ValidationError, "needs a symbol"),
        ({"timeframe": "1y"}, ValidationError, "timeframe"),
        ({"start_date": "soon"}, ValidationError, r"\$\.startDate"),
        ({"start_date": "2024-02-01", "end_date": "2024-01-01"}, InvalidConfiguration, "is not before endDate"),
        ({"start_date": "2025-01-01"}, DataError, "no 1m bars of SYNTH from 2025"),
        ({"parameters": {"slo": 3}}, ValidationError, "did you mean 'slow'"),
        ({"parameters": {"slow": 1}}, ValidationError, "slow"),
        ({"name": "buy_and_hold", "warmup": 5}, InvalidConfiguration, "takes no warm-up"),
        ({"name": "shows_too_few"}, AlgorithmError, r"^shows_too_few: show: 'change' has shape \(1199,\)"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_what_a_backtest_refuses_is_refused_alike(
    changed: dict[str, Any], error: type[Exception], message: str, evaluate: Any
) -> None:
    with pytest.raises(error, match=message):
        evaluate(**changed)


def test_a_failure_has_the_traceback_of_the_author(evaluate: Any) -> None:
    with pytest.raises(AlgorithmError) as caught:
        evaluate("shows_too_few")
    assert caught.value.details is not None
    traceback = caught.value.details["traceback"].splitlines()
    assert "in shows_too_few" in traceback[1]


# --- a backtest and shown series ---


def test_shown_series_change_no_result_and_are_dropped_before_the_first_bar(
    stocked: Catalog, conventions: Conventions
) -> None:
    kept: list[weakref.ref[Floats]] = []

    def body(bars: Bars, show: bool) -> Signals:
        average = sma(bars.close, 10)
        kept.append(weakref.ref(average))
        above = bars.close > average
        return Signals.of(above, ~above, show={"average": average} if show else None)

    def plan(show: bool) -> Plan:
        found = msgspec.structs.replace(OWN["lines"], function=lambda bars, slow: body(bars, show))
        return msgspec.structs.replace(backtest_plan(stocked, conventions, ASKED), algorithm=found)

    with_series, without = Run(plan(True), "b"), plan(False)
    with_series.start()
    gc.collect()
    assert [one() for one in kept] == [None]

    while not with_series.done:
        with_series.advance(100)
    shown, plain = with_series.finish(), result_of(without)
    for table in ("equity", "orders", "trades", "positions"):
        assert shown.frame(table).equals(plain.frame(table))
    assert shown.metrics == plain.metrics
