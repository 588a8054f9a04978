"""`backtestr ui` as a process of its own, a browser that is let in, and pages that speak the tunnel's format.

A page here shares no code with the TypeScript client: its envelopes are those of `protocol/independent.py`.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import msgpack
from websockets.sync.client import ClientConnection, connect

from support.harness import wait_until

ANSWER_SECONDS = 20.0
START_SECONDS = 20.0
# Ctrl-C ends a server within this time.
END_SECONDS = 8.0
REQUEST, SUBSCRIBE, UNSUBSCRIBE, TAKEN = 1, 2, 3, 4
ANSWER, MESSAGE, OPENED, LOST, ABSENT, REPLACED = 1, 2, 3, 4, 5, 6

_LINK = re.compile(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)")


class Reply(NamedTuple):
    """A response over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Message(NamedTuple):
    """A message of the tunnel."""

    kind: int
    parts: list[bytes]

    @property
    def text(self) -> str:
        return self.parts[0].decode()


class UiProcess:
    """A server, and the one browser of its first link."""

    def __init__(self, environment: Mapping[str, str], *arguments: str) -> None:
        command = [sys.executable, "-m", "backtestr", "ui", "--no-browser", *arguments]
        self._files = contextlib.ExitStack()
        self._output = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        self._errors = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        self.process = subprocess.Popen(command, env=dict(environment), stdout=self._output, stderr=self._errors)
        try:
            wait_until(lambda: "token=" in self.printed or self.process.poll() is not None, START_SECONDS)
            found = _LINK.search(self.printed)
            assert found is not None, self.printed + self.errors
        except BaseException:
            self._kill()
            raise
        self.port, self.token = int(found[1]), found[2]
        self.cookie = ""

    @property
    def printed(self) -> str:
        """The text that it has printed so far."""
        return _content(self._output)

    @property
    def errors(self) -> str:
        """The text of its standard error so far."""
        return _content(self._errors)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def let_in(self) -> UiProcess:
        """Open the link, and keep the cookie."""
        reply = self.ask("GET", f"/?token={self.token}")
        assert reply.status == 303, reply
        self.cookie = reply.headers["set-cookie"].partition(";")[0]
        return self

    def ask(self, method: str, address: str, body: bytes | None = None, **headers: str) -> Reply:
        """Send a request with the origin and cookie of the browser, unless `headers` has others."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request(method, address, body, {"Origin": self.origin, "Cookie": self.cookie, **headers})
            reply = connection.getresponse()
            return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    @contextlib.contextmanager
    def page(self, **more: Any) -> Iterator[Page]:
        """Connect a page of the browser."""
        with connect(
            f"ws://127.0.0.1:{self.port}/tunnel",
            subprotocols=more.pop("subprotocols", ["backtestr.1"]),
            origin=more.pop("origin", self.origin),
            additional_headers={"Cookie": more.pop("cookie", self.cookie)},
            compression=None,
            max_size=None,
            close_timeout=1,
            **more,
        ) as websocket:
            yield Page(websocket)

    def end(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """End it with a signal, and return its exit code and what it has said on standard error."""
        self.process.send_signal(number)
        return self.process.wait(END_SECONDS), self.errors

    def _kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._files.close()

    def __enter__(self) -> UiProcess:
        return self.let_in()

    def __exit__(self, *_: object) -> None:
        try:
            if self.process.poll() is None:
                self.end()
        finally:
            self._kill()


def _content(file: BinaryIO) -> str:
    return os.pread(file.fileno(), 1 << 20, 0).decode()


class Page:
    """One link of a page: it makes envelopes, and packs and unpacks the messages of the tunnel."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self._ids = itertools.count(1)
        self._counters = itertools.count(1)
        self._session: str | None = None
        self.others: list[Message] = []  # what came besides the answers that were waited for

    def send(self, kind: int, *parts: bytes) -> None:
        self.websocket.send(bytes([kind]) + b"".join(len(one).to_bytes(4, "big") + one for one in parts))

    def receive(self, timeout: float = ANSWER_SECONDS) -> Message:
        data = self.websocket.recv(timeout)
        assert isinstance(data, bytes)
        parts, at = [], 1
        while at < len(data):
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            parts.append(data[at + 4 : end])
            at = end
        return Message(data[0], parts)

    def until(self, holds: Callable[[Message], bool], timeout: float = ANSWER_SECONDS) -> Message:
        """Return the first message for which `holds` is true; keep the others."""
        deadline = time.monotonic() + timeout
        while True:
            message = self.receive(max(0.0, deadline - time.monotonic()))
            if holds(message):
                return message
            self.others.append(message)

    def opened(self) -> str:
        """Take the first message, and return the instance of the broker."""
        message = self.receive()
        assert message.kind == OPENED, message
        return message.text

    def hello(self) -> Page:
        """Open a session."""
        self.opened()
        data = {"clientId": f"page-{os.urandom(4).hex()}", "protocolVersions": [1]}
        self._session = self.ask("Hello", data)["sessionId"]
        return self

    def request(self, type_name: str, data: Any) -> str:
        """Send a request, and return its id."""
        request_id = f"page-{next(self._ids)}"
        envelope = {
            "id": request_id,
            "timestamp": time.time_ns() // 1_000_000,
            "schemaVersion": 1,
            "messageType": "Request",
            "payload": {"type": type_name, "data": data},
        }
        if self._session is not None:
            envelope |= {"sessionId": self._session, "counter": next(self._counters)}
        self.send(REQUEST, msgpack.packb(envelope))
        return request_id

    def answer(self, request_id: str) -> Any:
        """Return the payload of the answer to a request."""

        def is_answer(message: Message) -> bool:
            return message.kind == ANSWER and msgpack.unpackb(message.parts[0]).get("correlationId") == request_id

        return msgpack.unpackb(self.until(is_answer).parts[0])["payload"]

    def ask(self, type_name: str, data: Any) -> Any:
        """Send a request, and return the data of its Success."""
        payload = self.answer(self.request(type_name, data))
        assert payload["type"] == "Success", payload
        return payload["data"]

    def refused(self, type_name: str, data: Any) -> Any:
        """Send a request that must fail, and return the error."""
        payload = self.answer(self.request(type_name, data))
        assert payload["type"] == "Failure", payload
        return payload["data"]

    def subscribe(self, socket: str, prefix: str) -> None:
        self.send(SUBSCRIBE, socket.encode(), prefix.encode())

    def taken(self, count: int) -> None:
        self.send(TAKEN, str(count).encode())
