"""Masks of 64 bars beside arrays of booleans."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backtestr_engine import bit_masks
from backtestr_engine.data.arrays import Floats, Integers
from backtestr_engine.simulation.numba_kernel import kernel
from backtestr_engine.vectors import BARS_PER_MASK

masks = st.integers(0, 2**BARS_PER_MASK - 1)


@kernel
def sides_of(over: Floats, under: Floats, first: int) -> tuple[Any, Any, Any]:
    return bit_masks.sides_of(over, under, first)


@kernel
def parts_of(mask: Any, before: Any, at: int, count: int) -> tuple[Any, bool, Any, Any, int]:
    return (
        bit_masks.changes(mask, before),
        bit_masks.has_bit(mask, at),
        bit_masks.bits_from(mask, at, count),
        bit_masks.without_lowest_bit(mask),
        bit_masks.lowest_bit(mask) if mask != 0 else -1,
    )


@kernel
def put_bars(mask: Any, first: int, bars: Integers, count: int) -> int:
    return bit_masks.put_bars(mask, first, bars, count)


def bits(mask: Any) -> list[bool]:
    return [bool(int(mask) >> at & 1) for at in range(BARS_PER_MASK)]


@given(masks, masks, st.integers(0, BARS_PER_MASK - 1), st.integers(1, BARS_PER_MASK))
def test_parts_of_a_mask(mask: int, before: int, at: int, count: int) -> None:
    own, last = bits(mask), bits(before)[-1]
    lowest = own.index(True) if mask else -1

    changes, has_bit, bits_from, without, lowest_bit = parts_of(np.uint64(mask), np.uint64(before), at, count)

    assert bits(changes) == [now != earlier for now, earlier in zip(own, [last, *own], strict=False)]
    assert has_bit == own[at]
    assert bits(bits_from) == (own[at : at + count] + [False] * BARS_PER_MASK)[:BARS_PER_MASK]
    assert bits(without) == [bit and place != lowest for place, bit in enumerate(own)]
    assert lowest_bit == lowest


@given(
    arrays(np.float64, st.integers(1, 2 * BARS_PER_MASK), elements=st.sampled_from([-1.0, 0.0, 1.0, np.nan])),
    st.data(),
)
def test_sides_end_with_the_lines(over: Floats, data: st.DataObject) -> None:
    under = np.zeros(len(over))
    first = data.draw(st.integers(0, len(over) - 1))
    some = over[first : first + BARS_PER_MASK]

    for mask, there in zip(sides_of(over, under, first), (some > 0, some < 0, some == 0), strict=True):
        assert bits(mask) == there.tolist() + [False] * (BARS_PER_MASK - len(some))


@given(masks, st.integers(0, 1000), st.integers(0, 5))
def test_bars_of_a_mask_are_put_behind_those_before(mask: int, first: int, count: int) -> None:
    bars = np.full(count + BARS_PER_MASK, -1, dtype=np.int64)
    own = [first + at for at, there in enumerate(bits(mask)) if there]

    assert put_bars(np.uint64(mask), first, bars, count) == count + len(own)
    assert bars.tolist() == [-1] * count + own + [-1] * (BARS_PER_MASK - len(own))
