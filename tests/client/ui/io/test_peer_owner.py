"""The user whose program has connected, as this system tells it."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from backtestr.ui.io import peer_owner
from backtestr.ui.io.peer_owner import is_of_another_user


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells")
def test_a_connection_of_this_user_is_found_and_of_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        ends = client.getsockname(), client.getpeername()
        assert not is_of_another_user(*ends)
        owner = os.getuid()
        monkeypatch.setattr(peer_owner, "_ROOT", -1)
        monkeypatch.setattr(os, "getuid", lambda: owner + 1)
        assert is_of_another_user(*ends)
    assert not is_of_another_user(("127.0.0.1", 1), ("127.0.0.1", 2))


def test_what_cannot_be_told_is_not_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_of_another_user(None, ("127.0.0.1", 2))
    assert not is_of_another_user(("a name", 1), ("127.0.0.1", 2))
    monkeypatch.setattr(peer_owner, "_TABLE", Path("/no/such/file"))
    assert not is_of_another_user(("127.0.0.1", 1), ("127.0.0.1", 2))
