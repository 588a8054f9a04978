"""This module has the envelopes of messages, as they are received and as they are sent, and what is in them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from .messages import MessageType
from .ranges import Milliseconds, Positive

MessageId = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
# The id of a session or of a broker's instance: both have fewer characters.
Id = Annotated[str, msgspec.Meta(max_length=64)]


class Payload(msgspec.Struct, frozen=True):
    """The map `{"type": …, "data": …}` as received; `data` stay undecoded until `type` says what they are."""

    type: Annotated[str, msgspec.Meta(max_length=128)]
    data: msgspec.Raw


class OutgoingPayload(msgspec.Struct, frozen=True):
    """The map `{"type": …, "data": …}` to be sent."""

    type: str
    data: Any


class Outgoing(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The envelope to be sent; `payload` is an `OutgoingPayload`, or one that is already encoded (`msgspec.Raw`)."""

    id: MessageId
    timestamp: Milliseconds
    schema_version: Literal[1]
    message_type: MessageType
    payload: Any
    correlation_id: Id | None = None
    session_id: Id | None = None
    counter: Positive | None = None
    seq: Positive | None = None
    instance_id: Id | None = None


class Envelope(Outgoing, frozen=True, kw_only=True):
    """The envelope as received: verified, with every field of its type; `timestamp` may be an integral float."""

    payload: Payload


class Identified(msgspec.Struct, frozen=True):
    """The part of an envelope that an error about the rest of it needs."""

    id: MessageId


class Message(msgspec.Struct, frozen=True):
    """A verified request or answer."""

    envelope: Envelope
    attachments: list[bytes]


class StreamMessage(msgspec.Struct, frozen=True):
    """A verified stream message."""

    topic: str
    envelope: Envelope
    attachments: list[bytes]
