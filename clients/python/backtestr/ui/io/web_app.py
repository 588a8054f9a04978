"""The application answers requests over HTTP, of those who may ask."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backtestr.ui.core.admission import Admission, NotLetIn
from backtestr.ui.core.http_headers import ASSETS, PRIVATE, plain_page, security_headers
from backtestr_protocol import PROTOCOL_VERSION, __version__, paths
from backtestr_protocol.errors import (
    AuthenticationError,
    BacktestrError,
    Busy,
    InvalidConfiguration,
    MessageTooLarge,
    NotFound,
    ValidationError,
)

from .broker_start import BrokerStart, missing_packages
from .new_links import NewLinks
from .page_files import PageFiles
from .peer_owner import is_of_another_user
from .tunnel import Tunnel
from .uploads import Uploads

Answer = Callable[[Request], Awaitable[Response]]

_NOT_LET_IN = (
    "this browser was not let in, or the server was started anew; run `backtestr ui` again and open the link it prints"
)
_SAFE = ("GET", "HEAD")
# Bytes of a request for a link, which anybody on this machine may send: it has two short texts.
_MAX_LINK_BYTES = 1_024
_STATUSES: tuple[tuple[type[BacktestrError], int], ...] = (
    (AuthenticationError, 401),
    (MessageTooLarge, 413),
    (NotFound, 404),
    (Busy, 429),
    (ValidationError, 400),
    (InvalidConfiguration, 409),
)


class WebApp:
    """The application of one server, and what it lets in."""

    def __init__(
        self, admission: Admission, links: NewLinks, tunnel: Tunnel, uploads: Uploads, files: PageFiles, port: int
    ) -> None:
        self._admission = admission
        self._links = links
        self._tunnel = tunnel
        self._uploads = uploads
        self._files = files
        self._broker = BrokerStart()
        routes = [
            Route("/", self._index),
            Route("/api/session", self._for_those_let_in(self._session)),
            Route("/api/broker", self._for_those_let_in(self._start_broker), methods=["POST"]),
            Route("/api/uploads", self._for_those_let_in(self._upload), methods=["POST"]),
            Route("/api/uploads", self._for_those_let_in(self._discard), methods=["DELETE"]),
            Route("/api/links", _stating_errors(self._new_link), methods=["POST"]),
            WebSocketRoute("/tunnel", tunnel.serve),
            Route("/{path:path}", self._file),
        ]
        self.application: ASGIApp = Gate(Starlette(routes=routes), admission, port)

    def _for_those_let_in(self, answer: Answer) -> Answer:
        async def answer_those(request: Request) -> Response:
            if not self._admission.is_let_in(request.scope["headers"]):
                raise NotLetIn(_NOT_LET_IN)
            return await answer(request)

        return _stating_errors(answer_those)

    async def _index(self, request: Request) -> Response:
        token = request.query_params.get("token")
        if token is not None and request.method == "GET":
            return self._open_link(request, token)
        found = self._files.find("/")
        if found is None:
            built = "In a checkout, make it with: make ui. An installed backtestr carries it."
            return HTMLResponse(plain_page("The page was not built", built), 503, {"cache-control": PRIVATE})
        return Response(found[0], media_type=found[1], headers={"cache-control": PRIVATE})

    def _open_link(self, request: Request, token: str) -> Response:
        cookie = self._links.new_secret()
        if self._admission.open_link(token, cookie):
            answer = RedirectResponse("/", 303, {"cache-control": PRIVATE})
            answer.set_cookie(self._admission.cookie_name, cookie, httponly=True, samesite="strict")
            return answer
        if self._admission.is_let_in(request.scope["headers"]):
            return RedirectResponse("/", 303, {"cache-control": PRIVATE})
        page = plain_page(
            "This link was opened before",
            "A link of backtestr ui opens the app once, in one browser, so that nobody who finds it later gets in.",
            "For a new one run `backtestr ui` again: it prints a link to the server that runs.",
        )
        return HTMLResponse(page, 401, {"cache-control": PRIVATE})

    async def _file(self, request: Request) -> Response:
        found = self._files.find(request.url.path)
        if found is None:
            return _failure(NotFound(f"there is nothing at {request.url.path[:200]}"))
        lasting = ASSETS if request.url.path.startswith("/assets/") else PRIVATE
        return Response(found[0], media_type=found[1], headers={"cache-control": lasting})

    async def _session(self, _request: Request) -> Response:
        return _json(
            {
                "version": __version__,
                "protocolVersion": PROTOCOL_VERSION,
                "uploadLimitBytes": self._uploads.limit,
                "brokerMayBeStarted": not missing_packages(),
                "connectionFile": str(paths.connection_file()),
            }
        )

    async def _start_broker(self, _request: Request) -> Response:
        return _json({"started": await self._broker.start()})

    async def _upload(self, request: Request) -> Response:
        name = request.query_params.get("name")
        if not name:
            raise ValidationError("give the name of the file in the address: ?name=", path="name")
        length = request.headers.get("content-length")
        announced = int(length) if length is not None and length.isdigit() else None
        try:
            path, size = await self._uploads.receive(name, request.stream(), announced)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        return _json({"path": path, "bytes": size}, 201)

    async def _discard(self, request: Request) -> Response:
        self._uploads.remove(request.query_params.get("path", ""))
        return Response(status_code=204)

    async def _new_link(self, request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_LINK_BYTES:
                raise MessageTooLarge("this asks for no link")
        return _json(self._links.answer(body))


class Gate:
    """Lets pass what is for this server and from its own pages, and puts the headers of security on every answer."""

    def __init__(self, within: ASGIApp, admission: Admission, port: int) -> None:
        self._within = within
        self._admission = admission
        self._headers = security_headers(port)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI says."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
            await send(message)

        refused = self._refusal(scope)
        await (self._within if refused is None else refused)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, is_tunnel = scope["headers"], scope["type"] == "websocket"
        if is_of_another_user(scope.get("client"), scope.get("server")):
            return _failure(
                NotLetIn("this server answers programs of its own user alone; run `backtestr ui` yourself"), 403
            )
        if not self._admission.is_for_us(headers):
            return _failure(NotLetIn("this server answers at 127.0.0.1 and localhost alone"), 421)
        if not self._admission.is_from_us(headers, must_say=is_tunnel or scope["method"] not in _SAFE):
            return _failure(NotLetIn("this server answers its own pages alone"), 403)
        if is_tunnel and not self._admission.is_let_in(headers):
            return _failure(NotLetIn(_NOT_LET_IN))
        return None


def _stating_errors(answer: Answer) -> Answer:
    async def answer_or_state(request: Request) -> Response:
        try:
            return await answer(request)
        except BacktestrError as error:
            return _failure(error)

    return answer_or_state


def _failure(error: BacktestrError, status: int | None = None) -> Response:
    found = next((code for kind, code in _STATUSES if isinstance(error, kind)), 500)
    data = error.to_data(component="ui", timestamp=time.time_ns() // 1_000_000)
    return _json({"error": data}, status or found)


def _json(content: Any, status: int = 200) -> Response:
    body = msgspec.json.encode(content)
    return Response(body, status, {"cache-control": PRIVATE}, media_type="application/json")
