"""This module puts hostile values into messages that are otherwise valid: each kind of value into each field.

Types and fields come from the contracts by reflection, so that a new contract is covered by itself. It opens no socket.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import msgspec
from msgspec import inspect as types

from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol import worker_channel
from backtestr_protocol.envelopes import Envelope
from backtestr_protocol.message_types import REQUESTS
from backtestr_protocol.messages import StreamOptions
from support.protocol.independent import REQUEST, Fields, signature

# The type of a request or note, the field that has a hostile value, and the message.
Case = tuple[str, str, Fields]

NUMBERS: list[Any] = [
    *(0, 1, -1, 2**31 - 1, 2**31, 2**32, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**31), -(2**53), -(2**63)),
    *(0.0, -0.0, 0.5, 1.0, 5e-324, -5e-324, 1e-300, 1e300, 1e308, -1e308, 1.7976931348623157e308),
    *(float("inf"), float("-inf"), float("nan")),
    *(
        -2_208_988_800_001,
        -2_208_988_800_000,
        7_258_118_400_000,
        7_258_118_400_001,
        7_258_118_400_000.0,
        253_402_300_800_000,
    ),
]
TEXTS: list[Any] = [
    *("", " ", "\0", "a\0b", "\n", "a\n", "\r\n", "\x1b[2J", "\x7f", "\ufeff", "\u202e", "\ufffe", "é", "e\u0301"),
    *("🙂", "ﬀ", "İ", "nan", "None", "true", "0", "-1", "1e308", "%s%n", "{0}", "$(id)", "'; DROP TABLE jobs; --"),
    *("../../etc/passwd", "/", ".", "..", "~", "a/b", "a\\b", "-", "--help", "con", "x" * 64, "x" * 65, "x" * 257),
    *("x" * 5_000, "🙂" * 300, "x" * 100_000, "a.b.c", ".", "..a", "a..", "sma_cross@", "@", "orders.", "prices.."),
]
CONTAINERS: list[Any] = [
    *(None, True, False, b"", b"\xff" * 20, [], {}, [[]], [{}], [None], {"": None}, {"a": {"b": {"c": []}}}),
    *([0] * 2_000, ["x"] * 2_000, [[]] * 300, {str(number): number for number in range(300)}),
    [[[0] * 30] * 30] * 30,
]
# MessagePack that is whole, and that other encoders would not write.
RAW: list[Any] = [
    msgspec.Raw(one)
    for one in (
        b"\xa2\xff\xfe",  # text that is not UTF-8, a lone surrogate, an overlong NUL
        b"\xa3\xed\xa0\x80",
        b"\xa2\xc0\x80",
        b"\xca\x7f\xc0\x00\x00",  # float32: NaN, infinity
        b"\xca\x7f\x80\x00\x00",
        b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x01",  # a signalling NaN
        b"\xcf\x00\x00\x00\x00\x00\x00\x00\x01",  # 1 in nine bytes
        b"\xd4\x01\x00",  # extensions; time stamps: valid, out of range, of an odd size
        b"\xd6\xff\x00\x00\x00\x01",
        b"\xd7\xff" + b"\xff" * 8,
        b"\xc7\x0c\xff" + b"\x7f" * 12,
        b"\xd4\xff\x01",
        b"\x81\x01\x02",  # maps with keys that are no text, the same key twice
        b"\x81\xc0\x01",
        b"\x81\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00\x01",
        b"\x81\x91\x01\x02",
        b"\x81\x80\x01",
        b"\x82\xa1a\x01\xa1a\x02",
        b"\xdd\x00\x00\x00\x00",
        *(b"\x91" * depth + b"\xc0" for depth in (31, 33, 100, 500)),
        *(b"\x81\xa1a" * depth + b"\xc0" for depth in (33, 400)),
    )
]
# Nested so deeply that a decoder may not read the envelope around it, and then the request has no id.
DEEP: list[Any] = [
    msgspec.Raw(one)
    for one in (*(b"\x91" * depth + b"\xc0" for depth in range(900, 1000, 6)), b"\x81\xa1a" * 940 + b"\xc0")
]
HOSTILE: list[Any] = [*NUMBERS, *TEXTS, *CONTAINERS, *RAW, *DEEP]
# A stream message, and data, that any client can decode.
ANYTHING = msgspec.msgpack.encode({"type": "Anything", "data": {}})

# Valid values of fields whose type does not tell them, so that a message gets further than its first check.
HINTS: Mapping[str, Any] = {
    "symbol": "SYNTH",
    "symbols": ["SYNTH"],
    "timeframe": "1d",
    "fromTimeframe": "1d",
    "toTimeframe": "1w",
    "algorithmId": "sma_cross",
    "backtestId": "no-such-backtest",
    "replayId": "no-such-replay",
    "key": "hostile.key",
    "prefix": "hostile.",
    "topic": "system.status",
    "path": "/no/such/file.csv",
    "format": "csv",
    "timeZone": "UTC",
    "startDate": "2022-01-03",
    "endDate": "2022-01-20",
    "clientId": "hostile",
    "protocolVersions": [1],
    "initialCapital": 100_000.0,
    "parameters": {},
    "options": {},
    "name": "SMA",
    "source": "raise ValueError('hostile')",
}
# Those that would change the stored series, and those without which a request is refused before anything is done.
HINTS_OF: Mapping[str, Fields] = {
    "DeleteMarketData": {"symbol": "NO SUCH"},
    "ResampleMarketData": {"symbol": "NO SUCH"},
    "ImportMarketData": {"symbol": "NO SUCH"},
    "StartPriceReplay": {"barsPerSecond": 10_000.0},
    "GetMarketData": {"limit": 5},
    "PublishPrices": {"symbol": "HOSTILE"},
}
# Field names that no contract has: readers ignore them.
EXTRA = ("fromTheFuture", "", "__class__", "type", "\0", "x" * 5_000)
# Stands for the absence of a field.
MISSING = object()


def requests() -> Iterator[Case]:
    """Yield every request type with every hostile value in every field, and without each field."""
    for name, row in REQUESTS.items():
        yield from _cases(name, _struct(row.data), HINTS_OF.get(name, {}))


def random_requests(seed: int, count: int) -> Iterator[Case]:
    """Yield `count` of those, with up to three hostile fields each."""
    yield from _random_cases(
        random.Random(seed),
        count,
        [(name, _struct(row.data), HINTS_OF.get(name, {})) for name, row in REQUESTS.items()],
    )


def notes(hints: Fields) -> Iterator[Case]:
    """Yield every note of a worker with every hostile value in every field; `hints` are valid values."""
    for struct in get_args(worker_channel.ToBroker):
        yield from _cases(struct.__name__, _struct(struct), {**hints, "type": struct.__name__})


def random_notes(seed: int, count: int, hints: Fields) -> Iterator[Case]:
    """Yield `count` of those, with up to three hostile fields each."""
    rows = [
        (struct.__name__, _struct(struct), {**hints, "type": struct.__name__})
        for struct in get_args(worker_channel.ToBroker)
    ]
    yield from _random_cases(random.Random(seed), count, rows)


def envelopes(valid: Fields) -> Iterator[tuple[str, Fields]]:
    """Yield the name of a field and an envelope with a hostile value in it, for every field but `payload.data`."""
    described = _struct(Envelope)
    for field in described.fields:
        for value in [*HOSTILE, MISSING]:
            yield field.encode_name, _with(valid, described, (field.encode_name,), value)
    for value in [*HOSTILE, MISSING]:
        yield "payload.type", {**valid, "payload": _without_missing({**valid["payload"], "type": value})}


def envelope(type_name: str, data: Any, message_id: str, timestamp: int) -> Fields:
    """Return the envelope of a request outside a session."""
    return {
        "id": message_id,
        "timestamp": timestamp,
        "schemaVersion": 1,
        "messageType": "Request",
        "payload": {"type": type_name, "data": data},
    }


def request_frames(key: bytes, fields: Fields) -> list[bytes]:
    """Return signed frames; `fields` may have `msgspec.Raw` in them, which msgpack cannot write."""
    frames = [msgspec.msgpack.encode(fields)]
    return [signature(key, REQUEST, frames), *frames]


def note_frames(note: Fields, payload: list[bytes]) -> list[bytes]:
    """Return the frames of a worker that has proved itself; `note` may have `msgspec.Raw` in it."""
    return [msgspec.msgpack.encode(note), *payload]


# --- how messages are made ---


def _cases(name: str, described: types.StructType, hints: Fields) -> Iterator[Case]:
    valid = _valid(described, hints)
    yield name, "", valid
    for path in _paths(described):
        for value in [*HOSTILE, MISSING]:
            yield name, ".".join(map(str, path)), _with(valid, described, path, value)
    for value in HOSTILE:
        yield name, "extra", {**dict.fromkeys(EXTRA, value), **valid}


def _random_cases(
    generator: random.Random, count: int, rows: list[tuple[str, types.StructType, Fields]]
) -> Iterator[Case]:
    paths = {name: list(_paths(described)) for name, described, _ in rows}
    for _ in range(count):
        name, described, hints = generator.choice(rows)
        fields, changed = _valid(described, hints), []
        for _ in range(generator.choice((1, 1, 1, 2, 3)) if paths[name] else 0):
            path = generator.choice(paths[name])
            value = generator.choice(generator.choice((NUMBERS, TEXTS, CONTAINERS, RAW, [MISSING])))
            fields = _with(fields, described, path, value)
            changed.append(".".join(map(str, path)))
        yield name, ",".join(changed), fields


def _struct(struct: type[msgspec.Struct]) -> types.StructType:
    described = types.type_info(struct)
    assert isinstance(described, types.StructType)
    return described


def _plain(described: types.Type) -> list[types.Type]:
    """Return the alternatives of a type, without descriptions."""
    match described:
        case types.Metadata():
            return _plain(described.type)
        case types.UnionType():
            return [inner for one in described.types for inner in _plain(one)]
    return [described]


def _valid(described: types.StructType, hints: Fields) -> Fields:
    """Return a map with the required fields, and those of `hints`."""
    known = {field.encode_name for field in described.fields}
    fields = {
        field.encode_name: _value(field.type, field.encode_name, hints) for field in described.fields if field.required
    }
    return {**fields, **{name: value for name, value in hints.items() if name in known or name == "type"}}


def _value(described: types.Type, name: str, hints: Fields) -> Any:
    if name in hints or name in HINTS:
        return hints.get(name, HINTS.get(name))
    match _plain(described)[0]:
        case types.StructType() as struct:
            return _valid(struct, {key: value for key, value in hints.items() if key != "type"})
        case types.LiteralType(values=values):
            return values[0]
        case types.ListType(item_type=inner):
            return [_value(inner, "", hints)]
        case types.DictType():
            return {}
        case types.IntType() | types.FloatType():
            return 1
        case types.StrType():
            return "hostile"
        case types.BoolType():
            return True
        case types.BytesType():
            return b""
    return None


def _paths(described: types.StructType) -> Iterator[tuple[str | int, ...]]:
    """Yield the way to every field, at all depths: names of fields, 0 for the item of a list, keys of maps."""
    for field in described.fields:
        name = field.encode_name
        yield (name,)
        for one in _plain(field.type):
            match one:
                case types.StructType():
                    yield from ((name, *path) for path in _paths(one))
                case types.ListType(item_type=item):
                    yield (name, 0)
                    for inner in _plain(item):
                        if isinstance(inner, types.StructType):
                            yield from ((name, 0, *path) for path in _paths(inner))
                case types.DictType(value_type=value):
                    yield from ((name, *key.split(".")) for key in _keys(name))
                    for inner in _plain(value):
                        if isinstance(inner, types.StructType):
                            yield from ((name, "key", *path) for path in _paths(inner))


def option_names() -> list[str]:
    """Return the names of all options of a backtest, those of its streams as `streams.prices`."""
    streams = [f"streams.{one}" for one in map(_camel, StreamOptions.__struct_fields__)]
    return [*map(_camel, Conventions.__struct_fields__), "pace", "preset", "streams", *streams]


def _keys(name: str) -> list[str]:
    """Return keys of a map by its name: those that its consumer knows, where its values are of any kind."""
    if name == "options":
        return option_names()
    return ["fast", "slow", "timeperiod"] if name == "parameters" else ["key", ""]


def _with(fields: Fields, described: types.StructType, path: tuple[str | int, ...], value: Any) -> Fields:
    """Return `fields` with `value` at `path`, with valid values on the way there."""
    name, rest = str(path[0]), path[1:]
    if not rest:
        return _without_missing({**fields, name: value})
    (field,) = (one for one in described.fields if one.encode_name == name)
    for one in _plain(field.type):
        match one:
            case types.StructType():
                return {**fields, name: _with(_valid(one, {}), one, rest, value)}
            case types.ListType(item_type=item):
                (inner,) = _plain(item)[:1]
                if len(rest) == 1:
                    return {**fields, name: [] if value is MISSING else [value]}
                assert isinstance(inner, types.StructType)
                return {**fields, name: [_with(_valid(inner, {}), inner, rest[1:], value)]}
            case types.DictType(value_type=inner_type):
                (inner, *_) = _plain(inner_type)
                key = str(rest[0])
                if isinstance(inner, types.StructType) and len(rest) > 1:
                    return {**fields, name: {key: _with(_valid(inner, {}), inner, rest[1:], value)}}
                nested = value if len(rest) == 1 else _without_missing({str(rest[1]): value})
                return {**fields, name: _without_missing({key: nested})}
    raise AssertionError(f"{path}: no hostile values are known for this type; add some")


def _without_missing(fields: Fields) -> Fields:
    return {name: value for name, value in fields.items() if value is not MISSING}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
