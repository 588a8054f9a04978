"""A secret holds the bytes of a key, and nothing that prints it shows them.

Keys are passed on as secrets from where they are made or read to where ZeroMQ or HMAC takes them, so that no log line,
traceback or `repr` of an object that holds one has the key in it.
"""

from __future__ import annotations

import hmac
from typing import Any, NoReturn

_SHOWN = "<key>"


class Secret:
    """The bytes of a key, which only `reveal` and `hex` return.

    It prints as `<key>`, also within structs. Pickling it, and encoding it without `encode_secret`, raises `TypeError`.
    """

    __slots__ = ("_bytes",)

    def __init__(self, value: bytes) -> None:
        self._bytes = value

    @classmethod
    def from_hex(cls, text: str) -> Secret:
        """Return the secret that `hex` wrote as `text`; raise `ValueError` for another text, without repeating it."""
        try:
            return cls(bytes.fromhex(text))
        except ValueError:
            raise ValueError("a key is written in hexadecimal digits, two for each byte") from None

    def reveal(self) -> bytes:
        """Return the bytes of the key. Give them to a library, and do not keep them."""
        return self._bytes

    def hex(self) -> str:
        """Return the key in hexadecimal digits, for the files and pipes that hand it over."""
        return self._bytes.hex()

    def __len__(self) -> int:
        return len(self._bytes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._bytes, other._bytes)

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        return _SHOWN

    def __format__(self, _format: str) -> str:
        return _SHOWN

    def __reduce_ex__(self, _protocol: Any) -> NoReturn:
        raise TypeError("a key is not pickled, and not copied: pass it on")


def encode_secret(value: Any) -> str:
    """Encode a secret in hexadecimal digits: the `enc_hook` of msgspec for structs that hand a key over."""
    if isinstance(value, Secret):
        return value.hex()
    raise TypeError(f"MessagePack and JSON have no {type(value).__name__}")


def decode_secret(expected: type, value: Any) -> Any:
    """Decode what `encode_secret` wrote: the `dec_hook` of msgspec for these structs."""
    if expected is Secret and isinstance(value, str):
        return Secret.from_hex(value)
    raise ValueError(f"expected the hexadecimal digits of a key; got {type(value).__name__}")
