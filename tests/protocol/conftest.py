"""The fixtures of the protocol's tests."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def connection_text() -> bytes:
    """Return the connection file of PROTOCOL.md, section 1, with values."""
    sockets = ("requests", "prices", "progress", "orders", "positions", "system")
    return json.dumps(
        {
            "protocolVersion": 1,
            "instanceId": "9b2f6d2e-5d0c-4b6e-8f7a-3c1d2e4f5a6b",
            "pid": 4242,
            "startTime": 1_790_000_000_000,
            "endpoints": {name: f"ipc:///run/backtestr/{name}" for name in sockets},
            "signing": {"algorithm": "hmac-sha256", "key": bytes(range(32)).hex()},
            "curve": None,
        }
    ).encode()
