"""Who may connect, decided: ZeroMQ's authentication protocol (ZAP 1.0, RFC 27) as a function of frames.

libzmq asks for every handshake on a socket of the domain, and lets in who gets status 200. No I/O: the socket
`inproc://zeromq.zap.01` belongs to the shell, and the allow-list comes in as data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

VERSION = b"1.0"
DOMAIN = b"backtestr"
ADDRESS = "inproc://zeromq.zap.01"

_KEY_BYTES = 32


class Decision(msgspec.Struct, frozen=True):
    """The answer's frames; None where nobody could be answered. `name` is whose key it was, None for a refusal, which
    `reason` explains; `address` is the peer's, for the log."""

    frames: list[bytes] | None
    name: str | None
    address: str = ""
    reason: str = ""


def decide(frames: Sequence[bytes], allowed: Mapping[bytes, str]) -> Decision:
    """The decision on a request: version, request id, domain, address, identity, mechanism, credentials. Only a CURVE
    key (32 bytes) that is in `allowed` gets in; whatever else comes, does not."""
    if len(frames) < 2:
        return Decision(None, None, reason="a ZAP request of less than two frames")
    request_id = frames[1]
    if frames[0] != VERSION or len(frames) != 7:
        return _refused(request_id, "", f"a ZAP request of {len(frames)} frames, version {frames[0][:8]!r}")
    _, _, domain, address, _, mechanism, key = frames
    peer = address.decode("ascii", "replace")
    if domain != DOMAIN:
        return _refused(request_id, peer, f"another domain, {domain[:64]!r}")
    if mechanism != b"CURVE" or len(key) != _KEY_BYTES:
        return _refused(request_id, peer, f"no CURVE key, but {mechanism[:16]!r}")
    name = allowed.get(key)
    if name is None:
        return _refused(request_id, peer, "a key that is unknown or revoked")
    return Decision([VERSION, request_id, b"200", b"OK", name.encode(), b""], name, peer)


def _refused(request_id: bytes, address: str, reason: str) -> Decision:
    return Decision([VERSION, request_id, b"400", b"not on the allow-list", b"", b""], None, address, reason)
