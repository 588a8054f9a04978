"""The look-ahead check compares an algorithm's signals on all bars with those on the first n, for several cuts n.

The signals of the first n bars must not change when more bars follow. A third of the cuts fall anywhere. A third fall
directly after a bar with signals, where a use of the next bar shows (crossings are rare, and a cut between two of them
finds nothing), and while higher bars are still running, where a use of their later prices shows. A third are early more
often than late, to fall into warm-ups that were filled with later values.

A pass does not prove that an algorithm has no look-ahead; a finding proves that it has. Bars that are too few for an
algorithm prove nothing: it may fail on short beginnings of the sample.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.algorithms.parameters import Value
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.data.arrays import AnyArray, Booleans, Integers
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.timeframes import open_times
from backtestr_protocol.errors import AlgorithmError
from backtestr_protocol.inspection import Verdict
from backtestr_protocol.messages import Finding, Timeframe
from backtestr_protocol.texts import bounded

CUTS = 24
"""Eight of each kind: a single cut finds its kind of look-ahead more often than not."""

MAX_EXPLANATION_BYTES = 4_000
"""Enough for a message. It is kept with the registration, and listed with every algorithm."""

_TOLERANCE = 1e-9
"""Relative: a sum over the first bars may be rounded differently within a longer sum."""

_FLAGS = ("entries", "exits", "short_entries", "short_exits")


def check_algorithm(
    algorithm: Algorithm,
    sample: Bars | Panel,
    values: Mapping[str, Value],
    generator: np.random.Generator,
    *,
    cuts: int = CUTS,
    higher: Collection[Timeframe] = (),
    may_need: int | None = None,
) -> Verdict:
    """Check `algorithm` with `values` (as `Algorithm.check` returned them) for look-ahead.

    The sample has at least two bars; for an algorithm that is `across`, it is a panel of at least two rows. The same
    state of `generator` gives the same cuts; where the algorithm uses `higher` timeframes, some fall into the middle of
    their bars. Raises `AlgorithmError` when the algorithm fails on the whole sample. A failure on the first bars alone
    is a finding, unless they are no more than it `may_need`, by default half of the sample, and it fails on no more.
    """
    if len(sample) < 2:
        raise ValueError(f"a look-ahead check needs at least two bars; there are {len(sample)}")
    whole = _signals_of(algorithm, sample, values)
    tried = _choose_cuts(whole, sample, generator, cuts, higher)
    return Verdict(
        algorithm_id=algorithm.algorithm_id,
        bars=len(sample),
        cuts=[int(cut) for cut in tried],
        finding=_first_finding(
            algorithm, sample, values, whole, tried, len(sample) // 2 if may_need is None else may_need
        ),
    )


def repeats(algorithm: Algorithm, sample: Bars | Panel, values: Mapping[str, Value]) -> bool:
    """Return whether two calls with the same bars give the same signals. Raises `AlgorithmError` where one fails."""
    first, second = (_signals_of(algorithm, sample, values) for _ in range(2))
    return not any(_differs(first[name], second[name], len(sample), len(sample)).any() for name in first)


def _first_finding(
    algorithm: Algorithm,
    sample: Bars | Panel,
    values: Mapping[str, Value],
    whole: _Signals,
    cuts: Integers,
    may_need: int,
) -> Finding | None:
    """Return the finding of the shortest cut that has one; from the longest cut down, so that failures can be told."""
    found: Finding | None = None
    failed: Finding | None = None
    for cut in cuts[::-1]:
        try:
            found = _compare(algorithm, sample, values, whole, int(cut)) or found
            if failed is not None:  # it fails on more bars, and not on these
                return failed
        except AlgorithmError as error:
            failed = failed or _failure(error, int(cut))
    if failed is not None and failed.cut > may_need:
        return failed
    return found


_Signals = Mapping[str, AnyArray | None]
"""Signals or weights by name: one value per bar or one for all bars, or a row of values per bar."""


def _signals_of(algorithm: Algorithm, sample: Bars | Panel, values: Mapping[str, Value]) -> _Signals:
    if isinstance(sample, Panel):
        return {"weights": algorithm.weights(sample, values)}
    signals = algorithm.signals(sample, values)
    # Nothing trades on what is shown, so a line drawn with hindsight is no finding.
    further = (name for name in Signals.__struct_fields__ if name not in ("flags", "shown"))
    return {name: getattr(signals, name) for name in (*_FLAGS, *further)}


def _choose_cuts(
    whole: _Signals,
    sample: Bars | Panel,
    generator: np.random.Generator,
    cuts: int,
    higher: Collection[Timeframe],
) -> Integers:
    """Return increasing numbers of bars from 1 to bars − 1: anywhere, after bars with signals, and mostly early.

    Where there are higher bars, half of those after signals fall while the bars of each such timeframe are running.
    Some fall before the longest gaps, where a use of the next bar's time shows.
    """
    bars = len(sample)
    signalled = np.zeros(bars, dtype=np.bool_)
    for name, signal in whole.items():
        if signal is not None and name in (*_FLAGS, "target", "weights"):
            given = ~np.isnan(signal) if signal.dtype.kind == "f" else signal
            signalled |= given.any(axis=1) if given.ndim > 1 else given
    busy = np.flatnonzero(signalled[: bars - 1]) + 1
    running = _cuts_within(sample.timestamp, higher)
    within = np.intersect1d(busy, running) if np.isin(busy, running).any() else running
    middle = generator.choice(within, size=min(cuts // 6, len(within)), replace=False)
    after_signals = generator.choice(busy, size=min(cuts // 3 - len(middle), len(busy)), replace=False)
    early = np.exp(generator.uniform(0.0, np.log(bars), size=cuts // 3)).astype(np.int64)
    gaps = _cuts_at_gaps(sample.timestamp)[: cuts // 6]
    anywhere = generator.integers(1, bars, size=cuts - len(after_signals) - len(early) - len(middle) - len(gaps))
    chosen = (anywhere, after_signals, middle, gaps, np.clip(early, 1, bars - 1))
    return np.unique(np.concatenate(chosen)).astype(np.int64)


def _cuts_at_gaps(timestamp: Integers) -> Integers:
    """Return the cuts before bars that come later than the usual next one, the longest gaps first."""
    steps = np.diff(timestamp)
    late = np.flatnonzero(steps > steps.min(initial=np.iinfo(np.int64).max))
    return late[np.argsort(-steps[late], kind="stable")] + 1


def _cuts_within(timestamp: Integers, higher: Collection[Timeframe]) -> Integers:
    """Return the cuts that divide a bar of every one of these timeframes."""
    divides = np.full(max(0, len(timestamp) - 1), bool(higher))
    for timeframe in higher:
        opened = open_times(timestamp, timeframe)
        divides &= opened[1:] == opened[:-1]
    return np.flatnonzero(divides) + 1


def _failure(error: AlgorithmError, cut: int) -> Finding:
    return Finding(
        signal="all",
        bar=cut - 1,
        cut=cut,
        explanation=bounded(f"it fails on the first {cut} bars alone: {error.message}", MAX_EXPLANATION_BYTES),
    )


def _compare(
    algorithm: Algorithm, sample: Bars | Panel, values: Mapping[str, Value], whole: _Signals, cut: int
) -> Finding | None:
    """Return a difference between the signals on the first `cut` bars and those on all. Raises `AlgorithmError`."""
    prefix = _signals_of(algorithm, sample.first(cut) if isinstance(sample, Panel) else sample[:cut], values)
    for name, signal in whole.items():
        differs = _differs(prefix[name], signal, cut, len(sample))
        if differs.any():
            bar = int(np.flatnonzero(differs)[0])
            return Finding(
                signal=name,
                bar=bar,
                cut=cut,
                explanation=f"{name} of bar {bar} changes when bars after bar {cut - 1} become known",
            )
    return None


def _per_bar(signal: AnyArray, bars: int) -> AnyArray:
    return signal if signal.ndim > 1 else np.broadcast_to(signal, bars)


def _differs(prefix: AnyArray | None, whole: AnyArray | None, cut: int, bars: int) -> Booleans:
    """Return the bars of the first `cut` on which the two differ; one value stands for every bar."""
    if prefix is None or whole is None:
        return np.full(cut, (prefix is None) != (whole is None))
    ours, theirs = _per_bar(prefix, cut), _per_bar(whole, bars)
    if ours.dtype.kind != "f":
        return np.asarray(ours != theirs[:cut])
    differs = ~np.isclose(ours, theirs[:cut], rtol=_TOLERANCE, atol=0.0, equal_nan=True)
    return np.asarray(differs.any(axis=1) if differs.ndim > 1 else differs)
