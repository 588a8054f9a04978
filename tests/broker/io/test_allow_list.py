"""The allow-list is reloaded when its files change, and reports the names of the revoked keys."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from backtestr_broker.io.allow_list import AllowList
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.keys import KeyFolder


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
    allow_list = AllowList(folder)
    assert (allow_list.allowed, allow_list.reload_if_changed()) == ({z85.decode(public): "ann"}, frozenset())
    second = new_client(folder, "bob")
    assert allow_list.reload_if_changed() == frozenset(), "an added key revokes no other"
    assert allow_list.names == {"ann", "bob"}
    folder.revoke("ann")
    assert allow_list.reload_if_changed() == {"ann"}
    assert allow_list.allowed == {z85.decode(second): "bob"}
    assert allow_list.reload_if_changed() == frozenset(), "a revocation is reported once"


def test_another_key_under_the_same_name_revokes_the_first(folder: KeyFolder) -> None:
    new_client(folder, "ann")
    allow_list = AllowList(folder)
    (folder.allowed_folder / "ann.pub").write_text(zmq.curve_keypair()[0].decode())
    assert allow_list.reload_if_changed() == {"ann"}


def test_an_unusable_list_revokes_every_key_until_it_is_fixed(folder: KeyFolder) -> None:
    new_client(folder, "ann")
    allow_list = AllowList(folder)
    folder.allowed_folder.chmod(0o755)
    assert allow_list.reload_if_changed() == {"ann"}
    assert not allow_list.allowed
    assert "chmod 700" in allow_list.problems[0]
    folder.allowed_folder.chmod(0o700)
    assert allow_list.reload_if_changed() == frozenset()
    assert allow_list.names == {"ann"}
    assert allow_list.problems == ()


def test_a_list_whose_folder_is_gone_allows_no_key(folder: KeyFolder) -> None:
    new_client(folder, "ann")
    allow_list = AllowList(folder)
    folder.path.rename(folder.path.with_name("elsewhere"))
    assert allow_list.reload_if_changed() == {"ann"}
    assert not allow_list.allowed


def test_an_unchanged_list_is_not_read_again(folder: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    new_client(folder, "ann")
    allow_list = AllowList(folder)

    def read(_folder: KeyFolder) -> None:
        raise AssertionError("the files were read, and nothing had changed")

    monkeypatch.setattr(KeyFolder, "allowed", read)
    assert allow_list.reload_if_changed() == frozenset()
    assert allow_list.names == {"ann"}


def test_a_key_file_that_others_can_change_stops_the_start(folder: KeyFolder) -> None:
    new_client(folder, "ann")
    (folder.allowed_folder / "ann.pub").chmod(0o666)
    with pytest.raises(InvalidConfiguration, match="chmod go-w"):
        AllowList(folder)
