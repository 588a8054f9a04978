"""One link of a page through the tunnel: frames of the broker and messages of the page in, effects out.

The page holds no key. Its requests are signed here, and what the broker sends is verified here. Everything else
(session, counters, resending, repair) is the page's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container

import msgspec

from backtestr_protocol.codec import REQUEST as REQUEST_LABEL
from backtestr_protocol.codec import RESPONSE, STREAM, Signer
from backtestr_protocol.errors import AuthenticationError
from backtestr_protocol.topics import Socket

from .import_paths import refusal
from .stream_window import StreamWindow
from .tunnel_format import (
    ABSENT,
    ANSWER,
    LOST,
    OPENED,
    REPLACED,
    STREAM_MESSAGE,
    MalformedMessage,
    PageRequest,
    PageSubscription,
    PageTaken,
    packed,
    page_message,
)

# Codes of RFC 6455: the server or the broker goes away, and the page has done what none of ours does.
GOING_AWAY = 1001
POLICY_VIOLATION = 1008
# Subscriptions of one page. The broker takes 10,000 different ones of each socket, of all clients together.
MAX_SUBSCRIPTIONS = 4_096


class SendToBroker(msgspec.Struct, frozen=True):
    """Send a signed request."""

    frames: list[bytes]


class ChangeSubscription(msgspec.Struct, frozen=True):
    """Subscribe to a prefix on one socket, or end that."""

    socket: Socket
    prefix: str
    begins: bool


class SendToPage(msgspec.Struct, frozen=True):
    """Send a message to the page. `is_stream` marks those that the window counts."""

    message: bytes
    is_stream: bool = False


class EndPage(msgspec.Struct, frozen=True):
    """End the link with a code of WebSocket; what was to be sent before still leaves."""

    reason: str
    code: int


PageEffect = SendToBroker | ChangeSubscription | SendToPage | EndPage


class PageLink:
    """The link from its opening to its end. After an `EndPage` it takes nothing more and has no effects."""

    def __init__(self, instance_id: str, signer: Signer, uploads: Container[str]) -> None:
        self.instance_id = instance_id
        self.window = StreamWindow()
        self.forged = 0  # stream messages with a wrong signature
        self.has_ended = False
        self._signer = signer
        self._uploads = uploads
        self._subscriptions: Counter[tuple[Socket, str]] = Counter()
        self._refused = 0

    def opened(self) -> SendToPage:
        """Return what a page is told first."""
        return SendToPage(packed(OPENED, [self.instance_id.encode()]))

    def page_says(self, data: bytes, wall_ms: int) -> list[PageEffect]:
        """Take in a message of the page. One that no page of backtestr sends ends the link."""
        if self.has_ended:
            return []
        try:
            match page_message(data):
                case PageRequest(frames):
                    return [self._request(frames, wall_ms)]
                case PageTaken(count):
                    self.window.taken(count)
                    return []
                case PageSubscription(socket, prefix, begins):
                    return self._subscription(socket, prefix, begins)
        except MalformedMessage as error:
            return self.end(f"the page has sent {error}", POLICY_VIOLATION)

    def _request(self, frames: list[bytes], wall_ms: int) -> PageEffect:
        answer = refusal(frames, self._uploads, f"ui-{self._refused + 1}", wall_ms)
        if answer is None:
            return SendToBroker(self._signer.seal(REQUEST_LABEL, frames))
        self._refused += 1
        return SendToPage(packed(ANSWER, answer))

    def _subscription(self, socket: Socket, prefix: str, begins: bool) -> list[PageEffect]:
        if begins:
            if self._subscriptions.total() >= MAX_SUBSCRIPTIONS:
                raise MalformedMessage(f"more than {MAX_SUBSCRIPTIONS:,} subscriptions")
            self._subscriptions[socket, prefix] += 1
        elif self._subscriptions[socket, prefix] > 1:
            self._subscriptions[socket, prefix] -= 1
        elif self._subscriptions.pop((socket, prefix), 0) == 0:
            return []  # there is none to end
        return [ChangeSubscription(socket, prefix, begins)]

    def answered(self, frames: list[bytes]) -> list[PageEffect]:
        """Take in an answer of the broker. A wrong signature ends the link: the key is that of another broker."""
        if self.has_ended:
            return []
        signature, *signed = frames
        try:
            self._signer.verify(RESPONSE, signature, signed)
        except AuthenticationError:
            return self.lost("an answer has a wrong signature: the connection file is old")
        return [SendToPage(packed(ANSWER, signed))]

    def streamed(self, frames: list[bytes]) -> list[PageEffect]:
        """Take in a stream message. A forged one is dropped, and so is one that the page has no room for."""
        if self.has_ended:
            return []
        if not self._is_genuine(frames):
            self.forged += 1  # the page finds it missing, and fetches it
            return []
        message = packed(STREAM_MESSAGE, [frames[0], *frames[2:]])
        return [SendToPage(message, is_stream=True)] if self.window.lets_in(len(message)) else []

    def _is_genuine(self, frames: list[bytes]) -> bool:
        if len(frames) < 3:
            return False
        topic, signature, *rest = frames
        try:
            self._signer.verify(STREAM, signature, [topic, *rest])
        except AuthenticationError:
            return False
        return True

    def replaced(self) -> list[PageEffect]:
        """Tell the page that another instance of the broker is there."""
        return [] if self.has_ended else [SendToPage(packed(REPLACED, []))]

    def lost(self, reason: str) -> list[PageEffect]:
        """Tell the page that the connection to the broker has ended, and end the link."""
        return [] if self.has_ended else [SendToPage(packed(LOST, [reason.encode()])), *self.end(reason, GOING_AWAY)]

    def end(self, reason: str, code: int) -> list[PageEffect]:
        """End the link."""
        if self.has_ended:
            return []
        self.has_ended = True
        return [EndPage(reason, code)]


def absent(reason: str) -> bytes:
    """Return what a page is told, only and once, where there is no broker."""
    return packed(ABSENT, [reason.encode()])
