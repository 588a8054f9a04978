"""Values of shared state as bytes: the one form that broker and clients store, and compute checksums of.

That form is MessagePack with every integer and length in its shortest encoding, floats as float64, and the keys of
maps, which are strings, sorted by code point (PROTOCOL.md, section 8). Two values are the same when their bytes
are; a NaN keeps its bits.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from .codec import decode
from .errors import SerializationError, ValidationError

CHECKSUM_CHARACTERS = 16
NIL = b"\xc0"

_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder()


def value_bytes(value: Any) -> bytes:
    """The bytes of a value. Raises `ValidationError` for what cannot be one."""
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValidationError(
            f"$.value: {error}; a value is nil, a bool, an int of 64 bits, a float, a str, bin, a list, an extension, "
            "or a map whose keys are strings",
            path="$.value",
        ) from error


def same_value_bytes(encoded: bytes | msgspec.Raw) -> bytes:
    """The bytes of a value that came as any MessagePack. Raises `ValidationError`."""
    try:
        value = decode(_decoder, encoded)
    except SerializationError as error:
        raise ValidationError(f"$.value: {error.message}", path="$.value") from error
    return value_bytes(value)


def checksum(encoded: bytes) -> str:
    """The first 16 hex characters of SHA-256 over the bytes of a value."""
    return hashlib.sha256(encoded).hexdigest()[:CHECKSUM_CHARACTERS]
