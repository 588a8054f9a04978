"""A program is told of the system's status at once, and whenever the health changes."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import msgspec

from backtestr_protocol.errors import NotFound
from backtestr_protocol.system_status import MemoryUsage, SystemStatus
from support.client.answers import connect
from support.client.peer import Peer


def status(health: Any, uptime_ms: int) -> dict[str, Any]:
    made = SystemStatus(
        status=health,
        uptime_ms=uptime_ms,
        memory_usage=MemoryUsage(used=1, total=2, percentage=50.0),
        cpu_usage=0.0,
        active_backtests=0,
        queued_requests=0,
        connected_clients=1,
        workers=[],
        loop_lag_ms=0.0,
        last_heartbeat=0,
    )
    found: dict[str, Any] = msgspec.to_builtins(made)
    return found


def test_the_status_of_now_and_every_other_health_is_told(home: Path) -> None:
    told: queue.SimpleQueue[SystemStatus] = queue.SimpleQueue()
    script = {"GetSystemStatus": lambda _: status("healthy", 1)}
    with Peer(home, script) as peer, connect(peer) as client:
        stop = client.on_status(told.put)
        peer.wait_for_subscription("system.status")
        assert told.get(timeout=10).uptime_ms == 1
        for uptime, health in enumerate(["healthy", "healthy", "warning", "warning", "error", "healthy"], 2):
            peer.publish("system.status", "SystemStatus", status(health, uptime))
        changes = [told.get(timeout=10) for _ in range(3)]
        assert [(one.status, one.uptime_ms) for one in changes] == [("warning", 4), ("error", 6), ("healthy", 7)]
        stop()
        stop()
        assert client.errors == ()
    assert told.empty()


def test_without_an_answer_the_first_heartbeat_is_the_first_status(home: Path) -> None:
    told: queue.SimpleQueue[SystemStatus] = queue.SimpleQueue()
    with Peer(home, {"GetSystemStatus": lambda _: NotFound("no")}) as peer, connect(peer) as client:
        client.on_status(told.put)
        peer.wait_for_subscription("system.status")
        peer.publish("system.status", "SystemStatus", status("healthy", 2))
        assert told.get(timeout=10).uptime_ms == 2
