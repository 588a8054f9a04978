"""`backtestr ui` with a real broker: who is let in, what pages may do, and what is left when it ends."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from backtestr.cli.exit_codes import EXIT_ERROR, EXIT_USAGE
from backtestr.ui.core.page_queue import MAX_ANSWERS
from backtestr.ui.core.stream_window import MAX_UNTAKEN
from backtestr.ui.io.tunnel import MAX_PAGES
from support.client.ui_process import ABSENT, ANSWER, LOST, MESSAGE, OPENED, REPLACED, Page, UiProcess
from support.harness import RawClient, RunningBroker, short_directory, wait_until

PRICE = {"timestamp": 1, "bid": 1.0, "ask": 1.0, "last": 1.0, "volume": 0.0, "timeframe": "tick"}


@pytest.fixture(scope="module")
def server(broker: RunningBroker) -> Iterator[UiProcess]:
    with UiProcess(broker.environment) as running:
        yield running


@pytest.fixture
def page(server: UiProcess) -> Iterator[Page]:
    with server.page() as connected:
        yield connected.hello()


def without_broker(home: Path) -> dict[str, str]:
    """Return the environment of a broker that does not run."""
    return RunningBroker(home).environment


def apart(broker: RunningBroker, home: Path) -> dict[str, str]:
    """Return the environment of a server that finds no other one of the same broker."""
    file = str(broker.connection_file)
    return {**broker.environment, "BACKTESTR_RUNTIME_DIR": str(home), "BACKTESTR_CONNECTION_FILE": file}


# --- the tunnel ---------------------------------------------------------------------------------------------------


def test_requests_are_signed_and_answers_verified(page: Page, raw_client: RawClient) -> None:
    assert page.ask("Ping", {})["timestamp"] > 0
    page.ask("UpdateState", {"key": "ui.signed", "value": [1, None, "x"]})
    assert raw_client.ask("GetState", {"key": "ui.signed"})["value"] == [1, None, "x"]


def test_streams_come_without_signatures(page: Page) -> None:
    page.subscribe("system", "system.status")
    topic, envelope = page.until(lambda one: one.kind == MESSAGE).parts
    assert topic == b"system.status"
    assert msgpack.unpackb(envelope)["payload"]["type"] == "SystemStatus"


def test_tables_come_with_answers(page: Page) -> None:
    data = {"symbol": "SYNTH", "timeframe": "1m", "limit": 100}
    request_id = page.request("GetMarketData", data)
    message = page.until(lambda one: one.kind == ANSWER)
    assert msgpack.unpackb(message.parts[0])["correlationId"] == request_id
    assert len(message.parts) > 1


def test_a_slow_page_loses_stream_messages_and_no_answers(page: Page, raw_client: RawClient) -> None:
    page.subscribe("prices", "prices.UISLOW.")

    def publish() -> None:
        raw_client.ask("PublishPrices", {"prices": [{**PRICE, "symbol": "UISLOW"}]})

    deadline = time.monotonic() + 20
    while not any(one.kind == MESSAGE for one in page.others):  # until the subscription has come to the broker
        assert time.monotonic() < deadline
        publish()
        page.ask("Ping", {})
    for _ in range(MAX_UNTAKEN + 200):
        publish()
    page.ask("Ping", {})
    wait_until(lambda: page.ask("Ping", {}) and untaken(page) == MAX_UNTAKEN, 20)
    for _ in range(20):
        publish()
        page.ask("Ping", {})  # answers come, whatever waits
    assert untaken(page) == MAX_UNTAKEN
    page.taken(1_000)
    publish()
    page.until(lambda one: one.kind == MESSAGE)


def untaken(page: Page) -> int:
    return sum(one.kind == MESSAGE for one in page.others)


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"\x01",
        b"\x09\0\0\0\0",
        b"\x01\0\0\0\x01\xc1",
        pytest.param(random.Random(20_260).randbytes(500) + b"\xff", id="random"),
    ],
)
def test_hostile_bytes_end_that_page_with_a_reason_and_no_other(server: UiProcess, page: Page, hostile: bytes) -> None:
    with server.page() as other:
        other.hello()
        other.websocket.send(hostile)
        with pytest.raises(ConnectionClosed) as ended:
            other.receive()
    closed = ended.value.rcvd
    assert closed is not None
    assert closed.code == 1008
    assert closed.reason.startswith("the page has sent ")
    assert page.ask("Ping", {})


def test_text_ends_a_page(server: UiProcess) -> None:
    with server.page() as other:
        other.opened()
        other.websocket.send("hello")
        with pytest.raises(ConnectionClosed, match="the page has sent text"):
            other.receive()


def test_a_page_that_leaves_releases_its_session_and_subscriptions(server: UiProcess, raw_client: RawClient) -> None:
    def prefixes() -> int:
        return int(raw_client.ask("GetSystemStatus", {})["streams"]["subscriptions"].get("orders", 0))

    before = prefixes()
    with server.page() as other:
        other.hello().subscribe("orders", "orders.ui-leaving")
        wait_until(lambda: prefixes() == before + 1, 10)
    wait_until(lambda: prefixes() == before, 10)


def test_a_page_that_leaves_its_answers_unread_is_disconnected(broker: RunningBroker) -> None:
    """The reader of this WebSocket stops when nobody takes what it has read, as that of a browser does."""
    with (
        short_directory() as home,
        UiProcess(apart(broker, home)) as server,
        server.page() as idle,
        server.page(max_queue=1) as page,
    ):
        page.hello().ask("UpdateState", {"key": "ui.large", "value": "x" * 50_000})
        with contextlib.suppress(ConnectionClosed):  # it may be over before the last is sent
            for _ in range(MAX_ANSWERS + 2_000):
                page.request("GetState", {"key": "ui.large"})
        wait_until(lambda: "leaves too many answers unread" in server.errors, 30)
        assert idle.hello().ask("Ping", {})


def test_the_number_of_pages_is_bounded(server: UiProcess) -> None:
    with contextlib.ExitStack() as stack:
        pages = [stack.enter_context(server.page()) for _ in range(MAX_PAGES + 1)]
        kinds = [one.receive() for one in pages]
        refused = [one for one in kinds if one.kind == ABSENT]
        assert len(refused) >= 1
        assert "pages are connected" in refused[0].text
        assert sum(one.kind == OPENED for one in kinds) <= MAX_PAGES


# --- who is let in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:1"}, 403),
        ({"origin": None}, 403),
        ({"cookie": ""}, 401),
        ({"cookie": "backtestr-1=x"}, 401),
        ({"subprotocols": ["other"]}, 403),
        ({"subprotocols": None}, 403),
    ],
)
def test_a_websocket_of_somebody_else_is_refused(server: UiProcess, more: dict[str, object], status: int) -> None:
    with pytest.raises(InvalidStatus) as refused, server.page(**more):
        pass
    assert refused.value.response.status_code == status


def test_another_name_for_this_machine_is_refused(server: UiProcess) -> None:
    assert server.ask("GET", "/", Host="evil.example").status == 421
    assert server.ask("GET", "/api/session", Host=f"evil.example:{server.port}").status == 421
    name = f"localhost:{server.port}"
    assert server.ask("GET", "/api/session", Host=name, Origin=f"http://{name}").status == 200


def test_another_user_who_has_no_cookie_gets_nothing_private(server: UiProcess) -> None:
    for method, address in (("GET", "/api/session"), ("POST", "/api/uploads?name=x"), ("POST", "/api/broker")):
        reply = server.ask(method, address, b"x" if method == "POST" else None, Cookie="")
        assert (reply.status, reply.json["error"]["code"]) == (401, "AUTHENTICATION_ERROR")
    assert server.ask("GET", f"/?token={server.token}", Cookie="").status == 401  # it was used


@pytest.mark.skipif(os.getuid() != 0, reason="only root can connect as another user")
def test_a_program_of_another_user_is_refused_even_with_a_link(server: UiProcess) -> None:
    """As one that has read the link in the list of processes."""
    ask = (
        "exec 3<>/dev/tcp/127.0.0.1/$0; "
        "printf 'GET / HTTP/1.1\\r\\nHost: 127.0.0.1:%s\\r\\nConnection: close\\r\\n\\r\\n' $0 >&3; cat <&3"
    )
    command = ["/bin/bash", "-c", ask, str(server.port)]
    other = subprocess.run(command, user=65_534, capture_output=True, text=True, timeout=20, check=True).stdout
    assert other.startswith("HTTP/1.1 403 ")
    assert "programs of its own user alone" in other
    own = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    assert own.split()[1] in ("200", "503")  # 503 without a built page


def test_it_listens_on_loopback_alone(server: UiProcess) -> None:
    listening = [one for one in psutil.Process(server.process.pid).net_connections() if one.status == "LISTEN"]
    assert [one.laddr for one in listening] == [("127.0.0.1", server.port)]


# --- uploads ------------------------------------------------------------------------------------------------------


def test_an_upload_is_imported_and_no_other_file(server: UiProcess, page: Page, goog_csv: Path) -> None:
    refusal = page.refused("ImportMarketData", {"path": str(goog_csv), "symbol": "UIGOOG"})
    assert refusal["code"] == "DATA_ERROR"
    assert [one["action"] for one in refusal["recoveryActions"]] == ["upload_file"]
    reply = server.ask("POST", "/api/uploads?name=GOOG.csv", goog_csv.read_bytes())
    assert reply.status == 201
    stored = page.ask("ImportMarketData", {"path": reply.json["path"], "symbol": "UIGOOG"})
    assert stored["bars"] == 2_148
    assert server.ask("DELETE", f"/api/uploads?path={reply.json['path']}").status == 204
    assert not Path(reply.json["path"]).exists()
    page.ask("DeleteMarketData", {"symbol": "UIGOOG"})


def test_an_upload_above_the_limit_is_refused(broker: RunningBroker) -> None:
    with short_directory() as home, UiProcess(without_broker(home), "--upload-limit", "1") as server:
        assert server.ask("POST", "/api/uploads?name=x.csv", bytes(1 << 20)).status == 201
        reply = server.ask("POST", "/api/uploads?name=x.csv", bytes((1 << 20) + 1))
        assert (reply.status, reply.json["error"]["code"]) == (413, "MESSAGE_TOO_LARGE")


# --- the broker comes and goes ------------------------------------------------------------------------------------


def test_a_page_is_told_of_a_broker_that_ends_and_of_the_next(own_broker: RunningBroker) -> None:
    with UiProcess(own_broker.environment) as server, server.page() as page:
        first = page.hello().ask("GetSystemStatus", {})
        assert first
        own_broker.kill()
        lost = page.until(lambda one: one.kind == LOST)
        assert lost.text == "the connection to the broker was lost"
        with pytest.raises(ConnectionClosed):
            page.receive()
        with server.page() as waiting:  # the file of the killed broker is still there
            waiting.opened()
            own_broker.start()
            assert waiting.until(lambda one: one.kind == REPLACED).parts == []
        with server.page() as later:
            assert later.hello().ask("Ping", {})
        own_broker.stop()
        with server.page() as alone:
            absent = alone.receive()
            assert absent.kind == ABSENT
            assert "no broker is running" in absent.text


def test_a_broker_with_curve_is_reached_with_the_users_key(tcp_broker: RunningBroker) -> None:
    with UiProcess(tcp_broker.environment) as server, server.page() as page:
        assert page.hello().ask("Ping", {})


def test_a_key_that_the_broker_refuses_is_said(tcp_broker: RunningBroker) -> None:
    key = tcp_broker.data_dir.parent / "stranger.secret"
    make = "from backtestr_protocol.keys import new_pair; print(new_pair().secret.reveal().decode())"
    secret = subprocess.run([sys.executable, "-c", make], capture_output=True, check=True, timeout=60).stdout
    key.touch(0o600)
    key.write_bytes(secret)
    with UiProcess({**tcp_broker.environment, "BACKTESTR_KEY": str(key)}) as server, server.page() as page:
        page.opened()
        assert "does not let this client in" in page.until(lambda one: one.kind == LOST).text


def test_without_a_broker_the_page_opens_and_start_starts_one_that_stays() -> None:
    with short_directory() as home:
        environment = without_broker(home)
        try:
            with UiProcess(environment) as server:
                assert "No broker is running" in server.printed
                with server.page() as page:
                    assert page.receive().kind == ABSENT
                assert server.ask("POST", "/api/broker").json == {"started": True}
                assert server.ask("POST", "/api/broker").json == {"started": False}
                with server.page() as page:
                    assert page.hello().ask("Ping", {})
                assert server.end()[0] == 0
            with UiProcess(environment, "--start") as server, server.page() as page:
                assert "Starting" not in server.printed
                assert page.hello().ask("Ping", {})
                page.ask("StopBroker", {})
                page.until(lambda one: one.kind == LOST)
        finally:
            stop = [sys.executable, "-m", "backtestr", "stop"]
            subprocess.run(stop, env=environment, capture_output=True, timeout=30, check=False)


# --- the command --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_end_tells_the_pages_and_leaves_nothing(broker: RunningBroker, number: signal.Signals) -> None:
    with short_directory() as home, UiProcess(apart(broker, home)) as server, server.page() as page:
        page.hello()
        path = Path(server.ask("POST", "/api/uploads?name=x.csv", b"x").json["path"])
        assert path.exists()
        code, errors = server.end(number)
        assert (code, errors) == (0, "")
        ended = page.until(lambda one: one.kind == LOST)
        assert "backtestr ui has ended" in ended.text
        assert not path.parents[1].exists()
        assert not list(home.rglob("ui.json*"))
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", server.port), 1)


def test_a_second_command_prints_a_new_link_to_the_server_that_runs(server: UiProcess, broker: RunningBroker) -> None:
    command = [sys.executable, "-m", "backtestr", "ui", "--no-browser"]
    done = subprocess.run(command, env=broker.environment, capture_output=True, text=True, timeout=30, check=True)
    link = next(line.strip() for line in done.stdout.splitlines() if "token=" in line)
    assert link.startswith(f"http://127.0.0.1:{server.port}/?token=")
    address = link.removeprefix(server.origin)
    assert server.ask("GET", address, Cookie="").status == 303
    assert server.ask("GET", address, Cookie="").status == 401


def test_a_port_that_is_taken_is_said() -> None:
    with short_directory() as home, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_ui(without_broker(home), "--port", str(port))
        assert done.returncode == EXIT_ERROR
        assert done.stderr == (
            f"port {port} cannot be used: Address already in use; name another with --port, or none for a free one\n"
        )
        assert run_ui(without_broker(home), "--port", "0").returncode == EXIT_USAGE


def run_ui(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "backtestr", "ui", "--no-browser", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
