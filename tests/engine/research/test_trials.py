"""A row of a sweep has the key of its single backtest, and two combinations share a key only if they are the same."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.algorithms.algorithm import algorithm
from backtestr_engine.algorithms.parameters import Bool, Float, Int
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.backtest.plan import Plan, prepare
from backtestr_engine.built_in import BUILT_IN, find_algorithm
from backtestr_engine.config import load_config
from backtestr_engine.data.bars import COLUMNS, Bars
from backtestr_engine.data.instants import instant
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.research.sweep_blocks import SweepWork
from backtestr_engine.research.sweep_plan import plan_sweep
from backtestr_engine.research.trials import row_keys, trial_data, trial_key
from backtestr_protocol.messages import BacktestConfig, TickPrice

CONVENTIONS = load_config(None).conventions
BARS = synthetic_bars("1d", 120)
CONFIG = BacktestConfig(
    algorithm_id="sma_cross",
    symbol="SYNTH",
    initial_capital=10_000.0,
    timeframe="1d",
    commission=0.001,
    slippage=0.0,
    parameters={},
)


class Stored:
    """The bars of any symbol, as a catalogue gives them."""

    def load(
        self,
        symbol: str,
        timeframe: str,
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        price: TickPrice | None = None,
    ) -> Bars:
        found = BARS.between(start_us, end_us)
        return Bars(symbol, BARS.timeframe, *(getattr(found, name) for name in COLUMNS))

    def tick_price(self, symbol: str, timeframe: str, price: TickPrice | None) -> TickPrice | None:
        return None


@algorithm("many_kinds", whole=Int(3, 1, 9), part=Float(2, 0, 9), yes=Bool(False), warmup=lambda part: 3 * part)
def many_kinds(bars: Bars, whole: int, part: float, yes: bool) -> Signals:
    """Do nothing, with a parameter of each kind; the default of `part` is a whole number."""
    return Signals.of(entries=np.zeros(len(bars), dtype=np.bool_), exits=np.zeros(len(bars), dtype=np.bool_))


ALGORITHMS = {**{name: BUILT_IN[name] for name in ("sma_cross", "ema_cross", "buy_and_hold")}, "many_kinds": many_kinds}


def single(**changes: Any) -> Plan:
    """Return the plan of a backtest, prepared twice as the broker's workers do."""
    config = msgspec.structs.replace(CONFIG, **changes)
    find = ALGORITHMS.__getitem__
    checked = prepare(config, Stored(), CONVENTIONS, lambda name: find(name.partition("@")[0])).config
    return prepare(checked, Stored(), CONVENTIONS, lambda name: find(name.partition("@")[0]))


def key(**changes: Any) -> int:
    return int(trial_key(single(**changes))[0])


SPACES: dict[str, dict[str, Any]] = {
    "sma_cross": {"fast": range(2, 6), "slow": [6, 9, 40]},
    "ema_cross": {"slow": {"low": 10, "high": 30, "step": 10}},
    "many_kinds": {"yes": [True, False], "part": {"low": 0.5, "high": 2.0, "step": 0.5}},
}


@pytest.mark.parametrize("name", list(SPACES))
@pytest.mark.parametrize("start", [0, 20, 60], ids=lambda bar: f"from bar {bar}")
@pytest.mark.parametrize("warmup", [None, 0, 7, 50])
@pytest.mark.parametrize("symbols", [1, 2])
def test_a_row_has_the_key_and_the_group_of_its_single_backtest(
    name: str, start: int, warmup: int | None, symbols: int
) -> None:
    found_algorithm = ALGORITHMS[name]
    names = ["SYNTH", "OTHER"][:symbols]
    first_bar = instant(int(BARS.timestamp[start]))
    fields: dict[str, Any] = {
        "algorithm_id": name,
        "start_date": first_bar,
        "warmup": warmup,
        "symbols": names if symbols > 1 else [],
        "options": {"leverage": 2.0} if symbols == 1 else {"fillAt": "close"},
    }
    config = msgspec.structs.replace(CONFIG, **fields)
    plan = plan_sweep(config, found_algorithm, SPACES[name], CONVENTIONS)
    tested = Panel.of([Stored().load(one, "1d")[start:] for one in names])
    seen = tested if warmup == 0 else Panel.of([Stored().load(one, "1d") for one in names])
    work = SweepWork(plan, found_algorithm, tested, seen)
    found = plan.space.combinations(0, 1_000)
    keys = row_keys(work, found_algorithm, found)
    assert len(keys) == len(found) >= 2
    assert len(set(keys.tolist())) == len(keys)
    for row in range(len(found)):
        one = single(**fields, parameters={**plan.space.fixed, **found.at(row)})
        assert int(trial_key(one)[0]) == int(keys[row])
        assert trial_data(one.algorithm, one.panel) == trial_data(found_algorithm, tested)


def test_a_block_of_no_rows_has_no_keys() -> None:
    plan = plan_sweep(CONFIG, BUILT_IN["sma_cross"], {"fast": [3], "slow": [9]}, CONVENTIONS)
    panel = Panel.of([BARS])
    found = plan.space.combinations(5, 0)
    assert len(row_keys(SweepWork(plan, BUILT_IN["sma_cross"], panel), BUILT_IN["sma_cross"], found)) == 0


START = instant(int(BARS.timestamp[60]))


@pytest.mark.parametrize(
    "other",
    [
        {"parameters": {"fast": 11}},
        {"initial_capital": 10_001.0},
        {"commission": 0.002},
        {"slippage": 0.001},
        {"options": {"fillAt": "close"}},
        {"options": {"stopLoss": 0.1}},
        {"options": {"calendar": "24/7"}},
        {"warmup": 5},
        {"algorithm_id": "ema_cross"},
    ],
    ids=str,
)
def test_what_decides_figures_makes_another_key(other: dict[str, Any]) -> None:
    base: dict[str, Any] = {"start_date": START, "parameters": {"fast": 10, "slow": 30}}
    assert key(**{**base, **other}) != key(**base)


@pytest.mark.parametrize(
    "other",
    [
        {"backtest_id": "b-1"},
        {"parameters": {}},
        {"parameters": {"slow": 30}},
        {"initial_capital": 10_000},
        {"options": {"pace": 5.0, "timeLimitMs": 5, "lookAheadCheck": False, "streams": {"prices": True}}},
        {"options": {"fillAt": CONVENTIONS.fill_at, "leverage": 1}},
        {"symbol": "OTHER"},
    ],
    ids=str,
)
def test_what_decides_nothing_leaves_the_key(other: dict[str, Any]) -> None:
    base: dict[str, Any] = {"parameters": {"fast": 10, "slow": 30}}
    assert key(**{**base, **other}) == key(**base)


def test_a_warm_up_that_there_are_no_bars_for_is_that_of_the_bars_there_are() -> None:
    start = instant(int(BARS.timestamp[20]))
    assert key(start_date=start, warmup=20) == key(start_date=start, warmup=50)


def test_groups_are_told_apart_by_algorithm_symbol_and_bars() -> None:
    panel = Panel.of([BARS])
    of = trial_data(BUILT_IN["sma_cross"], panel)
    assert (of.algorithm, of.symbols, of.timeframe, of.bars) == ("sma_cross", ["SYNTH"], "1d", 120)
    assert (of.start_time, of.end_time) == (
        int(BARS.timestamp[0]) // 1000,
        int(BARS.timestamp[-1]) // 1000 + 86_400_000,
    )
    others = [
        trial_data(BUILT_IN["ema_cross"], panel),
        trial_data(BUILT_IN["sma_cross"], Panel.of([BARS[1:]])),
        trial_data(BUILT_IN["sma_cross"], Panel.of([Stored().load("OTHER", "1d")])),
    ]
    assert len({of.group, *(one.group for one in others)}) == 4


@given(st.sets(st.tuples(st.integers(2, 499), st.integers(500, 1000)), min_size=2, max_size=40))
def test_distinct_combinations_have_distinct_keys(pairs: set[tuple[int, int]]) -> None:
    fast, slow = (sorted({pair[place] for pair in pairs}) for place in (0, 1))
    plan = plan_sweep(CONFIG, find_algorithm("sma_cross"), {"fast": fast, "slow": slow}, CONVENTIONS)
    keys = row_keys(
        SweepWork(plan, find_algorithm("sma_cross"), Panel.of([BARS])),
        find_algorithm("sma_cross"),
        plan.space.combinations(0, plan.space.cells),
    )
    assert len(np.unique(keys)) == len(fast) * len(slow)
