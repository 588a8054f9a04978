"""This module makes the golden vectors that a codec must reject: forged, undecodable and ill-typed messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from backtestr_protocol.codec import (
    REQUEST,
    RESPONSE,
    STREAM,
    Signer,
    encode_stream,
)
from support.protocol.vector_cases import (
    INSTANCE,
    NOW,
    SESSION,
    SIGNER,
    Case,
    Pieces,
    message_id,
    outgoing,
)

ENVELOPE: dict[str, Any] = {
    "id": message_id(30),
    "timestamp": NOW,
    "schemaVersion": 1,
    "messageType": "Request",
    "payload": {"type": "Ping", "data": {}},
    "sessionId": SESSION,
    "counter": 9,
}
ON_STREAM: dict[str, Any] = {
    "id": message_id(31),
    "timestamp": NOW,
    "schemaVersion": 1,
    "messageType": "Event",
    "payload": {"type": "Watermarks", "data": {"topics": {}}},
    "seq": 1,
    "instanceId": INSTANCE,
}
# Deeper than the stack of any recursive decoder, also of one in C.
DEPTH = 100_000

AUTHENTICATION = "AUTHENTICATION_ERROR"
SERIALIZATION = "IPC_SERIALIZATION_ERROR"
VALIDATION = "VALIDATION_ERROR"


def flipped(frame: bytes) -> bytes:
    """Return the frame with one bit flipped in the middle."""
    middle = len(frame) // 2
    return frame[:middle] + bytes([frame[middle] ^ 0x10]) + frame[middle + 1 :]


def rejected(name: str, label: bytes, frames: Sequence[bytes | Pieces], code: str, path: str | None = None) -> Case:
    rendered = [one.hex() if isinstance(one, bytes) else one for one in frames]
    case: Case = {"name": name, "label": label.decode(), "frames": rendered, "code": code}
    return case if path is None else {**case, "path": path}


def forged() -> list[Case]:
    cases = []
    for label, word in ((REQUEST, "request"), (RESPONSE, "response"), (STREAM, "stream")):
        envelope = msgpack.packb(ON_STREAM if label == STREAM else ENVELOPE)
        signed = [envelope, b"first attachment", b"second attachment"]
        if label == STREAM:
            signed = [b"system.watermarks", *signed]
        signature = SIGNER.sign(label, signed)
        at = 1 if label == STREAM else 0
        good = [*signed[:at], signature, *signed[at:]]
        parts = [*(["topic"] if label == STREAM else []), "signature", "envelope", "attachment", "last attachment"]
        for position, part in enumerate(parts):
            frames = [flipped(one) if here == position else one for here, one in enumerate(good)]
            cases.append(rejected(f"{word}: a bit of the {part} flipped", label, frames, AUTHENTICATION))
        head, first, second = good[:-2], good[-2], good[-1]
        other_label = RESPONSE if label == REQUEST else REQUEST
        for name, frames in (
            ("attachments swapped", [*head, second, first]),
            ("envelope and attachment swapped", [*head[:-1], first, head[-1], second]),
            ("last attachment left out", [*head, first]),
            ("an attachment added", [*good, b""]),
            ("two attachments merged", [*head, first + second]),
            ("a byte moved across the frames' boundary", [*head, first + second[:1], second[1:]]),
            ("signed under another label", [*good[:at], SIGNER.sign(other_label, signed), *good[at + 1 :]]),
            ("signed with another key", [*good[:at], Signer(bytes(32)).sign(label, signed), *good[at + 1 :]]),
            ("signature in hexadecimal", [*good[:at], signature.hex().encode(), *good[at + 1 :]]),
            ("signature cut short", [*good[:at], signature[:31], *good[at + 1 :]]),
            ("no signature", [*good[:at], b"", *good[at + 1 :]]),
        ):
            cases.append(rejected(f"{word}: {name}", label, frames, AUTHENTICATION))
        cases += [
            rejected(f"{word}: no frame", label, [], SERIALIZATION),
            rejected(f"{word}: a frame too few", label, good[: at + 1], SERIALIZATION),
        ]
    other = [b"system.errors", SIGNER.sign(STREAM, [b"system.watermarks", msgpack.packb(ON_STREAM)])]
    return [
        *cases,
        rejected("stream: another topic", STREAM, [*other, msgpack.packb(ON_STREAM)], AUTHENTICATION),
    ]


def signed_request(name: str, envelope: bytes, code: str, path: str | None = None) -> Case:
    return rejected(name, REQUEST, SIGNER.seal(REQUEST, [envelope]), code, path)


def undecodable() -> list[Case]:
    good = msgpack.packb(ENVELOPE)
    nested = msgpack.packb({**ENVELOPE, "payload": {"type": "Ping", "data": "@"}})
    before, after = nested.split(b"\xa1@")
    deep = before + b"\x91" * DEPTH + b"\xc0" + after
    cases = [
        signed_request(f"signed: {name}", envelope, SERIALIZATION)
        for name, envelope in (
            ("empty", b""),
            ("cut short", good[:-1]),
            ("trailing garbage", good + b"\x00"),
            ("twice", good + good),
            ("the opcode that MessagePack never uses", good.replace(b"\x09", b"\xc1")),
            ("not UTF-8", good.replace(b"Ping", b"P\xffng")),
            ("a map that claims 4294967295 keys", b"\xdf\xff\xff\xff\xff"),
        )
    ]
    # A piece is repeated instead of written out, to keep the file small.
    pieces: Pieces = [before.hex(), {"hex": "91", "times": DEPTH}, (b"\xc0" + after).hex()]
    cases.append(
        rejected(f"signed: nested {DEPTH} deep", REQUEST, [SIGNER.sign(REQUEST, [deep]), pieces], SERIALIZATION)
    )
    topic = b"system.\xff"
    frames = encode_stream(SIGNER, topic, outgoing(32, "Event", "Watermarks", {}, seq=1, instance_id=INSTANCE))
    cases.append(rejected("signed: a topic that is not UTF-8", STREAM, frames, SERIALIZATION))
    return cases


def ill_typed() -> list[Case]:
    cases = [
        signed_request(
            f"missing {field}",
            msgpack.packb({name: value for name, value in ENVELOPE.items() if name != field}),
            VALIDATION,
            f"$.{field}",
        )
        for field in ("id", "timestamp", "schemaVersion", "messageType", "payload")
    ]
    cases += [
        signed_request(f"{field} is {value!r:.20}", msgpack.packb({**ENVELOPE, field: value}), VALIDATION, f"$.{field}")
        for field, value in (
            ("id", 7),
            ("id", ""),
            ("id", "x" * 65),
            ("timestamp", "2026-01-01"),
            ("timestamp", NOW + 0.5),
            ("timestamp", None),
            ("timestamp", 1e308),
            ("timestamp", -2_208_988_800_001),
            ("timestamp", 7_258_118_400_001),
            ("schemaVersion", 2),
            ("schemaVersion", "1"),
            ("schemaVersion", True),
            ("messageType", "request"),
            ("payload", ["Ping", {}]),
            ("sessionId", 5),
            ("sessionId", "x" * 65),
            ("counter", 0),
            ("counter", 2**53),
            ("counter", "9"),
            ("counter", 9.5),
            ("correlationId", False),
        )
    ]
    payloads: list[tuple[dict[str, Any], str]] = [
        ({"data": {}}, "$.payload.type"),
        ({"type": "Ping"}, "$.payload.data"),
        ({"type": 1, "data": {}}, "$.payload.type"),
        ({"type": "x" * 129, "data": {}}, "$.payload.type"),
    ]
    cases += [
        signed_request(f"payload {payload}", msgpack.packb({**ENVELOPE, "payload": payload}), VALIDATION, path)
        for payload, path in payloads
    ]
    odd_key: dict[Any, Any] = {**ENVELOPE, 5: 5}
    cases += [
        signed_request("an array", msgpack.packb(list(ENVELOPE.values())), VALIDATION, "$"),
        signed_request("a key that is no string", msgpack.packb(odd_key), VALIDATION, "$"),
    ]
    for field in ("seq", "instanceId"):
        envelope = msgpack.packb({name: value for name, value in ON_STREAM.items() if name != field})
        topic = b"system.watermarks"
        frames = [topic, SIGNER.sign(STREAM, [topic, envelope]), envelope]
        cases.append(rejected(f"stream: missing {field}", STREAM, frames, VALIDATION, f"$.{field}"))
    return cases


def cases() -> list[Case]:
    return [*forged(), *undecodable(), *ill_typed()]
