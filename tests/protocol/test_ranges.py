"""Every number, text, list and map of a request and of a worker's note has a range, and an error says what it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, get_args

import msgpack
import msgspec
import pytest
from msgspec import inspect as types

from backtestr_protocol import ranges, worker_channel
from backtestr_protocol.codec import decode
from backtestr_protocol.envelopes import Envelope
from backtestr_protocol.errors import ErrorData, ValidationError
from backtestr_protocol.message_types import REQUESTS
from backtestr_protocol.messages import GetMarketData, ListBacktests, ParameterInfo
from backtestr_protocol.price_messages import FeedPrice
from backtestr_protocol.ranges import EARLIEST_MS, LATEST_MS, MAX_INTEGER, check_levels

RECEIVED: list[type[msgspec.Struct]] = [
    *dict.fromkeys(row.data for row in REQUESTS.values()),
    Envelope,
    *get_args(worker_channel.ToBroker),
    *get_args(worker_channel.ToWorker),
    worker_channel.OpenReplay,
    worker_channel.OpenedReplay,
]
# An error may be on disk, from an earlier version, at any length; bounds of parameters may be infinite.
WITHOUT: tuple[type[msgspec.Struct], ...] = (ErrorData, ParameterInfo)
PRICE = {"symbol": "S", "timestamp": 0, "bid": 1.0, "ask": 1.0, "last": 1.0, "volume": 1.0, "timeframe": "tick"}


def values(described: types.Type, path: str) -> Iterator[tuple[str, types.Type]]:
    """Yield every type within a type, with the way to it."""
    match described:
        case types.Metadata():
            yield from values(described.type, path)
        case types.UnionType():
            for one in described.types:
                yield from values(one, path)
        case types.StructType() if described.cls not in WITHOUT:
            for field in described.fields:
                yield from values(field.type, f"{path}.{field.encode_name}")
        case types.ListType():
            yield path, described
            yield from values(described.item_type, f"{path}[0]")
        case types.DictType():
            yield path, described
            yield from values(described.key_type, f"{path} key")
            yield from values(described.value_type, f"{path}[...]")
        case _:
            yield path, described


@pytest.mark.parametrize("struct", RECEIVED, ids=lambda struct: struct.__name__)
def test_every_value_that_is_received_has_a_range(struct: type[msgspec.Struct]) -> None:
    for path, one in values(types.type_info(struct), struct.__name__):
        match one:
            case types.IntType():
                assert one.ge is not None, path
                assert one.le is not None, path
                assert -MAX_INTEGER <= one.ge <= one.le <= MAX_INTEGER, path
            case types.FloatType():
                assert one.ge is not None, path
                assert one.le is not None or one.lt is not None, path
            case types.StrType():
                assert one.max_length is not None or "{" in (one.pattern or ""), path
            case types.ListType() | types.DictType():
                assert one.max_length is not None, path


def test_times_are_those_of_three_centuries() -> None:
    assert datetime.fromtimestamp(EARLIEST_MS / 1000, UTC) == datetime(1900, 1, 1, tzinfo=UTC)
    assert datetime.fromtimestamp(LATEST_MS / 1000, UTC) == datetime(2200, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e308, -1e308])
@pytest.mark.parametrize("field", ["bid", "ask", "last", "volume", "timestamp"])
def test_numbers_are_finite(field: str, number: float) -> None:
    with pytest.raises(ValidationError) as caught:
        decode(msgspec.msgpack.Decoder(FeedPrice), msgpack.packb({**PRICE, field: number}))
    assert caught.value.details == {"path": f"$.{field}"}


@pytest.mark.parametrize(
    ("struct", "fields", "message"),
    [
        (
            GetMarketData,
            {"symbol": "S", "timeframe": "1d", "startTime": 1e308},
            "$.startTime: expected `float` <= 7258118400000.0; a time is in milliseconds since 1970-01-01 UTC",
        ),
        (GetMarketData, {"symbol": "", "timeframe": "1d"}, "$.symbol: expected `str` of length >= 1; a symbol is 1 to"),
        (
            ListBacktests,
            {"limit": 2**63},
            f"$.limit: expected `int` <= {MAX_INTEGER}; a whole number of up to 2^53 - 1",
        ),
        (ListBacktests, {"limit": "7"}, "$.limit: expected `int | null`, got `str`; a whole number of up to 2^53 - 1"),
        (FeedPrice, {**PRICE, "volume": -1.0}, "$.volume: expected `float` >= 0.0; a finite number, 0 or more"),
    ],
)
def test_an_error_says_what_the_range_is(struct: type[msgspec.Struct], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        decode(msgspec.msgpack.Decoder(struct), msgpack.packb(fields))
    assert caught.value.message.startswith(message)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_a_map_of_any_values_is_bounded_in_levels_and_values() -> None:
    check_levels({}, "$.options")
    check_levels({"a": nested(ranges.MAX_LEVELS - 1), "b": {"c": [1, 2]}}, "$.options")
    check_levels({"a": list(range(ranges.MAX_VALUES - 1))}, "$.options")
    with pytest.raises(ValidationError, match=r"^\$\.options: nested in more than 32 levels") as caught:
        check_levels({"a": nested(ranges.MAX_LEVELS)}, "$.options")
    assert caught.value.details == {"path": "$.options"}
    with pytest.raises(ValidationError, match=r"^\$\.options: more than 10,000 values"):
        check_levels({"a": list(range(ranges.MAX_VALUES))}, "$.options")
    with pytest.raises(ValidationError, match="nested"):
        check_levels({"a": [{"b": (nested(40),)}]}, "$.options")


def test_nested_parameters_of_a_request_are_refused_with_their_path() -> None:
    fields = {
        "symbol": "S",
        "timeframe": "1d",
        "indicators": [{"name": "SMA"}, {"name": "SMA", "parameters": {"a": nested(40)}}],
    }
    with pytest.raises(ValidationError) as caught:
        decode(msgspec.msgpack.Decoder(GetMarketData), msgpack.packb(fields))
    assert caught.value.details == {"path": "$.indicators[1].parameters"}
