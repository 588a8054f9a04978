"""The look-ahead check of a backtest's algorithm on the backtest's own bars, with its own parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest

from backtestr_engine.algorithms.algorithm import Algorithm, algorithm, portfolio
from backtestr_engine.algorithms.parameters import Int
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.authoring import sma
from backtestr_engine.backtest.own_bars import (
    CHECK_SECONDS,
    FEWEST_ROWS,
    MAX_PANEL_BARS,
    MAX_SYMBOLS,
    OwnBarsCheck,
    is_checked,
    own_samples,
)
from backtestr_engine.backtest.plan import Plan, prepare
from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.bars import COLUMNS, Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.data.timeframes import DAY_US
from backtestr_engine.library.library import Library
from backtestr_engine.library.samples import SHORT_BARS, SHORT_CUTS, check_on_samples, in_sessions
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.errors import AlgorithmError, TimeLimitExceeded
from backtestr_protocol.messages import BacktestConfig, LookAhead

T = TypeVar("T")

MINUTE = 60.0
"""Seconds: more than any check takes here."""


@algorithm("peeks", lookahead=Int(0, low=0, high=5))
def peeks(bars: Bars, lookahead: int) -> Signals:
    """Enter where the close so many bars later is higher."""
    later = np.append(bars.close[lookahead:], np.full(lookahead, np.nan))
    return Signals.of(entries=later > bars.open, exits=later < bars.open)


@algorithm("leaves_before_long_weekends")
def leaves_before_long_weekends(bars: Bars) -> Signals:
    """Know of a gap from the time of the next bar, where it is longer than any of the samples made for the check."""
    before_gap = np.append(np.diff(bars.timestamp) > 4 * DAY_US, False)
    return Signals.of(entries=(bars.close > bars.open) & ~before_gap, exits=before_gap)


@algorithm("peeks_by_the_hour")
def peeks_by_the_hour(bars: Bars) -> Signals:
    """Look up the hours as of the time at which they open, so that the running one is seen whole."""
    hourly = bars.at("1h").bars
    known = np.append(hourly.close, np.nan)
    close = known[np.searchsorted(hourly.timestamp, bars.timestamp // (DAY_US // 24) * (DAY_US // 24))]
    return Signals.of(entries=close > bars.close, exits=close < bars.close)


@portfolio("peeks_across", lookahead=Int(0, low=0, high=5))
def peeks_across(panel: Panel, lookahead: int) -> Floats:
    """Weigh by the close of so many rows later."""
    later = np.vstack([panel.close[lookahead:], np.full((lookahead, len(panel.symbols)), np.nan)])
    return np.where(later > panel.open, 1.0 / len(panel.symbols), 0.0)


@algorithm("fails_on_fewer", least=Int(10, low=0, high=5_000))
def fails_on_fewer(bars: Bars, least: int) -> Signals:
    if len(bars) < least:
        raise ValueError("too few")
    return Signals.of(entries=bars.close > sma(bars.close, 5))


@algorithm("draws")
def draws(bars: Bars) -> Signals:
    """Enter by chance, without a seed."""
    return Signals.of(entries=np.random.default_rng().random(len(bars)) > 0.5)


LIBRARY = Library(
    {
        one.name: one
        for one in (peeks, leaves_before_long_weekends, peeks_by_the_hour, peeks_across, fails_on_fewer, draws)
    }
)


@pytest.fixture
def planned(catalog: Catalog, conventions: Conventions) -> Callable[..., Plan]:
    """Provide a function that plans a backtest of `algorithm_id` on stored minutes."""

    def plan(algorithm_id: str, **changes: Any) -> Plan:
        fields: dict[str, Any] = {
            "algorithm_id": algorithm_id,
            "symbol": None if "symbols" in changes else "SYNTH",
            "initial_capital": 10_000.0,
            "timeframe": "1m",
            "commission": 0.0,
            "slippage": 0.0,
            "parameters": {},
        }
        return prepare(BacktestConfig(**(fields | changes)), catalog, conventions, LIBRARY.find)

    catalog.write(synthetic_bars("1m", 3_000))
    return plan


class Calls:
    """Makes the calls of a check in place, counts the checks, and fails with `error` where there is one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.seconds: list[float] = []
        self.error = error

    def __call__(self, algorithm: Algorithm, work: Callable[[Algorithm], T], seconds: float, /) -> T:
        self.seconds.append(seconds)
        if self.error is not None:
            raise self.error
        return work(algorithm)


def verdict_on(plan: Plan) -> LookAhead | None:
    return OwnBarsCheck().verdict(plan, MINUTE)


# --- what it finds ---


def test_a_peek_that_only_these_parameters_have_is_found(planned: Callable[..., Plan]) -> None:
    assert check_on_samples(peeks, peeks.check({}), 1).passed
    honest, looking = (verdict_on(planned("peeks", parameters={"lookahead": one})) for one in (0, 1))

    assert honest is not None
    assert (honest.passed, honest.bars) == (True, SHORT_BARS)
    assert honest.cuts > SHORT_CUTS // 2
    assert looking is not None
    assert looking.finding is not None
    assert looking.finding.sample is not None
    assert looking.finding.sample.startswith("SYNTH 1m from 20")
    assert looking.finding.sample.endswith("on, with the parameters of this backtest")


def test_a_peek_that_only_these_bars_show_is_found(planned: Callable[..., Plan], catalog: Catalog) -> None:
    assert check_on_samples(leaves_before_long_weekends, {}, 1).passed
    bars = in_sessions(synthetic_bars("5m", 1_000, symbol="HOLIDAYS"))
    times = np.where(np.arange(1_000) >= 500, bars.timestamp + 7 * DAY_US, bars.timestamp)
    catalog.write(Bars("HOLIDAYS", "5m", times, *(getattr(bars, name) for name in COLUMNS[1:])))
    found = verdict_on(planned("leaves_before_long_weekends", symbol="HOLIDAYS", timeframe="5m"))

    assert found is not None
    assert found.finding is not None
    assert found.finding.cut == 500


def test_a_use_of_a_higher_bar_that_is_still_running_is_found(planned: Callable[..., Plan]) -> None:
    found = verdict_on(planned("peeks_by_the_hour"))
    assert found is not None
    assert found.finding is not None


def test_several_symbols_are_checked_each_or_together(planned: Callable[..., Plan], catalog: Catalog) -> None:
    symbols = [f"S{index}" for index in range(9)]
    for seed, symbol in enumerate(symbols):
        catalog.write(synthetic_bars("1m", 1_500 + seed, symbol=symbol, seed=seed))
    for name in ("peeks", "peeks_across"):
        for lookahead in (0, 1):
            found = verdict_on(planned(name, symbols=symbols, parameters={"lookahead": lookahead}))
            assert found is not None
            assert found.passed == (lookahead == 0)
            assert found.bars == SHORT_BARS * (MAX_SYMBOLS if name == "peeks" and not lookahead else 1)


def test_an_algorithm_that_fails_there_has_no_verdict(planned: Callable[..., Plan]) -> None:
    """It may need more bars than the sample has, and a failure on short beginnings alone is no finding."""
    assert verdict_on(planned("fails_on_fewer", parameters={"least": 2_000})) is None
    for least in (300, 700, 950):
        found = verdict_on(planned("fails_on_fewer", parameters={"least": least}))
        assert found is not None
        assert found.passed


def test_an_algorithm_with_other_signals_at_each_call_is_not_said_to_look_ahead(planned: Callable[..., Plan]) -> None:
    assert not check_on_samples(draws, {}, 1).passed
    assert verdict_on(planned("draws")) is None


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_few_bars_are_enough_or_give_no_verdict(planned: Callable[..., Plan], catalog: Catalog, rows: int) -> None:
    catalog.write(synthetic_bars("1m", rows, symbol="FEW"))
    found = verdict_on(planned("peeks", symbol="FEW"))
    assert (found is None) == (rows == 1)


# --- the samples ---


def test_the_sample_is_a_copy_of_the_middle_of_what_the_algorithm_sees(planned: Callable[..., Plan]) -> None:
    bars = synthetic_bars("1m", 3_000)
    whole = planned("peeks")
    later = planned("peeks", start_date="2024-01-01T16:40", warmup=500)
    assert len(later.panel) == len(later.seen) - 500
    for plan in (whole, later):
        seen = plan.seen.series[0]
        (sample,) = own_samples(plan)
        first = (len(seen) - SHORT_BARS) // 2
        assert isinstance(sample.bars, Bars)
        for name in COLUMNS:
            ours, theirs = getattr(sample.bars, name), getattr(seen, name)
            assert np.array_equal(ours, theirs[first : first + SHORT_BARS])
            assert not np.shares_memory(ours, theirs)
    assert np.array_equal(whole.seen.series[0].close, bars.close)


def test_the_samples_of_many_symbols_are_bounded(planned: Callable[..., Plan], catalog: Catalog) -> None:
    symbols = [f"S{index}" for index in range(60)]
    for seed, symbol in enumerate(symbols):
        catalog.write(synthetic_bars("1m", 1_200, symbol=symbol, seed=seed))
    alone = own_samples(planned("peeks", symbols=symbols))
    (together,) = own_samples(planned("peeks_across", symbols=symbols))

    assert [one.bars.symbol for one in alone if isinstance(one.bars, Bars)] == ["S0", "S19", "S39", "S59"]
    assert isinstance(together.bars, Panel)
    assert len(together.bars.symbols) == 60
    assert FEWEST_ROWS < len(together.bars) == MAX_PANEL_BARS // 60


# --- verdicts that are kept ---


def test_a_repeated_backtest_does_not_pay_again(planned: Callable[..., Plan], catalog: Catalog) -> None:
    calls = Calls()
    check = OwnBarsCheck(calls)
    found = [check.verdict(planned("peeks", parameters={"lookahead": one}), MINUTE) for one in (0, 1, 0, 1)]
    assert len(calls.seconds) == 2
    assert found[:2] == found[2:]
    assert found[0] != found[1]

    check.verdict(planned("peeks", end_date="2024-01-02"), MINUTE)
    assert len(calls.seconds) == 3, "another range has another middle"
    catalog.write(synthetic_bars("1m", 3_000, seed=9))
    check.verdict(planned("peeks"), MINUTE)
    assert len(calls.seconds) == 4, "the same range was imported anew"


def test_the_verdicts_that_are_kept_are_bounded(planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backtestr_engine.backtest.own_bars.MAX_VERDICTS", 2)
    calls = Calls()
    check = OwnBarsCheck(calls)
    for lookahead in (0, 1, 0, 2, 0, 1):  # 1 was used longest ago when 2 came
        check.verdict(planned("peeks", parameters={"lookahead": lookahead}), MINUTE)
    assert len(calls.seconds) == 4


def test_a_check_that_was_late_is_made_again_only_where_it_may_take_longer(planned: Callable[..., Plan]) -> None:
    calls = Calls(TimeLimitExceeded("it is late"))
    check = OwnBarsCheck(calls)
    plan = planned("peeks", parameters={"lookahead": 1})
    assert [check.verdict(plan, seconds) for seconds in (0.1, 0.1, 0.5, MINUTE, MINUTE - 1)] == [None] * 5
    assert calls.seconds == [0.1, 0.5, CHECK_SECONDS]


def test_a_slow_algorithm_is_checked_where_the_sample_is_a_small_part_of_its_bars(
    planned: Callable[..., Plan],
) -> None:
    calls = Calls()
    check = OwnBarsCheck(calls)
    plan = planned("peeks", parameters={"lookahead": 1})
    share = min(1.0, SHORT_BARS / len(plan.seen))
    slow = CHECK_SECONDS / (share * (SHORT_CUTS + 2))
    assert check.verdict(plan, MINUTE, 1.01 * slow) is None
    assert calls.seconds == []
    assert check.verdict(plan, MINUTE, 0.99 * slow) is not None


def test_a_check_that_cannot_be_made_is_not_tried_again(planned: Callable[..., Plan]) -> None:
    calls = Calls(AlgorithmError("it cannot be made"))
    check = OwnBarsCheck(calls)
    assert [check.verdict(planned("peeks"), seconds) for seconds in (1.0, MINUTE)] == [None, None]
    assert calls.seconds == [1.0]


# --- who is checked ---


def test_built_in_algorithms_are_not_checked_and_an_option_turns_it_off(planned: Callable[..., Plan]) -> None:
    assert is_checked(planned("peeks"))
    assert not is_checked(planned("peeks", options={"lookAheadCheck": False}))
    assert not is_checked(planned("sma_cross"))
    plan = planned("peeks")
    assert is_checked(msgspec.structs.replace(plan, algorithm=msgspec.structs.replace(peeks, name="sma_cross")))
