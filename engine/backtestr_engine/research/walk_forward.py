"""Walk-forward: choose parameters on a window of bars, judge them on the bars that follow, window after window.

    for window in rolling(len(bars), train=5_000, test=1_000, purge=20):
        best = …                                   # choose on bars[window.train]
        pieces.append(…)                           # equity of the best on bars[window.test]
    equity = stitch(pieces, initial_capital)

Purging (López de Prado 2018, chapter 7) leaves out bars between the two, so that no trade that begins in training is
still open in the test.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from backtestr_engine.data.arrays import Floats


class Window(msgspec.Struct, frozen=True):
    """One step: bars [train_start, train_end) to choose on and [test_start, test_end) to judge on, counted from 0."""

    train_start: int
    train_end: int
    test_start: int
    test_end: int

    @property
    def train(self) -> slice:
        return slice(self.train_start, self.train_end)

    @property
    def test(self) -> slice:
        return slice(self.test_start, self.test_end)


class Piece(msgspec.Struct, frozen=True):
    """The result of one test: its initial capital, and its equity at the close of every bar."""

    initial_capital: float
    equity: Floats


def rolling(bars: int, *, train: int, test: int, purge: int = 0) -> list[Window]:
    """Return windows of `train` bars and, `purge` bars later, `test` bars, each window `test` bars further.

    The tests follow each other without a gap up to the last bar; the last one may be shorter. Raises `ValueError` for
    lengths that are too small, and for too few bars for one window.
    """
    return _windows(bars, train, test, purge, anchored=False)


def anchored(bars: int, *, train: int, test: int, purge: int = 0) -> list[Window]:
    """Return the windows of `rolling`, each trained on all bars from the first; `train` is the length of the first."""
    return _windows(bars, train, test, purge, anchored=True)


def _windows(bars: int, train: int, test: int, purge: int, *, anchored: bool) -> list[Window]:
    for name, length, least in (("train", train, 1), ("test", test, 1), ("purge", purge, 0)):
        if length < least:
            raise ValueError(f"{name} must be at least {least} bars, not {length}")
    if bars <= train + purge:
        raise ValueError(f"{bars} bars are too few: {train} to train on and {purge} between leave none to test on")
    return [
        Window(
            train_start=0 if anchored else start - purge - train,
            train_end=start - purge,
            test_start=start,
            test_end=min(start + test, bars),
        )
        for start in range(train + purge, bars, test)
    ]


def stitch(pieces: Sequence[Piece], initial_capital: float) -> Floats:
    """Return the equity of the tests one after the other, each scaled to the capital that the one before left.

    So returns are joined, as if every test had been sized to the capital at its start. The result is float64, one value
    per bar of all pieces. After a ruin (equity of zero or below) the equity stays there.
    """
    stitched = []
    capital = initial_capital
    for piece in pieces:
        grown = piece.equity * (capital / piece.initial_capital) if capital > 0 else np.full(len(piece.equity), capital)
        stitched.append(grown)
        capital = float(grown[-1]) if len(grown) else capital
    return np.concatenate(stitched) if stitched else np.empty(0, dtype=np.float64)


def efficiency(in_sample: Sequence[float], out_of_sample: Sequence[float]) -> float | None:
    """Return the walk-forward efficiency (Pardo 2008): the mean yearly return out of sample over that in sample.

    There is one return per window. Returns None without a window, or without a mean gain in sample, as a ratio to a
    loss has no meaning.
    """
    if len(in_sample) != len(out_of_sample):
        raise ValueError(f"there are {len(in_sample)} returns in sample and {len(out_of_sample)} out of it")
    if not in_sample or (chosen := float(np.mean(in_sample))) <= 0:
        return None
    return float(np.mean(out_of_sample)) / chosen
