"""Indicators that are remembered are those that are computed, and nobody sees what another has written to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

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
    with remembering(RememberedIndicators(1 << 20)):
        outputs = [sma(bars.close, 5), sma(bars.close, 6), ema(bars.close, 5), sma(bars.open, 5), sma(other.close, 5)]
        again = [sma(bars.close, 5), sma(bars.close, 6), ema(bars.close, 5), sma(bars.open, 5), sma(other.close, 5)]
    assert len({one.tobytes() for one in outputs}) == 5
    assert [one.tobytes() for one in again] == [one.tobytes() for one in outputs]


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
        for _ in range(2):
            for period in range(2, 20):
                assert sma(bars.close, period).tobytes() == sma(bars.close.copy(), period).tobytes()
                assert known._bytes <= max_bytes
                assert known._bytes == sum(one.nbytes for _, kept in known._outputs.values() for one in kept)


def test_nothing_is_remembered_outside(bars: Bars) -> None:
    known = RememberedIndicators(1 << 20)
    with remembering(known):
        pass
    sma(bars.close, 5)
    assert not known._outputs
