"""Arguments as the wire has them: instants, options and the prices of a feed."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr.arguments import as_iso, as_ms, feed_request, wire_options
from support.client.answers import PRICE


@pytest.mark.parametrize(
    "instant",
    [
        "2022-01-03",
        "2022-01-03T00:00:00Z",
        "2022-01-03T01:00:00+01:00",
        date(2022, 1, 3),
        datetime(2022, 1, 3),  # noqa: DTZ001 - naive on purpose
        datetime(2022, 1, 3, tzinfo=UTC),
        datetime(2022, 1, 2, 19, tzinfo=timezone(timedelta(hours=-5))),
    ],
)
def test_an_instant_may_be_written_in_many_ways(instant: str | date | datetime) -> None:
    assert as_ms(instant) == 1_641_168_000_000
    assert as_iso(instant) == "2022-01-03T00:00:00Z"


@given(st.integers(0, 4_000_000_000_000))
def test_instants_survive_being_written(ms: int) -> None:
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    assert as_ms(as_iso(instant)) == as_ms(instant) == ms


def test_text_that_is_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="ISO 8601"):
        as_ms("yesterday")


def test_options_are_camel_case_on_the_wire() -> None:
    assert wire_options({"fill_at": "close", "stopLoss": 0.1, "streams": {"progress_interval_ms": 5}}) == {
        "fillAt": "close",
        "stopLoss": 0.1,
        "streams": {"progressIntervalMs": 5},
    }


def test_a_price_with_another_field_raises_a_type_error() -> None:
    with pytest.raises(TypeError, match="mid"):
        feed_request([{**PRICE, "mid": 1.0}])
