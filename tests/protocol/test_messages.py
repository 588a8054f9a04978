"""Contracts are decoded as they were encoded, here and by another implementation, and mistakes are named."""

from __future__ import annotations

from typing import Any, TypeVar

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_protocol import (
    evaluation_messages,
    import_messages,
    messages,
    result_messages,
    stream_messages,
    system_status,
)
from backtestr_protocol.codec import decode, validation_error
from backtestr_protocol.connection import Connection
from backtestr_protocol.envelopes import Envelope
from backtestr_protocol.errors import ErrorData, MessageError, ValidationError
from backtestr_protocol.message_types import REQUESTS, STREAMED
from backtestr_protocol.messages import Contract
from backtestr_protocol.secret import decode_secret, encode_secret
from support.protocol.strategies import WILD_BYTES, instances, laws

T = TypeVar("T")

CONTRACTS: list[type[msgspec.Struct]] = sorted(
    {
        Connection,
        ErrorData,
        messages.StreamOptions,
        *STREAMED.values(),
        *(side for row in REQUESTS.values() for side in (row.data, row.success)),
    },
    key=lambda struct: struct.__name__,
)
of_every_contract = pytest.mark.parametrize("struct", CONTRACTS, ids=lambda struct: struct.__name__)

# The connection file has a key, which these hooks write and read.
encode = msgspec.msgpack.Encoder(enc_hook=encode_secret).encode

CONFIG: dict[str, Any] = {
    "algorithmId": "sma_cross",
    "symbol": "GOOG",
    "startDate": "2004-08-19",
    "endDate": "2013-03-02",
    "initialCapital": 10_000,
    "timeframe": "1d",
    "commission": 0.001,
    "slippage": 0,
    "parameters": {},
}


def decoder(struct: type[T]) -> msgspec.msgpack.Decoder[T]:
    return msgspec.msgpack.Decoder(struct, dec_hook=decode_secret)


def decoded(struct: type[msgspec.Struct], value: Any) -> Any:
    return decode(decoder(struct), msgpack.packb(value))


def refusal(struct: type[msgspec.Struct], value: Any) -> tuple[str, str]:
    """Return the message and the path of the error that `value` raises."""
    with pytest.raises(ValidationError) as caught:
        decoded(struct, value)
    assert caught.value.details is not None
    return str(caught.value), caught.value.details["path"]


def test_every_contract_is_covered() -> None:
    public = {
        one
        for module in (
            evaluation_messages,
            import_messages,
            messages,
            result_messages,
            stream_messages,
            system_status,
        )
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, Contract) and one is not Contract
    }
    nested = {
        messages.AlgorithmProblem,
        messages.Finding,
        messages.LookAhead,
        messages.CheckedSample,
        messages.ParameterInfo,
        messages.SeriesInfo,
        messages.SeriesGap,
        import_messages.DroppedRows,
        messages.IndicatorConfig,
        messages.TableRef,
        messages.TableFile,
        messages.TableColumn,
        messages.MissedMessage,
        stream_messages.EquityCurvePoint,
        result_messages.StoredResult,
        result_messages.PrunedResult,
        result_messages.DiskUsage,
        system_status.MemoryUsage,
        system_status.WorkerStatus,
        system_status.ClientLoad,
        system_status.Connections,
        system_status.RateStatus,
        system_status.TopicLoad,
        system_status.ClassLoad,
        system_status.Streams,
        system_status.BatchingStatus,
        system_status.CompressionStatus,
        system_status.CacheStatus,
        stream_messages.Column,
    }
    assert public - nested <= set(CONTRACTS)


@of_every_contract
@laws
@given(data=st.data())
def test_round_trip(struct: type[msgspec.Struct], data: st.DataObject) -> None:
    value = data.draw(instances(struct))
    body = encode(value)
    again = decode(decoder(struct), body)
    assert again == value
    assert encode(again) == body


@of_every_contract
@laws
@given(data=st.data())
def test_another_implementation_reads_the_same(struct: type[msgspec.Struct], data: st.DataObject) -> None:
    value = data.draw(instances(struct))
    body = encode(value)
    assert msgpack.unpackb(body, strict_map_key=False) == msgspec.msgpack.decode(body)
    assert decode(decoder(struct), msgpack.packb(msgpack.unpackb(body))) == value


@of_every_contract
def test_keys_are_camel_case_and_frozen(struct: type[msgspec.Struct]) -> None:
    assert struct.__struct_config__.frozen
    for key in struct.__struct_encode_fields__:
        assert key.isalnum()
        assert key[0].islower()


@of_every_contract
@laws
@given(data=st.data())
def test_unknown_keys_are_ignored(struct: type[msgspec.Struct], data: st.DataObject) -> None:
    value = data.draw(instances(struct))
    fields = {"fromTheFuture": [1, {"a": None}], **msgspec.msgpack.decode(encode(value)), "andMore": 1.5}
    assert decode(decoder(struct), encode(fields)) == value


@of_every_contract
@laws
@given(data=st.data())
def test_a_missing_field_is_named(struct: type[msgspec.Struct], data: st.DataObject) -> None:
    required = [one.encode_name for one in msgspec.structs.fields(struct) if one.required]
    value = data.draw(instances(struct))
    for name in required:
        fields = {key: inner for key, inner in msgspec.msgpack.decode(encode(value)).items() if key != name}
        assert refusal(struct, fields) == (f"$.{name}: required, and missing", f"$.{name}")


@pytest.mark.parametrize("struct", [*CONTRACTS, Envelope], ids=lambda struct: struct.__name__)
@laws
@given(body=WILD_BYTES)
def test_hostile_bytes_raise_message_errors_only(struct: type[msgspec.Struct], body: bytes) -> None:
    try:
        value = decode(decoder(struct), body)
    except MessageError as error:
        assert len(encode(error.to_data(component="test", timestamp=0))) > 100  # noqa: PT017 (either outcome is right)
    else:
        assert isinstance(value, struct)


HOSTILE_VALUES = {
    "a map as key": b"\x81\x80\x01",
    "an extension as key": b"\x81\xd4\x01\x01\x01",
    "a time stamp out of range": b"\xd7\xff" + b"\xff" * 8,
    "a time stamp of one byte": b"\xd4\xff\x01",
    "the opcode that is never used": b"\xc1",
    "100,000 arrays": b"\x91" * 100_000 + b"\xc0",
    "100,000 maps": b"\x81\x01" * 100_000 + b"\xc0",
    "an array larger than memory": b"\xdd\xff\xff\xff\xff",
    "a map larger than memory": b"\xdf\xff\xff\xff\xff",
    "a string longer than the message": b"\xdb\xff\xff\xff\xff",
    "text that is not UTF-8": b"\xa2\xff\xfe",
}


@pytest.mark.parametrize("hostile", HOSTILE_VALUES.values(), ids=HOSTILE_VALUES.keys())
def test_hostile_values_inside_any(hostile: bytes) -> None:
    body = msgpack.packb({**CONFIG, "parameters": {"fast": "@@"}}).replace(b"\xa2@@", hostile)
    with pytest.raises(MessageError):
        decode(msgspec.msgpack.Decoder(messages.BacktestConfig), body)


@pytest.mark.parametrize(
    ("struct", "value", "path", "words"),
    [
        (messages.BacktestConfig, {**CONFIG, "symbol": 7}, "$.symbol", ["expected `str", "got `int`"]),
        (messages.BacktestConfig, [CONFIG], "$", ["expected `object`", "got `array`"]),
        (messages.BacktestConfig, {**CONFIG, "parameters": {1: 2}}, "$.parameters", ["a key: expected `str`"]),
        (messages.BacktestConfig, {**CONFIG, "commission": "free"}, "$.commission", ["expected `float`", "got `str`"]),
        (stream_messages.Watermarks, {"topics": {"orders.x": "1"}}, "$.topics[...]", ["expected `int`", "got `str`"]),
        (
            messages.GetMarketData,
            {"symbol": "A", "timeframe": "1d", "indicators": [{"name": "SMA"}, {"name": 1}]},
            "$.indicators[1].name",
            ["expected `str`"],
        ),
        (
            messages.GetBacktestResults,
            {"backtestId": "x", "tables": ["equity", "trade"]},
            "$.tables[1]",
            ["expected one of 'equity', 'orders', 'positions', 'trades'", "'trade' came", "did you mean 'trades'?"],
        ),
        (
            messages.ListBacktests,
            {"status": "done"},
            "$.status",
            ["'completed', 'failed', 'paused', 'queued', 'running', 'stopped'", "'done' came"],
        ),
        (
            messages.BacktestList,
            {"backtests": [{"error": {"code": "BUSSY"}}]},
            "$.backtests[0].error.code",
            ["did you mean 'BUSY'?"],
        ),
        (messages.FetchMissed, {"topic": "orders.x", "fromSeq": 0}, "$.fromSeq", [">= 1"]),
        (messages.ListBacktests, {"limit": 0}, "$.limit", [">= 1"]),
        (messages.Hello, {"clientId": "", "protocolVersions": [1]}, "$.clientId", ["length >= 1"]),
        (messages.Hello, {"clientId": "x" * 129, "protocolVersions": [1]}, "$.clientId", ["length <= 128"]),
    ],
)
def test_mistakes_are_named(struct: type[msgspec.Struct], value: Any, path: str, words: list[str]) -> None:
    message, where = refusal(struct, value)
    assert where == path
    assert message.startswith(f"{path}: ")
    for word in words:
        assert word in message


def test_received_values_are_quoted_up_to_a_bound() -> None:
    message, _ = refusal(messages.ListBacktests, {"status": "x" * 1_000_000})
    assert len(message) < 600


def test_a_message_of_unknown_shape_is_still_a_validation_error() -> None:
    error = validation_error("Something that msgspec may say one day")
    assert error.details == {"path": "$"}
    assert str(error) == "$: something that msgspec may say one day"


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "a.b", "", "x" * 65, "new\n", "ü", "a b"])
def test_a_backtest_id_is_fit_for_topics_and_file_names(name: str) -> None:
    _, path = refusal(messages.BacktestConfig, {**CONFIG, "backtestId": name})
    assert path == "$.backtestId"


@pytest.mark.parametrize("name", ["5f0c1d2e-3b4a-4958-8776-655443322110", "a", "x" * 64, "run_7"])
def test_a_backtest_id_may_be_chosen(name: str) -> None:
    assert decoded(messages.BacktestConfig, {**CONFIG, "backtestId": name}).backtest_id == name


TIMES = [
    (row.data, field)
    for row in REQUESTS.values()
    for field in msgspec.structs.fields(row.data)
    if field.encode_name == "timestamp" or field.encode_name.endswith("Time")
]


@pytest.mark.parametrize(("struct", "field"), TIMES, ids=lambda one: getattr(one, "__name__", ""))
@laws
@given(data=st.data())
def test_times_in_requests_may_be_float64(
    struct: type[msgspec.Struct], field: msgspec.structs.FieldInfo, data: st.DataObject
) -> None:
    fields = msgspec.msgpack.decode(encode(data.draw(instances(struct))))
    value = getattr(decoded(struct, {**fields, field.encode_name: 1_790_000_000_000.0}), field.name)
    assert value == 1_790_000_000_000
    assert type(value) is int
    assert refusal(struct, {**fields, field.encode_name: 0.5})[1] == f"$.{field.encode_name}"


def test_there_are_times_in_requests() -> None:
    assert {field.encode_name for _, field in TIMES} == {"startTime", "endTime"}


def test_allowed_values_are_listed_inside_maps_too() -> None:
    with pytest.raises(ValidationError, match=r"^\$\[\.\.\.\]: expected one of 'buy', 'sell'; 'by' came; did you mean"):
        decode(msgspec.msgpack.Decoder(dict[str, messages.Side]), msgpack.packb({"a": "by"}))
