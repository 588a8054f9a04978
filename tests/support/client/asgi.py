"""Requests to an application without a socket, and what it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from starlette.types import ASGIApp, Message


class Answered(NamedTuple):
    """The answer to one request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> Any:
        """The error that the answer states."""
        return self.json["error"]


def ask(
    app: ASGIApp,
    method: str,
    address: str,
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    chunks: Sequence[bytes | None] = (),
    kind: str = "http",
) -> Answered:
    """Send a request with a body in chunks, and return the answer. A chunk None is a client that leaves."""
    path, _, query = address.partition("?")
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    scope = {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
        "subprotocols": ["backtestr.1"],
        "extensions": {"websocket.http.response": {}},
    }
    body: list[Message] = [
        {"type": "http.disconnect"} if one is None else {"type": "http.request", "body": one, "more_body": True}
        for one in chunks
    ]
    body.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[Message] = []

    async def receive() -> Message:
        return body.pop(0) if body else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(_bounded(app, scope, receive, send))
    begun = next(one for one in sent if one["type"].endswith("response.start"))
    content = b"".join(one.get("body", b"") for one in sent if one["type"].endswith("response.body"))
    return Answered(begun["status"], {k.decode(): v.decode() for k, v in begun["headers"]}, content)


async def _bounded(app: ASGIApp, scope: Any, receive: Any, send: Any) -> None:
    await asyncio.wait_for(app(scope, receive, send), 20)
