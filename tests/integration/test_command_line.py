"""The command line works with a real broker."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import backtestr
from backtestr.cli.app import app
from backtestr.cli.console import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_NO_BROKER, EXIT_USAGE
from backtestr_protocol.build import BUILD
from support.harness import RawClient, RunningBroker

SLOW_BACKTEST = ["backtest", "sma_cross", "SYNTH", "--timeframe", "1m"]
CSV = "timestamp,open,high,low,close,volume\n" + "".join(
    f"2024-01-01T00:{minute:02}:00Z,1.0,1.5,0.5,1.{minute % 5},10\n" for minute in range(60)
)


@pytest.fixture
def runner(broker: RunningBroker, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    for name, value in broker.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "160")
    return CliRunner()


def as_json(runner: CliRunner, *arguments: str) -> Any:
    done = runner.invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_output_that_is_piped_is_not_cut(broker: RunningBroker) -> None:
    command = [sys.executable, "-m", "backtestr", "algorithms"]
    environment = {**broker.environment, "COLUMNS": "80"}
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
    assert max(map(len, listed.splitlines())) > 100


def test_status_data_and_algorithms(runner: CliRunner) -> None:
    assert "compute-1" in runner.invoke(app, ["status"]).stdout
    assert as_json(runner, "status")["status"] == "healthy"
    assert "SYNTH" in runner.invoke(app, ["data"]).stdout
    assert {"symbol", "timeframe", "startTime", "endTime", "bars"} == set(as_json(runner, "data")[0])
    assert "fast=10 (2..500)" in runner.invoke(app, ["algorithms"]).stdout
    assert "sma_cross" in [one["name"] for one in as_json(runner, "algorithms")]


def test_import_then_backtest_then_results(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "bars.csv").write_text(CSV)
    imported = as_json(runner, "import", str(tmp_path / "bars.csv"), "--symbol", "CLITEST", "--timeframe", "1m")
    assert (imported["symbol"], imported["bars"]) == ("CLITEST", 60)
    backtest = ["backtest", "sma_cross", "CLITEST", "--timeframe", "1m", "--param", "fast=2", "--param", "slow=5"]
    answer = as_json(runner, *backtest, "--commission", "0.0005", "--option", "fillAt=close")
    assert answer["status"] == "completed"
    assert answer["config"]["parameters"] == {"fast": 2, "slow": 5}
    assert answer["config"]["options"]["fillAt"] == "close"
    assert as_json(runner, "results", answer["backtestId"]) == answer
    shown = runner.invoke(app, ["results", answer["backtestId"]]).stdout
    assert re.search(r"Final equity .* " + re.escape(f"{answer['metrics']['finalEquity']:,.2f}"), shown)
    assert answer["backtestId"] in [one["backtestId"] for one in as_json(runner, "backtests")]
    assert "completed" in runner.invoke(app, ["backtests", "--limit", "1"]).stdout


def test_an_import_drops_rows_where_it_is_told_to(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "bars.csv").write_text(CSV + "2024-01-01T01:00:00Z,1.0,0.1,0.5,1.0,10\n")
    command = ["import", str(tmp_path / "bars.csv"), "--symbol", "REPAIRED"]
    refused = runner.invoke(app, command)
    assert refused.exit_code == EXIT_ERROR
    assert "line 62, column 'high': high is below open or close" in refused.stderr
    repaired = as_json(runner, *command, "--repair", "drop")
    assert repaired["dropped"] == [
        {"reason": "high is below open or close", "column": "high", "count": 1, "first": [62]}
    ]
    assert (repaired["bars"], repaired["format"]) == (60, "csv")
    assert runner.invoke(app, [*command, "--repair", "fix"]).exit_code == EXIT_USAGE


def test_quotes_are_imported_at_a_price(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "ticks.csv").write_text("time,bid,ask\n2024-01-01T00:00:00Z,1,3\n2024-01-01T00:00:01Z,2,4\n")
    command = ["import", str(tmp_path / "ticks.csv"), "--symbol", "QUOTED", "--price", "ask"]
    assert runner.invoke(app, command).exit_code == EXIT_ERROR  # ticks need a timeframe
    assert as_json(runner, *command, "--timeframe", "1m")["warnings"] == [
        "1m bars made of 2 quotes at the ask; volume is the number of quotes"
    ]


def test_for_people_there_is_a_bar_and_a_table(runner: CliRunner) -> None:
    done = runner.invoke(app, ["backtest", "buy_and_hold", "SYNTH", "--timeframe", "1d"])
    assert done.exit_code == 0
    assert "100%" in done.stderr
    assert "Total return" in done.stdout
    assert "undefined" in done.stdout


def test_a_mistake_is_a_line_or_two_and_exit_code_1(runner: CliRunner) -> None:
    done = runner.invoke(app, ["backtest", "sma_cros", "SYNTH", "--timeframe", "1m"])
    assert done.exit_code == EXIT_ERROR
    assert done.stdout == ""
    assert "did you mean 'sma_cross'" in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    failed = runner.invoke(app, ["results", str(uuid.uuid4()), "--json"])
    assert failed.exit_code == EXIT_ERROR
    assert json.loads(failed.stdout)["error"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    "arguments",
    [
        ["backtest", "sma_cross", "SYNTH", "--timeframe", "1m", "--param", "fast"],
        ["backtest", "sma_cross", "SYNTH", "--timeframe", "1m", "--start", "yesterday"],
        ["import", "no-such-file.csv", "--symbol", "S"],
        ["backtest", "sma_cross"],
    ],
)
def test_wrong_usage_is_exit_code_2(runner: CliRunner, arguments: list[str]) -> None:
    assert runner.invoke(app, arguments).exit_code == EXIT_USAGE


def test_without_a_broker_it_says_how_to_start_one(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKTESTR_CONNECTION_FILE", "/nowhere/connection.json")
    done = runner.invoke(app, ["status"])
    assert done.exit_code == EXIT_NO_BROKER
    assert "backtestr run (or make run-broker)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_ctrl_c_stops_the_backtest_and_keeps_its_simulated_bars(slow_broker: RunningBroker) -> None:
    with RawClient(slow_broker.connection_file) as raw_client:
        raw_client.hello()
        started = raw_client.subscribe("system", "system.backtests")
        watching = subprocess.Popen(
            [sys.executable, "-c", "from backtestr.cli.entry import main; main()", *SLOW_BACKTEST],
            env=slow_broker.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running = started.until(lambda data: data["status"] == "running")[-1]["payload"]["data"]
        # Paused, so that it cannot end before Ctrl-C comes.
        raw_client.ask("PauseBacktest", {"backtestId": running["backtestId"]})
        watching.send_signal(signal.SIGINT)
        output, errors = watching.communicate(timeout=60)
        assert watching.returncode == EXIT_INTERRUPTED, errors
        assert f"to see it again: backtestr results {running['backtestId']}" in errors
        assert "stopped" in output
        stopped = raw_client.ask("GetBacktestStatus", {"backtestId": running["backtestId"]})
        assert stopped["status"] == "stopped"


def test_a_detached_backtest_continues_by_itself(runner: CliRunner, raw_client: RawClient) -> None:
    events = raw_client.subscribe("system", "system.backtests")
    done = runner.invoke(app, ["backtest", "sma_cross", "SYNTH", "--timeframe", "1m", "--detach"])
    backtest_id = done.stdout.strip()
    events.until(lambda data: data["backtestId"] == backtest_id and data["status"] == "completed")


def test_run_passes_its_arguments_to_the_broker() -> None:
    command = [sys.executable, "-c", "from backtestr.cli.entry import main; main()", "run", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"backtestr {backtestr.__version__} ({BUILD})\n"


def test_the_command_line_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "backtestr", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"backtestr {backtestr.__version__} ({BUILD})"
