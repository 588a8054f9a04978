"""Over TCP a client with an accepted key is admitted, and no other peer, on any socket.

Accepted are the keys on the allow-list, and on this machine the key of the connection file.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from zmq.utils.monitor import parse_monitor_message

import backtestr
from backtestr_protocol.errors import AuthenticationError, NetworkError
from backtestr_protocol.keys import KeyFolder, KeyPair
from backtestr_protocol.secret import Secret
from integration.conftest import PLAIN_TCP, QUICK, TCP
from integration.test_end_to_end import SYNTH
from support.harness import ANSWER_MS, RawClient, RunningBroker, short_directory, wait_until
from support.protocol.independent import Fields

CURVE = {
    "broker.toml": QUICK + TCP,
    "engine.toml": "[worker]\nchunk_bars = 1\n",  # so that a backtest lasts long enough to be paused
}
SOCKETS = ("requests", "prices", "progress", "orders", "positions", "system")

HANDSHAKES = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


@pytest.fixture(scope="module")
def vault() -> Iterator[RunningBroker]:
    """Run a broker with CURVE; `ann` and `bob` have keys."""
    with short_directory() as home, RunningBroker(home, CURVE) as broker:
        for name in ("ann", "bob"):
            folder(broker).allow(name, folder(broker).new(name)[0].public)
        yield broker


def folder(broker: RunningBroker) -> KeyFolder:
    return KeyFolder(broker.data_dir / "keys")


def keys(broker: RunningBroker, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `backtestr keys …` on the broker's machine."""
    command = [sys.executable, "-c", "from backtestr.cli.entry import main; main()", "keys", *arguments]
    return subprocess.run(command, env=broker.environment, capture_output=True, text=True, timeout=60)


class Peer:
    """This peer connects to one of the broker's sockets with some key, with none or with another server's."""

    def __init__(self, broker: RunningBroker, socket: str, arm: Callable[[zmq.Socket[bytes], Fields], None]) -> None:
        connection = RawClient.read(broker.connection_file)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER if socket == "requests" else zmq.SUB)
        self.socket.linger = 0
        arm(self.socket, connection)
        self.monitor = self.socket.get_monitor_socket(HANDSHAKES)
        self.socket.connect(connection["endpoints"][socket])
        if socket == "requests":
            self.socket.send_multipart([bytes(32), b"let me in"])
        else:
            self.socket.subscribe(b"")

    def handshake(self) -> str:
        """Return how the next handshake ends."""
        assert self.monitor.poll(ANSWER_MS), "no handshake began or ended"
        return zmq.Event(parse_monitor_message(self.monitor.recv_multipart())["event"]).name or ""

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.disable_monitor()
        self.monitor.close()
        self.socket.close()
        self.context.term()


def armed(pair: KeyPair, server: str | None = None) -> Callable[[zmq.Socket[bytes], Fields], None]:
    def arm(socket: zmq.Socket[bytes], connection: Fields) -> None:
        socket.curve_serverkey = (server or connection["curve"]["serverPublicKey"]).encode()
        socket.curve_publickey, socket.curve_secretkey = pair.public.encode(), pair.secret.reveal()

    return arm


def fresh_pair() -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), Secret(secret))


def plain(_socket: zmq.Socket[bytes], _connection: Fields) -> None:
    """Set no security at all."""


def with_password(socket: zmq.Socket[bytes], _connection: Fields) -> None:
    socket.plain_username, socket.plain_password = b"ann", b"secret"


def test_a_client_with_a_key_works_as_without_encryption(vault: RunningBroker) -> None:
    with backtestr.connect(connection_file=vault.connection_file, key=key_file(vault, "ann")) as client:
        run = client.backtest("sma_cross", "SYNTH", timeframe="1d")
        assert run.result().metrics is not None
        assert len(list(run.orders())) > 2


def key_file(broker: RunningBroker, name: str) -> Path:
    return folder(broker).clients_folder / f"{name}.secret"


@pytest.mark.parametrize("socket", SOCKETS)
def test_a_key_on_the_allow_list_is_admitted(vault: RunningBroker, socket: str) -> None:
    with Peer(vault, socket, armed(folder(vault).client_pair("ann"))) as ann:
        assert ann.handshake() == "HANDSHAKE_SUCCEEDED"


@pytest.mark.parametrize("socket", SOCKETS)
@pytest.mark.parametrize("kind", ["unknown", "other server", "plain", "password"])
def test_no_other_peer_is_admitted_on_any_socket(vault: RunningBroker, socket: str, kind: str) -> None:
    arm = {
        "unknown": armed(fresh_pair()),
        "other server": armed(folder(vault).client_pair("ann"), server=fresh_pair().public),
        "plain": plain,
        "password": with_password,
    }[kind]
    with Peer(vault, socket, arm) as peer:
        assert peer.handshake().startswith("HANDSHAKE_FAILED")
        assert not peer.socket.poll(0)
    with backtestr.connect(connection_file=vault.connection_file, key=key_file(vault, "ann")) as client:
        assert client.ping(), "a client with a key is still admitted"


def test_the_engine_socket_is_not_on_the_network(vault: RunningBroker) -> None:
    assert (vault.runtime_dir / "engine").is_socket()
    endpoints = RawClient.read(vault.connection_file)["endpoints"]
    assert set(endpoints) == set(SOCKETS)
    assert all(one.startswith("tcp://127.0.0.1:") for one in endpoints.values())


def test_a_wrong_key_is_an_error_and_no_endless_wait(vault: RunningBroker, tmp_path: Path) -> None:
    wrong, file = KeyFolder(tmp_path / "keys").new("eve")
    with pytest.raises(AuthenticationError, match="authentication or key mismatch likely") as caught:
        backtestr.connect(30.0, connection_file=vault.connection_file, key=file)
    assert wrong.public in caught.value.message
    assert "backtestr keys new" in caught.value.message


def test_the_key_of_another_broker_is_an_error_too(vault: RunningBroker, tmp_path: Path) -> None:
    text = vault.connection_file.read_text()
    other = copied(
        tmp_path, text.replace(RawClient.read(vault.connection_file)["curve"]["serverPublicKey"], fresh_pair().public)
    )
    with pytest.raises(AuthenticationError, match="the connection file is of another broker"):
        backtestr.connect(30.0, connection_file=other, key=key_file(vault, "ann"))


def copied(folder: Path, text: str) -> Path:
    """Write a connection file as a copy has it."""
    file = folder / "connection.json"
    file.write_text(text)
    file.chmod(0o600)
    return file


def without_the_pair(vault: RunningBroker, folder: Path) -> Path:
    """Copy the connection file as it may be copied to another machine: without the key for this one."""
    connection = RawClient.read(vault.connection_file)
    connection["curve"] = {"serverPublicKey": connection["curve"]["serverPublicKey"]}
    return copied(folder, json.dumps(connection))


@pytest.fixture
def _no_own_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as a client that has made no key and names none."""
    monkeypatch.setenv("BACKTESTR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("BACKTESTR_KEY", raising=False)


@pytest.mark.usefixtures("_no_own_keys")
def test_a_client_on_this_machine_needs_no_configuration(vault: RunningBroker) -> None:
    with backtestr.connect(connection_file=vault.connection_file) as client:
        run = client.backtest("sma_cross", "SYNTH", timeframe="1d", watch=("orders",))
        assert run.result().metrics is not None
        assert len(list(run.orders())) > 2
        pair, _ = folder(vault).new("gina")
        folder(vault).allow("gina", pair.public)
        with Peer(vault, "system", armed(pair)) as gina:
            assert gina.handshake() == "HANDSHAKE_SUCCEEDED"
        folder(vault).revoke("gina")
        wait_until(lambda: "no longer allowed: gina" in vault.log, 10)
        assert client.ping(), "its key is on no list that could revoke it"
    assert "connection" not in keys(vault, "list").stdout


@pytest.mark.parametrize("socket", SOCKETS)
def test_the_key_of_the_connection_file_is_admitted(vault: RunningBroker, socket: str) -> None:
    curve = RawClient.read(vault.connection_file)["curve"]
    with Peer(
        vault, socket, armed(KeyPair(curve["clientPublicKey"], Secret(curve["clientSecretKey"].encode())))
    ) as peer:
        assert peer.handshake() == "HANDSHAKE_SUCCEEDED"


@pytest.mark.usefixtures("_no_own_keys")
def test_a_client_without_any_key_is_told_how_to_make_one(vault: RunningBroker, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="backtestr keys new"):
        backtestr.connect(connection_file=without_the_pair(vault, tmp_path))


def test_the_environment_names_the_key(vault: RunningBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = without_the_pair(vault, tmp_path)
    monkeypatch.setenv("BACKTESTR_DATA_DIR", str(vault.data_dir))
    monkeypatch.setenv("BACKTESTR_KEY", "bob")
    with backtestr.connect(connection_file=file) as client:
        assert client.ping()
    monkeypatch.delenv("BACKTESTR_KEY")
    with pytest.raises(NetworkError, match="there are ann, bob"):
        backtestr.connect(connection_file=file)


def test_a_connection_file_that_others_can_read_is_not_used(vault: RunningBroker, tmp_path: Path) -> None:
    file = copied(tmp_path, vault.connection_file.read_text())
    file.chmod(0o644)
    with pytest.raises(NetworkError, match=f"chmod 600 '{file}'"):
        backtestr.connect(connection_file=file)


def test_without_encryption_the_broker_says_who_can_read(plain_tcp_broker: RunningBroker) -> None:
    assert "every user of this machine can read all prices, progress, orders and positions" in plain_tcp_broker.log
    assert RawClient.read(plain_tcp_broker.connection_file)["curve"] is None


def test_a_key_made_on_the_command_line_is_admitted_at_once_and_revoked_on_live_connections(
    vault: RunningBroker,
) -> None:
    made = keys(vault, "new", "carol")
    assert made.returncode == 0, made.stderr
    assert str(key_file(vault, "carol")) in made.stdout
    assert "carol" in keys(vault, "list").stdout
    with (
        backtestr.connect(connection_file=vault.connection_file, key=key_file(vault, "ann")) as ann,
        backtestr.connect(connection_file=vault.connection_file, key=key_file(vault, "carol")) as carol,
        ann.subscribe("system.status") as anns,
        carol.subscribe("system.status") as carols,
    ):
        heard, lost = iter(anns), iter(carols)
        assert isinstance(next(heard), backtestr.Update)
        assert isinstance(next(lost), backtestr.Update)
        assert keys(vault, "revoke", "carol").returncode == 0
        with pytest.raises(AuthenticationError, match="key mismatch likely"):
            for _ in lost:
                pass  # what was on its way, and then the error
        with pytest.raises(AuthenticationError, match="key mismatch likely"):
            carol.ping()
        assert ann.ping(), "a client with a key reconnects by itself"
        assert isinstance(next(heard), backtestr.Update), "and its subscription continues"
        assert ann.status().connected_clients == 1, "the dropped connections' sessions are gone"
    vault.wait_for_log("no longer allowed: carol")
    assert "carol" not in keys(vault, "list").stdout
    assert "no key here" in keys(vault, "revoke", "carol").stderr


def test_a_key_may_do_what_its_rights_say_and_a_change_applies_to_live_connections(vault: RunningBroker) -> None:
    made = keys(vault, "new", "reader", "--rights", "read", "--json")
    assert json.loads(made.stdout)["rights"] == "read", made.stderr
    with backtestr.connect(connection_file=vault.connection_file, key=key_file(vault, "reader")) as reader:
        assert reader.status().status == "healthy"
        with pytest.raises(AuthenticationError, match="backtestr keys allow reader --rights run") as caught:
            reader.backtest("sma_cross", "SYNTH", timeframe="1d")
        assert caught.value.details == {"key": "reader", "right": "read", "needed": "run"}
        assert reader.ping(), "the connection stays"

        assert keys(vault, "allow", "reader", "--rights", "run").returncode == 0
        wait_until(lambda: may(lambda: reader.backtest("sma_cross", "SYNTH", timeframe="1d").result()), 30)
        with pytest.raises(AuthenticationError, match="--rights all"):
            reader.update_state("reader.key", 1)

        assert keys(vault, "allow", "reader", "--rights", "all").returncode == 0
        wait_until(lambda: may(lambda: reader.update_state("reader.key", 1)), 30)
    listed = json.loads(keys(vault, "list", "--json").stdout)["keys"]
    assert {one["name"]: one["rights"] for one in listed}.items() >= {"reader": "all", "ann": "all"}.items()
    refused = keys(vault, "allow", "reader", "--rights", "write")
    assert refused.returncode == 2
    assert "'read', 'run', 'all'" in refused.stderr


def may(request: Callable[[], object]) -> bool:
    try:
        request()
    except AuthenticationError:
        return False
    return True


def test_a_running_backtest_loses_nothing_when_another_key_is_revoked(vault: RunningBroker) -> None:
    folder(vault).allow("dave", folder(vault).new("dave")[0].public)
    with backtestr.connect(connection_file=vault.connection_file, key=key_file(vault, "ann")) as ann:
        run = ann.backtest("sma_cross", "SYNTH", timeframe="1m", watch=("orders",))
        orders = run.orders()
        next(orders)
        ann.pause(run.id)
        folder(vault).revoke("dave")
        wait_until(lambda: "no longer allowed: dave" in vault.log, 10)
        ann.resume(run.id)
        assert 1 + sum(1 for _ in orders) == len(ann.fetch_missed(f"orders.{run.id}")) > 100


def test_a_key_that_is_allowed_again_is_admitted_by_itself(vault: RunningBroker) -> None:
    pair, file = folder(vault).new("frank")
    folder(vault).allow("frank", pair.public)
    with backtestr.connect(connection_file=vault.connection_file, key=file) as frank:
        folder(vault).revoke("frank")
        wait_until(lambda: is_locked_out(frank), 10)
        folder(vault).allow("frank", pair.public)
        wait_until(lambda: not is_locked_out(frank), 20)


def is_locked_out(client: backtestr.Client) -> bool:
    try:
        client.ping()
    except AuthenticationError:
        return True
    return False


def test_an_allow_list_that_others_could_change_admits_no_client(vault: RunningBroker) -> None:
    allowed = folder(vault).allowed_folder
    with Peer(vault, "requests", armed(folder(vault).client_pair("bob"))) as before:
        assert before.handshake() == "HANDSHAKE_SUCCEEDED"
        allowed.chmod(0o777)
        try:
            assert before.handshake() == "HANDSHAKE_FAILED_AUTH", "within a heartbeat"
            with Peer(vault, "system", armed(folder(vault).client_pair("bob"))) as bob:
                assert bob.handshake() == "HANDSHAKE_FAILED_AUTH"
        finally:
            allowed.chmod(0o700)
    with backtestr.connect(connection_file=vault.connection_file, key=key_file(vault, "bob")) as client:
        assert client.ping()


@pytest.mark.parametrize(
    ("loosen", "says"),
    [
        (lambda one: one.server_file.chmod(0o640), "chmod 600"),
        (lambda one: one.path.chmod(0o755), "chmod 700"),
        (lambda one: one.allowed_folder.chmod(0o770), "chmod 700"),
        (lambda one: (one.allowed_folder / "ann.pub").chmod(0o662), "chmod go-w"),
        (lambda one: one.server_file.write_text("not a key"), "is no CURVE key"),
        (lambda one: (one.allowed_folder / "ann.pub").write_text("x" * 39), "is no CURVE key"),
    ],
)
def test_keys_with_loose_modes_or_wrong_content_are_refused_at_the_start(
    loosen: Callable[[KeyFolder], object], says: str
) -> None:
    with short_directory() as home:
        broker = RunningBroker(home, CURVE)
        one = folder(broker)
        one.server_pair()
        one.allow("ann", one.new("ann")[0].public)
        loosen(one)
        assert says in broker.refused_start()
        assert not broker.connection_file.exists()


def test_the_brokers_pair_is_made_once_and_kept_and_that_of_the_connection_file_is_new_at_every_start(
    vault: RunningBroker,
) -> None:
    first = RawClient.read(vault.connection_file)["curve"]
    assert folder(vault).server_file.stat().st_mode & 0o777 == 0o600
    assert folder(vault).path.stat().st_mode & 0o777 == 0o700
    vault.stop()
    vault.start()
    second = RawClient.read(vault.connection_file)["curve"]
    assert second["serverPublicKey"] == first["serverPublicKey"]
    assert second["clientPublicKey"] != first["clientPublicKey"]
    with Peer(
        vault, "system", armed(KeyPair(first["clientPublicKey"], Secret(first["clientSecretKey"].encode())))
    ) as former:
        assert former.handshake() == "HANDSHAKE_FAILED_AUTH"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("[curve]\nenabled = true\n", "[curve] is no section any more"),
        (PLAIN_TCP + 'host = "0.0.0.0"\n', "could read"),
        (TCP + 'host = "0.0.0.0"\n', "the one IPv4 address"),
    ],
)
def test_options_that_would_mean_something_else_are_refused(config: str, says: str) -> None:
    with short_directory() as home:
        broker = RunningBroker(home, {"broker.toml": config})
        assert says in broker.refused_start(2)


def test_a_request_is_refused_on_the_connection_of_another_client(vault: RunningBroker) -> None:
    """Frames are bound to a session, and a session to its connection."""
    with RawClient(vault.connection_file, keys=folder(vault).client_pair("ann")) as ann:
        ann.hello()
        recorded = ann.requests.make("StartBacktest", SYNTH)
        known = len(ann.ask("ListBacktests", {})["backtests"])
        with RawClient(vault.connection_file, "bob", keys=folder(vault).client_pair("bob")) as bob:
            envelope, _ = bob.send_and_receive(recorded)
            assert envelope["payload"]["data"]["code"] == "SESSION_UNKNOWN"
        assert len(ann.ask("ListBacktests", {})["backtests"]) == known
