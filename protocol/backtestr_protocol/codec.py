"""This module encodes, signs, verifies and decodes messages; hostile bytes raise one type of error.

A message on the wire is a list of frames: `signature, envelope, attachment*`. A stream message has its topic before
them. The signature is HMAC-SHA256 over a label and every other frame, each with its length before it. So frames can
neither be swapped between messages nor moved across frame boundaries (PROTOCOL.md, section 2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

import msgspec

from .envelopes import Envelope, Identified, Message, Outgoing, OutgoingPayload, StreamMessage
from .errors import AuthenticationError, MessageError, SerializationError, ValidationError, did_you_mean
from .secret import Secret
from .wire.compiled import new_mac

REQUEST = b"req"
RESPONSE = b"rep"
STREAM = b"pub"
TO_BROKER = b"w2b"

KEY_BYTES = 32
# The most frames of one message. A frame costs time even when it is empty; a table of results is one frame.
MAX_FRAMES = 1024
SIGNATURE_BYTES = 32

T = TypeVar("T")

# A flood of wrong messages must not look at the same types again and again.
_type_info = cache(msgspec.inspect.type_info)
_encoder = msgspec.msgpack.Encoder()
_envelope_decoder = msgspec.msgpack.Decoder(Envelope)
_identified_decoder = msgspec.msgpack.Decoder(Identified)
encode = _encoder.encode


class Signer:
    """A signer signs and verifies with one 32-byte key; a key of another length raises `ValueError`."""

    def __init__(self, key: Secret | bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a signing key has {KEY_BYTES} bytes, this one {len(key)}")
        self._mac = new_mac(key.reveal() if isinstance(key, Secret) else key)

    def sign(self, label: bytes, frames: Sequence[bytes]) -> bytes:
        """Return the signature of `frames` under `label`."""
        return self._mac.sign(label, frames)

    def seal(self, label: bytes, frames: list[bytes]) -> list[bytes]:
        """Return `frames` with their signature before them."""
        return [self.sign(label, frames), *frames]

    def verify(self, label: bytes, signature: bytes, frames: Sequence[bytes]) -> None:
        """Raise `AuthenticationError` unless `signature` is that of `frames` under `label`, in constant time."""
        if len(signature) != SIGNATURE_BYTES or not self._mac.verifies(label, signature, frames):
            raise AuthenticationError(
                "bad signature; expected HMAC-SHA256 over label and frames with the key in the connection file, "
                "which is new at every broker start"
            )


def encode_message(signer: Signer, label: bytes, envelope: Outgoing, attachments: Sequence[bytes] = ()) -> list[bytes]:
    """Return the frames of a request (`label` `REQUEST`) or of an answer (`RESPONSE`)."""
    return signer.seal(label, [encode(envelope), *attachments])


def decode_message(signer: Signer, label: bytes, frames: Sequence[bytes]) -> Message:
    """Verify the frames of `encode_message`, then decode them.

    Raises `MessageError` for all other frames. If the signature is right and the envelope is wrong, the error's
    `message_id` is that of the envelope, where it can be read.
    """
    if not 2 <= len(frames) <= MAX_FRAMES:
        raise SerializationError(
            f"expected the frames signature, envelope, attachments, {MAX_FRAMES} at most; {len(frames)} frame(s) came"
        )
    signer.verify(label, frames[0], frames[1:])
    try:
        envelope = decode(_envelope_decoder, frames[1])
    except ValidationError as error:
        error.message_id = _readable_id(frames[1])
        raise
    return Message(envelope, list(frames[2:]))


def readable_id(signer: Signer, label: bytes, frames: Sequence[bytes]) -> str | None:
    """Return the `id` in the envelope of a signed message that is not decoded further, None where there is none."""
    if not 2 <= len(frames) <= MAX_FRAMES:
        return None
    signature, *signed = frames
    try:
        signer.verify(label, signature, signed)
        return _readable_id(signed[0])
    except MessageError:
        return None


def _readable_id(body: bytes) -> str | None:
    try:
        return decode(_identified_decoder, body).id
    except ValidationError:
        return None


def encode_stream(signer: Signer, topic: bytes, envelope: Outgoing, attachments: Sequence[bytes] = ()) -> list[bytes]:
    """Return the frames of a stream message; the signature covers the topic as well."""
    body = encode(envelope)
    return [topic, signer.sign(STREAM, [topic, body, *attachments]), body, *attachments]


def decode_stream(signer: Signer, frames: Sequence[bytes]) -> StreamMessage:
    """Verify the frames of `encode_stream`, then decode them.

    Raises `MessageError` for all other frames, also for an envelope without `seq` or `instance_id`.
    """
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
    """Return `decoder.decode(body)`; every failure of the decoder is raised as a `MessageError`."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise validation_error(str(error), decoder.type) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, MemoryError) as error:
        raise SerializationError(f"not the MessagePack that PROTOCOL.md describes: {error}") from error


def encoded_payload(type_name: str, data: Any) -> bytes:
    """Return the bytes of `{"type": type_name, "data": data}`."""
    return encode(OutgoingPayload(type_name, data))


_MISSING = re.compile(r"Object missing required field `(?P<field>.+?)`")
_NOT_LISTED = re.compile(r"Invalid enum value (?P<came>.*)", re.DOTALL)
_WHERE = re.compile(r" - at (?P<key>`key` in )?`(?P<path>\$[^`]*)`$")
_STEP = re.compile(r"\.(?P<field>\w+)|\[")
# The most characters that an error quotes of a received value, so that no answer is as large as its request.
_MAX_QUOTED = 200


def validation_error(text: str, expected: Any = Any) -> ValidationError:
    """Turn msgspec's message into a `ValidationError` with the path of the field, missing or wrong, in its details.

    `expected` is the type that was decoded. If it lists the allowed values, so does the message; if the type of the
    field has a description, the message ends with it.
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
        elif len(descriptions := {text for one in _at(expected, path) for text in _descriptions(one)}) == 1:
            reason = f"{reason}; {descriptions.pop()}"
    return ValidationError(f"{path}: {reason[0].lower()}{reason[1:]}", path=path)


def _clipped(text: str) -> str:
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…"


def _allowed(expected: Any, path: str) -> set[str | int | bool | None]:
    """Return the values that a `Literal` at `path` of the type `expected` lists."""
    here = [inner for one in _at(expected, path) for inner in _alternatives(one)]
    return {value for one in here if isinstance(one, msgspec.inspect.LiteralType) for value in one.values}


def _at(expected: Any, path: str) -> list[msgspec.inspect.Type]:
    """Return the types that a value at `path` of the type `expected` may have."""
    here = [_type_info(expected)]
    for step in _STEP.finditer(path):
        within = [inner for outer in here for inner in _alternatives(outer)]
        here = [inner for outer in within for inner in _within(outer, step["field"])]
    return here


def _within(outer: msgspec.inspect.Type, field: str | None) -> Iterator[msgspec.inspect.Type]:
    match outer:
        case msgspec.inspect.StructType() if field is not None:
            for one in outer.fields:
                if one.encode_name == field:
                    yield one.type
        case msgspec.inspect.ListType() if field is None:
            yield outer.item_type
        case msgspec.inspect.DictType() if field is None:
            yield outer.value_type


def _alternatives(one: msgspec.inspect.Type) -> list[msgspec.inspect.Type]:
    match one:
        case msgspec.inspect.Metadata():
            return _alternatives(one.type)
        case msgspec.inspect.UnionType():
            return [inner for each in one.types for inner in _alternatives(each)]
    return [one]


def _descriptions(one: msgspec.inspect.Type) -> list[str]:
    match one:
        case msgspec.inspect.Metadata():
            own = (one.extra_json_schema or {}).get("description")
            return [own] if own is not None else _descriptions(one.type)
        case msgspec.inspect.UnionType():
            return [text for each in one.types for text in _descriptions(each)]
    return []
