"""The allow-list is reloaded when its files change, and reports the names of the revoked keys."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from backtestr_broker.io.allow_list import CONNECTION_FILE, AllowList
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.keys import KeyFolder

HOST = "192.168.1.5"


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


def new_client(folder: KeyFolder, name: str) -> str:
    """Make a key pair and allow it; returns the public key."""
    pair, _ = folder.new(name)
    folder.allow(name, pair.public)
    return pair.public


def test_added_and_revoked_keys_are_noticed(folder: KeyFolder) -> None:
    public = new_client(folder, "ann")
    allow_list = AllowList(folder, HOST)
    assert allow_list.reload_if_changed() == frozenset()
    assert allow_list.name_of(z85.decode(public), "192.168.1.9") == "ann"
    second = new_client(folder, "bob")
    assert allow_list.reload_if_changed() == frozenset(), "an added key revokes no other"
    assert allow_list.names == {"ann", "bob"}
    folder.revoke("ann")
    assert allow_list.reload_if_changed() == {"ann"}
    assert allow_list.name_of(z85.decode(public), HOST) is None
    assert allow_list.name_of(z85.decode(second), HOST) == "bob"
    assert allow_list.reload_if_changed() == frozenset(), "a revocation is reported once"


def test_another_key_under_the_same_name_revokes_the_first(folder: KeyFolder) -> None:
    new_client(folder, "ann")
    allow_list = AllowList(folder, HOST)
    (folder.allowed_folder / "ann.pub").write_text(zmq.curve_keypair()[0].decode())
    assert allow_list.reload_if_changed() == {"ann"}


def test_an_unusable_list_revokes_every_key_until_it_is_fixed(folder: KeyFolder) -> None:
    new_client(folder, "ann")
    allow_list = AllowList(folder, HOST)
    folder.allowed_folder.chmod(0o755)
    assert allow_list.reload_if_changed() == {"ann"}
    assert not allow_list.names
    assert "chmod 700" in allow_list.problems[0]
    folder.allowed_folder.chmod(0o700)
    assert allow_list.reload_if_changed() == frozenset()
    assert allow_list.names == {"ann"}
    assert allow_list.problems == ()


def test_a_list_whose_folder_is_gone_allows_no_key(folder: KeyFolder) -> None:
    new_client(folder, "ann")
    allow_list = AllowList(folder, HOST)
    folder.path.rename(folder.path.with_name("elsewhere"))
    assert allow_list.reload_if_changed() == {"ann"}
    assert not allow_list.names


def test_an_unchanged_list_is_not_read_again(folder: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    new_client(folder, "ann")
    allow_list = AllowList(folder, HOST)

    def read(_folder: KeyFolder) -> None:
        raise AssertionError("the files were read, and nothing had changed")

    monkeypatch.setattr(KeyFolder, "allowed", read)
    assert allow_list.reload_if_changed() == frozenset()
    assert allow_list.names == {"ann"}


def test_a_key_file_that_others_can_change_stops_the_start(folder: KeyFolder) -> None:
    new_client(folder, "ann")
    (folder.allowed_folder / "ann.pub").chmod(0o666)
    with pytest.raises(InvalidConfiguration, match="chmod go-w"):
        AllowList(folder, HOST)


@pytest.mark.parametrize(
    ("address", "is_own"),
    [("127.0.0.1", True), ("127.8.9.10", True), (HOST, True), ("192.168.1.6", False), ("", False), ("::ffff:1", False)],
)
def test_the_key_of_the_connection_file_is_accepted_from_this_machine_alone(
    folder: KeyFolder, address: str, is_own: bool
) -> None:
    allow_list = AllowList(folder, HOST)
    key = z85.decode(allow_list.pair_of_connection_file.public)
    assert allow_list.name_of(key, address) == (CONNECTION_FILE if is_own else None)
    assert CONNECTION_FILE in allow_list.accepted
    assert allow_list.names == frozenset(), "it is on no list"
    assert allow_list.pair_of_connection_file != AllowList(folder, HOST).pair_of_connection_file, "new at every start"
    assert allow_list.pair == AllowList(folder, HOST).pair


@pytest.mark.parametrize("method", ["stamp", "allowed"])
def test_without_a_free_descriptor_the_list_stays_as_it_is(
    folder: KeyFolder, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    new_client(folder, "ann")
    allow_list = AllowList(folder, HOST)
    folder.revoke("ann")

    def fail(_folder: KeyFolder) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(KeyFolder, method, fail)
        assert allow_list.reload_if_changed() == frozenset()
        assert allow_list.names == {"ann"}
    assert allow_list.reload_if_changed() == {"ann"}, "as soon as there is one"
