"""Calls of an algorithm that no backtest needs are limited, silent, and leave no process behind."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import pytest

from backtestr_engine.algorithms.algorithm import Algorithm, algorithm
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.worker.calls_apart import CallsApart
from backtestr_protocol.errors import AlgorithmError, TimeLimitExceeded

BARS = synthetic_bars("1m", 10)
MINUTE = 60.0


def called(one: Algorithm) -> Signals:
    return one.signals(BARS, {})


@algorithm("holds")
def holds(bars: Bars) -> Signals:
    return Signals.of(entries=bars.close > 0)


def test_work_gets_the_algorithm_and_its_result_is_returned() -> None:
    assert bool(CallsApart()(holds, called, MINUTE).entries.all())


def test_the_errors_of_an_algorithm_are_those_of_the_call() -> None:
    @algorithm("raises")
    def raises(bars: Bars) -> Signals:
        raise KeyboardInterrupt

    with pytest.raises(AlgorithmError, match="raises raised KeyboardInterrupt"):
        CallsApart()(raises, called, MINUTE)


def test_an_algorithm_that_does_not_end_is_interrupted() -> None:
    @algorithm("endless")
    def endless(bars: Bars) -> Signals:
        while True:
            pass

    before = threading.active_count()
    with pytest.raises(TimeLimitExceeded, match="the look-ahead check of endless took longer"):
        CallsApart()(endless, called, 0.05)
    assert threading.active_count() == before


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_without_time_there_is_no_call(seconds: float) -> None:
    with pytest.raises(AlgorithmError, match="no time left"):
        CallsApart()(holds, called, seconds)


def test_there_is_no_call_where_the_backtest_has_left_the_process_in_another_state() -> None:
    with pytest.raises(AlgorithmError, match="not as it was"):
        CallsApart(is_clean=lambda: False)(holds, called, MINUTE)


def test_all_calls_are_made_within_the_block_that_drops_prints() -> None:
    said: list[str] = []

    @contextlib.contextmanager
    def muted() -> Iterator[None]:
        said.append("muted")
        yield
        said.append("heard")

    @algorithm("speaks")
    def speaks(bars: Bars) -> Signals:
        said.append("call")
        return Signals.of(entries=bars.close > 0)

    CallsApart(muted=muted)(speaks, called, MINUTE)
    assert said == ["muted", "call", "heard"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that it has threads, and forks
def test_a_process_that_is_forked_in_a_call_ends_there() -> None:
    forked: list[int] = []

    @algorithm("forks")
    def forks(bars: Bars) -> Signals:
        forked.append(os.fork())
        return Signals.of(entries=bars.close > 0)

    CallsApart()(forks, lambda one: [called(one) for _ in range(3)], MINUTE)
    assert len(forked) == 3
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in forked] == [1, 1, 1]
