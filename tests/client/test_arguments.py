"""Arguments as the wire has them: instants, options and the prices of a feed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from backtestr.arguments import config_of, feed_request, wire_options
from backtestr_protocol.messages import BacktestConfig
from support.client.answers import PRICE


def test_options_are_camel_case_on_the_wire() -> None:
    assert wire_options({"fill_at": "close", "stopLoss": 0.1, "streams": {"progress_interval_ms": 5}}) == {
        "fillAt": "close",
        "stopLoss": 0.1,
        "streams": {"progressIntervalMs": 5},
    }


def test_a_configuration_has_what_was_given_and_the_defaults_of_the_rest() -> None:
    found = config_of(
        "sma_cross",
        ["A", "B"],
        "1h",
        start=datetime(2022, 1, 3, tzinfo=UTC),
        price="bid",
        commission=0.001,
        parameters={"fast": 5, "from": datetime(2022, 1, 4, tzinfo=UTC)},
        warmup=7,
        fill_at="close",
        streams={"prices": True},
    )
    assert found == BacktestConfig(
        algorithm_id="sma_cross",
        symbol="A",
        symbols=["A", "B"],
        start_date="2022-01-03T00:00:00Z",
        initial_capital=100_000.0,
        timeframe="1h",
        price="bid",
        commission=0.001,
        slippage=0.0,
        parameters={"fast": 5, "from": "2022-01-04T00:00:00Z"},
        options={"fillAt": "close", "streams": {"prices": True, "columns": True}},
        warmup=7,
    )
    assert config_of("sma_cross", "A", "1h").symbols == []
    with pytest.raises(ValueError, match="at least one symbol"):
        config_of("sma_cross", [], "1h")


def test_a_price_with_another_field_raises_a_type_error() -> None:
    with pytest.raises(TypeError, match="mid"):
        feed_request([{**PRICE, "mid": 1.0}])
