"""`backtestr sweep` and `backtestr sweeps`, against a scripted broker."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from backtestr.cli.console import EXIT_ERROR, EXIT_USAGE
from support.client.command_line import asked, read_json, type_in
from support.client.peer import Peer

RUN = ("sweep", "sma_cross", "SYNTH", "--timeframe", "1h", "--space", "fast=5:49", "--space", "slow=20:195:5")
COUNTED = {
    **{"cells": 1620, "combinations": 1515, "estimatedMs": 2500, "path": "fused"},
    "pathReason": "combinations of sma_cross share its lines",
}
ROWS = pl.DataFrame(
    {"cell": [75, 5], "fast": [7, 5], "slow": [35, 45], "sharpe_ratio": [4.0, None], "total_trades": [12, 3]}
)


def status(sweep_id: str = "s1", **changes: Any) -> dict[str, Any]:
    config = {
        **{"algorithmId": "sma_cross@1", "symbol": "SYNTH", "timeframe": "1h", "initialCapital": 1.0},
        **{"commission": 0.0, "slippage": 0.0, "parameters": {}},
    }
    return {
        **{"sweepId": sweep_id, "status": "completed", "algorithmId": "sma_cross@1", "symbols": ["SYNTH"]},
        **{"timeframe": "1h", "method": "grid", "objective": "sharpe_ratio", "direction": "maximize"},
        **{"cells": 1620, "of": 1515, "done": 1515, "failed": 0, "progressPercent": 100.0, "submitTime": 1},
        "best": {"cell": 75, "value": 4.0, "parameters": {"fast": 7, "slow": 35}},
        **{
            "path": "fused",
            "pathReason": "it is a test",
            "sweep": {"config": config, "space": {"fast": 7, "slow": 35}},
        },
        **changes,
    }


def results(_data: Any) -> Any:
    stream = io.BytesIO()
    ROWS.write_ipc_stream(stream)
    table = {"name": "rows", "frame": 0, "format": "arrow-ipc-stream", "rows": ROWS.height}
    return {"sweepId": "s1", "stored": 2, "matching": 2, "tables": [table]}, [stream.getvalue()]


def script(**changes: Any) -> dict[str, Any]:
    def start(data: Any) -> dict[str, Any]:
        return COUNTED if data.get("dryRun") else {**COUNTED, "sweepId": data["sweepId"], "status": "queued"}

    steered = {
        f"{verb}Sweep": lambda data, state=state: {**COUNTED, "sweepId": data["sweepId"], "status": state}
        for verb, state in (("Pause", "paused"), ("Resume", "queued"), ("Stop", "stopped"))
    }
    return {
        "StartSweep": start,
        "GetSweepStatus": lambda data: status(data["sweepId"]),
        "GetSweepResults": results,
        "ListSweeps": lambda _: {"sweeps": [status(), status("s2", status="running", timeLeftMs=9000)], "count": 2},
        "DeleteSweep": lambda data: {**data, "freedBytes": 7},
        "GetSweepRun": lambda _: {"backtestId": "b1", "status": "queued"},
        **steered,
        **changes,
    }


def test_a_sweep_is_counted_before_it_starts_and_its_best_rows_are_printed(home: Path) -> None:
    with Peer(home, script()) as peer:
        result = type_in(peer, *RUN, "--where", "fast < slow", "--commission", "0.001", "--option", "fillAt=close")
        counted, started = asked(peer, "StartSweep")
    assert result.exit_code == 0, result.output
    assert counted["dryRun"] is True
    assert started["space"] == {"fast": {"low": 5, "high": 49, "step": 1}, "slow": {"low": 20, "high": 195, "step": 5}}
    assert (started["where"], started["config"]["commission"]) == ("fast < slow", 0.001)
    assert started["config"]["options"] == {"fillAt": "close"}
    assert "1,515 of 1,620 combinations, some 2.5 s" in result.stderr
    assert "sharpe_ratio 4 at fast=7 slow=35" in result.stdout
    assert "75" in result.stdout


def test_a_dry_run_starts_nothing(home: Path) -> None:
    with Peer(home, script()) as peer:
        found = read_json(type_in(peer, *RUN, "--dry-run", "--json"))
        assert [one.get("dryRun") for one in asked(peer, "StartSweep")] == [True]
    assert found["combinations"] == 1515


def test_a_detached_sweep_prints_its_id(home: Path) -> None:
    with Peer(home, script()) as peer:
        found = read_json(type_in(peer, *RUN, "--trials", "20", "--seed", "7", "--minimize", "--detach", "--json"))
        _, started = asked(peer, "StartSweep")
    assert found == {"sweepId": started["sweepId"]}
    assert (started["method"], started["trials"], started["seed"], started["direction"]) == (
        "random",
        20,
        7,
        "minimize",
    )


def test_a_failed_sweep_is_an_exit_code_and_its_reason(home: Path) -> None:
    error: dict[str, object] = {
        **{"code": "DATA_ERROR", "message": "the bars have changed", "severity": "Error", "component": "engine"},
        **{"timestamp": 1, "recoveryActions": [], "details": None},
    }
    with Peer(home, script(GetSweepStatus=lambda data: status(status="failed", error=error))) as peer:
        result = type_in(peer, *RUN)
    assert result.exit_code == EXIT_ERROR
    assert "the bars have changed" in result.stderr


def test_a_sweep_on_a_cluster_names_the_scheduler_and_the_workers_that_it_refused(home: Path) -> None:
    refused = ["tcp://10.0.0.7:1: numpy: 1.0 there, 2.0 here"]
    cluster = {"scheduler": "tcp://10.0.0.5:8786", "workers": 3, "refused": refused}
    with Peer(home, script(GetSweepStatus=lambda data: status(cluster=cluster))) as peer:
        result = type_in(peer, *RUN, "--scheduler", "tcp://10.0.0.5:8786")
        assert [one["scheduler"] for one in asked(peer, "StartSweep")] == ["tcp://10.0.0.5:8786"] * 2
    assert result.exit_code == 0, result.output
    assert "no block for tcp://10.0.0.7:1: numpy: 1.0 there, 2.0 here" in result.stderr


@pytest.mark.parametrize("wrong", ["fast", "fast=", "=3", "fast=1:x", "fast=1:2:3:4", "fast=true:false"])
def test_a_space_that_cannot_be_read_is_wrong_usage(home: Path, wrong: str) -> None:
    with Peer(home) as peer:
        result = type_in(peer, "sweep", "sma_cross", "SYNTH", "--timeframe", "1h", "--space", wrong)
        assert peer.asked == []
    assert result.exit_code == EXIT_USAGE
    assert "NAME=LOW:HIGH" in result.stderr


def test_sweeps_are_listed(home: Path) -> None:
    with Peer(home, script()) as peer:
        result = type_in(peer, "sweeps")
        assert [one["sweepId"] for one in read_json(type_in(peer, "sweeps", "--json"))] == ["s1", "s2"]
    assert "running" in result.stdout
    assert "9 s" in result.stdout


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (["--pause"], {"sweepId": "s1", "status": "paused"}),
        (["--resume"], {"sweepId": "s1", "status": "queued"}),
        (["--stop"], {"sweepId": "s1", "status": "stopped"}),
        (["--delete"], {"sweepId": "s1", "freedBytes": 7}),
        (["--run", "75"], {"backtestId": "b1"}),
    ],
)
def test_a_sweep_is_steered(home: Path, option: list[str], expected: dict[str, Any]) -> None:
    with Peer(home, script(GetBacktestStatus=lambda data: data)) as peer:
        assert read_json(type_in(peer, "sweeps", "s1", *option, "--json")) == expected


@pytest.mark.parametrize("words", [["--pause"], ["--run", "3"], ["s1", "--pause", "--stop"]])
def test_an_action_needs_one_sweep_and_one_action(home: Path, words: list[str]) -> None:
    with Peer(home) as peer:
        assert type_in(peer, "sweeps", *words).exit_code == EXIT_USAGE
        assert peer.asked == []


def test_a_method_that_learns_has_batches_and_distributions(home: Path) -> None:
    command = ("sweep", "sma_cross", "SYNTH", "--timeframe", "1h", "--space", "fast=5:49", "--method", "tpe")
    spread = ("--space", "stop=0.5..3.0", "--space", "risk=1e-4..0.1:log")
    more = ("--trials", "120", "--batch-size", "32", "--seed", "7", "--detach")
    with Peer(home, script()) as peer:
        result = type_in(peer, *command, *spread, *more)
        _, started = asked(peer, "StartSweep")
    assert result.exit_code == 0, result.output
    assert (started["method"], started["trials"], started["batchSize"], started["seed"]) == ("tpe", 120, 32, 7)
    assert started["space"]["stop"] == {"low": 0.5, "high": 3.0, "distribution": "uniform"}
    assert started["space"]["risk"] == {"low": 1e-4, "high": 0.1, "distribution": "log_uniform"}


@pytest.mark.parametrize("space", ["stop=0.5..", "stop=a..b", "stop=0.5..3:lin", "stop=1..2..3"])
def test_a_distribution_that_cannot_be_read_says_how_it_is_written(home: Path, space: str) -> None:
    with Peer(home, script()) as peer:
        result = type_in(peer, "sweep", "sma_cross", "SYNTH", "--timeframe", "1h", "--space", space)
    assert result.exit_code == EXIT_USAGE
    assert "NAME=LOW..HIGH" in result.output
