"""Admission lets in requests to this server, from its own pages, of a browser that has opened a link of this server.

Names are compared whole, so a name that an attacker lets point to 127.0.0.1 is refused (DNS rebinding), and so is a
page of any other origin. Tokens and cookies are kept as digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import ClassVar

from backtestr_protocol.errors import AuthenticationError, RecoveryAction

# Links that were printed and not yet opened, and browsers that are let in; the oldest of more are forgotten.
MAX_LINKS = 8
MAX_COOKIES = 64
# Bytes of a token and of a cookie's value before they are written as text.
SECRET_BYTES = 32
_HTTP_PORT = 80

Headers = Sequence[tuple[bytes, bytes]]


class NotLetIn(AuthenticationError):
    """The browser has no cookie of this server, or the request is none of its own pages."""

    advice: ClassVar[tuple[RecoveryAction, ...] | None] = (
        RecoveryAction(
            action="open_link",
            description="Run `backtestr ui` again and open the link it prints",
            automatic=False,
            user_required=True,
        ),
    )


class Admission:
    """The names of one server, and the tokens and cookies that it has given out."""

    def __init__(self, port: int) -> None:
        self.cookie_name = f"backtestr-{port}"  # browsers do not tell servers of one host apart
        self._hosts = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost")}
        if port == _HTTP_PORT:
            self._hosts |= {b"127.0.0.1", b"localhost"}
        self._links: dict[bytes, None] = {}
        self._cookies: dict[bytes, None] = {}

    def is_for_us(self, headers: Headers) -> bool:
        """Return True if the one header `Host` is exactly a name of this server."""
        return len(hosts := _values(headers, b"host")) == 1 and hosts[0] in self._hosts

    def is_from_us(self, headers: Headers, *, must_say: bool) -> bool:
        """Return True if the header `Origin` is exactly the origin of the page at that host.

        A request without the header passes unless it `must_say` so: what changes anything, and a WebSocket.
        """
        origins = _values(headers, b"origin")
        if not origins:
            return not must_say
        return origins == [b"http://" + host for host in _values(headers, b"host")]

    def add_link(self, token: str) -> None:
        """Let a link with this token be opened once."""
        _add(self._links, token, MAX_LINKS)

    def open_link(self, token: str, cookie: str) -> bool:
        """Let the browser with this cookie in, if the token is of a link that was not opened yet."""
        if self._links.pop(_digest(token), False) is False:
            return False
        _add(self._cookies, cookie, MAX_COOKIES)
        return True

    def is_let_in(self, headers: Headers) -> bool:
        """Return True if the request has a cookie that was given out."""
        name = self.cookie_name.encode()
        for header in _values(headers, b"cookie"):
            for pair in header.split(b";"):
                key, _, value = pair.strip().partition(b"=")
                if key == name and _digest(value.decode("latin-1")) in self._cookies:
                    return True
        return False


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _add(kept: dict[bytes, None], secret: str, most: int) -> None:
    kept[_digest(secret)] = None
    while len(kept) > most:
        del kept[next(iter(kept))]
