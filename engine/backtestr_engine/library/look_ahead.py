"""The look-ahead check compares an algorithm's signals on all bars with those on the first n, for several cuts n.

The signals of the first n bars must not change when more bars follow. A third of the cuts fall anywhere. A third fall
directly after a bar with signals, where a use of the next bar shows (crossings are rare, and a cut between two of them
finds nothing). A third are early more often than late, to fall into warm-ups that were filled with later values.

A pass does not prove that an algorithm has no look-ahead; a finding proves that it has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.algorithms.parameters import Value
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.data.arrays import AnyArray, Booleans, Integers
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_protocol.errors import AlgorithmError
from backtestr_protocol.inspection import Verdict
from backtestr_protocol.messages import Finding
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
) -> Verdict:
    """Check `algorithm` with `values` (as `Algorithm.check` returned them) for look-ahead.

    The sample has at least two bars; for an algorithm that is `across`, it is a panel of at least two rows. The same
    state of `generator` gives the same cuts. Raises `AlgorithmError` when the algorithm fails on the whole sample; a
    failure on the first bars alone is a finding.
    """
    if len(sample) < 2:
        raise ValueError(f"a look-ahead check needs at least two bars; there are {len(sample)}")
    whole = _signals_of(algorithm, sample, values)
    tried = _choose_cuts(whole, len(sample), generator, cuts)
    findings = (_compare(algorithm, sample, values, whole, int(cut)) for cut in tried)
    return Verdict(
        algorithm_id=algorithm.algorithm_id,
        bars=len(sample),
        cuts=[int(cut) for cut in tried],
        finding=next((finding for finding in findings if finding is not None), None),
    )


_Signals = Mapping[str, AnyArray | None]
"""Signals or weights by name: one value per bar or one for all bars, or a row of values per bar."""


def _signals_of(algorithm: Algorithm, sample: Bars | Panel, values: Mapping[str, Value]) -> _Signals:
    if isinstance(sample, Panel):
        return {"weights": algorithm.weights(sample, values)}
    signals = algorithm.signals(sample, values)
    further = (field.name for field in dataclasses.fields(Signals) if field.name != "flags")
    return {name: getattr(signals, name) for name in (*_FLAGS, *further)}


def _choose_cuts(whole: _Signals, bars: int, generator: np.random.Generator, cuts: int) -> Integers:
    """Return increasing numbers of bars from 1 to bars − 1: anywhere, after bars with signals, and mostly early."""
    signalled = np.zeros(bars, dtype=np.bool_)
    for name, signal in whole.items():
        if signal is not None and name in (*_FLAGS, "target", "weights"):
            given = ~np.isnan(signal) if signal.dtype.kind == "f" else signal
            signalled |= given.any(axis=1) if given.ndim > 1 else given
    busy = np.flatnonzero(signalled[: bars - 1]) + 1
    after_signals = generator.choice(busy, size=min(cuts // 3, len(busy)), replace=False) if len(busy) else busy
    early = np.exp(generator.uniform(0.0, np.log(bars), size=cuts // 3)).astype(np.int64)
    anywhere = generator.integers(1, bars, size=cuts - len(after_signals) - len(early))
    return np.unique(np.concatenate((anywhere, after_signals, np.clip(early, 1, bars - 1))))


def _compare(
    algorithm: Algorithm, sample: Bars | Panel, values: Mapping[str, Value], whole: _Signals, cut: int
) -> Finding | None:
    try:
        prefix = _signals_of(algorithm, sample.first(cut) if isinstance(sample, Panel) else sample[:cut], values)
    except AlgorithmError as error:
        return Finding(
            signal="all",
            bar=cut - 1,
            cut=cut,
            explanation=bounded(f"it fails on the first {cut} bars alone: {error.message}", MAX_EXPLANATION_BYTES),
        )
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
