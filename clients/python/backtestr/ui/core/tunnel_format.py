"""The messages between a page and the tunnel, over a WebSocket of the subprotocol `backtestr.1`.

`clients/typescript/src/transports/tunnel-format.ts` specifies them: a byte that says what a message is, then parts,
each after its length as 4 bytes, big-endian. What a page sends is checked here, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeGuard

from backtestr_protocol.codec import MAX_FRAMES
from backtestr_protocol.topics import SOCKETS, Socket

SUBPROTOCOL = "backtestr.1"

# The kinds of messages that a page sends.
REQUEST, SUBSCRIBE, UNSUBSCRIBE, TAKEN = 1, 2, 3, 4
# The kinds that it is sent.
ANSWER, STREAM_MESSAGE, OPENED, LOST, ABSENT, REPLACED = 1, 2, 3, 4, 5, 6

# Bytes of a subscription that the broker takes (PROTOCOL.md, section 13).
MAX_PREFIX_BYTES = 500
_LENGTH = 4
# Digits of the number of messages that were taken; a page has far fewer on their way.
_MAX_DIGITS = 7
# The broker counts the signature as a frame.
_MAX_PARTS = MAX_FRAMES - 1


class MalformedMessage(Exception):
    """Bytes of a page that are no message of this format; it ends the link."""


class PageRequest(NamedTuple):
    """The frames of a request, without signature."""

    frames: list[bytes]


class PageSubscription(NamedTuple):
    """A subscription to a prefix on one socket that begins, or else ends."""

    socket: Socket
    prefix: str
    begins: bool


class PageTaken(NamedTuple):
    """So many stream messages more were read."""

    messages: int


PageMessage = PageRequest | PageSubscription | PageTaken


def packed(kind: int, parts: Sequence[bytes]) -> bytes:
    """Return the bytes of a message."""
    pieces = [kind.to_bytes(1)]
    for part in parts:
        pieces += (len(part).to_bytes(_LENGTH), part)
    return b"".join(pieces)


def unpacked(data: bytes) -> tuple[int, list[bytes]]:
    """Return what a message is, and its parts. Raises `MalformedMessage`."""
    if not data:
        raise MalformedMessage("an empty message")
    parts: list[bytes] = []
    at = 1
    while at < len(data):
        begin = at + _LENGTH
        end = begin + int.from_bytes(data[at:begin])
        if begin > len(data) or end > len(data):
            raise MalformedMessage("a message that ends within a part")
        if len(parts) == _MAX_PARTS:
            raise MalformedMessage(f"a message of more than {_MAX_PARTS:,} parts")
        parts.append(data[begin:end])
        at = end
    return data[0], parts


def page_message(data: bytes) -> PageMessage:
    """Return what a page says. Raises `MalformedMessage` for what no page of backtestr sends."""
    kind, parts = unpacked(data)
    match kind, parts:
        case 1, [_, *_]:
            return PageRequest(parts)
        case 2 | 3, [name, prefix]:
            return PageSubscription(_socket(name), _prefix(prefix), kind == SUBSCRIBE)
        case 4, [count] if count.isdigit() and len(count) <= _MAX_DIGITS:
            return PageTaken(int(count))
    raise MalformedMessage(f"a message of kind {kind} with {len(parts)} parts that has no meaning")


def _socket(part: bytes) -> Socket:
    name = part.decode("latin-1")
    if not _is_socket(name):
        raise MalformedMessage(f"a socket of streams that does not exist ({name[:40]!r})")
    return name


def _is_socket(name: str) -> TypeGuard[Socket]:
    return name in SOCKETS


def _prefix(part: bytes) -> str:
    if len(part) > MAX_PREFIX_BYTES:
        raise MalformedMessage(f"a prefix of more than {MAX_PREFIX_BYTES} bytes")
    try:
        return part.decode()
    except UnicodeDecodeError:
        raise MalformedMessage("a prefix that is not UTF-8") from None
