"""The look-ahead check of a backtest's algorithm on the backtest's own bars, with its own parameters.

A registration is checked with default parameters, on bars made for it and on parts of stored series; the files of the
folder are not checked at all. Here the verdict is on what the figures of one result stand on. The sample is the middle
of the bars that the algorithm saw, so that its cost does not grow with them. The calls are made after the backtest's
signals and fills are known, and with copies of its bars: they cannot change its result.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec
import numpy as np

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.data.bars import COLUMNS, Bars
from backtestr_engine.data.instants import instant
from backtestr_engine.data.panel import Panel
from backtestr_engine.library.inspection import SEED, as_look_ahead
from backtestr_engine.library.samples import SHORT_BARS, SHORT_CUTS, Sample, check_sample_of_its_own
from backtestr_protocol.errors import AlgorithmError, BacktestrError, TimeLimitExceeded
from backtestr_protocol.inspection import Verdict
from backtestr_protocol.messages import CheckedSample, LookAhead

from .plan import Plan

T = TypeVar("T")

# The calls on a sample: one for each cut, one with all bars, and one to learn what the algorithm asks for.
_CALLS = SHORT_CUTS + 2

MAX_SYMBOLS = 4
"""The most symbols that an algorithm is checked on that sees one at a time: milliseconds for each."""

MAX_PANEL_BARS, FEWEST_ROWS = 50_000, 200
"""The most bars of a panel of many symbols, all of which an algorithm that compares them needs, and its fewest rows."""

CHECK_SECONDS = 1.0
"""The most that a check may take: a client waits for the result. Usual ones take milliseconds."""

MAX_VERDICTS = 1_000
"""The most verdicts that are kept: a sweep over parameters that is repeated finds its own, at some 500 bytes each."""


class MakesCalls(Protocol):
    """Has `work` call the algorithm beside the call that its backtest needs.

    Raises `BacktestrError` where `work` does, and where the calls cannot be made within `seconds`.
    """

    def __call__(self, algorithm: Algorithm, work: Callable[[Algorithm], T], seconds: float, /) -> T: ...


def calls_in_place(algorithm: Algorithm, work: Callable[[Algorithm], T], _seconds: float, /) -> T:
    """Call `work` without a limit."""
    return work(algorithm)


def is_checked(plan: Plan) -> bool:
    """Return whether the algorithm of a backtest is to be checked on its bars: built-in ones are not."""
    return plan.options.conventions.look_ahead_check and not is_built_in(plan.algorithm)


def is_built_in(algorithm: Algorithm) -> bool:
    """Return whether an algorithm is one of backtestr's own."""
    return BUILT_IN.get(algorithm.name) is algorithm


def own_samples(plan: Plan) -> list[Sample]:
    """Return copies of the middle of the bars that the algorithm of a backtest sees.

    For an algorithm that sees one symbol at a time they are of up to `MAX_SYMBOLS` symbols, spread evenly.
    """
    seen = plan.seen
    if plan.algorithm.across:
        rows = max(FEWEST_ROWS, min(SHORT_BARS, MAX_PANEL_BARS // len(seen.series)))
        first = max(0, len(seen) - rows) // 2
        times = seen.timestamp[first : first + rows]
        if len(times) < 2:
            return []
        panel = Panel.of([_copy(bars.between(int(times[0]), int(times[-1]) + 1)) for bars in seen.series])
        return [_sample(f"{len(panel.symbols)} symbols", panel)]
    count = len(seen.series)
    chosen = sorted({index * (count - 1) // max(1, MAX_SYMBOLS - 1) for index in range(MAX_SYMBOLS)})
    parts = [_copy(_middle(seen.series[index])) for index in chosen]
    return [_sample(bars.symbol, bars) for bars in parts if len(bars) >= 2]


class OwnBarsCheck:
    """The check, with the verdicts of earlier backtests on the same version, parameters and bars.

    The calls of algorithms are made by `apart`, and take up to `CHECK_SECONDS`.
    """

    def __init__(self, apart: MakesCalls = calls_in_place) -> None:
        self._apart = apart
        # Each comes with the seconds that it had: a check that was late is made again where it may take longer.
        self._verdicts: OrderedDict[bytes, tuple[LookAhead | None, float]] = OrderedDict()

    def verdict(self, plan: Plan, seconds: float, call_seconds: float = 0.0) -> LookAhead | None:
        """Return the verdict on a backtest's algorithm, its parameters and its bars.

        `call_seconds` is what its call took for the backtest. None if the algorithm fails there, if the calls would
        take longer than `seconds`, or do, or if there are too few bars.
        """
        samples, allowed = own_samples(plan), min(seconds, CHECK_SECONDS)
        if call_seconds * _share(plan, samples) * _CALLS > allowed:
            return None
        key = _key(plan, samples)
        found, had = self._verdicts.get(key, (None, -math.inf))
        if had >= allowed:
            self._verdicts.move_to_end(key)
            return found
        had = math.inf
        try:
            found = self._apart(plan.algorithm, lambda one: _check(one, plan, samples), allowed)
        except TimeLimitExceeded:
            had = allowed
        except BacktestrError:  # a check that cannot be made says nothing of the algorithm
            pass
        self._verdicts[key] = found, had
        if len(self._verdicts) > MAX_VERDICTS:
            self._verdicts.popitem(last=False)
        return found


def _check(algorithm: Algorithm, plan: Plan, samples: list[Sample]) -> LookAhead | None:
    """Check on all samples, or up to the first finding. None where the algorithm fails on each of them."""
    checked: list[CheckedSample] = []
    latest: Verdict | None = None
    for sample in samples:
        try:
            latest = check_sample_of_its_own(algorithm, plan.parameters, sample, SEED)
        except AlgorithmError:
            continue
        checked.append(CheckedSample(name=sample.name, bars=latest.bars, cuts=len(latest.cuts)))
        if latest.finding is not None:
            break
    return None if latest is None else as_look_ahead(msgspec.structs.replace(latest, samples=checked))


def _share(plan: Plan, samples: list[Sample]) -> float:
    """Return the bars of the samples as a fraction of those that the algorithm saw."""
    sampled = sum(
        len(bars)
        for sample in samples
        for bars in (sample.bars.series if isinstance(sample.bars, Panel) else (sample.bars,))
    )
    return sampled / max(1, sum(len(bars) for bars in plan.seen.series))


def _middle(bars: Bars) -> Bars:
    first = max(0, len(bars) - SHORT_BARS) // 2
    return bars[first : first + SHORT_BARS]


def _copy(bars: Bars) -> Bars:
    columns = (np.array(getattr(bars, name)) for name in COLUMNS)
    return Bars(bars.symbol, bars.timeframe, *columns, zone=bars.zone)


def _sample(symbols: str, bars: Bars | Panel) -> Sample:
    since = instant(int(bars.timestamp[0]))
    return Sample(f"{symbols} {bars.timeframe} from {since} on, with the parameters of this backtest", bars, SHORT_CUTS)


def _key(plan: Plan, samples: list[Sample]) -> bytes:
    """Return a hash of all that a verdict depends on: another import of the same range is another series."""
    content = hashlib.blake2b(digest_size=16)
    content.update(repr((plan.algorithm.algorithm_id, sorted(plan.parameters.items()))).encode())
    for sample in samples:
        content.update(sample.name.encode())
        for bars in sample.bars.series if isinstance(sample.bars, Panel) else (sample.bars,):
            content.update(repr((bars.symbol, bars.timeframe, bars.zone, len(bars))).encode())
            for name in COLUMNS:
                content.update(getattr(bars, name))
    return content.digest()
