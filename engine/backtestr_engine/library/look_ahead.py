"""The look-ahead check: whether an algorithm's signals depend on bars that had not been when they were due.

What an algorithm says of the first n bars must not change when more bars follow. It is called with all bars and with
the first n of them, for several n, and what it says of those n is compared. A third of the cuts fall anywhere; a third
right behind a bar with signals, where a glance at the next bar shows (crossings are rare, and a cut between two of them
finds nothing); a third are early more often than late, to fall into warm-ups that were filled from behind.

A pass is no proof; a finding is one.
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

CUTS = 24
"""Eight of each kind: one alone finds what it is meant for more often than not."""

_TOLERANCE = 1e-9
"""Relative: a sum over a prefix may be rounded otherwise than the same sum within a longer one."""

_WISHES = ("entries", "exits", "short_entries", "short_exits")


def check_algorithm(
    algorithm: Algorithm,
    sample: Bars | Panel,
    values: Mapping[str, Value],
    chance: np.random.Generator,
    *,
    cuts: int = CUTS,
) -> Verdict:
    """Look for look-ahead in `algorithm` with `values` (as `Algorithm.check` returned them) on a sample of at least two
    bars; for one that is `across`, a panel of at least two rows.

    The same generator state gives the same cuts. Raises `AlgorithmError` when the algorithm fails on the whole sample;
    failing on a prefix alone is a finding.
    """
    if len(sample) < 2:
        raise ValueError(f"a look-ahead check needs at least two bars; there are {len(sample)}")
    whole = _wishes(algorithm, sample, values)
    tried = _choose_cuts(whole, len(sample), chance, cuts)
    findings = (_compare(algorithm, sample, values, whole, int(cut)) for cut in tried)
    return Verdict(
        algorithm_id=algorithm.algorithm_id,
        bars=len(sample),
        cuts=[int(cut) for cut in tried],
        finding=next((finding for finding in findings if finding is not None), None),
    )


_Wishes = Mapping[str, AnyArray | None]
"""What an algorithm says, by name: one value per bar or one for all, or a row of them."""


def _wishes(algorithm: Algorithm, sample: Bars | Panel, values: Mapping[str, Value]) -> _Wishes:
    if isinstance(sample, Panel):
        return {"weights": algorithm.weights(sample, values)}
    signals = algorithm.signals(sample, values)
    further = (field.name for field in dataclasses.fields(Signals) if field.name != "flags")
    return {name: getattr(signals, name) for name in (*_WISHES, *further)}


def _choose_cuts(whole: _Wishes, bars: int, chance: np.random.Generator, cuts: int) -> Integers:
    """Numbers of bars from 1 to bars − 1, increasing: anywhere, behind bars with signals, and mostly early ones."""
    signalled = np.zeros(bars, dtype=np.bool_)
    for name, wish in whole.items():
        if wish is not None and name in (*_WISHES, "target", "weights"):
            said = ~np.isnan(wish) if wish.dtype.kind == "f" else wish
            signalled |= said.any(axis=1) if said.ndim > 1 else said
    busy = np.flatnonzero(signalled[: bars - 1]) + 1
    behind = chance.choice(busy, size=min(cuts // 3, len(busy)), replace=False) if len(busy) else busy
    early = np.exp(chance.uniform(0.0, np.log(bars), size=cuts // 3)).astype(np.int64)
    anywhere = chance.integers(1, bars, size=cuts - len(behind) - len(early))
    return np.unique(np.concatenate((anywhere, behind, np.clip(early, 1, bars - 1))))


def _compare(
    algorithm: Algorithm, sample: Bars | Panel, values: Mapping[str, Value], whole: _Wishes, cut: int
) -> Finding | None:
    try:
        prefix = _wishes(algorithm, sample.first(cut) if isinstance(sample, Panel) else sample[:cut], values)
    except AlgorithmError as error:
        return Finding(
            signal="all", bar=cut - 1, cut=cut, explanation=f"it fails on the first {cut} bars alone: {error.message}"
        )
    for name, wish in whole.items():
        differs = _differs(prefix[name], wish, cut, len(sample))
        if differs.any():
            bar = int(np.flatnonzero(differs)[0])
            return Finding(
                signal=name,
                bar=bar,
                cut=cut,
                explanation=f"{name} of bar {bar} changes when bars after bar {cut - 1} become known",
            )
    return None


def _per_bar(wish: AnyArray, bars: int) -> AnyArray:
    return wish if wish.ndim > 1 else np.broadcast_to(wish, bars)


def _differs(prefix: AnyArray | None, whole: AnyArray | None, cut: int, bars: int) -> Booleans:
    """Where the two differ on the first `cut` bars; one value stands for every bar."""
    if prefix is None or whole is None:
        return np.full(cut, (prefix is None) != (whole is None))
    ours, theirs = _per_bar(prefix, cut), _per_bar(whole, bars)
    if ours.dtype.kind != "f":
        return np.asarray(ours != theirs[:cut])
    differs = ~np.isclose(ours, theirs[:cut], rtol=_TOLERANCE, atol=0.0, equal_nan=True)
    return np.asarray(differs.any(axis=1) if differs.ndim > 1 else differs)
