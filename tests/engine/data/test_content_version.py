"""The same bars have one checksum, wherever they lie in memory, and any other bars have another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.data import content_version as module
from backtestr_engine.data.bars import COLUMNS, Bars
from backtestr_engine.data.content_version import ContentVersions, content_version
from backtestr_engine.data.synthetic import synthetic_bars

BARS = synthetic_bars("1m", 20_000)  # a column has more than two blocks of the checksum


def test_a_slice_has_the_version_of_a_copy() -> None:
    part = BARS[37:17_001]
    copy = Bars(part.symbol, part.timeframe, *(getattr(part, name).copy() for name in COLUMNS))
    assert content_version([part]) == content_version([copy])


@given(row=st.integers(0, len(BARS) - 1), name=st.sampled_from(COLUMNS[1:]))
def test_one_other_bit_is_another_version(row: int, name: str) -> None:
    values = getattr(BARS, name).copy()
    values[row] = np.nextafter(values[row], np.inf)
    assert content_version([dataclasses.replace(BARS, **{name: values})]) != content_version([BARS])


@pytest.mark.parametrize(
    "other",
    [
        BARS[1:],
        BARS[:-1],
        dataclasses.replace(BARS, zone="Europe/Berlin"),
        dataclasses.replace(BARS, open=BARS.close, close=BARS.open),
    ],
    ids=["a later start", "an earlier end", "another zone", "columns exchanged"],
)
def test_other_bars_have_another_version(other: Bars) -> None:
    assert content_version([other]) != content_version([BARS])


def test_the_order_of_series_counts() -> None:
    first, second = BARS[:100], BARS[100:200]
    assert content_version([first, second]) != content_version([second, first])


def test_bars_in_memory_are_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    whole = module.content_version

    def counted(series: Sequence[Bars]) -> str:
        hashed.append(len(series[0]))
        return whole(series)

    monkeypatch.setattr(module, "content_version", counted)
    versions = ContentVersions(most=2)
    for bars in (BARS[:100], BARS[:100], BARS[:101], BARS[1:101], BARS[1:101], BARS[:100]):
        assert versions.of([bars]) == whole([bars])
    assert hashed == [100, 101, 100, 100], "the oldest was forgotten"


@given(rows=st.lists(st.integers(1, 50), max_size=20))
def test_memory_that_other_bars_got_is_hashed_again(rows: list[int]) -> None:
    """The bars of each turn are freed before those of the next one are made, which may lie at the same place."""
    versions = ContentVersions()
    for turn, count in enumerate(rows):
        part = BARS[turn : turn + count]
        bars = Bars(part.symbol, part.timeframe, *(getattr(part, name).copy() for name in COLUMNS))
        assert versions.of([bars]) == content_version([bars])
        del bars


def test_another_zone_of_the_same_memory_is_another_version() -> None:
    versions = ContentVersions()
    assert versions.of([BARS]) != versions.of([dataclasses.replace(BARS, zone="Europe/Berlin")])
