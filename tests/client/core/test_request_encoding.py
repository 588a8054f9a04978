"""Values of other libraries are sent as the numbers and texts that they are, and all others are refused by field."""

from __future__ import annotations

import enum
from collections import UserDict
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given

from backtestr.core.request_encoding import encode_request, with_times_as_text
from backtestr_protocol.errors import ValidationError
from backtestr_protocol.messages import BacktestConfig, GetMarketData, IndicatorConfig
from support.protocol.strategies import VALUES


class Colour(enum.Enum):
    RED = "red"


class Text(str):
    __slots__ = ()


def config(**changes: Any) -> BacktestConfig:
    fields: dict[str, Any] = {
        "algorithm_id": "a",
        "symbol": "S",
        "initial_capital": 1.0,
        "timeframe": "1d",
        "commission": 0.0,
        "slippage": 0.0,
        "parameters": {},
    }
    return BacktestConfig(**{**fields, **changes})


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (np.int64(5), 5),
        (np.uint8(5), 5),
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.array(5), 5),
        (np.datetime64("2024-01-02"), "2024-01-02T00:00:00Z"),
        (Decimal("0.001"), 0.001),
        (Fraction(1, 4), 0.25),
        (Colour.RED, "red"),
        (Text("x"), "x"),
        (Path("/a/b"), "/a/b"),
        (pd.Timestamp("2024-01-02"), "2024-01-02T00:00:00Z"),
        (pd.Series([7])[0], 7),
        (pl.Series([7])[0], 7),
        ((np.int64(1), 2), [1, 2]),
        ({np.str_("k"): [np.float64(1.5)]}, {"k": [1.5]}),
        (2**64 - 1, 2**64 - 1),
    ],
    ids=repr,
)
def test_a_value_is_taken_for_what_it_is(value: Any, sent: Any) -> None:
    assert msgpack.unpackb(encode_request(config(parameters={"p": value})))["parameters"] == {"p": sent}


def test_typed_fields_take_such_values_too() -> None:
    request = config(
        symbol=np.str_("S"), initial_capital=np.int64(5), commission=Decimal("0.25"), slippage=np.float32(0.5)
    )
    sent = msgpack.unpackb(encode_request(request))
    assert (sent["symbol"], sent["initialCapital"], sent["commission"], sent["slippage"]) == ("S", 5, 0.25, 0.5)
    indicator = IndicatorConfig(name="SMA", parameters={"timeperiod": np.int32(20)})
    data = GetMarketData(symbol="S", timeframe="1d", limit=np.int64(3), indicators=[indicator])  # type: ignore[arg-type]
    sent = msgpack.unpackb(encode_request(data))
    assert sent["limit"] == 3
    assert sent["indicators"][0]["parameters"] == {"timeperiod": 20}


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        (object(), "$.parameters.p", "is no number, text or time"),
        (np.array([1, 2]), "$.parameters.p", "has 2 values, and one is meant"),
        (pd.Series([1, 2, 3]), "$.parameters.p", "has 3 values"),
        (pl.Series([1, 2]), "$.parameters.p", "has 2 values"),
        (pd.NA, "$.parameters.p", "is no number, text or time"),
        (2**64, "$.parameters.p", "beyond the 64 bits"),
        (-(2**63) - 1, "$.parameters.p", "beyond the 64 bits"),
        ("\ud800", "$.parameters.p", "half of a surrogate pair"),
        ([1, {"q": {"\ud800"}}], "$.parameters.p[1].q[0]", "half of a surrogate pair"),
        ({"\ud800": 1}, "$.parameters.p", "half of a surrogate pair"),
        (1j, "$.parameters.p", "is no number"),
        (lambda: 1, "$.parameters.p", "is no number"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_value_that_cannot_be_sent_is_refused_with_its_path(value: Any, path: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason) as caught:
        encode_request(config(parameters={"p": value}))
    assert caught.value.details == {"path": path}
    assert str(caught.value).startswith(f"{path}: ")


def test_a_typed_field_is_named_as_on_the_wire() -> None:
    with pytest.raises(ValidationError, match=r"\$\.initialCapital: .*2 values"):
        encode_request(config(initial_capital=np.array([1.0, 2.0])))


def test_a_list_within_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValidationError, match="nested in more than 32 levels"):
        encode_request(config(parameters={"p": endless}))


@given(VALUES)
def test_what_messagepack_has_is_sent_as_it_is(value: Any) -> None:
    assert msgpack.unpackb(encode_request(config(parameters={"p": value})))["parameters"]["p"] == value


def test_times_within_free_maps_are_text() -> None:
    times = UserDict({"a": [date(2024, 1, 2), datetime(2024, 1, 2, 3)], "b": ("x", None)})  # noqa: DTZ001
    assert with_times_as_text(times) == {"a": ["2024-01-02T00:00:00Z", "2024-01-02T03:00:00Z"], "b": ["x", None]}
