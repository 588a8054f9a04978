"""Signals from crossings: a cross is an event, a tie keeps the side, and NaN clears it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backtestr_engine.algorithms.signals import (
    ENTRY,
    EXIT,
    REPEATED_ENTRY,
    REPEATED_SHORT_ENTRY,
    SHORT_ENTRY,
    SHORT_EXIT,
    TIED,
    Signals,
)
from backtestr_engine.data.arrays import AnyArray, Floats
from backtestr_engine.vectors import BARS_PER_MASK
from backtestr_protocol.errors import AlgorithmError

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
        ([-1, NAN, 1], [], []),  # NaN clears the side
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


def test_the_four_arrays_are_returned_unchanged(generator: np.random.Generator) -> None:
    arrays = [generator.random(100) < 0.3 for _ in range(4)]
    signals = Signals.of(*arrays)

    back = [signals.entries, signals.exits, signals.short_entries, signals.short_exits]
    assert all(np.array_equal(given, got) for given, got in zip(arrays, back, strict=True))


def test_signals_do_not_look_ahead(generator: np.random.Generator) -> None:
    fast, slow = generator.normal(size=500).round(1), generator.normal(size=500).round(1)
    whole = Signals.from_cross(fast, slow).flags

    for cut in (0, 1, 2, 17, 250, 499):
        assert np.array_equal(Signals.from_cross(fast[:cut], slow[:cut]).flags, whole[:cut])


def test_signals_are_what_they_were_made_of_and_equal_to_none_but_themselves() -> None:
    made = Signals.of(np.array([True, False]), show={"line": np.array([1.0, 2.0])})
    same = Signals.of(np.array([True, False]), show={"line": np.array([1.0, 2.0])})

    with pytest.raises(AttributeError):
        made.flags = same.flags  # type: ignore[misc]  # that is what is refused
    assert len({made, same, made}) == 2
    assert made != same
    assert Signals(made.flags).shown is not Signals(made.flags).shown


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"stop_loss": -0.1}, "stop_loss must be a fraction, 0 or more, .* bar 0 has -0.1"),
        ({"take_profit": [0.1, 0.1, np.inf]}, "take_profit must be .* bar 2 has inf"),
        ({"trailing_stop": [0.1, 0.2]}, r"trailing_stop has shape \(2,\); it needs one value, or one per bar \(3\)"),
        ({"stop_loss": 2.0}, r"stop_loss is a fraction .* bar 0 has 2: if 2 % was meant, give 0\.02"),
        ({"trailing_stop": [0.1, 0.1, 1.0]}, "trailing_stop is a fraction .* bar 2 has 1"),
        ({"stop_loss": [True, False, True]}, "stop_loss must be a fraction .* not bool"),
    ],
)
def test_refused_fractions(fractions: dict[str, Any], message: str) -> None:
    with pytest.raises(AlgorithmError, match=message):
        Signals.of(np.zeros(3, dtype=bool), **fractions)


def test_a_fraction_is_for_all_bars_or_for_each() -> None:
    signals = Signals.of(np.zeros(3, dtype=bool), stop_loss=0.1, take_profit=np.array([0.1, NAN, 0]))

    assert signals.stop_loss is not None
    assert signals.stop_loss.tolist() == [0.1]
    assert signals.take_profit is not None
    assert np.array_equal(signals.take_profit, [0.1, NAN, 0], equal_nan=True)
    assert signals.trailing_stop is None


def test_signals_from_a_bar_on_are_those_of_the_later_bars() -> None:
    one, each = Signals.of(target=np.array([0.5, NAN, 1.0])), np.array([0.1, 0.2, 0.3])
    signals = Signals.of(
        np.array([True, False, True]), stop_loss=0.1, take_profit=each, limit_price=each, stop_price=each
    )
    cut = signals.from_bar(1)

    assert cut.entries.tolist() == [False, True]
    assert cut.stop_loss is not None
    assert cut.stop_loss.tolist() == [0.1]
    for values in (cut.take_profit, cut.limit_price, cut.stop_price):
        assert values is not None
        assert values.tolist() == [0.2, 0.3]
    assert cut.trailing_stop is cut.target is None
    target = one.from_bar(2).target
    assert target is not None
    assert target.tolist() == [1.0]
    assert signals.from_bar(0) is signals


def crosses_bar_by_bar(fast: list[float], slow: list[float]) -> list[int]:
    flags = []
    side, tied, seen = 0, False, set[int]()
    for over, under in zip(fast, slow, strict=True):
        flag = 0
        if over == under:
            tied = True
        elif over > under or over < under:
            now = 1 if over > under else -1
            entry, opposite, repeated = (
                (ENTRY, SHORT_EXIT, REPEATED_ENTRY) if now > 0 else (SHORT_ENTRY, EXIT, REPEATED_SHORT_ENTRY)
            )
            if side == -now:
                flag = entry | opposite | (TIED if tied else 0)
            elif tied and -now in seen:
                flag = repeated
            side, tied = now, False
            seen.add(now)
        else:
            side, tied, seen = 0, False, set()
        flags.append(flag)
    return flags


@given(
    arrays(np.float64, st.integers(0, 3 * BARS_PER_MASK), elements=st.sampled_from([-1.0, 0.0, 1.0, NAN])),
    st.sampled_from(["f8", "f4", "strided", "i8"]),
)
def test_crosses_are_those_of_a_walk_bar_by_bar(line: Floats, kind: str) -> None:
    zero = np.zeros(len(line))
    match kind:
        case "strided":
            given_line = np.repeat(line, 2)[::2]
        case "i8":
            given_line = line = np.nan_to_num(line).astype(np.int64)
        case _:
            given_line = line.astype(kind)

    assert Signals.from_cross(given_line, zero).flags.tolist() == crosses_bar_by_bar(line.tolist(), zero.tolist())


@pytest.mark.parametrize("line", [np.ones(3, dtype=complex), np.array(["1", "2", "3"]), np.array([1.0, None, 2.0])])
def test_lines_that_are_no_numbers_are_refused(line: AnyArray) -> None:
    with pytest.raises(AlgorithmError, match=f"crossing lines are arrays of numbers, not of {line.dtype}"):
        Signals.from_cross(np.zeros(3), line)
