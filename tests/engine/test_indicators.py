"""Indicators that are remembered are those that are computed, and nobody sees what another has written to them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pytest
import talib

from backtestr_engine import indicators
from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.indicators import (
    RememberedIndicators,
    bbands,
    ema,
    highest,
    indicator,
    lowest,
    macd,
    remembering,
    rsi,
    sma,
)

CALLS: dict[str, Callable[[Bars], Any]] = {
    "sma": lambda bars: sma(bars.close, 5),
    "ema": lambda bars: ema(bars.close, 5),
    "rsi": lambda bars: rsi(bars.close, 5),
    "bbands": lambda bars: bbands(bars.close, 5, 2.0),
    "macd": lambda bars: macd(bars.close, 3, 6, 2),
    "highest": lambda bars: highest(bars.high, 5),
    "lowest": lambda bars: lowest(bars.low, 5),
    "by name": lambda bars: sma(bars.close, timeperiod=5),
    "indicator": lambda bars: tuple(indicator(bars, "MACD", fastperiod=3).values()),
}


@pytest.fixture
def bars() -> Bars:
    return synthetic_bars("1m", 80)


def as_list(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


@pytest.mark.parametrize("name", CALLS)
def test_what_is_remembered_is_what_is_computed(name: str, bars: Bars) -> None:
    call = CALLS[name]
    computed = as_list(call(bars))
    with remembering(RememberedIndicators(1 << 20)):
        for _ in range(3):
            found = as_list(call(bars))
            assert type(call(bars)) is type(call(bars))
            for own, other in zip(found, computed, strict=True):
                assert own.tobytes() == other.tobytes()
                own[:] = -1.0  # as an algorithm may


def test_the_names_of_outputs_are_remembered_too(bars: Bars) -> None:
    with remembering(RememberedIndicators(1 << 20)):
        first, second = (indicator(bars, "MACD", fastperiod=3) for _ in range(2))
    assert list(first) == list(second) == ["macd", "macdsignal", "macdhist"]


def test_other_bars_other_parameters_and_other_indicators_are_kept_apart(bars: Bars) -> None:
    other = synthetic_bars("1m", 100)[20:]

    def asked() -> list[Floats]:
        return [
            sma(bars.close, 5),
            sma(bars.close, timeperiod=6),
            ema(bars.close, 5),
            sma(bars.open, timeperiod=5),
            sma(other.close, timeperiod=5),
        ]

    known = RememberedIndicators(1 << 20)
    with remembering(known):
        outputs = [[one.tobytes() for one in asked()] for _ in range(3)]
    assert len(set(outputs[0])) == 5
    assert outputs[2] == outputs[1] == outputs[0]
    assert len(known._outputs) == 5


# Equal to five, or nearly a number: TA-Lib's wrapper and `indicator` take some of them, and each says so itself.
ODD = (5.0, 1, True, np.int64(5), np.float64(5.0), np.array(5), Fraction(5), [5], "5", None)
ODD_CALLS: dict[str, Callable[[Bars, Any], Any]] = {
    "sma": lambda bars, period: sma(bars.close, period),
    "by name": lambda bars, period: ema(bars.close, timeperiod=period),
    "a deviation": lambda bars, deviations: bbands(bars.close, 5, deviations),
    "indicator": lambda bars, period: tuple(indicator(bars, "SMA", timeperiod=period).values()),
}


def outcome(call: Callable[[Bars, Any], Any], bars: Bars, parameter: Any) -> Any:
    try:
        return [one.tobytes() for one in as_list(call(bars, parameter))]
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("name", ODD_CALLS)
@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_a_parameter_equal_to_a_remembered_one_is_taken_or_refused_as_without(name: str, odd: Any, bars: Bars) -> None:
    call = ODD_CALLS[name]
    alone = outcome(call, bars, odd)
    with remembering(RememberedIndicators(1 << 20)):
        for known in (5, 1, 5, 1):
            outcome(call, bars, known)
        assert [outcome(call, bars, odd) for _ in range(3)] == [alone] * 3


def test_a_talib_that_takes_no_fractions_for_a_period_refuses_them_in_a_sweep_too(
    bars: Bars, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other versions of its wrapper do."""
    monkeypatch.setattr(indicators, "_SMA", lambda values, period: talib.SMA(values, operator.index(period)))
    with remembering(RememberedIndicators(1 << 20)):
        for _ in range(2):
            sma(bars.close, 5)
            sma(bars.close, timeperiod=5)
        with pytest.raises(TypeError, match="integer"):
            sma(bars.close, 5.0)  # type: ignore[arg-type]  # as an algorithm may
        with pytest.raises(TypeError, match="integer"):
            sma(bars.close, timeperiod=5.0)  # type: ignore[arg-type]  # see above


def test_arrays_that_can_be_written_to_are_computed_anew(bars: Bars) -> None:
    values = bars.close.copy()
    with remembering(RememberedIndicators(1 << 20)):
        before = sma(values, 5)
        values += 1.0
        after = sma(values, 5)
    assert np.allclose(after[4:], before[4:] + 1.0)


@pytest.mark.parametrize("max_bytes", [0, 640, 2_000, 1 << 20])
def test_the_bytes_are_bounded(max_bytes: int, bars: Bars) -> None:
    known = RememberedIndicators(max_bytes)
    with remembering(known):
        for _ in range(3):
            for period in range(2, 20):
                assert sma(bars.close, period).tobytes() == sma(bars.close.copy(), period).tobytes()
                assert known._bytes <= max_bytes
                assert known._bytes == sum(np.asarray(kept).nbytes for _, kept in known._outputs.values())


def test_nothing_is_remembered_outside(bars: Bars) -> None:
    known = RememberedIndicators(1 << 20)
    with remembering(known):
        pass
    sma(bars.close, 5)
    assert not known._outputs


def test_what_is_asked_for_once_is_not_kept(bars: Bars) -> None:
    known = RememberedIndicators(1 << 20)
    with remembering(known):
        for period in range(2, 20):
            sma(bars.close, period)
        assert not known._outputs
        again = sma(bars.close, 7)
    assert [np.asarray(kept).tobytes() for _, kept in known._outputs.values()] == [again.tobytes()]


def test_the_number_of_keys_that_were_asked_for_is_bounded(bars: Bars, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indicators, "_MOST_ASKED_FOR", 4)
    known = RememberedIndicators(1 << 20)
    with remembering(known):
        for period in (*range(2, 20), 2, 2):
            sma(bars.close, period)
            assert len(known._asked_for) <= 4
    assert len(known._outputs) == 1


@pytest.mark.parametrize("name", ["sma", "ema", "rsi", "highest", "lowest"])
def test_a_series_gives_a_series(name: str, bars: Bars) -> None:
    function = getattr(indicators, name)
    series = function(pl.Series(bars.close), 5)
    assert isinstance(series, pl.Series)
    assert series.to_numpy().tobytes() == function(bars.close, 5).tobytes()


@pytest.mark.parametrize("name", ["sma", "ema", "rsi", "highest", "lowest"])
def test_an_indicator_has_the_bits_of_talib(name: str, bars: Bars) -> None:
    theirs = getattr(talib, {"highest": "MAX", "lowest": "MIN"}.get(name, name.upper()))
    assert getattr(indicators, name)(bars.close, 5).tobytes() == theirs(bars.close, 5).tobytes()
