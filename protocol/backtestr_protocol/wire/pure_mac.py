"""This module makes signatures in Python: HMAC-SHA256 over a label and frames; `_mac.c` is its compiled twin."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

# In bytes. Up to this size one C call over the joined frames beats several over parts; above it the copy costs more.
_JOIN_LIMIT = 65_536


class PureMac:
    """The MACs of one key. The label and every frame are hashed, each frame with its length before it."""

    def __init__(self, key: bytes) -> None:
        self._keyed = hmac.new(key, digestmod="sha256")

    def sign(self, label: bytes, frames: Sequence[bytes]) -> bytes:
        """Return the MAC of `frames` under `label`."""
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

    def verifies(self, label: bytes, signature: bytes, frames: Sequence[bytes]) -> bool:
        """Return True if `signature` is that of `frames` under `label`; compare in constant time."""
        return hmac.compare_digest(signature, self.sign(label, frames))
