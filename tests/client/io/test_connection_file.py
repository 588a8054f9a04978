"""The connection file is read, its changes are noticed, and every reason against connecting is a NetworkError."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backtestr.io.connection_file import ConnectionFile
from backtestr_protocol import PROTOCOL_VERSION
from backtestr_protocol.connection import Connection, Curve, Endpoints, Signing, encode_connection
from backtestr_protocol.errors import NetworkError
from backtestr_protocol.keys import KeyFolder
from backtestr_protocol.secret import Secret

ENDPOINTS = Endpoints(**{name: f"ipc:///run/{name}" for name in Endpoints.__struct_fields__})


def connection(**changes: Any) -> Connection:
    usual = Connection(
        protocol_version=PROTOCOL_VERSION,
        instance_id="instance",
        pid=1,
        start_time=0,
        endpoints=ENDPOINTS,
        signing=Signing(algorithm="hmac-sha256", key=Secret(b"\xab" * 32)),
        curve=None,
    )
    return msgspec.structs.replace(usual, **changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "connection.json"
    path.write_bytes(encode_connection(connection()))
    path.chmod(0o600)
    return path


def write(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.chmod(0o600)
    new.replace(path)


def test_a_connection_without_curve_needs_no_key(path: Path) -> None:
    file = ConnectionFile(path)
    assert file.read() == connection()
    assert file.own_keys is None


def test_the_usual_place_follows_the_environment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKTESTR_CONNECTION_FILE", str(path))
    assert ConnectionFile().path == path


def test_the_stamp_changes_with_every_writing_and_not_with_reading(path: Path) -> None:
    file = ConnectionFile(path)
    first = file.stamp()
    file.read()
    assert file.stamp() == first
    write(path, encode_connection(connection(instance_id="another1")))
    assert file.stamp() not in (None, first)


def test_without_a_file_there_is_no_stamp_and_no_broker(tmp_path: Path) -> None:
    file = ConnectionFile(tmp_path / "missing.json")
    assert file.stamp() is None
    with pytest.raises(NetworkError, match="no broker is running"):
        file.read()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"protocolVersion": "one"}'])
def test_a_damaged_file_says_how_to_write_a_new_one(path: Path, content: bytes) -> None:
    write(path, content)
    with pytest.raises(NetworkError, match=r"is damaged .* backtestr run"):
        ConnectionFile(path).read()


def test_a_directory_in_its_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=f"cannot read {tmp_path}"):
        ConnectionFile(tmp_path).read()


def test_another_version_of_the_protocol_is_refused(path: Path) -> None:
    fields = json.loads(path.read_bytes())
    write(path, json.dumps({**fields, "protocolVersion": PROTOCOL_VERSION + 1}).encode())
    with pytest.raises(NetworkError, match=f"version {PROTOCOL_VERSION + 1} of the protocol, this client"):
        ConnectionFile(path).read()


def test_with_curve_the_clients_own_key_is_read_and_without_one_the_error_says_why(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTESTR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("BACKTESTR_KEY", raising=False)
    keys = KeyFolder(tmp_path / "keys")
    pair, secret = keys.new("tester")
    write(path, encode_connection(connection(curve=Curve(server_public_key=pair.public))))
    file = ConnectionFile(path, secret)
    assert file.read().curve is not None
    assert file.own_keys == pair
    with pytest.raises(NetworkError, match="lets in only clients with a key"):
        ConnectionFile(path).read()
    write(path, encode_connection(connection()))
    file.read()
    assert file.own_keys is None, "the last connection needs none"
