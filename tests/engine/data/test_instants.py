"""Instants: ISO 8601 text and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.data.instants import instant, parse_instant
from backtestr_protocol.errors import ValidationError

YEAR_9999_US = 253_402_300_799_999_999


@given(st.integers(0, YEAR_9999_US))
def test_the_text_of_an_instant_is_that_instant(timestamp_us: int) -> None:
    assert parse_instant(instant(timestamp_us), path="$.startDate") == timestamp_us


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2022-01-03", "2022-01-03T00:00:00Z"),
        ("2022-01-03T09:30:00", "2022-01-03T09:30:00Z"),
        ("2022-01-03T11:30:00+02:00", "2022-01-03T09:30:00Z"),
    ],
)
def test_a_date_is_midnight_and_a_time_without_an_offset_is_utc(text: str, same: str) -> None:
    assert parse_instant(text, path="$.endDate") == parse_instant(same, path="$.endDate")


def test_other_text_is_refused_with_its_path() -> None:
    with pytest.raises(
        ValidationError, match=r"\$\.endDate must be an ISO 8601 date or time .* not 'tomorrow'"
    ) as caught:
        parse_instant("tomorrow", path="$.endDate")
    assert caught.value.details == {"path": "$.endDate", "expected": "ISO 8601 date or time", "got": "tomorrow"}
