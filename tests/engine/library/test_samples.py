"""The look-ahead check runs on bars on which each kind of look-ahead shows, and honest algorithms pass."""

from __future__ import annotations

import numpy as np
import pytest

from backtestr_engine.algorithms.algorithm import Algorithm, algorithm, portfolio
from backtestr_engine.algorithms.parameters import Int
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.authoring import sma
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.data.timeframes import DAY_US, MINUTE_US, length_us
from backtestr_engine.library.samples import (
    Sample,
    check_on_samples,
    in_sessions,
    synthetic_samples,
    timeframes_asked,
)
from backtestr_protocol.errors import AlgorithmError
from backtestr_protocol.messages import Timeframe

HOUR_US = length_us("1h")


def closes_of_running(bars: Bars, length_us: int) -> Floats:
    """Return the last close of the bar of `length_us` that is running on every bar: it looks ahead."""
    opened = bars.timestamp // length_us
    return bars.close[np.searchsorted(opened, opened, side="right") - 1]


def honest(timeframe: str) -> Algorithm:
    @algorithm(f"honest_{timeframe}", slow=Int(10, low=2, high=50))
    def one(bars: Bars, slow: int) -> Signals:
        """Long above the average of a higher timeframe."""
        higher = bars.at(timeframe)
        average = higher.align(sma(higher.bars.close, slow))
        return Signals.of(entries=bars.close > average, exits=bars.close < average)

    return one


def peeking(length: str) -> Algorithm:
    @algorithm(f"peeking_{length}")
    def one(bars: Bars) -> Signals:
        """Long where the running higher bar will close higher."""
        later = closes_of_running(bars, length_us(length))
        return Signals.of(entries=later > bars.close, exits=later < bars.close)

    return one


@algorithm("peeks_by_the_time")
def peeks_by_the_time(bars: Bars) -> Signals:
    """Look up the hours as of the time at which they open, so that the running one is seen whole."""
    hourly = bars.at("1h").bars
    known = np.append(hourly.close, np.nan)
    close = known[np.searchsorted(hourly.timestamp, bars.timestamp // HOUR_US * HOUR_US)]
    return Signals.of(entries=close > bars.close, exits=close < bars.close)


@algorithm("leaves_before_weekends")
def leaves_before_weekends(bars: Bars) -> Signals:
    """Know of the gap from the time of the next bar."""
    before_gap = np.append(np.diff(bars.timestamp) > DAY_US, False)
    return Signals.of(entries=(bars.close > bars.open) & ~before_gap, exits=before_gap)


@algorithm("needs_a_hundred")
def needs_a_hundred(bars: Bars) -> Signals:
    """Refuse fewer bars than it can use."""
    if len(bars) < 100:
        raise ValueError(f"{len(bars)} bars are too few")
    return Signals.of(entries=bars.close > sma(bars.close, 50))


@algorithm("for_days")
def for_days(bars: Bars) -> Signals:
    """Refuse all bars but days."""
    if bars.timeframe != "1d":
        raise ValueError("it is for days")
    return Signals.of(entries=bars.close > sma(bars.close, 50))


@algorithm("peeks_on_one_symbol")
def peeks_on_one_symbol(bars: Bars) -> Signals:
    """Look ahead where the symbol is a certain one."""
    rises = np.append(bars.close[1:] > bars.close[:-1], False)
    return Signals.of(entries=rises & (bars.symbol == "GOOD"))


@portfolio("peeks_across")
def peeks_across(panel: Panel) -> Floats:
    """Weigh by the close of the running day."""
    later = panel.each(lambda bars: closes_of_running(bars, DAY_US) / bars.close)
    return np.where(np.nan_to_num(later) > 1.0, 1.0 / len(panel.symbols), 0.0)


@pytest.mark.parametrize(
    "one",
    [
        *(honest(timeframe) for timeframe in ("1m", "5m", "15m", "1h", "4h", "1d", "1w")),
        needs_a_hundred,
        for_days,
        *BUILT_IN.values(),
    ],
    ids=lambda one: one.name,
)
def test_honest_algorithms_pass(one: Algorithm) -> None:
    for seed in range(3):
        verdict = check_on_samples(one, one.check({}), seed)
        assert verdict.passed
        assert any(sample.problem is None and sample.cuts > 10 for sample in verdict.samples)


@pytest.mark.parametrize(
    "one",
    [
        *(peeking(length) for length in ("5m", "15m", "30m", "1h", "4h", "1d", "1w")),
        peeks_by_the_time,
        leaves_before_weekends,
        peeks_across,
    ],
    ids=lambda one: one.name,
)
def test_a_use_of_bars_that_are_still_running_is_found(one: Algorithm) -> None:
    for seed in range(5):
        verdict = check_on_samples(one, one.check({}), seed)
        assert verdict.finding is not None
        assert verdict.finding.sample == verdict.samples[-1].name
        assert verdict.finding.bar < verdict.finding.cut


@pytest.mark.parametrize(
    ("one", "asked"),
    [(BUILT_IN["sma_cross"], []), (honest("5m"), ["5m"]), (peeks_by_the_time, ["1h"]), (honest("1w"), ["1w"])],
    ids=lambda one: getattr(one, "name", "asked"),
)
def test_the_timeframes_that_are_asked_for_are_found(one: Algorithm, asked: list[Timeframe]) -> None:
    assert timeframes_asked(one, one.check({})) == asked
    for sample in synthetic_samples(asked, across=False):
        assert isinstance(sample.bars, Bars)
        assert all(length_us(sample.bars.timeframe) < length_us(higher) for higher in asked)


def test_a_timeframe_behind_one_that_cannot_be_had_is_found() -> None:
    @algorithm("two")
    def two(bars: Bars) -> Signals:
        hourly, fine = bars.at("4h"), bars.at("15m")
        return Signals.of(entries=hourly.close > fine.close)

    @portfolio("across")
    def across(panel: Panel) -> Floats:
        return panel.each(lambda bars: bars[:].at("15m").align(bars.at("15m").bars.close) * 0)

    assert timeframes_asked(two, {}) == ["15m", "4h"]
    assert timeframes_asked(across, {}) == ["15m"]


def test_what_fails_on_every_sample_is_an_error() -> None:
    @algorithm("broken")
    def broken(bars: Bars) -> Signals:
        raise RuntimeError("no")

    with pytest.raises(AlgorithmError, match="broken raised RuntimeError: no"):
        check_on_samples(broken, {}, 1)


def test_a_failure_on_longer_bars_than_on_shorter_ones_is_found() -> None:
    """Too few bars are no look-ahead; a failure that goes away with fewer bars is something else."""

    @algorithm("odd")
    def odd(bars: Bars) -> Signals:
        if len(bars) % 2:
            raise ValueError("an odd number of bars")
        return Signals.of(entries=bars.close > bars.open)

    verdict = check_on_samples(odd, {}, 1)
    assert verdict.finding is not None
    assert verdict.finding.signal == "all"


def test_further_samples_are_among_those_checked() -> None:
    bars = synthetic_bars("1d", 300, symbol="GOOD")
    passed = check_on_samples(peeks_on_one_symbol, {}, 1)
    verdict = check_on_samples(peeks_on_one_symbol, {}, 1, [Sample("GOOD 1d", bars, 12)])

    assert passed.passed
    assert verdict.finding is not None
    assert verdict.finding.sample == "GOOD 1d"
    assert (verdict.bars, len(verdict.samples)) == (300, 4)


def test_sessions_are_on_working_days() -> None:
    bars = in_sessions(synthetic_bars("5m", 1_000))
    days = (bars.timestamp // DAY_US + 3) % 7
    minutes = bars.timestamp % DAY_US // MINUTE_US

    assert set(days) == {0, 1, 2, 3, 4}
    assert (minutes.min(), minutes.max()) == (13 * 60 + 30, 19 * 60 + 55)
    assert np.all(np.diff(bars.timestamp) >= length_us("5m"))
