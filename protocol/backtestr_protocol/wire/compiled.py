"""This module chooses the signatures' implementation, and says why the compiled one is not used where it is not.

`hatch_build.py` compiles the twins when backtestr is installed. With `BACKTESTR_PURE=1` in the environment they are not
used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol

from .pure_mac import PureMac

NOT_BUILT = "it was not built, for want of a C compiler when backtestr was installed"


class Mac(Protocol):
    """The MACs of one key."""

    def sign(self, label: bytes, frames: Sequence[bytes], /) -> bytes:
        """Return the MAC of `frames` under `label`."""
        ...

    def verifies(self, label: bytes, signature: bytes, frames: Sequence[bytes], /) -> bool:
        """Return True if `signature` is that of `frames` under `label`; compare in constant time."""
        ...


def why_all_is_pure() -> str | None:
    """Return the reason why no compiled twin is used, None where they may be."""
    return "BACKTESTR_PURE is set" if os.environ.get("BACKTESTR_PURE", "0") not in ("", "0") else None


def compiled_mac() -> Callable[[bytes], Mac] | str:
    """Return the compiled twin of `PureMac`, or the reason why it is not used."""
    if (reason := why_all_is_pure()) is not None:
        return reason
    try:
        import _hashlib

        import backtestr_protocol.wire._mac as twin

        twin.use_libcrypto(_hashlib.__file__)
    except ModuleNotFoundError:
        return NOT_BUILT
    except (ImportError, AttributeError) as error:  # a `_hashlib` within the interpreter has no file
        return str(error)
    key, label, frames = bytes(range(32)), b"label", [b"", bytes(100)]
    if twin.Mac(key).sign(label, frames) != PureMac(key).sign(label, frames):
        return "libcrypto's SHA-256 differs from that of hashlib"
    return twin.Mac


_found = compiled_mac()
# The reason why signatures are made in Python, None where they are not.
WHY_MACS_ARE_PURE: str | None = _found if isinstance(_found, str) else None
new_mac: Callable[[bytes], Mac] = PureMac if isinstance(_found, str) else _found
