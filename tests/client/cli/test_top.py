"""`backtestr top`: one sample or one after the other, with the errors that may come between."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backtestr.cli import top
from backtestr.cli.console import EXIT_ERROR, EXIT_USAGE
from backtestr_protocol.errors import SystemFault, ValidationError
from support.client.command_line import read_json, type_in
from support.client.peer import Peer


def status(uptime_ms: int) -> dict[str, Any]:
    return {
        "status": "healthy",
        "uptimeMs": uptime_ms,
        "memoryUsage": {"used": 1, "total": 2, "percentage": 50.0},
        "cpuUsage": 1.0,
        "activeBacktests": 0,
        "queuedRequests": 0,
        "connectedClients": 1,
        "workers": [],
        "loopLagMs": 0.0,
        "lastHeartbeat": 1_790_000_000_000 + uptime_ms,
    }


SCRIPT = {"GetSystemStatus": lambda _: status(1_000), "ListBacktests": lambda _: {"backtests": []}}


def test_one_sample_is_a_document_or_a_view(home: Path) -> None:
    with Peer(home, SCRIPT) as peer:
        document = read_json(type_in(peer, "top", "--once", "--json"))
        assert (document["state"], document["status"]["uptimeMs"]) == ("ready", 1_000)
        assert "healthy" in type_in(peer, "top", "--once").stdout


def test_without_a_terminal_one_sample_or_json_is_needed(home: Path) -> None:
    with Peer(home, SCRIPT) as peer:
        result = type_in(peer, "top")
    assert result.exit_code == EXIT_USAGE
    assert "--once or --json" in result.output


def test_an_error_in_the_only_sample_ends_the_command(home: Path) -> None:
    with Peer(home, {"GetSystemStatus": lambda _: SystemFault("no")}) as peer:
        assert type_in(peer, "top", "--once").exit_code == EXIT_ERROR


def test_a_line_of_json_for_every_update_until_ctrl_c(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [status(1_000), ValidationError("no"), status(3_000)]
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    script = {**SCRIPT, "GetSystemStatus": lambda _: answers.pop(0)}
    monkeypatch.setattr(top, "time", SimpleNamespace(sleep=sleep))
    with Peer(home, script) as peer:
        result = type_in(peer, "top", "--json", "--interval", "0.5")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0, result.output
    assert [line.get("status", {}).get("uptimeMs") for line in lines] == [1_000, None, 3_000]
    assert waits == [0.5, 0.5, 0.5]
