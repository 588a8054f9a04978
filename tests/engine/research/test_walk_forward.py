"""Laws of the windows of walk-forward, and of stitching their results."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.research.walk_forward import (
    Piece,
    Window,
    anchored,
    efficiency,
    rolling,
    stitch,
)

lengths = st.tuples(st.integers(1, 300), st.integers(1, 60), st.integers(1, 60), st.integers(0, 10))


def has_room(given_lengths: tuple[int, int, int, int]) -> bool:
    bars, train, _, purge = given_lengths
    return bars > train + purge


@given(lengths.filter(has_room))
def test_tests_cover_the_bars_after_the_first_training_once_and_in_order(
    given_lengths: tuple[int, int, int, int],
) -> None:
    bars, train, test, purge = given_lengths
    for windows in (
        rolling(bars, train=train, test=test, purge=purge),
        anchored(bars, train=train, test=test, purge=purge),
    ):
        tested = [bar for window in windows for bar in range(bars)[window.test]]
        assert tested == list(range(train + purge, bars))
        assert all(len(range(bars)[window.test]) == test for window in windows[:-1])


@given(lengths.filter(has_room))
def test_training_ends_a_purge_before_its_test(given_lengths: tuple[int, int, int, int]) -> None:
    bars, train, test, purge = given_lengths
    rolled, grown = (split(bars, train=train, test=test, purge=purge) for split in (rolling, anchored))

    assert all(window.train_end + purge == window.test_start for window in (*rolled, *grown))
    assert {window.train_end - window.train_start for window in rolled} == {train}
    assert {window.train_start for window in grown} == {0}
    assert rolled[0] == grown[0]


def test_windows_by_example() -> None:
    assert rolling(10, train=4, test=2, purge=1) == [Window(0, 4, 5, 7), Window(2, 6, 7, 9), Window(4, 8, 9, 10)]
    assert anchored(10, train=4, test=3) == [Window(0, 4, 4, 7), Window(0, 7, 7, 10)]


@pytest.mark.parametrize(
    ("bars", "train", "test", "purge", "message"),
    [
        (10, 0, 1, 0, "train must be at least 1 bars, not 0"),
        (10, 1, 0, 0, "test must be at least 1 bars, not 0"),
        (10, 1, 1, -1, "purge must be at least 0 bars, not -1"),
        (10, 8, 1, 2, "10 bars are too few: 8 to train on and 2 between leave none to test on"),
    ],
)
def test_impossible_windows_are_refused(bars: int, train: int, test: int, purge: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rolling(bars, train=train, test=test, purge=purge)


@given(st.lists(st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=10), min_size=1, max_size=6), st.floats(1, 1e6))
def test_stitched_tests_have_the_returns_of_the_tests(pieces: list[list[float]], capital: float) -> None:
    made = [
        Piece(100.0 * (1 + index), 100.0 * (1 + index) * np.cumprod(1 + np.array(one)))
        for index, one in enumerate(pieces)
    ]

    equity = stitch(made, capital)

    expected = capital * np.cumprod(1 + np.concatenate([np.array(one) for one in pieces]))
    np.testing.assert_allclose(equity, expected, rtol=1e-9)


def test_stitching_stays_at_ruin_and_of_no_pieces_is_empty() -> None:
    ruined = stitch([Piece(100.0, np.array([50.0, -10.0])), Piece(100.0, np.array([150.0, 200.0]))], 1_000.0)

    assert ruined.tolist() == [500.0, -100.0, -100.0, -100.0]
    assert stitch([], 1_000.0).tolist() == []
    assert stitch([Piece(1.0, np.empty(0)), Piece(1.0, np.array([2.0]))], 10.0).tolist() == [20.0]


def test_efficiency() -> None:
    assert efficiency([0.2, 0.4], [0.1, 0.2]) == pytest.approx(0.5)
    assert efficiency([-0.2, 0.1], [0.1, 0.2]) is None
    assert efficiency([], []) is None
    with pytest.raises(ValueError, match="1 returns in sample and 0 out of it"):
        efficiency([1.0], [])
