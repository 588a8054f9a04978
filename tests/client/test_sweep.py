"""Sweeps on a scripted broker: what real brokers do not show at will."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.client.answers import connect
from support.client.peer import WALL_MS, Peer


def progress(state: str, done: int = 1) -> dict[str, Any]:
    return {
        "sweepId": "s1",
        "status": state,
        "algorithmId": "a",
        "symbols": ["S"],
        "timeframe": "1m",
        "method": "grid",
        "objective": "sharpe_ratio",
        "direction": "maximize",
        "cells": 4,
        "of": 4,
        "done": done,
        "failed": 0,
        "progressPercent": 25.0 * done,
        "submitTime": WALL_MS,
    }


def details(state: str) -> dict[str, Any]:
    config = {"algorithmId": "a", "symbol": "S", "initialCapital": 1.0, "timeframe": "1m"}
    sweep = {"config": {**config, "commission": 0.0, "slippage": 0.0, "parameters": {}}, "space": {"fast": [1]}}
    return {**progress(state), "path": "fused", "pathReason": "it is", "sweep": sweep}


def retained(*states: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what answers FetchMissed where the broker retains progress with these states, from number 1 on."""
    kept = [
        {"seq": number, "payload": {"type": "SweepProgress", "data": progress(state)}}
        for number, state in enumerate(states, start=1)
    ]

    def fetched(data: dict[str, Any]) -> dict[str, Any]:
        first = data["fromSeq"]
        messages = kept[first - 1 :]
        last = max(first - 1, len(kept))
        return {"topic": data["topic"], "fromSeq": first, "toSeq": last, "oldestSeq": 1, "messages": messages}

    return fetched


def test_updates_go_on_after_a_failure_that_is_over_and_end_with_one_that_is_not(home: Path) -> None:
    now = "running"  # it was resumed
    script = {"GetSweepStatus": lambda _: details(now), "FetchMissed": retained("running", "failed", "running")}
    with Peer(home, script) as peer, connect(peer) as client:
        updates = client.find_sweep("s1").updates()
        assert [next(updates).status for _ in range(3)] == ["running", "failed", "running"]
        now = "failed"
        peer.publish("progress.s1", "SweepProgress", progress("failed"), seq=4)
        assert [one.status for one in updates] == ["failed"]


def test_a_bar_says_once_why_a_sweep_waits(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = {
        "code": "SYSTEM_ERROR",
        "message": "the Dask scheduler does not answer",
        "severity": "Critical",
        "component": "engine",
        "timestamp": WALL_MS,
        "recoveryActions": [],
        "details": None,
    }
    states = iter(["running", "paused", "paused"])

    def asked(_data: dict[str, Any]) -> dict[str, Any]:
        state = next(states, "completed")
        return {**details(state), **({"error": error} if state == "paused" else {})}

    script = {"GetSweepStatus": asked, "FetchMissed": retained("running", "completed")}
    with Peer(home, script) as peer, connect(peer) as client:
        assert client.find_sweep("s1").progress().status == "completed"
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count("paused: the Dask scheduler does not answer") == 1
