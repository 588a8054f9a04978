"""A connection file like that of the protocol page is read, and any other raises one kind of error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_protocol.codec import REQUEST, Signer
from backtestr_protocol.connection import Connection, decode_connection, encode_connection
from backtestr_protocol.errors import MessageError
from backtestr_protocol.secret import Secret
from backtestr_protocol.topics import SOCKETS
from support.protocol.strategies import instances, laws


def changed(text: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(text), **changes}).encode()


def test_the_example_of_the_protocol_page_is_read(connection_text: bytes) -> None:
    connection = decode_connection(connection_text)
    assert connection.endpoints.requests == "ipc:///run/backtestr/requests"
    assert [connection.endpoints.of(name) for name in SOCKETS] == [f"ipc:///run/backtestr/{name}" for name in SOCKETS]
    frames = [b"envelope"]
    assert connection.signer().sign(REQUEST, frames) == Signer(bytes(range(32))).sign(REQUEST, frames)
    assert json.loads(encode_connection(connection)) == json.loads(connection_text)


@laws
@given(connection=instances(Connection), key=st.binary(min_size=32, max_size=32))
def test_round_trip_and_bad_keys(connection: Connection, key: bytes) -> None:
    text = encode_connection(connection)
    signed = changed(text, signing={"algorithm": "hmac-sha256", "key": key.hex()})
    again = decode_connection(signed)
    assert (again.instance_id, again.endpoints, again.curve) == (
        connection.instance_id,
        connection.endpoints,
        connection.curve,
    )
    assert again.signing.key == Secret(key)


@pytest.mark.parametrize("key", ["", "00", "zz" * 32, "00" * 31, "00" * 33])
def test_a_value_that_is_no_key_is_refused(connection_text: bytes, key: str) -> None:
    with pytest.raises(MessageError, match=r"signing\.key"):
        decode_connection(changed(connection_text, signing={"algorithm": "hmac-sha256", "key": key}))


@laws
@given(text=st.binary(max_size=50) | st.text(max_size=50).map(str.encode))
def test_another_file_raises_message_errors_only(text: bytes) -> None:
    with pytest.raises(MessageError, match="connection file"):
        decode_connection(text)


def test_another_algorithm_is_refused(connection_text: bytes) -> None:
    with pytest.raises(MessageError, match="connection file"):
        decode_connection(changed(connection_text, signing={"algorithm": "none", "key": "00" * 32}))
