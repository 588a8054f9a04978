"""The look-ahead check finds look-ahead of every kind, and passes algorithms without it."""

from __future__ import annotations

import numpy as np
import pytest

from backtestr_engine.algorithms.algorithm import Algorithm, algorithm, portfolio
from backtestr_engine.algorithms.parameters import Int
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.indicators import sma
from backtestr_engine.library.look_ahead import CUTS, check_algorithm
from backtestr_protocol.errors import AlgorithmError

BARS = synthetic_bars("1h", 1_000)


def generator(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


@algorithm("peeks_one_bar")
def peeks_one_bar(bars: Bars) -> Signals:
    """Buy before the close rises."""
    rises = np.append(bars.close[1:] > bars.close[:-1], False)
    return Signals.of(entries=rises, exits=~rises)


@algorithm("peeks_at_a_crossing")
def peeks_at_a_crossing(bars: Bars) -> Signals:
    """Signal a crossing one bar early; crossings are rare."""
    return Signals(np.append(Signals.from_cross(sma(bars.close, 20), sma(bars.close, 60)).flags[1:], np.uint8(0)))


@algorithm("normalises_by_the_whole")
def normalises_by_the_whole(bars: Bars) -> Signals:
    """Use the mean of all bars, later ones included."""
    score = (bars.close - bars.close.mean()) / bars.close.std()
    return Signals.of(entries=score < -1.5, exits=score > 0)


@algorithm("fills_gaps_backwards")
def fills_gaps_backwards(bars: Bars) -> Signals:
    """Fill the warm-up with the first value after it."""
    average = sma(bars.close, 50)
    average[np.isnan(average)] = average[49] if len(average) >= 50 else 0.0
    return Signals.of(entries=bars.close > average)


@algorithm("needs_many_bars")
def needs_many_bars(bars: Bars) -> Signals:
    """Read bar 990 first."""
    return Signals.of(entries=bars.close > bars.close[990])


@pytest.mark.parametrize(
    "peeking",
    [peeks_one_bar, peeks_at_a_crossing, normalises_by_the_whole, fills_gaps_backwards, needs_many_bars],
    ids=lambda one: one.name,
)
def test_look_ahead_is_found(peeking: Algorithm) -> None:
    for seed in range(10):
        verdict = check_algorithm(peeking, BARS, {}, generator(seed))

        assert not verdict.passed
        assert verdict.finding is not None
        assert verdict.finding.bar < verdict.finding.cut in verdict.cuts


def test_a_finding_can_be_reproduced_by_hand() -> None:
    verdict = check_algorithm(peeks_one_bar, BARS, {}, generator())

    assert verdict.finding is not None
    bar, cut = verdict.finding.bar, verdict.finding.cut
    ours: np.ndarray = getattr(peeks_one_bar.signals(BARS[:cut], {}), verdict.finding.signal)
    theirs: np.ndarray = getattr(peeks_one_bar.signals(BARS, {}), verdict.finding.signal)
    assert bar == cut - 1
    assert ours[bar] != theirs[bar]
    assert verdict.finding.explanation.endswith(f"changes when bars after bar {cut - 1} become known")


@portfolio("strongest")
def strongest(panel: Panel) -> Floats:
    """Put all into the symbol that is highest above its average."""
    strength = np.nan_to_num(panel.close / panel.each(lambda bars: sma(bars.close, 20)), nan=0.0)
    return np.where(strength == strength.max(axis=1, keepdims=True), 1.0, 0.0)


@portfolio("strongest_tomorrow")
def strongest_tomorrow(panel: Panel) -> Floats:
    """Put all into the symbol that will have risen most."""
    growth = np.nan_to_num(panel.close[1:] / panel.close[:-1], nan=0.0)
    tomorrow = np.vstack((growth, np.zeros_like(panel.close[:1])))
    return np.where(tomorrow == tomorrow.max(axis=1, keepdims=True), 1.0, 0.0)


@portfolio("shares_of_the_whole")
def shares_of_the_whole(panel: Panel) -> Floats:
    """Weigh a symbol by how often it trades, later bars included."""
    there = ~np.isnan(panel.close)
    return np.broadcast_to(there.mean(axis=0), there.shape).copy()


def test_weights_are_checked_as_well() -> None:
    series = [synthetic_bars("1h", 600, symbol=symbol, seed=seed) for seed, symbol in enumerate("ABC")]
    panel = Panel.of([series[0], series[1][100:], series[2][:400]])
    for seed in range(5):
        assert check_algorithm(strongest, panel, {}, generator(seed)).passed
        for peeking in (strongest_tomorrow, shares_of_the_whole):
            verdict = check_algorithm(peeking, panel, {}, generator(seed))
            assert not verdict.passed
            assert verdict.finding is not None
            assert verdict.finding.signal == "weights"


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_built_ins_pass(name: str) -> None:
    for seed in range(3):
        verdict = check_algorithm(BUILT_IN[name], BARS, BUILT_IN[name].check({}), generator(seed))

        assert verdict.passed
        assert verdict.algorithm_id == BUILT_IN[name].algorithm_id
        assert CUTS - 8 <= len(verdict.cuts) <= CUTS


def test_the_same_generator_state_gives_the_same_cuts() -> None:
    one, other = (check_algorithm(BUILT_IN["sma_cross"], BARS, {"fast": 3, "slow": 9}, generator(7)) for _ in range(2))

    assert one == other


def test_a_failure_on_all_bars_is_an_error() -> None:
    @algorithm("broken", count=Int(1, low=1, high=2))
    def broken(bars: Bars, count: int) -> Signals:
        raise RuntimeError("no")

    with pytest.raises(AlgorithmError, match="broken raised RuntimeError: no"):
        check_algorithm(broken, BARS, {"count": 1}, generator())
    with pytest.raises(ValueError, match="at least two bars; there are 1"):
        check_algorithm(broken, BARS[:1], {"count": 1}, generator())


def test_what_is_shown_may_use_hindsight_and_hides_no_finding() -> None:
    def shows(peeks: bool) -> Algorithm:
        @algorithm("shows")
        def shown(bars: Bars) -> Signals:
            """Show a line that is drawn with later bars."""
            later = np.append(bars.close[1:], np.nan)
            above = (later if peeks else bars.close) > bars.open
            return Signals.of(above, ~above, show={"later": later})

        return shown

    assert check_algorithm(shows(peeks=False), BARS, {}, generator()).passed
    verdict = check_algorithm(shows(peeks=True), BARS, {}, generator())
    assert verdict.finding is not None
    assert verdict.finding.signal == "entries"
