"""Sockets that nobody listens to are told from those that are in use, and from files of others."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import zmq

from backtestr_protocol.system import unix_sockets
from backtestr_protocol.system.unix_sockets import has_unix_sockets, is_dead_socket_of_this_user, is_listened_to
from support.harness import short_directory


def test_a_socket_is_dead_once_nobody_listens_to_it() -> None:
    with short_directory() as home, socket.socket(socket.AF_UNIX) as listener:
        path = home / "socket"
        listener.bind(str(path))
        listener.listen()
        assert is_listened_to(str(path))
        assert not is_dead_socket_of_this_user(path)
        listener.close()
        assert not is_listened_to(str(path))
        assert is_dead_socket_of_this_user(path)


def test_what_is_no_socket_is_never_a_dead_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not is_dead_socket_of_this_user(tmp_path / "file")
    assert not is_dead_socket_of_this_user(tmp_path)
    assert not is_dead_socket_of_this_user(tmp_path / "absent")


def test_they_need_both_the_system_and_zeromq(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_unix_sockets()
    monkeypatch.setattr(zmq, "has", lambda capability: capability != "ipc")
    assert not has_unix_sockets()
    monkeypatch.undo()
    monkeypatch.setattr(unix_sockets, "_FAMILY", None)
    assert not has_unix_sockets()
    assert not is_listened_to("/nowhere")
