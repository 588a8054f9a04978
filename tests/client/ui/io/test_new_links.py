"""New links for who can read the server's file, and for nobody else."""

from __future__ import annotations

import http.server
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from backtestr.ui.core.admission import Admission
from backtestr.ui.io.new_links import NewLinks, ask_for_link, running_server
from backtestr_protocol.errors import AuthenticationError, InvalidConfiguration, ValidationError


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BACKTESTR_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("BACKTESTR_CONNECTION_FILE", raising=False)
    return tmp_path / "run"


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[bytes], bytes]], int]]:
    """Give a function that serves answers to POST on loopback, and returns the port."""
    servers: list[http.server.HTTPServer] = []

    def start(answer: Callable[[bytes], bytes]) -> int:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = answer(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return int(server.server_address[1])

    yield start
    for one in servers:
        one.shutdown()
        one.server_close()


def published(port: int) -> tuple[NewLinks, Admission]:
    admission = Admission(port)
    links = NewLinks(admission, port)
    links.publish()
    return links, admission


def test_who_can_read_the_file_gets_a_link_that_lets_in_once(
    serve: Callable[[Callable[[bytes], bytes]], int],
) -> None:
    holder: list[NewLinks] = []
    port = serve(lambda body: msgspec.json.encode(holder[0].answer(body)))
    links, admission = published(port)
    holder.append(links)
    found = running_server()
    assert found is not None
    assert (found.port, found.pid) == (port, os.getpid())
    first, second = ask_for_link(found), ask_for_link(found)
    assert first is not None
    assert second is not None
    assert first != second
    assert admission.open_link(first, "c1")
    assert not admission.open_link(first, "c2")
    assert admission.open_link(second, "c2")


def test_the_file_is_private_and_goes_with_the_server(runtime: Path) -> None:
    links, _ = published(1)
    file = runtime / "ui.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(bytes.fromhex(json.loads(file.read_text())["key"])) == 32
    links.withdraw()
    assert not file.exists()
    assert running_server() is None
    links.withdraw()


def test_a_server_leaves_the_file_of_a_later_one(runtime: Path) -> None:
    first, _ = published(1)
    published(2)
    first.withdraw()
    found = running_server()
    assert found is not None
    assert found.port == 2


def test_a_file_that_others_can_read_is_not_used(runtime: Path) -> None:
    published(1)
    (runtime / "ui.json").chmod(0o644)
    assert running_server() is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"port": "x"}'])
def test_a_damaged_file_is_not_used(runtime: Path, text: str) -> None:
    published(1)
    (runtime / "ui.json").write_text(text)
    assert running_server() is None


def test_a_server_for_another_broker_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    published(1)
    monkeypatch.setenv("BACKTESTR_CONNECTION_FILE", str(tmp_path / "other.json"))
    assert running_server() is None


def test_a_server_that_was_killed_gives_no_link() -> None:
    published(1)
    found = running_server()
    assert found is not None
    assert ask_for_link(found) is None


@pytest.mark.parametrize("answer", [b"", b"nonsense", b'{"token": "theirs", "proof": "%s"}' % (b"0" * 64)])
def test_the_link_of_another_program_at_the_port_is_not_opened(
    serve: Callable[[Callable[[bytes], bytes]], int], answer: bytes
) -> None:
    published(serve(lambda _body: answer))
    found = running_server()
    assert found is not None
    assert ask_for_link(found) is None


def test_no_key_is_sent_to_whoever_is_at_the_port(serve: Callable[[Callable[[bytes], bytes]], int]) -> None:
    seen: list[bytes] = []

    def listen(body: bytes) -> bytes:
        seen.append(body)
        return b""

    published(serve(listen))
    found = running_server()
    assert found is not None
    ask_for_link(found)
    assert len(seen) == 1
    assert found.key.hex().encode() not in seen[0]


def test_who_does_not_have_the_key_gets_no_link() -> None:
    links, _ = published(1)
    other = NewLinks(Admission(1), 1)
    with pytest.raises(ValidationError):
        links.answer(b"{}")
    with pytest.raises(ValidationError):
        links.answer(b'{"nonce": "short", "proof": ""}')
    for links_that_ask in (links, other):
        with pytest.raises(AuthenticationError):
            links_that_ask.answer(msgspec.json.encode({"nonce": "n" * 32, "proof": "0" * 64}))
    with pytest.raises(AuthenticationError):
        links.answer(msgspec.json.encode({"nonce": "n" * 32, "proof": "\u20ac"}))


def test_a_runtime_directory_that_others_may_write_to_is_refused(runtime: Path) -> None:
    runtime.mkdir()
    runtime.chmod(0o777)
    with pytest.raises(InvalidConfiguration, match="chmod"):
        NewLinks(Admission(1), 1).publish()
