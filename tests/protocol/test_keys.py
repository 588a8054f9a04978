"""Keys are kept in files; a file with a wrong key, mode or owner lets no client connect."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from backtestr_protocol import keys, paths
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.keys import KeyFolder, new_pair


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def let_in(folder: KeyFolder, name: str) -> str:
    """Make a client that is allowed, and return its public key."""
    pair, _ = folder.new(name)
    folder.allow(name, pair.public)
    return pair.public


def test_new_allow_list_and_revoke(folder: KeyFolder) -> None:
    public = let_in(folder, "ann")
    assert folder.allowed().names == {z85.decode(public): "ann"}
    assert folder.client_pair("ann").public == public
    folder.revoke("ann")
    assert folder.allowed().names == {}
    assert folder.client_pair("ann").public == public, "the secret half is kept"
    folder.allow("ann", public)
    assert folder.allowed().names == {z85.decode(public): "ann"}


def test_everything_is_private_from_the_start(folder: KeyFolder) -> None:
    let_in(folder, "ann")
    folder.server_pair()
    assert [mode(one) for one in (folder.path, folder.allowed_folder, folder.clients_folder)] == [0o700] * 3
    files = [folder.server_file, folder.allowed_folder / "ann.pub", folder.clients_folder / "ann.secret"]
    assert [mode(one) for one in files] == [0o600] * 3
    assert {one.name for one in folder.path.rglob("*") if one.is_file()} == {one.name for one in files}


def test_the_servers_pair_is_made_once(folder: KeyFolder) -> None:
    first = folder.server_pair()
    assert folder.server_pair() == first
    assert zmq.curve_public(first.secret.reveal()).decode() == first.public
    assert repr(first) == f"KeyPair(public={first.public!r}, secret=<key>)"


def test_a_public_key_file_is_a_line_that_can_be_written_by_hand(folder: KeyFolder) -> None:
    public, _ = zmq.curve_keypair()
    let_in(folder, "ann")
    (folder.allowed_folder / "hand.pub").write_text(f"{public.decode()}\n\n")
    assert folder.allowed().names[z85.decode(public)] == "hand"


@pytest.mark.parametrize("text", ["", "x" * 39, "x" * 41, "~" * 40, "#" * 40, "é" * 40, "x" * 10_000])
def test_a_file_without_a_key_lets_no_client_connect_and_is_named(folder: KeyFolder, text: str) -> None:
    public = let_in(folder, "ann")
    (folder.allowed_folder / "bob.pub").write_text(text)
    allowed = folder.allowed()
    assert allowed.names == {z85.decode(public): "ann"}
    assert "bob.pub is no CURVE key: expected 40 characters of Z85" in allowed.problems[0]
    with pytest.raises(InvalidConfiguration, match=r"bob\.pub"):
        folder.check()
    with pytest.raises(InvalidConfiguration, match="is no CURVE key"):
        folder.allow("carol", text)


@pytest.mark.parametrize("bits", [0o020, 0o002])
def test_a_public_key_that_others_may_write_lets_no_client_connect(folder: KeyFolder, bits: int) -> None:
    let_in(folder, "ann")
    (folder.allowed_folder / "ann.pub").chmod(0o600 | bits)
    assert folder.allowed().names == {}
    assert "chmod go-w" in folder.allowed().problems[0]


@pytest.mark.parametrize("bits", [0o040, 0o004, 0o020, 0o001])
@pytest.mark.parametrize("which", ["server", "client"])
def test_a_secret_that_others_may_read_is_refused(folder: KeyFolder, which: str, bits: int) -> None:
    let_in(folder, "ann")
    folder.server_pair()
    file = folder.server_file if which == "server" else folder.clients_folder / "ann.secret"
    file.chmod(0o600 | bits)
    with pytest.raises(InvalidConfiguration, match=f"run: chmod 600 '{file}'"):
        folder.server_pair() if which == "server" else folder.client_pair("ann")


@pytest.mark.parametrize("which", ["path", "allowed_folder"])
def test_a_folder_that_others_may_enter_lets_no_client_connect(folder: KeyFolder, which: str) -> None:
    let_in(folder, "ann")
    opened: Path = getattr(folder, which)
    opened.chmod(0o750)
    assert folder.allowed().names == {}
    with pytest.raises(InvalidConfiguration, match=f"chmod 700 '{opened}'"):
        folder.check()
    with pytest.raises(InvalidConfiguration, match="chmod 700"):
        folder.allow("bob", zmq.curve_keypair()[0].decode())


def test_files_of_another_user_are_refused(folder: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    let_in(folder, "ann")
    owner = folder.path.stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    if owner:  # files of root are accepted
        assert folder.allowed().names == {}
        assert "belongs to another user" in folder.allowed().problems[0]
    else:
        assert len(folder.allowed().names) == 1


def test_a_missing_list_lets_no_client_connect(folder: KeyFolder) -> None:
    assert folder.allowed().names == {}
    assert folder.allowed().problems


def test_too_many_keys_are_refused(folder: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MAX_ALLOWED", 2)
    let_in(folder, "ann")
    let_in(folder, "bob")
    with pytest.raises(InvalidConfiguration, match="2 keys are allowed, the most there can be"):
        let_in(folder, "carol")
    (folder.allowed_folder / "carol.pub").write_text(folder.client_pair("carol").public)
    assert folder.allowed().names == {}, "none, rather than some of them"


def test_a_key_has_every_right_unless_its_file_names_one(folder: KeyFolder) -> None:
    let_in(folder, "ann")
    (folder.allowed_folder / "old.pub").write_text(new_pair().public + "\n")  # as version 0.1 wrote it
    folder.allow("bob", new_pair().public, "read")
    assert folder.allowed().rights == {"ann": "all", "bob": "read", "old": "all"}


def test_a_right_is_changed_without_naming_the_key_again(folder: KeyFolder) -> None:
    public = let_in(folder, "ann")
    before = folder.stamp()
    file = folder.allow("ann", right="run")
    assert folder.stamp() != before, "a running broker notices"
    assert file.read_text() == f"{public}\nrun\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert folder.allow("ann", public) == file, "allowed already, with that key"
    assert folder.allowed().rights == {"ann": "run"}, "kept where none is named"
    folder.revoke("ann")
    folder.allow("ann", right="read")
    assert folder.allowed().names == {z85.decode(public): "ann"}, "its pair is here, so its public key is known"
    with pytest.raises(InvalidConfiguration, match="make one with: backtestr keys new carol, or give the public key"):
        folder.allow("carol", right="read")


@pytest.mark.parametrize("more", ["write", "READ", "read\nall", "all all", "\x00"])
def test_a_key_with_an_unknown_right_may_not_connect(folder: KeyFolder, more: str) -> None:
    public = let_in(folder, "ann")
    (folder.allowed_folder / "ann.pub").write_text(f"{public}\n{more}\n")
    allowed = folder.allowed()
    assert (allowed.names, allowed.rights) == ({}, {})
    (problem,) = allowed.problems
    assert "expected is one right: read, run, all" in problem


def test_mistakes_are_named(folder: KeyFolder) -> None:
    public = let_in(folder, "ann")
    for name in ("", "../ann", "a b", "x" * 65, "ann.pub"):
        with pytest.raises(InvalidConfiguration, match="is no name for a key"):
            folder.new(name)
    with pytest.raises(InvalidConfiguration, match=r"backtestr keys allow ann '.{40}'"):
        folder.new("ann")
    with pytest.raises(InvalidConfiguration, match="revoke that first"):
        folder.allow("ann", new_pair().public)
    with pytest.raises(InvalidConfiguration, match="that key is ann's already"):
        folder.allow("bob", public)
    with pytest.raises(InvalidConfiguration, match="'bob' has no key here; allowed: ann"):
        folder.revoke("bob")


def test_a_client_finds_its_key_by_name_or_path_or_if_there_is_only_one(folder: KeyFolder) -> None:
    with pytest.raises(InvalidConfiguration, match=r"there is none.*backtestr keys new"):
        folder.client_pair(None)
    ann, file = folder.new("ann")
    assert folder.client_pair(None) == folder.client_pair("ann") == folder.client_pair(file) == ann
    assert folder.client_pair(str(file)) == ann
    folder.new("bob")
    with pytest.raises(InvalidConfiguration, match="there are ann, bob"):
        folder.client_pair(None)
    with pytest.raises(InvalidConfiguration, match="backtestr keys new carol"):
        folder.client_pair("carol")


def test_no_public_key_looks_like_an_option(folder: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    real = next(pair for pair in iter(zmq.curve_keypair, None) if not pair[0].startswith(b"-"))
    offered = iter([(b"-" + b"x" * 39, b"y" * 40), real])
    monkeypatch.setattr(zmq, "curve_keypair", lambda: next(offered))
    assert folder.new("ann")[0].public == real[0].decode()


def test_environment_variables_name_the_key_and_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BACKTESTR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("BACKTESTR_KEY", "ann")
    assert paths.keys_dir() == tmp_path / "keys"
    assert paths.client_key() == "ann"
    monkeypatch.delenv("BACKTESTR_KEY")
    assert paths.client_key() is None
