"""Decide whether a peer may connect: ZeroMQ's authentication protocol (ZAP 1.0, RFC 27) as a function of frames.

libzmq sends a request for every handshake on a socket of the domain, and accepts a peer on status 200. There is no I/O
here: the socket `inproc://zeromq.zap.01` belongs to the event loop, and the allow-list comes in as data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

VERSION = b"1.0"
DOMAIN = b"backtestr"
WORKERS_DOMAIN = b"backtestr workers"
ADDRESS = "inproc://zeromq.zap.01"

_KEY_BYTES = 32


class Decision(msgspec.Struct, frozen=True):
    """The decision on one handshake.

    `frames` is the answer, None where there is no request to answer. `name` is the name of the key, None for a refusal,
    which `reason` explains; `address` is the peer's, for the log.
    """

    frames: list[bytes] | None
    name: str | None
    address: str = ""
    reason: str = ""


# Returns the name of a key (32 bytes) that may connect from an address, and None for any other.
FindName = Callable[[bytes, str], str | None]


def decide(frames: Sequence[bytes], find_name: Mapping[bytes, FindName]) -> Decision:
    """Decide on a request: version, request id, domain, address, identity, mechanism, credentials.

    Only a CURVE key that the `find_name` of the domain knows may connect; everything else is refused.
    """
    if len(frames) < 2:
        return Decision(None, None, reason="a ZAP request of less than two frames")
    request_id = frames[1]
    if frames[0] != VERSION or len(frames) != 7:
        return _refused(request_id, "", f"a ZAP request of {len(frames)} frames, version {frames[0][:8]!r}")
    _, _, domain, address, _, mechanism, key = frames
    peer = address.decode("ascii", "replace")
    if domain not in find_name:
        return _refused(request_id, peer, f"another domain, {domain[:64]!r}")
    if mechanism != b"CURVE" or len(key) != _KEY_BYTES:
        return _refused(request_id, peer, f"no CURVE key, but {mechanism[:16]!r}")
    name = find_name[domain](key, peer)
    if name is None:
        return _refused(request_id, peer, "a key that is unknown or revoked")
    return Decision([VERSION, request_id, b"200", b"OK", name.encode(), b""], name, peer)


def _refused(request_id: bytes, address: str, reason: str) -> Decision:
    return Decision([VERSION, request_id, b"400", b"not on the allow-list", b"", b""], None, address, reason)
