"""Random trials of a sweep: a seeded permutation of all cells, computed for any place without the others.

Four rounds of a Feistel network permute the numbers of an even number of bits, whatever its rounds compute; a number
beyond the last cell is permuted again until it is one. So draw n is the same cell on every worker and after a restart,
and no cell is drawn twice.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from backtestr_engine.data.arrays import Integers

_ROUNDS = 4
_GOLDEN = 0x9E37_79B9_7F4A_7C15
_WORD = (1 << 64) - 1

Words = npt.NDArray[np.uint64]


def drawn_cells(seed: int, cells: int, first: int, count: int) -> Integers:
    """Return the cells of draws [first, first + count), or up to the last one; there are as many draws as cells."""
    half = max(1, ((cells - 1).bit_length() + 1) // 2)
    keys = [_word(seed, number) for number in range(_ROUNDS)]
    numbers = np.arange(first, min(first + count, cells), dtype=np.uint64)
    drawn = _permuted(numbers, half, keys)
    while (beyond := drawn >= np.uint64(cells)).any():
        drawn[beyond] = _permuted(drawn[beyond], half, keys)
    return drawn.astype(np.int64)


def seed_of(seed: int, number: int) -> int:
    """Return a seed of 32 bits for each `number`, such as one for each batch of a sweep."""
    return _word(seed, number) >> 32


def _word(seed: int, number: int) -> int:
    return _mixed((seed + (number + 1) * _GOLDEN) & _WORD)


def _permuted(numbers: Words, half: int, keys: list[int]) -> Words:
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = numbers >> shift, numbers & mask
    for key in keys:
        left, right = right, left ^ (_mixed_words(right ^ np.uint64(key)) & mask)
    found: Words = (left << shift) | right
    return found


def _mixed(word: int) -> int:
    """Return a word whose every bit depends on every bit of another: the end of splitmix64."""
    word = ((word ^ (word >> 30)) * 0xBF58_476D_1CE4_E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D0_49BB_1331_11EB) & _WORD
    return word ^ (word >> 31)


def _mixed_words(words: Words) -> Words:
    """Return `_mixed` of each word."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return words ^ (words >> np.uint64(31))
