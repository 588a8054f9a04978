"""A requester sends the requests of one client through its I/O thread and waits for their answers."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from backtestr.core.request_encoding import encode_request
from backtestr.io.io_thread import IoThread
from backtestr.io.table_files import tables_directory
from backtestr_protocol.messages import Contract

# Seconds within which the broker answers a request that needs little computing.
REQUEST_TIMEOUT = 30.0
# Seconds for requests that read or write whole files.
BULK_TIMEOUT = 600.0

Answer = TypeVar("Answer", bound=Contract)


class Requester:
    """A function of a request that returns its answer: `ask = Requester(…)`, then `ask("Ping", Nothing(), Pong)`.

    Each call blocks its thread; any number of threads may call. A call raises `ValidationError` for a value that cannot
    be sent, the broker's error as an exception of
    `backtestr.errors`, `TimedOut` without an answer within `timeout` seconds, `NetworkError` where the connection was
    lost for as long, and `RuntimeError` once the client is closed.
    """

    def __init__(self, io_thread: IoThread, timeout: float = REQUEST_TIMEOUT) -> None:
        """Take the I/O thread to send through, and the `timeout` of requests that name none."""
        self._io_thread = io_thread
        self._timeout = timeout

    def __call__(
        self, request_type: str, data: Contract, answer: type[Answer], /, timeout: float | None = None
    ) -> Answer:
        return self.with_attachments(request_type, data, answer, timeout)[0]

    def tables_directory(self) -> Path | None:
        """Return the directory whose table files this client may map; None where tables have to be received."""
        return tables_directory(self._io_thread.connection)

    def with_attachments(
        self, request_type: str, data: Contract, answer: type[Answer], /, timeout: float | None = None
    ) -> tuple[Answer, list[bytes]]:
        """Send a request, and return its answer with the attachments."""
        seconds = self._timeout if timeout is None else timeout
        success, attachments = self._io_thread.call(request_type, encode_request(data), seconds)
        assert isinstance(success, answer)
        return success, attachments
