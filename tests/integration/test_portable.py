"""Everything that a broker is for works without what Windows lacks, with real processes, over encrypted TCP.

Broker, workers, their children, command line and client run in the portable mode (`support/without_posix`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from integration.conftest import QUICK
from support.harness import RawClient, RunningBroker, short_directory, wait_until

WITHOUT_POSIX = Path(__file__).parents[1] / "support" / "without_posix"
CSV = "timestamp,open,high,low,close,volume\n" + "".join(
    f"2024-01-01T{minute // 60:02}:{minute % 60:02}:00Z,1.0,2.0,0.5,1.{minute * 7 % 10},10\n" for minute in range(600)
)
OWN = """
from backtestr_engine.authoring import Bars, Signals, algorithm
import numpy as np

@algorithm("mine")
def mine(bars: Bars) -> Signals:
    return Signals.of(entries=bars.close > 1.3, exits=bars.close < 1.2)
"""
# A client's day, as one program: each step prints a line of JSON.
DAY = r"""
import json, os, sys
from pathlib import Path
import psutil
import backtestr
from backtestr.io.connection_file import ConnectionFile

def say(step, **facts):
    print(json.dumps({"step": step} | facts), flush=True)

home = Path(sys.argv[1])
assert os.environ["WITHOUT_POSIX"]
with backtestr.connect() as client:
    endpoints = ConnectionFile().read()
    say("connected", requests=endpoints.endpoints.requests, encrypted=endpoints.curve is not None)
    say("imported", bars=client.import_market_data(home / "bars.csv", "CON").bars)
    client.market_data("CON", "1m").write_parquet(home / "bars.parquet")
    say("again", bars=client.import_market_data(home / "bars.parquet", "CON", timeframe="1m").bars)
    registered = client.register_algorithm(home / "mine.py")
    say("registered", passed=registered.look_ahead.passed)
    say("own", status=client.backtest("mine", "CON", timeframe="1m").result(timeout=200).status)

    run = client.backtest("sma_cross", "SYNTH", timeframe="1m", parameters={"fast": 5, "slow": 20}, pace=2000)
    next(iter(run.progress()))
    run.pause()
    say("paused", status=client.backtest_status(run.id).status)
    run.resume()
    workers = {one.worker_id: one.pid for one in client.status().workers}
    psutil.Process(workers["compute-1"]).kill()
    say("killed", pid=workers["compute-1"])
    result = run.result(timeout=200)
    say("result", status=result.status, trades=result.metrics.total_trades)
    say("straight", trades=client.backtest(
        "sma_cross", "SYNTH", timeframe="1m", parameters={"fast": 5, "slow": 20}
    ).result(timeout=200).metrics.total_trades)
    say("state", version=client.update_state("ui.theme", "dark").version)
    run.delete()
    say("deleted", left=[one.backtest_id for one in client.stored_results().results if one.backtest_id == run.id])
    say("removed", timeframes=client.delete_market_data("CON"))
"""


class PortableBroker(RunningBroker):
    """A broker that finds only what Windows has, and so do its workers, their children and its clients."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, {"broker.toml": QUICK + "[workers]\ncompute = 1\n"})
        self.environment["PYTHONPATH"] = os.pathsep.join([str(WITHOUT_POSIX), self.environment["PYTHONPATH"]])

    def __enter__(self) -> PortableBroker:
        self.start()
        return self

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run Python with these arguments as a client of it, and return what it prints."""
        done = subprocess.run(
            [sys.executable, *arguments], env=self.environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}\n{self.log}"
        return done.stdout

    def command(self, *arguments: str) -> Any:
        """Run `backtestr` with these arguments, and return the JSON that it prints."""
        return json.loads(self.run("-m", "backtestr", *arguments, "--json"))


@pytest.fixture(scope="module")
def portable() -> Iterator[PortableBroker]:
    with short_directory() as home, PortableBroker(home) as broker:
        yield broker


@pytest.mark.timeout(600)
def test_a_day_of_a_client_needs_nothing_of_posix(portable: PortableBroker) -> None:
    home = portable.data_dir.parent
    (home / "bars.csv").write_text(CSV)
    (home / "mine.py").write_text(OWN)
    lines = portable.run("-c", DAY, str(home)).splitlines()
    said = {line.pop("step"): line for line in map(json.loads, lines)}
    assert said["connected"]["requests"].startswith("tcp://127.0.0.1:")
    assert said["connected"]["encrypted"]
    assert said["imported"] == said["again"] == {"bars": 600}
    assert said["registered"] == {"passed": True}
    assert said["own"] == {"status": "completed"}
    assert said["paused"] == {"status": "paused"}
    assert said["result"]["status"] == "completed"
    assert said["result"]["trades"] == said["straight"]["trades"] > 0
    assert said["deleted"] == {"left": []}
    assert said["removed"] == {"timeframes": ["1m"]}
    assert "compute-1" in portable.log
    assert "this system cannot limit memory" in portable.log
    assert not any("deleted" in one.name for one in (portable.data_dir / "results").iterdir())


@pytest.mark.timeout(600)
def test_the_command_line_stops_it_and_a_killed_broker_leaves_nothing_in_the_way(portable: PortableBroker) -> None:
    workers = portable.worker_pids()
    assert len(workers) == 2, "neither a guardian nor anything else but workers"
    assert portable.command("status")["status"] in ("healthy", "warning")
    assert portable.command("stop") == {"stopped": True}
    assert portable.process.wait(10) == 0
    assert not portable.connection_file.exists()
    wait_until(lambda: not any(map(psutil.pid_exists, workers)), 10)
    assert portable.log.endswith("run again when it is started.\n")

    portable.start()
    assert "already running" in portable.refused_start()
    portable.kill()  # fails when a worker is left
    portable.start()
    with RawClient(portable.connection_file) as raw_client:
        raw_client.hello()
        assert raw_client.ask("StopBroker", {}) == {}
    assert portable.process.wait(10) == 0
