"""The warm-up of a backtest: the algorithm sees bars before the start, and nothing else does."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtestr_engine.algorithms.algorithm import Algorithm, algorithm, portfolio
from backtestr_engine.algorithms.parameters import Int
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.algorithms.weights import targets_of
from backtestr_engine.authoring import sma
from backtestr_engine.backtest.plan import Plan, prepare
from backtestr_engine.backtest.run import Run
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import START_US, synthetic_bars
from backtestr_engine.library.library import Library
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.errors import AlgorithmError, InvalidConfiguration
from backtestr_protocol.messages import BacktestConfig

MINUTE = 60_000_000
COUNT = 2_000

CONFIG = BacktestConfig(
    algorithm_id="sma_cross",
    symbol="SYNTH",
    start_date="2024-01-01T10:00:00Z",
    end_date="2024-01-02",
    initial_capital=10_000.0,
    timeframe="1m",
    commission=0.0005,
    slippage=0.0,
    parameters={"fast": 5, "slow": 20},
)


@algorithm("undeclared", slow=Int(20, low=2, high=500))
def undeclared(bars: Bars, slow: int) -> Signals:
    """Long above the average."""
    above = bars.close > sma(bars.close, slow)
    return Signals.of(entries=above, exits=~above)


@algorithm("always_in", warmup=50)
def always_in(bars: Bars) -> Signals:
    """Long from the first bar, with protective exits of its own on every bar."""
    every = np.ones(len(bars), dtype=np.bool_)
    return Signals.of(entries=every, stop_loss=np.linspace(0.01, 0.02, len(bars)), take_profit=0.03)


@portfolio("trend", slow=Int(30, low=2, high=500), warmup="slow")
def trend(panel: Panel, slow: int) -> Floats:
    """Weigh by what is above its average."""
    above = panel.close > panel.each(lambda bars: sma(bars.close, slow))
    return np.where(above, 0.5, 0.0)


@algorithm("fails_to_say", count=Int(0, low=0, high=9), warmup=lambda count: 10 // (5 - count))
def fails_to_say(bars: Bars, count: int) -> Signals:
    """Give no signal, and fail to state its warm-up where `count` is 5."""
    return Signals.of(entries=np.zeros(len(bars), dtype=np.bool_))


LIBRARY = Library({one.name: one for one in (undeclared, always_in, trend, fails_to_say)})


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    catalog = Catalog(tmp_path_factory.mktemp("catalog"), cache_bytes=64 << 20)
    catalog.write(synthetic_bars("1m", COUNT))
    catalog.write(synthetic_bars("1m", COUNT, symbol="OTHER", seed=2)[400:])
    return catalog


def planned(stocked: Catalog, conventions: Conventions, **changed: Any) -> Plan:
    return prepare(msgspec.structs.replace(CONFIG, **changed), stocked, conventions, LIBRARY.find)


def given_bars(plan: Plan) -> tuple[int, ...]:
    assert plan.warm_up is not None
    return plan.warm_up.given


def minute(number: int) -> str:
    return datetime.fromtimestamp((START_US + number * MINUTE) / 1e6, UTC).isoformat()


def finished(run: Run, chunk: int = 10**9) -> Run:
    while not run.done:
        run.advance(chunk)
    return run


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["sma_cross", "rsi_reversion", "donchian_breakout", "undeclared", "always_in"]),
    start=st.integers(1, COUNT - 3),
    bars=st.integers(2, 600),
    warmup=st.none() | st.integers(0, 700),
    chunk=st.integers(1, 400),
)
def test_a_backtest_trades_the_signals_of_the_longer_range_cut_at_its_start(
    name: str, start: int, bars: int, warmup: int | None, chunk: int, stocked: Catalog, conventions: Conventions
) -> None:
    found = LIBRARY.find(name)
    declared = found.warm_up(found.check({}))
    end = min(COUNT, start + bars)
    plan = planned(
        stocked,
        conventions,
        algorithm_id=name,
        parameters={},
        start_date=minute(start),
        end_date=minute(end),
        warmup=warmup,
    )
    run = finished(Run(plan, "warm"), chunk)

    first = max(0, start - (declared or 0 if warmup is None else warmup))
    longer = synthetic_bars("1m", COUNT)[first:end]
    signals = found.signals(longer, plan.parameters)
    by_hand = Run(plan, "by hand")
    by_hand.start_with(signals.from_bar(start - first))
    result, expected = run.finish(), finished(by_hand).finish()

    assert result.warmup_bars == start - first
    assert len(result.equity) == end - start
    assert plan.panel.timestamp[0] == START_US + start * MINUTE
    for table in ("equity", "orders", "trades", "positions"):
        assert result.frame(table).equals(expected.frame(table))
    assert msgspec.json.encode(result.metrics) == msgspec.json.encode(expected.metrics)
    assert not len(result.orders) or result.orders["timestamp"].min() >= plan.panel.timestamp[0]


def test_the_metrics_are_those_of_the_tested_bars(stocked: Catalog, conventions: Conventions) -> None:
    plan = planned(stocked, conventions, algorithm_id="always_in", parameters={})
    result = finished(Run(plan, "warm")).finish()
    tested = synthetic_bars("1m", 1440)[600:]

    assert result.warmup_bars == 50
    assert len(result.equity) == len(tested) == 840
    assert result.metrics.buy_and_hold_return == pytest.approx(tested.close[-1] / tested.close[0] - 1)
    assert result.metrics.warnings == []
    assert plan.resolved_config().warmup == 50


def test_weights_of_the_warm_up_are_dropped(stocked: Catalog, conventions: Conventions) -> None:
    plan = planned(stocked, conventions, algorithm_id="trend", symbols=["SYNTH", "OTHER"], parameters={"slow": 30})
    series = [synthetic_bars("1m", COUNT)[:1440], synthetic_bars("1m", COUNT, symbol="OTHER", seed=2)[400:1440]]
    longer = Panel.of([series[0][570:], series[1][170:]])
    weights = trend.weights(longer, {"slow": 30})[30:]
    by_hand = Run(plan, "by hand")
    by_hand.start_with(*targets_of(plan.panel, weights, fills_at_close=False))
    result, expected = finished(Run(plan, "warm")).finish(), finished(by_hand).finish()

    assert given_bars(plan) == (30, 30)
    assert result.frame("orders").equals(expected.frame("orders"))
    assert result.frame("equity").equals(expected.frame("equity"))
    assert result.orders["timestamp"].min() >= START_US + 601 * MINUTE


def test_too_few_bars_before_the_start_are_said(stocked: Catalog, conventions: Conventions) -> None:
    plan = planned(stocked, conventions, start_date=minute(12), parameters={"fast": 5, "slow": 20})
    result = finished(Run(plan, "warm")).finish()

    assert result.warmup_bars == 12
    (warning,) = result.metrics.warnings
    assert warning.startswith("the warm-up had 12 of 20 bars: no more of SYNTH are stored before the start")
    again = prepare(plan.config, stocked, conventions, LIBRARY.find)
    assert finished(Run(again, "again")).finish().metrics.warnings == [warning]
    assert plan.resolved_config().warmup == 20

    two = planned(stocked, conventions, symbols=["SYNTH", "OTHER"], start_date=minute(410))
    assert given_bars(two) == (20, 10)
    assert "12 of 20" not in finished(Run(two, "two")).finish().metrics.warnings[0]
    assert "10 of 20 bars: no more of OTHER" in finished(Run(two, "two")).finish().metrics.warnings[0]


@pytest.mark.parametrize("start", [None, "2024-01-01", "2023-01-01"])
def test_a_test_from_the_first_stored_bar_has_no_warm_up_and_no_warning(
    start: str | None, stocked: Catalog, conventions: Conventions
) -> None:
    plan = planned(stocked, conventions, start_date=start)

    assert plan.resolved_config().warmup == 0
    assert finished(Run(plan, "first")).finish().metrics.warnings == []
    asked = finished(Run(planned(stocked, conventions, start_date=start, warmup=7), "asked")).finish()
    assert asked.metrics.warnings[0].startswith("the warm-up had 0 of 7 bars")


def test_an_algorithm_that_declares_nothing_is_told_of(stocked: Catalog, conventions: Conventions) -> None:
    plan = planned(stocked, conventions, algorithm_id="undeclared", parameters={})
    (warning,) = finished(Run(plan, "warm")).finish().metrics.warnings
    assert warning.startswith("undeclared declares no warm-up, so its indicators began at the start")

    for told in ({"warmup": 0}, {"warmup": 20}, {"start_date": None}):
        plan = planned(stocked, conventions, algorithm_id="undeclared", parameters={}, **told)
        assert finished(Run(plan, "told")).finish().metrics.warnings == []


def test_what_takes_no_warm_up_is_given_none(stocked: Catalog, conventions: Conventions) -> None:
    with pytest.raises(InvalidConfiguration, match="buy_and_hold takes no warm-up") as caught:
        planned(stocked, conventions, algorithm_id="buy_and_hold", parameters={}, warmup=5)
    assert (caught.value.details or {})["paths"] == ["$.warmup", "$.algorithmId"]
    for warmup in (None, 0):
        plan = planned(stocked, conventions, algorithm_id="buy_and_hold", parameters={}, warmup=warmup)
        assert finished(Run(plan, "held")).finish().metrics.warnings == []
        assert given_bars(plan) == (0,)


def test_a_declaration_that_fails_is_an_error_of_the_algorithm(stocked: Catalog, conventions: Conventions) -> None:
    with pytest.raises(AlgorithmError, match="fails_to_say raised ZeroDivisionError"):
        planned(stocked, conventions, algorithm_id="fails_to_say", parameters={"count": 5})


def test_resampled_bars_before_the_start_are_whole(stocked: Catalog, conventions: Conventions) -> None:
    plan = planned(stocked, conventions, timeframe="15m", warmup=4)
    quarter = plan.seen.series[0]

    assert given_bars(plan) == (4,)
    assert quarter.timestamp[0] == START_US + 540 * MINUTE
    assert quarter.open[0] == synthetic_bars("1m", COUNT).open[540]


def test_gaps_before_the_start_are_bridged(catalog: Catalog, conventions: Conventions) -> None:
    """The bars before the start may be further away than their number of minutes."""
    bars = synthetic_bars("1m", COUNT)
    kept = np.r_[0:100, 1500:COUNT]
    catalog.write(Bars("GAPPY", "1m", *(getattr(bars, name)[kept] for name in Bars.__slots__[2:-1])))
    plan = planned(catalog, conventions, symbol="GAPPY", start_date=minute(1500), end_date=None, warmup=30)

    assert given_bars(plan) == (30,)
    assert plan.seen.timestamp[0] == START_US + 70 * MINUTE


@pytest.mark.parametrize("one", BUILT_IN.values(), ids=lambda one: one.name)
def test_the_built_ins_declare_enough(one: Algorithm) -> None:
    """The declared warm-up gives the signals that all earlier bars give."""
    bars, values = synthetic_bars("1m", COUNT), one.check({})
    needed = one.warm_up(values)
    assert needed is not None
    if one.name == "buy_and_hold":
        assert needed == 0
        return
    start = 1000
    all_before = one.signals(bars, values).from_bar(start)
    declared = one.signals(bars[start - needed :], values).from_bar(needed)
    assert np.array_equal(all_before.flags, declared.flags)
