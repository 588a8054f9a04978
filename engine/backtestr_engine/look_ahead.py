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

from backtestr_protocol.errors import AlgorithmError
from backtestr_protocol.inspection import Finding, Verdict

from .algorithm import Algorithm
from .arrays import AnyArray, Booleans, Integers
from .bars import Bars
from .parameters import Value
from .signals import Signals

CUTS = 24
"""Eight of each kind: one alone finds what it is meant for more often than not."""

_TOLERANCE = 1e-9
"""Relative: a sum over a prefix may be rounded otherwise than the same sum within a longer one."""

_WISHES = ("entries", "exits", "short_entries", "short_exits")


def check_algorithm(
    algorithm: Algorithm, bars: Bars, values: Mapping[str, Value], chance: np.random.Generator, *, cuts: int = CUTS
) -> Verdict:
    """Look for look-ahead in `algorithm` with `values` (as `Algorithm.check` returned them) on at least two bars.

    The same generator state gives the same cuts. Raises `AlgorithmError` when the algorithm fails on all bars; failing
    on a prefix alone is a finding.
    """
    if len(bars) < 2:
        raise ValueError(f"a look-ahead check needs at least two bars; there are {len(bars)}")
    whole = algorithm.signals(bars, values)
    tried = _choose_cuts(whole, len(bars), chance, cuts)
    findings = (_compare(algorithm, bars, values, whole, int(cut)) for cut in tried)
    return Verdict(
        algorithm_id=algorithm.algorithm_id,
        bars=len(bars),
        cuts=[int(cut) for cut in tried],
        finding=next((finding for finding in findings if finding is not None), None),
    )


def _choose_cuts(whole: Signals, bars: int, chance: np.random.Generator, cuts: int) -> Integers:
    """Numbers of bars from 1 to bars − 1, increasing: anywhere, behind bars with signals, and mostly early ones."""
    busy = np.flatnonzero(whole.flags[: bars - 1]) + 1
    behind = chance.choice(busy, size=min(cuts // 3, len(busy)), replace=False) if len(busy) else busy
    early = np.exp(chance.uniform(0.0, np.log(bars), size=cuts // 3)).astype(np.int64)
    anywhere = chance.integers(1, bars, size=cuts - len(behind) - len(early))
    return np.unique(np.concatenate((anywhere, behind, np.clip(early, 1, bars - 1))))


def _compare(algorithm: Algorithm, bars: Bars, values: Mapping[str, Value], whole: Signals, cut: int) -> Finding | None:
    try:
        prefix = algorithm.signals(bars[:cut], values)
    except AlgorithmError as error:
        return Finding(
            signal="all", bar=cut - 1, cut=cut, explanation=f"it fails on the first {cut} bars alone: {error.message}"
        )
    for name in (*_WISHES, *_further()):
        differs = _differs(getattr(prefix, name), getattr(whole, name), cut, len(bars))
        if differs.any():
            bar = int(np.flatnonzero(differs)[0])
            return Finding(
                signal=name,
                bar=bar,
                cut=cut,
                explanation=f"{name} of bar {bar} changes when bars after bar {cut - 1} become known",
            )
    return None


def _further() -> list[str]:
    """What signals consist of beside the flags: prices, fractions, targets, whatever they have."""
    return [field.name for field in dataclasses.fields(Signals) if field.name != "flags"]


def _differs(prefix: AnyArray | None, whole: AnyArray | None, cut: int, bars: int) -> Booleans:
    """Where the two differ on the first `cut` bars; one value stands for every bar."""
    if prefix is None or whole is None:
        return np.full(cut, (prefix is None) != (whole is None))
    ours, theirs = np.broadcast_to(prefix, cut), np.broadcast_to(whole, bars)[:cut]
    if ours.dtype.kind != "f":
        return np.asarray(ours != theirs)
    return np.asarray(~np.isclose(ours, theirs, rtol=_TOLERANCE, atol=0.0, equal_nan=True))
