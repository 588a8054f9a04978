"""The runtime directory has one owner, is private and cleaned at the start; its connection file is whole."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from backtestr_broker.io.runtime_directory import MAX_SOCKET_PATH, AlreadyRunning, RuntimeDirectory
from backtestr_protocol.connection import Connection, Endpoints, Signing, decode_connection
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.secret import Secret
from backtestr_protocol.topics import SOCKETS
from support.harness import short_directory


@pytest.fixture
def home() -> Iterator[Path]:
    with short_directory() as path:
        yield path


@pytest.fixture
def directory(home: Path) -> Iterator[RuntimeDirectory]:
    """Return an acquired runtime directory."""
    one = RuntimeDirectory(home / "run", home / "run" / "connection.json")
    one.acquire()
    yield one
    one.release()


@pytest.fixture
def connection() -> Connection:
    endpoints = {name: f"ipc:///run/{name}" for name in ("requests", *SOCKETS)}
    return Connection(
        protocol_version=1,
        instance_id="an instance",
        pid=4242,
        start_time=1_790_000_000_000,
        endpoints=Endpoints(**endpoints),
        signing=Signing(algorithm="hmac-sha256", key=Secret(b"\xab" * 32)),
        curve=None,
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def leave_socket(path: Path) -> None:
    """Leave a socket, as a killed broker does."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
    assert path.is_socket()


def test_the_runtime_directory_is_created_for_its_user_only(directory: RuntimeDirectory) -> None:
    assert mode(directory.path) == 0o700
    assert mode(directory.path / "lock") == 0o600


def test_an_existing_one_is_made_private(home: Path) -> None:
    (home / "run").mkdir(mode=0o755)
    directory = RuntimeDirectory(home / "run", home / "run" / "connection.json")
    directory.acquire()
    assert mode(directory.path) == 0o700
    directory.release()


def test_a_second_broker_is_refused_with_the_directory_of_the_first(directory: RuntimeDirectory) -> None:
    directory.connection_file.write_text("the first broker's")
    second = RuntimeDirectory(directory.path, directory.connection_file)
    with pytest.raises(AlreadyRunning, match=str(directory.path)):
        second.acquire()
    second.release()
    assert directory.connection_file.exists(), "a refused broker removes nothing"
    directory.release()
    second.acquire()
    second.release()


def test_files_of_a_killed_broker_are_removed(home: Path) -> None:
    run = home / "run"
    run.mkdir()
    leave_socket(run / "requests")
    (run / "connection.json").write_text("stale")
    (run / "connection.json.new").write_text("half")
    (run / "notes.txt").write_text("a file of the user")
    directory = RuntimeDirectory(run, run / "connection.json")
    directory.acquire()
    assert sorted(entry.name for entry in run.iterdir()) == ["lock", "notes.txt"]
    directory.release()


def test_release_leaves_the_lock_file_only(directory: RuntimeDirectory) -> None:
    leave_socket(directory.path / "requests")
    directory.connection_file.write_text("x")
    directory.release()
    assert [entry.name for entry in directory.path.iterdir()] == ["lock"]
    directory.release()


# --- directories that are shared ---


def listening(path: Path) -> socket.socket:
    one = socket.socket(socket.AF_UNIX)
    one.bind(str(path))
    one.listen()
    return one


def test_nothing_of_other_programs_is_removed_from_a_shared_directory(home: Path) -> None:
    """It may be XDG_RUNTIME_DIR itself, with the sockets of the desktop: live ones, and dead ones that are not ours."""
    run = home / "run"
    run.mkdir(mode=0o700)
    with listening(run / "bus"), listening(run / "wayland-0"):
        for name in ("S.gpg-agent", "requests.1", "engine-2", ".requests", "Requests"):
            leave_socket(run / name)
        (run / "notes.txt").write_text("mine")
        os.mkfifo(run / "pipe")
        (run / "link").symlink_to("bus")
        (run / "folder").mkdir()
        before = sorted(entry.name for entry in run.iterdir())
        for name in ("requests", "engine", "orders.hidden"):
            leave_socket(run / name)
        directory = RuntimeDirectory(run, run / "connection.json")
        directory.acquire()
        assert sorted(entry.name for entry in run.iterdir()) == sorted([*before, "lock"])
        leave_socket(run / "prices")
        directory.release()
        assert sorted(entry.name for entry in run.iterdir()) == sorted([*before, "lock"])


@pytest.mark.parametrize("kind", ["a live socket", "a file", "a FIFO", "a link", "a folder", "a datagram socket"])
def test_what_has_the_name_of_a_socket_and_is_not_ours_is_kept_and_named(home: Path, kind: str) -> None:
    """ZeroMQ would delete it in order to bind."""
    run = home / "run"
    run.mkdir(mode=0o700)
    path = run / "system"
    live = listening(path) if kind == "a live socket" else None
    if kind == "a file":
        path.write_text("mine")
    elif kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a link":
        leave_socket(run / "target")
        path.symlink_to("target")
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a datagram socket":
        live = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        live.bind(str(path))
    directory = RuntimeDirectory(run, run / "connection.json")
    directory.acquire()
    with pytest.raises(InvalidConfiguration, match=f"{path} belongs to another program.*BACKTESTR_RUNTIME_DIR"):
        directory.socket_address("system")
    assert directory.socket_address("prices") == f"ipc://{run}/prices"
    directory.release()
    assert os.path.lexists(path)
    if live is not None:
        live.close()


def test_a_dead_socket_of_another_user_is_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = RuntimeDirectory(home / "run", home / "run" / "connection.json")
    directory.acquire()
    leave_socket(directory.path / "orders")
    with monkeypatch.context() as patched:
        patched.setattr(os, "getuid", lambda: -1)
        directory.release()
    assert (directory.path / "orders").is_socket()


def test_the_connection_file_of_a_broker_with_another_runtime_directory_is_kept(
    home: Path, connection: Connection
) -> None:
    shared = home / "c.json"
    first, second = RuntimeDirectory(home / "first", shared), RuntimeDirectory(home / "second", shared)
    first.acquire()
    with listening(first.path / "requests"):
        endpoints = msgspec.structs.replace(connection.endpoints, requests=f"ipc://{first.path}/requests")
        first.publish(msgspec.structs.replace(connection, endpoints=endpoints))
        with pytest.raises(AlreadyRunning, match=r"process 4242.*BACKTESTR_CONNECTION_FILE"):
            second.acquire()
    second.acquire()
    assert not shared.exists(), "nothing answers there any more"
    second.publish(connection)
    first.release()
    assert shared.exists(), "it is another broker's by now"
    second.release()
    assert not shared.exists()


def test_a_directory_to_which_everyone_may_write_is_refused(home: Path) -> None:
    run = home / "run"
    run.mkdir()
    run.chmod(0o777)
    with pytest.raises(InvalidConfiguration, match="BACKTESTR_RUNTIME_DIR"):
        RuntimeDirectory(run, run / "connection.json").acquire()
    assert list(run.iterdir()) == []
    assert mode(run) == 0o777, "its mode was not changed"


def test_a_connection_file_where_everyone_may_write_is_refused(home: Path) -> None:
    shared = home / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(InvalidConfiguration, match="BACKTESTR_CONNECTION_FILE"):
        RuntimeDirectory(home / "run", shared / "connection.json").acquire()


def test_a_socket_path_may_have_the_length_that_the_system_allows(home: Path) -> None:
    space = MAX_SOCKET_PATH - len(os.fsencode(home)) - len("//requests")
    fits = RuntimeDirectory(home / ("d" * space), home / "connection.json")
    address = fits.socket_address("requests")
    assert len(address.removeprefix("ipc://")) == MAX_SOCKET_PATH
    fits.path.mkdir()
    leave_socket(Path(address.removeprefix("ipc://")))
    too_long = RuntimeDirectory(home / ("d" * (space + 1)), home / "connection.json")
    with pytest.raises(InvalidConfiguration, match=f"has {MAX_SOCKET_PATH + 1} bytes and may have {MAX_SOCKET_PATH}"):
        too_long.socket_address("requests")


def test_a_socket_path_is_measured_in_bytes(home: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="BACKTESTR_RUNTIME_DIR"):
        RuntimeDirectory(home / ("é" * 50), home / "connection.json").socket_address("requests")


def test_the_connection_file_appears_whole_and_private(
    directory: RuntimeDirectory, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bytes, int]] = []
    replace = Path.replace

    def watched(source: Path, target: Path) -> Path:
        assert not target.exists()
        seen.append((source.read_bytes(), mode(source)))
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", watched)
    directory.publish(connection)
    ((text, permissions),) = seen
    assert permissions == 0o600
    assert decode_connection(text) == connection
    assert directory.connection_file.read_bytes() == text
    assert sorted(entry.name for entry in directory.path.iterdir()) == ["connection.json", "lock"]
    directory.withdraw()
    assert not directory.connection_file.exists()
    directory.withdraw()


def test_a_connection_file_elsewhere_gets_its_own_private_directory(home: Path, connection: Connection) -> None:
    directory = RuntimeDirectory(home / "run", home / "elsewhere" / "c.json")
    directory.acquire()
    directory.publish(connection)
    assert mode(home / "elsewhere") == 0o700
    assert mode(home / "elsewhere" / "c.json") == 0o600
    directory.release()
    assert list((home / "elsewhere").iterdir()) == []


def test_a_planted_file_is_not_written_through(directory: RuntimeDirectory, connection: Connection, home: Path) -> None:
    target = home / "target"
    target.write_text("mine")
    (directory.path / "connection.json.new").symlink_to(target)
    directory.publish(connection)
    assert target.read_text() == "mine"


@pytest.mark.parametrize("place", ["/proc/nope/connection.json", "/dev/null/connection.json"])
def test_a_connection_file_that_cannot_be_written_is_refused_before_the_workers_start(home: Path, place: str) -> None:
    directory = RuntimeDirectory(home / "run", Path(place))
    with pytest.raises(InvalidConfiguration, match=f"{place} cannot be written: .* in BACKTESTR_CONNECTION_FILE"):
        directory.acquire()
    again = RuntimeDirectory(home / "run", home / "run" / "connection.json")
    again.acquire()  # the lock was given back
    again.release()


def test_a_directory_in_the_place_of_the_connection_file_is_named(home: Path) -> None:
    (home / "run" / "connection.json").mkdir(parents=True)
    directory = RuntimeDirectory(home / "run", home / "run" / "connection.json")
    with pytest.raises(InvalidConfiguration, match=r"cannot be written: .* in BACKTESTR_RUNTIME_DIR"):
        directory.acquire()
