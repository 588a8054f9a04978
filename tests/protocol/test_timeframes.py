"""Every timeframe has one name and one length, and other names are none."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_protocol.timeframes import (
    COMMON_TIMEFRAMES,
    LONGEST_MS,
    MONTH_MS,
    Timeframe,
    canonical_timeframe,
    length_ms,
    length_of,
    timeframe_of,
)

SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
FIXED = st.builds(lambda count, unit: f"{count}{unit}", st.integers(1, 10**6), st.sampled_from("smhdw"))


@given(name=FIXED)
def test_a_timeframe_has_the_length_that_its_name_states(name: str) -> None:
    milliseconds = 1000 * int(name[:-1]) * SECONDS[name[-1]]
    if milliseconds > LONGEST_MS:
        assert length_of(name) is None
        assert canonical_timeframe(name) is None
        return
    assert length_ms(name) == milliseconds
    one_name = canonical_timeframe(name)
    assert one_name is not None
    assert length_ms(one_name) == milliseconds
    assert canonical_timeframe(one_name) == one_name == timeframe_of(milliseconds)


@pytest.mark.parametrize(
    ("written", "name"),
    [("60s", "1m"), ("90s", "90s"), ("60m", "1h"), ("1440m", "1d"), ("24h", "1d"), ("36h", "36h"), ("7d", "1w")],
)
def test_one_length_has_one_name(written: str, name: str) -> None:
    assert canonical_timeframe(written) == name


def test_months_divide_a_year_and_have_the_mean_length_of_the_calendar() -> None:
    assert [count for count in range(1, 30) if length_of(f"{count}M")] == [1, 2, 3, 4, 6, 12]
    assert length_ms("12M") == 12 * MONTH_MS == round(365.2425 * 86_400_000)
    assert canonical_timeframe("3M") == "3M"


@pytest.mark.parametrize("name", ["", "1", "m", "0m", "01m", "1 m", "-1m", "1m\n", "1D", "1mo", "15M", "53w", "366d"])
def test_other_names_are_none(name: str) -> None:
    assert canonical_timeframe(name) is None
    with pytest.raises(KeyError):
        length_ms(name)


def test_common_timeframes_are_sorted_and_have_their_one_name() -> None:
    assert [canonical_timeframe(name) for name in COMMON_TIMEFRAMES] == list(COMMON_TIMEFRAMES)
    assert sorted(COMMON_TIMEFRAMES, key=length_ms) == list(COMMON_TIMEFRAMES)


@given(text=st.one_of(FIXED, st.text(max_size=6), st.from_regex(re.compile(r"[0-9]{1,9}[smhdwM]\n?"))))
def test_the_pattern_of_the_wire_takes_every_timeframe(text: str) -> None:
    try:
        msgspec.convert(text, Timeframe)
    except msgspec.ValidationError:
        assert canonical_timeframe(text) is None
