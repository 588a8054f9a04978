"""A misspelt field is refused with the near miss, where it would otherwise be ignored."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_protocol.errors import ValidationError
from backtestr_protocol.known_fields import check_known_fields
from backtestr_protocol.messages import BacktestConfig

KNOWN = BacktestConfig.__struct_encode_fields__


@pytest.mark.parametrize(
    ("name", "near"), [("initialCaptial", "initialCapital"), ("start_date", "startDate"), ("option", "options")]
)
def test_the_near_miss_is_named(name: str, near: str) -> None:
    with pytest.raises(ValidationError, match=f"unknown field '{name}'; did you mean '{near}'.*; see there") as caught:
        check_known_fields(msgpack.packb({"symbol": "S", name: 1}), BacktestConfig, "see there")
    assert caught.value.details is not None
    assert caught.value.details["path"] == f"$.{name}"


@given(st.dictionaries(st.sampled_from(KNOWN), st.integers().filter(lambda one: abs(one) < 1 << 63), max_size=9))
def test_known_fields_of_any_value_pass(data: dict[str, int]) -> None:
    check_known_fields(msgpack.packb(data), BacktestConfig, "")


@pytest.mark.parametrize("data", [b"", b"\xc1", msgpack.packb([1]), msgpack.packb({1: 2}), b"\x81\xa1\xff\x01"])
def test_what_is_no_map_of_fields_is_left_to_the_decoder(data: Any) -> None:
    check_known_fields(data, BacktestConfig, "")
