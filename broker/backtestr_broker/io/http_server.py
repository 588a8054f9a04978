"""An HTTP server on this machine's loopback address for one small page, which every user of the machine can reach.

So it is bounded: `MAX_CONNECTIONS` at a time, each of `PATIENCE` seconds at most, each on a thread of its own. When all
are taken, one that has lasted for longer than an answer takes makes room.
"""

from __future__ import annotations

import contextlib
import logging
import socket as sockets_of_the_system
import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from backtestr_protocol.system.ports import own_port

HOST = "127.0.0.1"
# Prometheus keeps one connection, a person opens a few.
MAX_CONNECTIONS = 16
# Seconds for a whole connection. A page takes milliseconds.
PATIENCE = 5.0
# Seconds after which a connection may have to make room for another: most answers are given by then.
_YOUNG = 0.05
# Seconds until the next try to accept a connection for which there was no file descriptor or thread.
_PAUSE = 0.2
# Seconds between two looks for connections that have lasted too long.
_POLL = 0.5

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

_log = logging.getLogger(__name__)


class _Handler(WSGIRequestHandler):
    timeout = PATIENCE  # of one read or write

    def log_message(self, format: str, *args: object) -> None:
        """Log no request."""


class BoundedServer(ThreadingMixIn, WSGIServer):
    """The server; `serve` makes one that runs."""

    daemon_threads = True
    request_queue_size = 8 * MAX_CONNECTIONS

    def __init__(self, port: int, application: Application) -> None:
        """Listen. Raises `OSError`."""
        super().__init__((HOST, port), _Handler)
        self.set_app(application)
        self._lock = threading.Lock()
        self._open: dict[sockets_of_the_system.socket, float] = {}  # by the time at which it was accepted
        self._thread = threading.Thread(target=self.serve_forever, args=(_POLL,), name="backtestr http", daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End all connections and listen no longer."""
        self.shutdown()
        self._thread.join()
        self._end_older_than(0.0)
        self.server_close()

    def server_bind(self) -> None:
        """Bind, without asking for the name of this machine as the standard library does, which may take seconds."""
        own_port(self.socket)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, int(self.server_address[1])
        self.setup_environ()

    def get_request(self) -> tuple[sockets_of_the_system.socket, Any]:
        """Accept a connection. Where that fails it would be tried again at once, without end: so wait for a moment."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_PAUSE)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Take a connection if there is room, or if room can be made."""
        if len(self._open) >= MAX_CONNECTIONS:
            self._end_older_than(_YOUNG)
        with self._lock:
            if len(self._open) >= MAX_CONNECTIONS:
                return False
            self._open[request] = time.monotonic()
            return True

    def close_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().close_request(request)

    def service_actions(self) -> None:
        """End the connections that have lasted too long; `serve_forever` calls it twice a second."""
        self._end_older_than(PATIENCE)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error of one connection: its peer has left as a rule."""
        _log.debug("a request for metrics failed", exc_info=True)

    def _end_older_than(self, seconds: float) -> None:
        """End connections, so that their threads close them."""
        until = time.monotonic() - seconds
        with self._lock:
            for request in [one for one, since in self._open.items() if since <= until]:
                del self._open[request]
                with contextlib.suppress(OSError):  # the peer has left
                    request.shutdown(sockets_of_the_system.SHUT_RDWR)


def serve(port: int, application: Application) -> BoundedServer:
    """Start a server on a thread of its own. Raises `OSError` if the port cannot be listened on."""
    server = BoundedServer(port, application)
    server.start()
    return server
