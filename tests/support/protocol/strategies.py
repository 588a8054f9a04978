"""This module has Hypothesis strategies for contracts, derived from their types, and for arbitrary bytes."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgpack
import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from msgspec import inspect as types

from backtestr_protocol.codec import encode
from backtestr_protocol.secret import Secret

# Few examples each, since the laws are tested for every contract; no deadline, since the machine may be busy.
laws = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT64 = st.floats(allow_nan=False)
TEXT = st.text(max_size=20)

_leaves = st.none() | st.booleans() | INT64 | FLOAT64 | TEXT
VALUES: st.SearchStrategy[Any] = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)

_keys = st.none() | st.booleans() | INT64 | FLOAT64 | TEXT | st.binary(max_size=8)
_extensions = st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
# All that MessagePack can express, as bytes: odd keys, bin, extensions and invalid timestamps.
WILD_BYTES: st.SearchStrategy[bytes] = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        _leaves | st.floats() | st.binary(max_size=8) | _extensions,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3),
        max_leaves=10,
    ).map(msgpack.packb),
    st.binary(min_size=1, max_size=12).map(lambda data: b"\x81\xa1x\xc7" + bytes([len(data)]) + b"\xff" + data),
)


@cache
def instances(struct: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Return a strategy of valid instances of a contract, within its bounds and patterns."""
    described = types.type_info(struct)
    assert isinstance(described, types.StructType)
    return _of(described)


def _of(described: types.Type) -> st.SearchStrategy[Any]:
    match described:
        case types.StructType():
            required = {one.name: _of(one.type) for one in described.fields if one.required}
            optional = {one.name: _of(one.type) for one in described.fields if not one.required}
            return st.fixed_dictionaries(required, optional=optional).map(lambda fields: described.cls(**fields))
        case types.Metadata():
            return _of(described.type)
        case types.UnionType():
            return st.one_of([_of(one) for one in described.types])
        case types.LiteralType():
            return st.sampled_from(described.values)
        case types.ListType():
            return st.lists(_of(described.item_type), max_size=min(3, described.max_length or 3))
        case types.DictType():
            return st.dictionaries(_of(described.key_type), _of(described.value_type), max_size=3)
        case types.StrType(pattern=str(pattern)):
            longest = described.max_length or 2**31
            return st.from_regex(pattern, fullmatch=True).filter(lambda text: len(text) <= longest)
        case types.StrType():
            return st.text(min_size=described.min_length or 0, max_size=min(described.max_length or 20, 20))
        case types.IntType():
            return st.integers(
                described.ge if described.ge is not None else -(2**63),
                described.le if described.le is not None else 2**63 - 1,
            )
        case types.FloatType(multiple_of=float()):
            assert described.ge is not None
            assert described.le is not None
            return st.integers(int(described.ge), int(described.le)).map(float)
        case types.FloatType(ge=low, le=high, lt=below):
            highest = high if high is not None else below
            return st.floats(low, highest, allow_nan=False, exclude_max=below is not None)
        case types.BoolType():
            return st.booleans()
        case types.NoneType():
            return st.none()
        case types.CustomType(cls=kind) if kind is Secret:
            return st.binary(min_size=32, max_size=32).map(Secret)
        case types.BytesType():
            return st.binary(max_size=20)
        case types.RawType():
            return VALUES.map(lambda value: msgspec.Raw(encode(value)))
        case types.AnyType():
            return VALUES
    raise AssertionError(f"no strategy is known for {described}; add one")
