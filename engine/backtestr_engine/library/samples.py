"""The samples of the look-ahead check, and the check on all of them.

A use of a running higher bar shows only on bars that are finer than it: on hours, the hour that an algorithm asks for
is always over. So the check runs on bars finer than every timeframe that the algorithm asks for, which it learns by
watching `Bars.at`. An algorithm may also group bars by itself; so there are always minutes, which lie in running hours,
and hours, which lie in running days. One sample has sessions, nights and weekends, as shares have: a use of the next
bar's time shows only where the next bar may be late.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import numpy as np

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.algorithms.parameters import Value
from backtestr_engine.data.bars import COLUMNS, Bars, Higher
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.data.timeframes import DAY_US, MINUTE_US, divides, length_us
from backtestr_protocol.errors import AlgorithmError
from backtestr_protocol.inspection import Verdict
from backtestr_protocol.messages import CheckedSample, Timeframe
from backtestr_protocol.timeframes import COMMON_TIMEFRAMES, canonical_timeframe

from .look_ahead import CUTS, check_algorithm, repeats

LONG_BARS, SHORT_BARS = 2_000, 1_000
"""Twice the longest average of the built-in algorithms, and enough for an hourly average within minutes: enough for
signals, few enough for a Python loop per cut."""

SHORT_CUTS = 12
"""The cuts of a short sample, beside the 24 of the long one."""

_SESSION_START_US, _SESSION_US = 13 * 60 * MINUTE_US + 30 * MINUTE_US, 390 * MINUTE_US
"""A session of New York in winter, in UTC."""

_COARSE: Timeframe = "1h"
_FINE: tuple[Timeframe, ...] = ("1m", "5m")
_USUAL: tuple[Timeframe, ...] = ("1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w")
"""The timeframes on which most algorithms run, the finest first."""

_SYMBOLS = 3
"""The symbols of a sample for an algorithm that compares symbols. They begin and end at different times."""


class Sample(msgspec.Struct, frozen=True):
    """Bars, or a panel, to check an algorithm on, and the number of cuts there."""

    name: str
    bars: Bars | Panel
    cuts: int


class _WatchedBars(Bars):
    """Bars that note the timeframes that are asked of them."""

    __slots__ = ("asked",)
    asked: set[str]

    def __getitem__(self, rows: slice) -> Bars:
        return watched(super().__getitem__(rows), self.asked)

    def at(self, timeframe: str) -> Higher:
        self.asked.add(timeframe)
        return super().at(timeframe)


def watched(bars: Bars, asked: set[str]) -> Bars:
    """Return the same bars, which add every timeframe that is asked of them to `asked`."""
    columns = (getattr(bars, name) for name in COLUMNS)
    one = _WatchedBars(bars.symbol, bars.timeframe, *columns, zone=bars.zone)
    object.__setattr__(one, "asked", asked)
    return one


def timeframes_asked(algorithm: Algorithm, values: Mapping[str, Value]) -> list[Timeframe]:
    """Return the timeframes that an algorithm asks for, the finest first; an unknown name is none."""
    asked: set[str] = set()
    tried: set[Timeframe] = set()
    timeframe = _COARSE
    while timeframe not in tried:  # a request that cannot be met on these bars may end the algorithm before the next
        tried.add(timeframe)
        with contextlib.suppress(AlgorithmError):  # the check reports it
            _call(algorithm, _synthetic(timeframe, LONG_BARS, across=algorithm.across, asked=asked), values)
        timeframe = _finer_than(_known(asked)) or timeframe
    return _known(asked)


def synthetic_samples(asked: Sequence[Timeframe], *, across: bool) -> list[Sample]:
    """Return the samples for an algorithm that asks for these timeframes, the finest first."""
    main = _finer_than(asked) or _COARSE
    fine = [one for one in _FINE if not asked or length_us(one) < length_us(asked[0])]
    coarse = _COARSE if not asked or length_us(_COARSE) < length_us(asked[0]) else main
    samples = [_random_walk(main, LONG_BARS, CUTS, across=across)]
    if coarse != main:
        samples.append(_random_walk(coarse, LONG_BARS, CUTS, across=across))
    if "1m" in fine and main != "1m":
        samples.append(_random_walk("1m", SHORT_BARS, SHORT_CUTS, across=across))
    timeframe = fine[-1] if fine else main
    sessions = _synthetic(timeframe, SHORT_BARS, across=across, shape=in_sessions)
    return [*samples, Sample(f"{timeframe} random walk in sessions", sessions, SHORT_CUTS)]


def check_on_samples(
    algorithm: Algorithm, values: Mapping[str, Value], seed: int, further: Sequence[Sample] = ()
) -> Verdict:
    """Check an algorithm for look-ahead on samples made for it, and on `further` ones.

    A sample on which the algorithm fails as a whole is left out, with the reason. If it fails on all, it may be for
    bars of another timeframe, so these are tried; the first `AlgorithmError` is raised if it fails there as well.
    """
    asked = timeframes_asked(algorithm, values)
    passed: Verdict | None = None
    checked: list[CheckedSample] = []
    failure: AlgorithmError | None = None
    first = (*synthetic_samples(asked, across=algorithm.across), *further)
    for sample in itertools.chain(first, _other_timeframes(across=algorithm.across)):
        if len(checked) >= len(first) and passed is not None:
            break
        try:
            verdict = check_sample(algorithm, values, sample, asked, seed)
        except AlgorithmError as error:
            failure = failure or error
            checked.append(CheckedSample(name=sample.name, bars=len(sample.bars), cuts=0, problem=error.message))
            continue
        checked.append(CheckedSample(name=sample.name, bars=verdict.bars, cuts=len(verdict.cuts)))
        if verdict.finding is not None:
            return msgspec.structs.replace(verdict, samples=checked)
        passed = passed or verdict
    if passed is None:
        assert failure is not None
        raise failure
    return msgspec.structs.replace(passed, samples=checked)


def check_sample(
    algorithm: Algorithm,
    values: Mapping[str, Value],
    sample: Sample,
    asked: Sequence[Timeframe],
    seed: int,
    may_need: int | None = None,
) -> Verdict:
    """Check an algorithm on one sample, as `check_algorithm` does. Raises `AlgorithmError` as it does."""
    generator = np.random.default_rng(seed)
    verdict = check_algorithm(
        algorithm, sample.bars, values, generator, cuts=sample.cuts, higher=asked, may_need=may_need
    )
    if verdict.finding is None:
        return verdict
    return msgspec.structs.replace(verdict, finding=msgspec.structs.replace(verdict.finding, sample=sample.name))


def check_sample_of_its_own(algorithm: Algorithm, values: Mapping[str, Value], sample: Sample, seed: int) -> Verdict:
    """Check an algorithm on one sample, with cuts within the higher bars that it asks for there.

    It may need nearly all of the bars: a backtest may have few. Raises `AlgorithmError` where it fails on the whole of
    them, and where a finding may come of signals that are others at each call, as those of unseeded random numbers are.
    """
    asked: set[str] = set()
    bars = sample.bars
    _call(algorithm, watched(bars, asked) if isinstance(bars, Bars) else _watched_panel(bars, asked), values)
    verdict = check_sample(algorithm, values, sample, _known(asked), seed, may_need=len(bars))
    if verdict.finding is not None and not repeats(algorithm, bars, values):
        raise AlgorithmError(f"{algorithm.name} has other signals at each call with the same bars")
    return verdict


def _watched_panel(panel: Panel, asked: set[str]) -> Panel:
    return Panel.of([watched(bars, asked) for bars in panel.series])


def in_sessions(bars: Bars) -> Bars:
    """Return the same bars at the times of sessions: from 13:30 to 20:00 UTC, Monday to Friday."""
    per_day = int(_SESSION_US // length_us(bars.timeframe))
    day, row = np.divmod(np.arange(len(bars), dtype=np.int64), per_day)
    first = bars.timestamp[0] // DAY_US * DAY_US + _SESSION_START_US  # a Monday
    timestamp = first + (day + day // 5 * 2) * DAY_US + row * length_us(bars.timeframe)
    return Bars(bars.symbol, bars.timeframe, timestamp, *(getattr(bars, name) for name in COLUMNS[1:]))


def _known(asked: set[str]) -> list[Timeframe]:
    known = {canonical_timeframe(one) for one in asked}
    return sorted((one for one in known if one is not None), key=length_us)


def _finer_than(asked: Sequence[Timeframe]) -> Timeframe | None:
    """Return the coarsest timeframe that is finer than all of these and divides them; the finest if there is none."""
    if not asked:
        return None
    for candidates in (_USUAL, COMMON_TIMEFRAMES):
        finer = [
            one
            for one in candidates
            if length_us(one) < length_us(asked[0]) and all(divides(one, coarser) for coarser in asked)
        ]
        if finer:
            return finer[-1]
    return COMMON_TIMEFRAMES[0]


def _other_timeframes(*, across: bool) -> Iterator[Sample]:
    """Yield a sample of each timeframe, the coarsest first: an algorithm may refuse all but days."""
    for timeframe in reversed(_USUAL):
        yield _random_walk(timeframe, LONG_BARS, CUTS, across=across)


def _random_walk(timeframe: Timeframe, count: int, cuts: int, *, across: bool) -> Sample:
    return Sample(f"{timeframe} random walk", _synthetic(timeframe, count, across=across), cuts)


def _synthetic(
    timeframe: Timeframe,
    count: int,
    *,
    across: bool,
    asked: set[str] | None = None,
    shape: Callable[[Bars], Bars] = lambda bars: bars,
) -> Bars | Panel:
    series = [
        shape(synthetic_bars(timeframe, count, symbol=f"SAMPLE{seed}", seed=seed))
        for seed in range(_SYMBOLS if across else 1)
    ]
    if across:
        series = [series[0], series[1][: count // 2], series[2][count // 4 :]]
    if asked is not None:
        series = [watched(bars, asked) for bars in series]
    return Panel.of(series) if across else series[0]


def _call(algorithm: Algorithm, sample: Bars | Panel, values: Mapping[str, Value]) -> None:
    if isinstance(sample, Panel):
        algorithm.weights(sample, values)
    else:
        algorithm.signals(sample, values)
