"""Connecting to a scripted broker by its connection file, and the errors where there is none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import backtestr
from backtestr_protocol.errors import (
    NetworkError,
    ProtocolVersionUnsupported,
)
from support.client.answers import connect
from support.client.peer import WALL_MS, Peer


def test_without_a_broker_the_error_says_how_to_start_one(home: Path) -> None:
    with pytest.raises(NetworkError, match=r"backtestr run \(or make run-broker\)"):
        backtestr.connect(wait=0, connection_file=home / "connection.json")


def test_a_connection_file_of_a_broker_that_has_exited_is_an_error(home: Path) -> None:
    with Peer(home) as peer:
        pass
    with pytest.raises(NetworkError, match=f"process {peer.connection.pid}.*backtestr run"):
        connect(peer, timeout=0.1)


def test_a_damaged_connection_file_is_an_error(home: Path) -> None:
    (home / "connection.json").touch(0o600)
    (home / "connection.json").write_text("{}")
    with pytest.raises(NetworkError, match="damaged"):
        backtestr.connect(connection_file=home / "connection.json")


def test_connect_waits_for_a_broker_that_is_starting(home: Path) -> None:
    with Peer(home, write_file=False) as peer, ThreadPoolExecutor(1) as pool:
        client = pool.submit(connect, peer, wait=30)
        with Peer(home), client.result() as connected:
            assert connected.ping() == WALL_MS


def test_the_error_of_a_broker_of_another_version_is_raised(home: Path) -> None:
    script = {"Hello": lambda _: ProtocolVersionUnsupported("version 2 only", supported=[2])}
    with Peer(home, script) as peer, pytest.raises(ProtocolVersionUnsupported, match="version 2 only"):
        connect(peer)
