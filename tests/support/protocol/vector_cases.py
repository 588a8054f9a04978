"""This module makes the cases of the golden vectors, with one key, one time and numbered ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from backtestr_protocol import SCHEMA_VERSION
from backtestr_protocol.codec import REQUEST, STREAM, Signer, encode, encode_message
from backtestr_protocol.envelopes import Outgoing, OutgoingPayload
from backtestr_protocol.messages import MessageType

KEY = bytes(range(32))
SIGNER = Signer(KEY)
NOW = 1_790_000_000_000
INSTANCE = "9b2f6d2e-5d0c-4b6e-8f7a-3c1d2e4f5a6b"
SESSION = "0c6a2f9e-1b7d-4f3a-9e8c-7d6b5a4f3e2d"
BACKTEST = "5f0c1d2e-3b4a-4958-8776-655443322110"

Pieces = str | list[str | dict[str, Any]]
Case = dict[str, Any]


def message_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def outgoing(number: int, message_type: MessageType, type_name: str, data: Any, **rest: Any) -> Outgoing:
    return Outgoing(
        id=message_id(number),
        timestamp=NOW + number,
        schema_version=SCHEMA_VERSION,
        message_type=message_type,
        payload=OutgoingPayload(type_name, data),
        **rest,
    )


def accepted(
    name: str, label: bytes, frames: Sequence[bytes], messages: Sequence[tuple[str, Any]] | None = None
) -> Case:
    """Return a case whose expected fields are decoded from the envelope.

    `messages` has the type and data of each message of a batch.
    """
    topic, envelope, attachments = (
        (frames[0].decode(), frames[2], frames[3:]) if label == STREAM else (None, frames[1], frames[2:])
    )
    expected: Case = {} if topic is None else {"topic": topic}
    decoded = msgspec.msgpack.decode(envelope)
    expected |= {"envelope": in_json(decoded), "attachments": [one.hex() for one in attachments]}
    if messages is not None:
        expected["messages"] = [msgspec.msgpack.decode(encode(OutgoingPayload(*one))) for one in messages]
    return {"name": name, "label": label.decode(), "frames": [one.hex() for one in frames], "expected": expected}


def in_json(value: Any) -> Any:
    """Return the value with MessagePack's bin as `{"hex": …}`."""
    match value:
        case dict():
            return {key: in_json(one) for key, one in value.items()}
        case list():
            return [in_json(one) for one in value]
        case bytes():
            return {"hex": value.hex()}
    return value


def request(number: int, type_name: str, data: Any, *, counter: int | None, attachments: Sequence[bytes] = ()) -> Case:
    session = {} if counter is None else {"session_id": SESSION, "counter": counter}
    envelope = outgoing(number, "Request", type_name, data, **session)
    return accepted(type_name, REQUEST, encode_message(SIGNER, REQUEST, envelope, attachments))
