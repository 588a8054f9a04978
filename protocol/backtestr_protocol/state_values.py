"""This module encodes values of the shared state in the form in which they are stored, and computes checksums.

That form is MessagePack with every integer and length in its shortest encoding, floats as float64, and the keys of
maps, which are strings, sorted by code point (PROTOCOL.md, section 8). Two values are equal if their bytes are equal; a
NaN keeps its bits.
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
    """Return the bytes of a value; raise `ValidationError` for an object that is not one."""
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValidationError(
            f"$.value: {error}; a value is nil, a bool, an int of 64 bits, a float, a str, bin, a list, an extension, "
            "or a map whose keys are strings",
            path="$.value",
        ) from error


def same_value_bytes(encoded: bytes | msgspec.Raw) -> bytes:
    """Return the bytes of a value that was received in any MessagePack encoding.

    Raises `ValidationError` for bytes that are not a value.
    """
    try:
        value = decode(_decoder, encoded)
    except SerializationError as error:
        raise ValidationError(f"$.value: {error.message}", path="$.value") from error
    return value_bytes(value)


def checksum(encoded: bytes) -> str:
    """Return the first 16 hex characters of SHA-256 over the bytes of a value."""
    return hashlib.sha256(encoded).hexdigest()[:CHECKSUM_CHARACTERS]
