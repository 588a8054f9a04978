"""The tunnel: one link to the broker for each WebSocket of a page."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Container, Iterable
from typing import assert_never

import zmq
from starlette.websockets import WebSocket, WebSocketDisconnect

from backtestr.io.connection_file import ConnectionFile
from backtestr.ui.core.page_link import (
    GOING_AWAY,
    POLICY_VIOLATION,
    ChangeSubscription,
    EndPage,
    PageEffect,
    PageLink,
    SendToBroker,
    SendToPage,
    absent,
)
from backtestr.ui.core.page_queue import PageQueue
from backtestr.ui.core.tunnel_format import SUBPROTOCOL
from backtestr_protocol.connection import Connection
from backtestr_protocol.errors import NetworkError
from backtestr_protocol.keys import KeyPair

from .broker_link import BrokerLink

# Pages that are connected at once. A page has one WebSocket, and nobody looks at so many.
MAX_PAGES = 32
# Seconds between two checks of the connection file; a file status costs microseconds.
RELOAD_INTERVAL = 0.25
# Seconds in which a page takes what was sent before its link ends.
CLOSING_SECONDS = 2.0
# Seconds in which the broker takes a request, and between two tries to send it.
BROKER_SECONDS = 10.0
_RETRY_INTERVAL = 0.01
# Bytes of the reason in a closing frame (RFC 6455).
_MAX_REASON = 123
_TRY_AGAIN_LATER = 1013

log = logging.getLogger("backtestr.ui")


class Tunnel:
    """The pages that are connected. `serve` serves one of them; all is done in one loop."""

    def __init__(self, uploads: Container[str]) -> None:
        self._uploads = uploads
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None  # made for the first page
        self._pages: set[_Page] = set()
        self._ending: str | None = None

    @property
    def pages(self) -> int:
        """The number of pages that are connected."""
        return len(self._pages)

    async def serve(self, websocket: WebSocket) -> None:
        """Serve a page from its handshake to its end."""
        if SUBPROTOCOL not in websocket.scope["subprotocols"]:
            await websocket.close()  # with HTTP's 403, since it was not accepted
            return
        await websocket.accept(subprotocol=SUBPROTOCOL)
        with contextlib.suppress(WebSocketDisconnect):
            await self._serve(websocket)

    async def _serve(self, websocket: WebSocket) -> None:
        if len(self._pages) >= MAX_PAGES or self._ending is not None:
            reason = self._ending or f"{MAX_PAGES} pages are connected, and no more can be; close some"
            await _turn_away(websocket, reason, _TRY_AGAIN_LATER)
            return
        file = ConnectionFile()
        try:
            connection = file.read()
        except NetworkError as error:
            await _turn_away(websocket, str(error), GOING_AWAY)
            return
        self._context = self._context or zmq.Context()
        try:
            page = _Page(websocket, self._context, connection, file.own_keys, self._uploads)
        except zmq.ZMQError as error:  # for want of descriptors
            await _turn_away(websocket, f"no connection to the broker can be opened: {error}", _TRY_AGAIN_LATER)
            return
        self._pages.add(page)
        try:
            await page.run()
        finally:
            self._pages.discard(page)
            page.close()

    async def watch(self) -> None:
        """Tell the pages of each new instance of the broker that announces itself; run until it is cancelled."""
        file = ConnectionFile()
        stamp = file.stamp()
        while True:
            await asyncio.sleep(RELOAD_INTERVAL)
            if file.stamp() == stamp:
                continue
            stamp = file.stamp()
            with contextlib.suppress(NetworkError):  # the next link says what is wrong with the file
                instance = file.read().instance_id
                for page in self._pages:
                    page.broker_is(instance)

    async def close(self, reason: str) -> None:
        """End every link with a reason, and take no more."""
        self._ending = reason
        for page in self._pages:
            page.lose(reason)
        deadline = time.monotonic() + CLOSING_SECONDS
        while self._pages and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        if self._context is not None:
            self._context.destroy(linger=0)


class _Page:
    """One page with its link to the broker."""

    def __init__(
        self,
        websocket: WebSocket,
        context: zmq.Context[zmq.Socket[bytes]],
        connection: Connection,
        keys: KeyPair | None,
        uploads: Container[str],
    ) -> None:
        self._websocket = websocket
        self._link = PageLink(connection.instance_id, connection.signer(), uploads)
        self._queue = PageQueue()
        self._has_news = asyncio.Event()
        self._end: EndPage | None = None
        self._unsent: list[bytes] | None = None  # a request that the queue to the broker had no room for
        self._has_told_of_drops = False
        self._broker = BrokerLink(
            context,
            connection,
            keys,
            on_answer=lambda frames: self._execute(self._link.answered(frames)),
            on_stream=lambda frames: self._execute(self._link.streamed(frames)),
            on_lost=self.lose,
        )

    async def run(self) -> None:
        """Serve the page until it leaves, or its link has ended and it was told so."""
        self._execute([self._link.opened()])
        reading = asyncio.create_task(self._read())
        sending = asyncio.create_task(self._send())
        try:
            await asyncio.wait({reading, sending}, return_when=asyncio.FIRST_COMPLETED)
            if self._end is not None:
                await asyncio.wait({sending}, timeout=CLOSING_SECONDS)
        finally:
            for task in (reading, sending):
                task.cancel()
            results = await asyncio.gather(reading, sending, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
                raise result

    def broker_is(self, instance_id: str) -> None:
        """Take note of the instance that the connection file names."""
        if instance_id != self._link.instance_id:
            self._execute(self._link.replaced())

    def lose(self, reason: str) -> None:
        """End the link, and tell the page why."""
        self._execute(self._link.lost(reason))

    def close(self) -> None:
        """Close the link to the broker."""
        self._broker.close()
        dropped, forged = self._link.window.dropped, self._link.forged
        if dropped or forged:
            log.warning(
                "a page has ended: %s stream messages were dropped since it was slow, %s had a wrong signature",
                f"{dropped:,}",
                f"{forged:,}",
            )

    async def _read(self) -> None:
        while not self._link.has_ended:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("bytes")
            self._execute(
                self._link.end("the page has sent text", POLICY_VIOLATION)
                if data is None
                else self._link.page_says(data, time.time_ns() // 1_000_000)
            )
            if self._unsent is not None:
                await self._send_again(self._unsent)

    async def _send_again(self, frames: list[bytes]) -> None:
        """Send a request once the broker has taken others; the page waits meanwhile."""
        deadline = time.monotonic() + BROKER_SECONDS
        while not self._link.has_ended:
            await asyncio.sleep(_RETRY_INTERVAL)
            if self._link.has_ended or self._broker.send(frames):
                break
            if time.monotonic() > deadline:
                self.lose("the broker takes no more requests")
        self._unsent = None

    async def _send(self) -> None:
        while True:
            while (message := self._queue.next()) is not None:
                await self._websocket.send_bytes(message)
            if self._end is not None:
                await self._websocket.close(self._end.code, _clipped(self._end.reason))
                return
            self._has_news.clear()
            await self._has_news.wait()

    def _execute(self, effects: Iterable[PageEffect]) -> None:
        for effect in effects:
            match effect:
                case SendToPage(message, is_stream):
                    if not self._queue.put(message, is_answer=not is_stream):
                        self._queue = PageQueue()
                        unread = "the page leaves too many answers unread"
                        self._execute(self._link.end(unread, POLICY_VIOLATION))
                        return
                    self._has_news.set()
                case SendToBroker(frames):
                    if not self._broker.send(frames):
                        self._unsent = frames
                case ChangeSubscription(socket, prefix, begins):
                    (self._broker.subscribe if begins else self._broker.unsubscribe)(socket, prefix)
                case EndPage(reason, code):
                    self._end = effect
                    if code == POLICY_VIOLATION:
                        log.warning("the link of a page was ended: %s", reason)
                    self._broker.close()
                    self._has_news.set()
                case _:
                    assert_never(effect)
        self._tell_of_drops()

    def _tell_of_drops(self) -> None:
        if self._link.window.dropped and not self._has_told_of_drops:
            self._has_told_of_drops = True
            log.warning("a page is slow: stream messages to it are dropped, and it fetches what it misses")


async def _turn_away(websocket: WebSocket, reason: str, code: int) -> None:
    await websocket.send_bytes(absent(reason))
    await websocket.close(code, _clipped(reason))


def _clipped(reason: str) -> str:
    return reason.encode()[:_MAX_REASON].decode(errors="ignore")
