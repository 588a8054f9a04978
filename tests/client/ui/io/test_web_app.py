"""The application answers over HTTP those who may ask, and refuses all others."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from backtestr.ui.core.admission import Admission
from backtestr.ui.io import uploads as uploads_module
from backtestr.ui.io.new_links import NewLinks
from backtestr.ui.io.page_files import PageFiles
from backtestr.ui.io.tunnel import Tunnel
from backtestr.ui.io.uploads import Uploads
from backtestr.ui.io.web_app import WebApp
from support.client.asgi import Answered, ask

PORT = 8497
HOST = {"host": f"127.0.0.1:{PORT}"}
OWN = {**HOST, "origin": f"http://127.0.0.1:{PORT}"}


class Site:
    """An application with a page of its own, and a browser that can be let in."""

    def __init__(self, folder: Path) -> None:
        self.page = folder / "page"
        (self.page / "assets").mkdir(parents=True)
        (self.page / "index.html").write_text("<p>the app</p>")
        (self.page / "assets" / "app-1a2b.js").write_text("let it;")
        (self.page / "notes.md").write_text("not served")
        (folder / "secret.js").write_text("not below the page")
        self.admission = Admission(PORT)
        self.links = NewLinks(self.admission, PORT)
        self.uploads = Uploads(1_000, folder / "data" / "uploads")
        web_app = WebApp(self.admission, self.links, Tunnel(self.uploads), self.uploads, PageFiles(self.page), PORT)
        self.app: ASGIApp = web_app.application

    def cookie(self) -> dict[str, str]:
        answer = ask(self.app, "GET", f"/?token={self.links.new()}", HOST)
        return {"cookie": answer.headers["set-cookie"].partition(";")[0]}

    def let_in(self, method: str, address: str, **more: Any) -> Answered:
        return ask(self.app, method, address, {**OWN, **self.cookie()}, **more)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("BACKTESTR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("BACKTESTR_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(uploads_module, "RESERVE_BYTES", 0)
    made = Site(tmp_path)
    yield made
    made.uploads.close()


def test_a_link_becomes_a_cookie_and_leaves_the_address(site: Site) -> None:
    answer = ask(site.app, "GET", f"/?token={site.links.new()}", HOST)
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert answer.headers["cache-control"] == "no-store"
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert re.fullmatch(rf"backtestr-{PORT}=[\w-]{{43}}", cookie)
    assert {one.lower() for one in attributes} == {"httponly", "samesite=strict", "path=/"}


def test_a_link_that_was_opened_says_what_to_do(site: Site) -> None:
    token = site.links.new()
    first = ask(site.app, "GET", f"/?token={token}", HOST)
    again = ask(site.app, "GET", f"/?token={token}", HOST)
    assert (again.status, again.headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert "set-cookie" not in again.headers
    assert "backtestr ui" in again.body.decode()
    in_the_same_browser = {**HOST, "cookie": first.headers["set-cookie"].partition(";")[0]}
    assert ask(site.app, "GET", f"/?token={token}", in_the_same_browser).headers["location"] == "/"
    assert ask(site.app, "GET", "/?token=", HOST).status == 401


def test_a_preview_of_a_link_does_not_use_it_up(site: Site) -> None:
    token = site.links.new()
    assert ask(site.app, "HEAD", f"/?token={token}", HOST).status == 200
    assert ask(site.app, "GET", f"/?token={token}", HOST).status == 303


def test_the_page_and_its_files_are_served_and_nothing_else(site: Site) -> None:
    index = ask(site.app, "GET", "/", HOST)
    assert (index.status, index.body, index.headers["cache-control"]) == (200, b"<p>the app</p>", "no-store")
    script = ask(site.app, "GET", "/assets/app-1a2b.js", HOST)
    assert (script.body, script.headers["content-type"]) == (b"let it;", "text/javascript; charset=utf-8")
    assert "immutable" in script.headers["cache-control"]
    for path in ("/notes.md", "/index.html", "/../secret.js", "/assets/../../secret.js", "//etc/passwd", "/assets"):
        assert ask(site.app, "GET", path, HOST).status == 404, path
    (site.page / "assets" / "app-3c4d.js").write_text("newer")
    assert ask(site.app, "GET", "/assets/app-3c4d.js", HOST).body == b"newer"


def test_a_page_that_was_not_built_says_how(site: Site) -> None:
    (site.page / "index.html").unlink()
    answer = ask(site.app, "GET", "/", HOST)
    assert answer.status == 503
    assert "make ui" in answer.body.decode()


def test_every_answer_has_the_headers_of_security(site: Site) -> None:
    for answer in (
        ask(site.app, "GET", "/", HOST),
        ask(site.app, "GET", "/api/session", HOST),
        ask(site.app, "GET", "/", {"host": "evil.example"}),
        ask(site.app, "GET", "/nothing", HOST),
        ask(site.app, "PATCH", "/api/session", OWN),
        site.let_in("GET", "/api/session"),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/api/session", "/assets/app-1a2b.js"])
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", ""])
def test_another_host_is_refused(site: Site, path: str, host: str) -> None:
    answer = ask(site.app, "GET", path, {**site.cookie(), "host": host})
    assert (answer.status, answer.error["code"]) == (421, "AUTHENTICATION_ERROR")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", f"https://127.0.0.1:{PORT}", f"http://localhost:{PORT}", "null"]
)
@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [("GET", "/api/session", "http"), ("POST", "/api/broker", "http"), ("GET", "/tunnel", "websocket")],
)
def test_another_origin_is_refused(site: Site, origin: str, method: str, path: str, kind: str) -> None:
    answer = ask(site.app, method, path, {**HOST, **site.cookie(), "origin": origin}, kind=kind)
    assert (answer.status, answer.error["code"]) == (403, "AUTHENTICATION_ERROR")


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [("POST", "/api/broker", "http"), ("DELETE", "/api/uploads", "http"), ("GET", "/tunnel", "websocket")],
)
def test_what_changes_anything_says_where_it_comes_from(site: Site, method: str, path: str, kind: str) -> None:
    assert ask(site.app, method, path, {**HOST, **site.cookie()}, kind=kind).status == 403


@pytest.mark.parametrize("cookie", ["", f"backtestr-{PORT}=guessed", "session=1"])
@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/api/session", "http"),
        ("POST", "/api/broker", "http"),
        ("POST", "/api/uploads?name=x.csv", "http"),
        ("DELETE", "/api/uploads?path=x", "http"),
        ("GET", "/tunnel", "websocket"),
    ],
)
def test_who_has_no_cookie_is_told_how_to_get_one(site: Site, method: str, path: str, kind: str, cookie: str) -> None:
    answer = ask(site.app, method, path, {**OWN, "cookie": cookie}, kind=kind)
    assert (answer.status, answer.error["code"]) == (401, "AUTHENTICATION_ERROR")
    assert "run `backtestr ui` again" in answer.error["message"]
    assert [one["action"] for one in answer.error["recoveryActions"]] == ["open_link"]


def test_the_session_says_what_the_page_has_to_know(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = site.let_in("GET", "/api/session").json
    assert said == {
        "version": "0.1.0",
        "protocolVersion": 1,
        "uploadLimitBytes": 1_000,
        "brokerMayBeStarted": True,
        "connectionFile": str(tmp_path / "run" / "connection.json"),
    }
    monkeypatch.setattr("backtestr.ui.io.web_app.missing_packages", lambda: ["numba"])
    assert site.let_in("GET", "/api/session").json["brokerMayBeStarted"] is False


def test_a_file_is_uploaded_to_a_path_of_the_servers_choosing_and_removed(site: Site, tmp_path: Path) -> None:
    answer = site.let_in("POST", "/api/uploads?name=../../bars%20of%20mine.csv", chunks=[b"time,", b"close\n"])
    assert answer.status == 201
    path = Path(answer.json["path"])
    assert answer.json["bytes"] == 11
    assert path.read_bytes() == b"time,close\n"
    assert (path.name, path.parents[2]) == ("bars of mine.csv", tmp_path / "data" / "uploads")
    for one in (path, *list(path.parents)[:3]):
        assert stat.S_IMODE(one.stat().st_mode) & 0o077 == 0
    assert str(path) in site.uploads
    assert site.let_in("DELETE", f"/api/uploads?path={path}").status == 204
    assert not path.exists()
    assert site.let_in("DELETE", f"/api/uploads?path={path}").error["code"] == "NOT_FOUND"
    assert site.let_in("DELETE", "/api/uploads?path=/etc/passwd").status == 404


def test_an_upload_that_is_too_large_leaves_nothing(site: Site, tmp_path: Path) -> None:
    headers = {**OWN, **site.cookie()}
    announced = ask(site.app, "POST", "/api/uploads?name=x.csv", {**headers, "content-length": "1001"})
    streamed = ask(site.app, "POST", "/api/uploads?name=x.csv", headers, chunks=[bytes(600), bytes(401)])
    for answer in (announced, streamed):
        assert (answer.status, answer.error["code"]) == (413, "MESSAGE_TOO_LARGE")
        assert "--upload-limit" in answer.error["message"]
    assert list((tmp_path / "data" / "uploads").rglob("*.csv")) == []


def test_an_upload_that_breaks_off_leaves_nothing(site: Site, tmp_path: Path) -> None:
    site.let_in("POST", "/api/uploads?name=x.csv", chunks=[b"half", None])
    assert list((tmp_path / "data" / "uploads").rglob("*.csv")) == []


@pytest.mark.parametrize(("address", "chunks"), [("/api/uploads", [b"x"]), ("/api/uploads?name=x.csv", [])])
def test_an_upload_without_a_name_or_without_content_is_refused(site: Site, address: str, chunks: list[bytes]) -> None:
    answer = site.let_in("POST", address, chunks=chunks)
    assert (answer.status, answer.error["code"]) == (400, "VALIDATION_ERROR")


def test_a_new_link_needs_the_key_of_the_server(site: Site) -> None:
    for body in (b"", b"{}", b'{"nonce": "%s", "proof": "x"}' % (b"n" * 32)):
        answer = ask(site.app, "POST", "/api/links", OWN, chunks=[body])
        assert answer.status in (400, 401)
        assert "token" not in answer.json
    endless = ask(site.app, "POST", "/api/links", OWN, chunks=[bytes(1_000), bytes(100), bytes(1 << 20)])
    assert endless.status == 413


def test_a_broker_that_cannot_be_started_says_why(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backtestr.ui.io.broker_start.missing_packages", lambda: ["numba", "talib"])
    answer = site.let_in("POST", "/api/broker")
    assert (answer.status, answer.error["code"]) == (409, "INVALID_CONFIGURATION")
    assert "pip install 'backtestr[broker,engine]'" in answer.error["message"]
