"""Frames to messages and back: signing, verification before decoding, and one error type for hostile bytes.

A message on the wire is a list of frames, `signature, envelope, attachment*`, with the topic before them on a stream.
The signature is HMAC-SHA256 over a label and every other frame, each with its length before it, so that frames can
neither be swapped between messages nor moved across frame boundaries (PROTOCOL.md, section 2).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from .errors import AuthenticationError, SerializationError, ValidationError, did_you_mean
from .messages import MessageType, Milliseconds, Positive

REQUEST = b"req"
RESPONSE = b"rep"
STREAM = b"pub"
TO_BROKER = b"w2b"
TO_WORKER = b"b2w"

KEY_BYTES = 32
# Frames of one message. Each costs some time even when it is empty; a table of results is one.
MAX_FRAMES = 1024
SIGNATURE_BYTES = 32
# Up to this size one C call over the joined frames beats several over parts; above it the copy costs more.
_JOIN_LIMIT = 65_536

T = TypeVar("T")


MessageId = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Payload(msgspec.Struct, frozen=True):
    """`{"type": …, "data": …}`; the data stay undecoded until the type says what they are."""

    type: str
    data: msgspec.Raw


class OutgoingPayload(msgspec.Struct, frozen=True):
    type: str
    data: Any


class Outgoing(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The envelope to be sent. `payload` is an `OutgoingPayload`, or one that is encoded already (`msgspec.Raw`)."""

    id: MessageId
    timestamp: Milliseconds
    schema_version: Literal[1]
    message_type: MessageType
    payload: Any
    correlation_id: str | None = None
    session_id: str | None = None
    counter: Positive | None = None
    seq: Positive | None = None
    instance_id: str | None = None


class Envelope(Outgoing, frozen=True, kw_only=True):
    """The envelope as it arrived: verified, every field of its type. `timestamp` may be an integral float."""

    payload: Payload


class _Identified(msgspec.Struct, frozen=True):
    id: MessageId


class Message(msgspec.Struct, frozen=True):
    envelope: Envelope
    attachments: list[bytes]


class StreamMessage(msgspec.Struct, frozen=True):
    topic: str
    envelope: Envelope
    attachments: list[bytes]


_encoder = msgspec.msgpack.Encoder()
_envelope_decoder = msgspec.msgpack.Decoder(Envelope)
_identified_decoder = msgspec.msgpack.Decoder(_Identified)
encode = _encoder.encode


class Signer:
    """Signs and verifies with one 32-byte key. Raises `ValueError` for a key of another length."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a signing key has {KEY_BYTES} bytes, this one {len(key)}")
        self._keyed = hmac.new(key, digestmod="sha256")

    def sign(self, label: bytes, frames: Sequence[bytes]) -> bytes:
        digest = self._keyed.copy()
        parts = [label]
        for frame in frames:
            parts += (len(frame).to_bytes(4, "big"), frame)
        if sum(map(len, parts)) < _JOIN_LIMIT:
            digest.update(b"".join(parts))
        else:
            for part in parts:
                digest.update(part)
        return digest.digest()

    def seal(self, label: bytes, frames: list[bytes]) -> list[bytes]:
        """`frames` with their signature before them."""
        return [self.sign(label, frames), *frames]

    def verify(self, label: bytes, signature: bytes, frames: Sequence[bytes]) -> None:
        """Raise `AuthenticationError` unless `signature` is that of `frames` under `label`, in constant time."""
        if len(signature) != SIGNATURE_BYTES or not hmac.compare_digest(signature, self.sign(label, frames)):
            raise AuthenticationError(
                "bad signature; expected HMAC-SHA256 over label and frames with the key in the connection file, "
                "which is new at every broker start"
            )


def encode_message(signer: Signer, label: bytes, envelope: Outgoing, attachments: Sequence[bytes] = ()) -> list[bytes]:
    """The frames of a request (`label` `REQUEST`) or of an answer (`RESPONSE`)."""
    return signer.seal(label, [encode(envelope), *attachments])


def decode_message(signer: Signer, label: bytes, frames: Sequence[bytes]) -> Message:
    """The reverse of `encode_message`. Raises `MessageError` for anything else, having verified before decoding.

    Where the signature is right and the envelope wrong, the error's `message_id` is the envelope's if readable.
    """
    if not 2 <= len(frames) <= MAX_FRAMES:
        raise SerializationError(
            f"expected the frames signature, envelope, attachments, {MAX_FRAMES} at most; {len(frames)} frame(s) came"
        )
    signature, *signed = frames
    signer.verify(label, signature, signed)
    try:
        envelope = decode(_envelope_decoder, signed[0])
    except ValidationError as error:
        error.message_id = _readable_id(signed[0])
        raise
    return Message(envelope, list(signed[1:]))


def _readable_id(body: bytes) -> str | None:
    try:
        return decode(_identified_decoder, body).id
    except ValidationError:
        return None


def encode_stream(signer: Signer, topic: bytes, envelope: Outgoing, attachments: Sequence[bytes] = ()) -> list[bytes]:
    """The frames of a stream message. The signature covers the topic as well."""
    body = encode(envelope)
    return [topic, signer.sign(STREAM, [topic, body, *attachments]), body, *attachments]


def decode_stream(signer: Signer, frames: Sequence[bytes]) -> StreamMessage:
    """The reverse of `encode_stream`: `seq` and `instance_id` are there. Raises `MessageError` for anything else."""
    if len(frames) < 3:
        raise SerializationError(f"expected topic, signature, envelope, attachments; {len(frames)} frame(s) came")
    topic, signature, *rest = frames
    signer.verify(STREAM, signature, [topic, *rest])
    try:
        name = topic.decode()
    except UnicodeDecodeError as error:
        raise SerializationError("a topic is UTF-8 text") from error
    envelope = decode(_envelope_decoder, rest[0])
    for field, value in (("seq", envelope.seq), ("instanceId", envelope.instance_id)):
        if value is None:
            raise ValidationError(f"$.{field}: required on a stream, and missing", path=f"$.{field}")
    return StreamMessage(name, envelope, list(rest[1:]))


def decode(decoder: msgspec.msgpack.Decoder[T], body: bytes | msgspec.Raw) -> T:
    """`decoder.decode(body)`, with every way it can fail turned into a `MessageError`."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise validation_error(str(error), decoder.type) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, MemoryError) as error:
        raise SerializationError(f"not the MessagePack that PROTOCOL.md describes: {error}") from error


def encoded_payload(type_name: str, data: Any) -> bytes:
    """The bytes of `{"type": type_name, "data": data}`."""
    return encode(OutgoingPayload(type_name, data))


_MISSING = re.compile(r"Object missing required field `(?P<field>.+?)`")
_NOT_LISTED = re.compile(r"Invalid enum value (?P<came>.*)", re.DOTALL)
_WHERE = re.compile(r" - at (?P<key>`key` in )?`(?P<path>\$[^`]*)`$")
_STEP = re.compile(r"\.(?P<field>\w+)|\[")
# What came is quoted up to here, so that an answer is never as large as what it complains of.
_MAX_QUOTED = 200


def validation_error(text: str, expected: Any = Any) -> ValidationError:
    """msgspec's message as a `ValidationError` whose `details["path"]` names the field, a missing one included.

    `expected` is the type that was decoded; where it lists what is allowed, so does the message.
    """
    found = _WHERE.search(text)
    path = found["path"] if found else "$"
    reason = _WHERE.sub("", text)
    if missing := _MISSING.match(reason):
        path = f"{path}.{missing['field']}"
        reason = "required, and missing"
    elif wrong := _NOT_LISTED.match(reason):
        allowed = sorted(_allowed(expected, path), key=repr)
        came = wrong["came"]
        near = did_you_mean(came.strip("'"), [one for one in allowed if isinstance(one, str)])
        reason = f"expected one of {', '.join(map(repr, allowed))}; {_clipped(came)} came{near}"
    else:
        reason = _clipped(reason)
        if found and found["key"]:
            reason = f"a key: {reason[0].lower()}{reason[1:]}"
    return ValidationError(f"{path}: {reason[0].lower()}{reason[1:]}", path=path)


def _clipped(text: str) -> str:
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…"


def _allowed(expected: Any, path: str) -> set[str | int | bool | None]:
    """The values that a `Literal` at `path` of the type `expected` lists."""
    here = _alternatives(msgspec.inspect.type_info(expected))
    for step in _STEP.finditer(path):
        here = [inner for outer in here for inner in _within(outer, step["field"])]
    return {value for one in here if isinstance(one, msgspec.inspect.LiteralType) for value in one.values}


def _within(outer: msgspec.inspect.Type, field: str | None) -> Iterator[msgspec.inspect.Type]:
    match outer:
        case msgspec.inspect.StructType() if field is not None:
            for one in outer.fields:
                if one.encode_name == field:
                    yield from _alternatives(one.type)
        case msgspec.inspect.ListType() if field is None:
            yield from _alternatives(outer.item_type)
        case msgspec.inspect.DictType() if field is None:
            yield from _alternatives(outer.value_type)


def _alternatives(one: msgspec.inspect.Type) -> list[msgspec.inspect.Type]:
    return list(one.types) if isinstance(one, msgspec.inspect.UnionType) else [one]
