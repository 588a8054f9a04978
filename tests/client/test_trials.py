"""The client counts trials: all of them, those of a result and those of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.client.answers import connect
from support.client.peer import Peer

GROUP = "0123456789abcdef" * 2
COUNTED = {
    **{"group": GROUP, "algorithm": "sma_cross", "symbols": ["SYNTH"], "timeframe": "1h", "dataVersion": "a" * 32},
    **{"startTime": 0, "endTime": 60_000, "bars": 1, "trials": 7, "runs": 9, "firstTime": 0, "lastTime": 1},
}


def counted(data: dict[str, Any]) -> dict[str, Any]:
    """Answer GetTrials with the one group that there is."""
    groups = [COUNTED] if data.get("group", GROUP) == GROUP else []
    return {"groups": groups, "count": len(groups)}


def result(group: str | None) -> dict[str, Any]:
    named = {} if group is None else {"trialGroup": group}
    return {"backtestId": "b1", "status": "completed", "config": {}, "metrics": {}, "tables": [], **named}


def sweep(group: str | None) -> dict[str, Any]:
    config = {"algorithmId": "a", "symbol": "S", "initialCapital": 1.0, "timeframe": "1m"}
    asked = {"config": {**config, "commission": 0.0, "slippage": 0.0, "parameters": {}}, "space": {"fast": [1]}}
    return {
        **{"sweepId": "s1", "status": "completed", "algorithmId": "a", "symbols": ["S"], "timeframe": "1m"},
        **{"method": "grid", "objective": "sharpe_ratio", "direction": "maximize", "cells": 1, "of": 1, "done": 1},
        **{"failed": 0, "progressPercent": 100.0, "submitTime": 1, "path": "fused", "pathReason": "it is"},
        "sweep": asked,
        **({} if group is None else {"trialGroup": group}),
    }


def test_all_groups_are_counted_where_nothing_is_named(home: Path) -> None:
    with Peer(home, {"GetTrials": counted}) as peer, connect(peer) as client:
        [found] = client.trials()
        assert (found.trials, found.runs, found.symbols) == (7, 9, ["SYNTH"])
        client.trials("sma_cross", "SYNTH", "1h", limit=1)
    assert [data for name, _, data in peer.asked if name == "GetTrials"] == [
        {},
        {"algorithmId": "sma_cross", "symbol": "SYNTH", "timeframe": "1h", "limit": 1},
    ]


@pytest.mark.parametrize(("group", "trials"), [(GROUP, 7), ("f" * 32, 0), (None, None)])
def test_a_run_and_a_sweep_count_the_trials_of_their_group(home: Path, group: str | None, trials: int | None) -> None:
    script = {
        "GetTrials": counted,
        "GetBacktestResults": lambda _: result(group),
        "GetBacktestStatus": lambda _: {"backtestId": "b1", "status": "completed", "progressPercent": 100.0},
        "GetSweepStatus": lambda _: sweep(group),
    }
    with Peer(home, script) as peer, connect(peer) as client:
        assert client.find_sweep("s1").trials() == trials
        assert client.results("b1").trial_group == group
        status = client.find_sweep("s1").progress()
        assert status.trials_after == trials, "the end of a bar does not wait for the broker's own count"
