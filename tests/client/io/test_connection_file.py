"""The connection file is read, its changes are noticed, and every reason against connecting is a NetworkError."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backtestr.io.connection_file import ConnectionFile
from backtestr_protocol import PROTOCOL_VERSION, paths, private_files
from backtestr_protocol.connection import Connection, Curve, Endpoints, Signing, encode_connection
from backtestr_protocol.errors import InvalidConfiguration, NetworkError
from backtestr_protocol.keys import KeyFolder, KeyPair, new_pair
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
    with pytest.raises(NetworkError, match=f"{tmp_path} is no regular file"):
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


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyFolder:
    """Return the folder of this user's keys, of which none is named."""
    monkeypatch.setenv("BACKTESTR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("BACKTESTR_KEY", raising=False)
    return KeyFolder(tmp_path / "data" / "keys")


PAIR = new_pair()
SECRET = PAIR.secret.reveal().decode()
CURVE = Curve(server_public_key=new_pair().public, client_public_key=PAIR.public, client_secret_key=SECRET)


def read_keys(path: Path, host: str, key: str | None = None, curve: Curve = CURVE) -> KeyPair | None:
    endpoints = Endpoints(**{name: f"tcp://{host}:1" for name in Endpoints.__struct_fields__})
    write(path, encode_connection(connection(curve=curve, endpoints=endpoints)))
    file = ConnectionFile(path, key)
    file.read()
    return file.own_keys


def test_the_key_of_the_connection_file_is_taken_unless_another_is_named(path: Path, home: KeyFolder) -> None:
    assert read_keys(path, "127.0.0.1") == PAIR
    assert read_keys(path, "192.168.1.5") == PAIR
    ann = home.new("ann")[0]
    assert read_keys(path, "127.0.0.1") == PAIR
    assert read_keys(path, "127.0.0.1", "ann") == ann
    assert read_keys(path, "192.168.1.5") == ann, "the broker may be on another machine, where that of the file is none"
    home.new("bob")
    assert read_keys(path, "192.168.1.5") == PAIR, "it may be on this one"
    with pytest.raises(NetworkError, match="backtestr keys new carol"):
        read_keys(path, "127.0.0.1", "carol")
    assert SECRET not in repr(CURVE)


@pytest.mark.parametrize("open_to", [0o644, 0o640, 0o620, 0o602])
def test_a_file_that_others_can_read_or_write_is_not_used(path: Path, open_to: int) -> None:
    path.chmod(open_to)
    with pytest.raises(NetworkError, match=f"the connection file is not used: .*chmod 600 '{path}'"):
        ConnectionFile(path).read()


def test_a_file_of_another_user_is_not_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_files, "_trusted_users", lambda: {-1})
    with pytest.raises(NetworkError, match="belongs to another user"):
        ConnectionFile(path).read()


def test_without_a_safe_usual_place_there_is_no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise InvalidConfiguration("no safe runtime directory; name one in BACKTESTR_RUNTIME_DIR")

    monkeypatch.setattr(paths, "connection_file", refuse)
    with pytest.raises(NetworkError, match="name one in BACKTESTR_RUNTIME_DIR"):
        ConnectionFile()
