"""This module is a second implementation of the protocol, written from PROTOCOL.md with msgpack and hmac alone.

Batches also need numpy and the libraries of the compressed formats. It shares no line with `backtestr_protocol`, so
that the two check each other: on the golden vectors, and in tests with a raw client. It opens no socket itself.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lz4.frame
import msgpack
import numpy as np
import zstandard

REQUEST, RESPONSE, STREAM = b"req", b"rep", b"pub"
MESSAGE_TYPES = ("Request", "Response", "Event", "Stream", "Error", "Heartbeat")

Fields = dict[str, Any]


class Rejected(Exception):
    """Bytes are refused by the protocol: with the error code, and the path in the envelope if there is one."""

    def __init__(self, code: str, reason: str, path: str | None = None) -> None:
        super().__init__(f"{code} {path or ''} {reason}")
        self.code = code
        self.path = path


def read_connection(file: Path) -> tuple[Fields, bytes]:
    """Return the connection file and its signing key."""
    connection: Fields = json.loads(file.read_text("utf-8"))
    return connection, bytes.fromhex(connection["signing"]["key"])


def signature(key: bytes, label: bytes, frames: Sequence[bytes]) -> bytes:
    digest = hmac.new(key, label, hashlib.sha256)
    for frame in frames:
        digest.update(len(frame).to_bytes(4, "big"))
        digest.update(frame)
    return digest.digest()


def pack(key: bytes, label: bytes, envelope: Mapping[str, Any], attachments: Sequence[bytes] = ()) -> list[bytes]:
    """Return the frames of a request or an answer."""
    frames = [msgpack.packb(envelope), *attachments]
    return [signature(key, label, frames), *frames]


def unpack(key: bytes, label: bytes, frames: Sequence[bytes]) -> tuple[Fields, list[bytes]]:
    """Return envelope and attachments of a request or an answer; raise `Rejected` for other frames."""
    if len(frames) < 2:
        raise Rejected("IPC_SERIALIZATION_ERROR", f"{len(frames)} frame(s)")
    if not hmac.compare_digest(frames[0], signature(key, label, frames[1:])):
        raise Rejected("AUTHENTICATION_ERROR", "signature")
    return _envelope(frames[1]), list(frames[2:])


def unpack_stream(key: bytes, frames: Sequence[bytes]) -> tuple[str, Fields, list[bytes]]:
    """Return topic, envelope and attachments of a stream message; raise `Rejected` for other frames."""
    if len(frames) < 3:
        raise Rejected("IPC_SERIALIZATION_ERROR", f"{len(frames)} frame(s)")
    topic, signed, *rest = frames
    if not hmac.compare_digest(signed, signature(key, STREAM, [topic, *rest])):
        raise Rejected("AUTHENTICATION_ERROR", "signature")
    try:
        name = topic.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Rejected("IPC_SERIALIZATION_ERROR", "topic") from error
    envelope = _envelope(rest[0])
    for field in ("seq", "instanceId"):
        if envelope.get(field) is None:
            raise Rejected("VALIDATION_ERROR", "missing", f"$.{field}")
    return name, envelope, rest[1:]


def messages_of(payload: bytes | Fields) -> list[Fields]:
    """Return the payloads in a stream payload: itself, or those of a `Batch` in any of its forms."""
    found: Fields = msgpack.unpackb(payload) if isinstance(payload, bytes) else payload
    if found["type"] != "Batch":
        return [found]
    batch = found["data"]
    field = "columns" if "columns" in batch else "messages"
    content = batch[field]
    if batch["compression"] != "none":
        content = _UNPACK[batch["compression"]](content)
        assert len(content) == batch["rawBytes"]
        content = msgpack.unpackb(content)
    if field == "messages":
        messages: list[Fields] = content
    else:
        messages = [{"type": batch["type"], "data": row} for row in _rows(content, batch["count"])]
    assert len(messages) == batch["count"]
    return messages


def _rows(columns: Fields, count: int) -> list[Fields]:
    values = {
        name: np.frombuffer(one["data"], dtype=one["dtype"]).tolist() if isinstance(one, dict) else [one] * count
        for name, one in columns.items()
    }
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _unzstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(data).read()


_UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "lz4": lz4.frame.decompress,
    "zstd": _unzstd,
    "gzip": gzip.decompress,
}


class Requests:
    """The requests of one session: first `hello`, then `welcomed`, then any request with a fresh counter."""

    def __init__(self, key: bytes, client_id: str, *, now_ms: Callable[[], int]) -> None:
        self._key = key
        self._now_ms = now_ms
        self.client_id = client_id
        self.session_id: str | None = None
        self.counter = 0

    def hello(self) -> list[bytes]:
        self.session_id, self.counter = None, 0
        return self.make("Hello", {"clientId": self.client_id, "protocolVersions": [1]})

    def welcomed(self, welcome: Mapping[str, Any]) -> None:
        self.session_id = welcome["sessionId"]

    def make(
        self, type_name: str, data: Any, *, message_id: str | None = None, attachments: Sequence[bytes] = ()
    ) -> list[bytes]:
        envelope: Fields = {
            "id": message_id or str(uuid.uuid4()),
            "timestamp": self._now_ms(),
            "schemaVersion": 1,
            "messageType": "Request",
            "payload": {"type": type_name, "data": data},
        }
        if self.session_id is not None:
            self.counter += 1
            envelope |= {"sessionId": self.session_id, "counter": self.counter}
        return pack(self._key, REQUEST, envelope, attachments)

    def answer(self, frames: Sequence[bytes]) -> tuple[Fields, list[bytes]]:
        return unpack(self._key, RESPONSE, frames)


def _envelope(body: bytes) -> Fields:
    try:
        envelope = msgpack.unpackb(body, strict_map_key=False)
    except Exception as error:  # msgpack documents no common base of what it raises
        raise Rejected("IPC_SERIALIZATION_ERROR", repr(error)) from error
    if not isinstance(envelope, dict) or not all(isinstance(name, str) for name in envelope):
        raise Rejected("VALIDATION_ERROR", "not a map of str", "$")
    for field, holds in _REQUIRED.items():
        if field not in envelope:
            raise Rejected("VALIDATION_ERROR", "missing", f"$.{field}")
        if not holds(envelope[field]):
            raise Rejected("VALIDATION_ERROR", "ill-typed", f"$.{field}")
    payload = envelope["payload"]
    for field in ("type", "data"):
        if field not in payload:
            raise Rejected("VALIDATION_ERROR", "missing", f"$.payload.{field}")
    if not isinstance(payload["type"], str) or len(payload["type"]) > 128:
        raise Rejected("VALIDATION_ERROR", "ill-typed", "$.payload.type")
    for field, holds in _OPTIONAL.items():
        if envelope.get(field) is not None and not holds(envelope[field]):
            raise Rejected("VALIDATION_ERROR", "ill-typed", f"$.{field}")
    return envelope


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 64


def _is_time(value: Any) -> bool:
    whole = _is_int(value) or (isinstance(value, float) and value.is_integer())
    return whole and -2_208_988_800_000 <= value <= 7_258_118_400_000


def _is_count(value: Any) -> bool:
    return _is_int(value) and 1 <= value < 2**53


_REQUIRED: dict[str, Callable[[Any], bool]] = {
    "id": lambda value: isinstance(value, str) and 1 <= len(value) <= 64,
    "timestamp": _is_time,
    "schemaVersion": lambda value: _is_int(value) and value == 1,
    "messageType": lambda value: value in MESSAGE_TYPES,
    "payload": lambda value: isinstance(value, dict),
}
_OPTIONAL: dict[str, Callable[[Any], bool]] = {
    "correlationId": _is_text,
    "sessionId": _is_text,
    "counter": _is_count,
    "seq": _is_count,
    "instanceId": _is_text,
}
