"""Crossings: events, not regimes; ties keep the side; nothing is known before the lines begin or after NaN."""

from __future__ import annotations

import numpy as np
import pytest

from backtestr_engine.signals import REPEATED_ENTRY, REPEATED_SHORT_ENTRY, Signals

NAN = np.nan


@pytest.mark.parametrize(
    ("fast", "entries", "repeated"),
    [
        ([NAN, NAN, 1, 2], [], []),  # the end of the warm-up is no cross
        ([1, -1, 1], [2], []),
        ([-1, 0, 0, 1], [3], []),  # through a tie
        ([-1, 1, 0, 1], [1], [3]),  # above, tie, above: once, or once more by convention
        ([1, 0, 1], [], []),  # never below
        ([0, 0, 1], [], []),
        ([-1, NAN, 1], [], []),  # NaN forgets
        ([-1, 1, NAN, 0, 1], [1], []),
        ([1, 0, 0, 1, 0, -1, 0, -1, 1], [8], []),
    ],
)
def test_crossing_above(fast: list[float], entries: list[int], repeated: list[int]) -> None:
    line, zero = np.array(fast, dtype=float), np.zeros(len(fast))
    above, below = Signals.from_cross(line, zero), Signals.from_cross(-line, zero)

    assert np.flatnonzero(above.entries).tolist() == entries
    assert np.flatnonzero(above.short_exits).tolist() == entries
    assert np.flatnonzero(above.flags & REPEATED_ENTRY).tolist() == repeated
    assert np.flatnonzero(below.short_entries).tolist() == entries
    assert np.flatnonzero(below.exits).tolist() == entries
    assert np.flatnonzero(below.flags & REPEATED_SHORT_ENTRY).tolist() == repeated


def test_the_four_arrays_come_back_as_they_went_in(chance: np.random.Generator) -> None:
    arrays = [chance.random(100) < 0.3 for _ in range(4)]
    signals = Signals.of(*arrays)

    back = [signals.entries, signals.exits, signals.short_entries, signals.short_exits]
    assert all(np.array_equal(given, got) for given, got in zip(arrays, back, strict=True))


def test_signals_do_not_look_ahead(chance: np.random.Generator) -> None:
    fast, slow = chance.normal(size=500).round(1), chance.normal(size=500).round(1)
    whole = Signals.from_cross(fast, slow).flags

    for cut in (0, 1, 2, 17, 250, 499):
        assert np.array_equal(Signals.from_cross(fast[:cut], slow[:cut]).flags, whole[:cut])
