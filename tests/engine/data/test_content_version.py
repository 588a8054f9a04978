"""The same bars have one checksum, wherever they lie in memory, and any other bars have another."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.data.bars import COLUMNS, Bars
from backtestr_engine.data.content_version import content_version
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
