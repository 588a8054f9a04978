"""Values of the shared state have one form and one checksum, whatever encoded them; other objects are refused."""

from __future__ import annotations

import hashlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_protocol.errors import ValidationError
from backtestr_protocol.state_values import CHECKSUM_CHARACTERS, NIL, checksum, same_value_bytes, value_bytes
from support.protocol.strategies import VALUES, WILD_BYTES, laws


def shuffled(value: Any, data: st.DataObject) -> Any:
    """Return the value with the keys of its maps in another order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key], data) for key in data.draw(st.permutations(list(value)))}
    return [shuffled(one, data) for one in value] if isinstance(value, list) else value


@laws
@given(value=VALUES, data=st.data())
def test_the_order_of_keys_does_not_change_the_bytes(value: Any, data: st.DataObject) -> None:
    assert value_bytes(shuffled(value, data)) == value_bytes(value)


@laws
@given(value=VALUES)
def test_the_form_is_stable_and_keeps_the_value(value: Any) -> None:
    encoded = value_bytes(value)
    assert same_value_bytes(encoded) == encoded == same_value_bytes(msgpack.packb(value))
    assert msgpack.unpackb(encoded) == value


@laws
@given(value=VALUES)
def test_the_checksum_is_the_start_of_sha_256(value: Any) -> None:
    encoded = value_bytes(value)
    assert checksum(encoded) == hashlib.sha256(encoded).hexdigest()[:CHECKSUM_CHARACTERS]


def test_a_deleted_key_has_the_bytes_of_nil() -> None:
    assert value_bytes(None) == NIL


@pytest.mark.parametrize(
    "value", [object(), 2**64, -(2**63) - 1, {1: 2}, {"a": {None: 1}}, 1j], ids=lambda one: type(one).__name__
)
def test_objects_that_are_no_values_are_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match=r"^\$\.value: .*a value is nil, a bool, an int of 64 bits") as caught:
        value_bytes(value)
    assert caught.value.details == {"path": "$.value"}


@laws
@given(encoded=WILD_BYTES)
def test_hostile_bytes_raise_validation_errors_only(encoded: bytes) -> None:
    try:
        once = same_value_bytes(encoded)
    except ValidationError:
        return
    assert same_value_bytes(once) == once
