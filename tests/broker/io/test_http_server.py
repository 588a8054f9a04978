"""The HTTP server answers, whatever its connections do: silent, slow and many ones make room."""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from backtestr_broker.io import http_server
from backtestr_broker.io.http_server import HOST, MAX_CONNECTIONS, BoundedServer, serve
from support.harness import wait_until


def application(_environment: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the page"]


@pytest.fixture
def server() -> Iterator[BoundedServer]:
    one = serve(0, application)
    yield one
    one.stop()


def page(server: BoundedServer) -> bytes:
    with urllib.request.urlopen(f"http://{HOST}:{server.server_port}/metrics", timeout=10) as answer:
        content: bytes = answer.read()
    return content


def connect(server: BoundedServer) -> socket.socket:
    return socket.create_connection((HOST, server.server_port))


def is_ended(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def threads() -> int:
    return sum("process_request_thread" in one.name for one in threading.enumerate())


def test_it_answers_on_the_loopback_address_alone(server: BoundedServer) -> None:
    assert page(server) == b"the page"
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_silent_connections_take_no_more_than_their_places_and_make_room(server: BoundedServer) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(server)) for _ in range(3 * MAX_CONNECTIONS)]
        wait_until(lambda: sum(map(is_ended, silent)) >= 2 * MAX_CONNECTIONS, 10.0)
        wait_until(lambda: threads() <= MAX_CONNECTIONS, 10.0)
        assert page(server) == b"the page"


def test_a_connection_ends_in_time_also_one_that_sends_a_byte_now_and_then(
    server: BoundedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "PATIENCE", 0.2)
    with connect(server) as slow:

        def send_and_look() -> bool:
            with contextlib.suppress(OSError):
                slow.send(b"G")
            return is_ended(slow)

        wait_until(send_and_look, 10.0)
    wait_until(lambda: threads() == 0, 10.0)
    assert page(server) == b"the page"


def test_without_a_descriptor_it_waits_instead_of_trying_without_end(
    server: BoundedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []
    accept = socket.socket.accept

    def fail(one: socket.socket) -> Any:
        if one is not server.socket or len(tries) == 3:
            return accept(one)
        tries.append(time.monotonic())
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket.socket, "accept", fail)
    assert page(server) == b"the page", "as soon as there is one"
    assert len(tries) == 3
    assert all(later - earlier >= http_server._PAUSE for earlier, later in itertools.pairwise(tries))


def test_a_stop_ends_open_connections_and_frees_the_port(server: BoundedServer) -> None:
    one = serve(0, application)
    port = one.server_port
    with connect(one) as silent:
        wait_until(lambda: threads() == 1, 10.0)
        one.stop()
        wait_until(lambda: is_ended(silent), 10.0)
    serve(port, application).stop()
