"""Arguments as the wire has them: instants, options and the prices of a feed."""

from __future__ import annotations

import pytest

from backtestr.arguments import feed_request, wire_options
from support.client.answers import PRICE


def test_options_are_camel_case_on_the_wire() -> None:
    assert wire_options({"fill_at": "close", "stopLoss": 0.1, "streams": {"progress_interval_ms": 5}}) == {
        "fillAt": "close",
        "stopLoss": 0.1,
        "streams": {"progressIntervalMs": 5},
    }


def test_a_price_with_another_field_raises_a_type_error() -> None:
    with pytest.raises(TypeError, match="mid"):
        feed_request([{**PRICE, "mid": 1.0}])
