"""The checksum of large arrays sees every change, and continues another."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.data.block_sums import checksum

SIZES = [0, 1, 7, 8, 65_535, 65_536, 65_537, 200_003]


@given(size=st.sampled_from(SIZES), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_a_change_of_any_byte_shows(size: int, seed: int, data: st.DataObject) -> None:
    content = np.random.default_rng(seed).bytes(size)
    first = checksum(content)
    assert 0 <= first < 2**32
    assert checksum(content) == first
    if size:
        at, mask = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, 255))
        changed = bytearray(content)
        changed[at] ^= mask
        assert checksum(bytes(changed)) != first
        assert checksum(content[:-1]) != first


def test_words_that_change_places_show() -> None:
    words = np.arange(20_000, dtype=np.float64)
    swapped = words.copy()
    swapped[[100, 9_000]] = swapped[[9_000, 100]]
    assert checksum(words.view(np.uint8).data) != checksum(swapped.view(np.uint8).data)


@given(st.sampled_from(SIZES))
def test_it_continues_the_checksum_of_what_comes_before(size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    assert checksum(content, checksum(b"one")) != checksum(content, checksum(b"two"))
