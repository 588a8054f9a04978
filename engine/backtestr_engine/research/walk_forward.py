"""Walk-forward: choosing parameters on some bars, judging them on those that follow, and again further on.

    for window in rolling(len(bars), train=5_000, test=1_000, purge=20):
        best = …                                   # choose on bars[window.train]
        pieces.append(…)                           # equity of the best on bars[window.test]
    equity = stitch(pieces, initial_capital)

Purging (López de Prado 2018, chapter 7) leaves out bars between the two, so that a trade which begins in training is
not still open in what judges it.
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
    """What one test came to: the capital that it started with, and its equity at the close of every bar."""

    initial_capital: float
    equity: Floats


def rolling(bars: int, *, train: int, test: int, purge: int = 0) -> list[Window]:
    """Windows of `train` bars to choose on and, `purge` bars later, `test` bars to judge on, each `test` bars further.

    The tests follow each other without a gap up to the last bar; the last one may be shorter. Raises `ValueError` for
    lengths that are no lengths, and where there are too few bars for one window.
    """
    return _windows(bars, train, test, purge, anchored=False)


def anchored(bars: int, *, train: int, test: int, purge: int = 0) -> list[Window]:
    """The windows of `rolling`, but each is trained on all bars from the first: `train` is the length of the first."""
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
    """The equity of the tests one after the other, each going on with what the one before left: returns are joined, as
    if every test had been sized to the capital at its start.

    float64, one value per bar of all pieces. What begins after a ruin (equity of zero or below) stays there.
    """
    stitched = []
    capital = initial_capital
    for piece in pieces:
        grown = piece.equity * (capital / piece.initial_capital) if capital > 0 else np.full(len(piece.equity), capital)
        stitched.append(grown)
        capital = float(grown[-1]) if len(grown) else capital
    return np.concatenate(stitched) if stitched else np.empty(0, dtype=np.float64)


def efficiency(in_sample: Sequence[float], out_of_sample: Sequence[float]) -> float | None:
    """Walk-forward efficiency (Pardo 2008): the mean yearly return out of sample over that in sample, window by window.
    None where there is no window, or none gained in sample on average: a ratio to a loss says nothing."""
    if len(in_sample) != len(out_of_sample):
        raise ValueError(f"there are {len(in_sample)} returns in sample and {len(out_of_sample)} out of it")
    if not in_sample or (chosen := float(np.mean(in_sample))) <= 0:
        return None
    return float(np.mean(out_of_sample)) / chosen
