"""The server of `backtestr ui`, from its port to its end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from types import FrameType

import uvicorn

from backtestr.ui.core.admission import Admission
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.system.ports import own_port

from .new_links import NewLinks
from .page_files import PageFiles
from .tunnel import Tunnel
from .uploads import Uploads
from .web_app import WebApp

HOST = "127.0.0.1"
# A page keeps what it stores in the browser as long as it stays at one port, so one is preferred.
USUAL_PORT = 8497
# Twice the most bytes that a broker takes unless it is told otherwise; it refuses what is larger in its own words.
MAX_MESSAGE_BYTES = 64 << 20
# Connections at once: each page has one for its tunnel and up to six for files and uploads.
MAX_CONNECTIONS = 256
# Milliseconds after which a connection ends that takes nothing of what it is sent.
_TAKING_MS = 60_000
_ENDED = "backtestr ui has ended; start it again with: backtestr ui"


def listen(port: int | None) -> socket.socket:
    """Return a socket that listens on loopback, at `port` or at a free one. Raises `InvalidConfiguration`."""
    for one in (USUAL_PORT, 0) if port is None else (port,):
        # With the protocol named: asyncio lets small messages leave at once (TCP_NODELAY) only where it is.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            own_port(listener)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TAKING_MS)
            listener.bind((HOST, one))
            listener.listen()
        except OSError as error:
            listener.close()
            if port is not None or one == 0:
                raise InvalidConfiguration(
                    f"port {one} cannot be used: {error.strerror}; name another with --port, or none for a free one"
                ) from error
            continue
        return listener
    raise AssertionError("the last port is tried or raises")


class Server:
    """A server at a socket that listens. Browsers may connect before `run`, and are answered then."""

    def __init__(self, listener: socket.socket, upload_limit: int, files: PageFiles | None = None) -> None:
        self._listener = listener
        self.port: int = listener.getsockname()[1]
        admission = Admission(self.port)
        self.links = NewLinks(admission, self.port)
        self._uploads = Uploads(upload_limit)
        self._tunnel = Tunnel(self._uploads)
        app = WebApp(admission, self.links, self._tunnel, self._uploads, files or PageFiles(), self.port)
        config = uvicorn.Config(
            app.application,
            loop="asyncio",
            http="h11",
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config, self._tunnel)

    def new_link(self) -> str:
        """Return an address that lets one browser in."""
        return link(self.port, self.links.new())

    def run(self) -> None:
        """Serve until Ctrl-C or SIGTERM, then end every link and remove what was uploaded."""
        self.links.publish()
        # uvicorn takes the signals, ends, and raises them again: the program goes on to its own end then.
        before = [(number, signal.signal(number, self._stop)) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            # A loop that watches descriptors, which ZeroMQ's sockets need; that of Windows does not unless it is asked.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve())
        finally:
            self.links.withdraw()
            self._uploads.close()
            for number, handler in before:
                signal.signal(number, handler)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._server.should_exit = True

    async def _serve(self) -> None:
        watching = asyncio.create_task(self._tunnel.watch())
        try:
            await self._server.serve(sockets=[self._listener])
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching


def link(port: int, token: str) -> str:
    """Return the address of a link."""
    return f"http://{HOST}:{port}/?token={token}"


class _Server(uvicorn.Server):
    """A server that tells its pages before it ends."""

    def __init__(self, config: uvicorn.Config, tunnel: Tunnel) -> None:
        super().__init__(config)
        self._tunnel = tunnel

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the links, then all connections."""
        await self._tunnel.close(_ENDED)
        await super().shutdown(sockets)
