"""The recorder of a running broker writes a recording that `backtestr replay-log` reads."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from backtestr.cli.app import app
from backtestr.cli.console import EXIT_ERROR, EXIT_USAGE
from integration.conftest import QUICK, running_again, stopped_broker
from integration.test_end_to_end import SYNTH, run_to_end
from support.harness import RawClient, RunningBroker
from support.protocol.independent import Fields

RECORDING = {"broker.toml": QUICK + "[recorder]\nenabled = true\n"}


@pytest.fixture(scope="module")
def stopped_recorder() -> Iterator[RunningBroker]:
    with stopped_broker(RECORDING) as broker:
        yield broker


@pytest.fixture
def recorded(stopped_recorder: RunningBroker) -> RunningBroker:
    """Give the test a running broker that records; each of its starts begins a recording."""
    return running_again(stopped_recorder)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("COLUMNS", "160")
    return CliRunner()


def recording(broker: RunningBroker) -> Path:
    """Return the folder of the latest recording; its name begins with the time of the start."""
    return max((broker.data_dir / "recordings").iterdir())


def replayed(ask: CliRunner, *arguments: str) -> Fields:
    done = ask.invoke(app, ["replay-log", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    found: Fields = json.loads(done.stdout)
    return found


def test_the_recording_of_a_killed_broker_has_what_it_did(recorded: RunningBroker, ask: CliRunner) -> None:
    with RawClient(recorded.connection_file, "ann") as raw_client:
        session_id = raw_client.hello()["sessionId"]
        run_to_end(raw_client, SYNTH, "b1")
        raw_client.subscribe("system", "state.ui.theme")  # a message without a listener is retained and not sent
        raw_client.ask("UpdateState", {"key": "ui.theme", "value": "dark"})
        orders = raw_client.ask("FetchMissed", {"topic": "orders.b1", "fromSeq": 1})["toSeq"]
        instance_id = raw_client.connection["instanceId"]
    recorded.kill()

    log = replayed(ask, str(recording(recorded)), "--job", "b1")
    assert (log["instanceId"], log["problems"], log["contradiction"]) == (instance_id, [], None)
    assert log["replayedEvents"] == log["events"] > 10
    assert log["jobs"] == [{"backtestId": "b1", "status": "completed", "clientId": "ann"}]
    assert log["sessions"] == [{"sessionId": session_id, "clientId": "ann"}]
    assert log["topics"]["orders.b1"] == orders
    facts = [fact["facts"] for fact in log["story"]]
    assert [one["status"] for one in facts if one["type"] == "backtest_changed"] == ["queued", "running", "completed"]
    requests = [fact["facts"]["type"] for fact in log["story"] if fact["kind"] == "request"]
    assert requests[0] == "StartBacktest"
    assert all("compute-" not in fact["text"] or "b1" in fact["text"] for fact in log["story"])

    (file,) = recording(recorded).iterdir()
    of_session = replayed(ask, str(file), "--session", session_id)["story"]
    counters = [fact["facts"].get("counter") for fact in of_session if fact["kind"] == "request"]
    assert counters == [None, *range(1, len(counters))]
    of_topic = replayed(ask, str(file), "--topic", "state.ui.theme")["story"]
    assert [fact["facts"]["seq"] for fact in of_topic if fact["kind"] == "stream"] == [1]


def test_without_json_it_is_a_table(recorded: RunningBroker, ask: CliRunner) -> None:
    with RawClient(recorded.connection_file, "ann [bold]") as raw_client:
        raw_client.hello()
        raw_client.ask("Ping", {})
    recorded.stop()
    path = str(recording(recorded))
    shown = ask.invoke(app, ["replay-log", path]).stdout
    assert "ann [bold]" in shown
    assert "system.status" in shown
    assert "replayed   all of them" in shown
    timeline = ask.invoke(app, ["replay-log", path, "--client", "ann [bold]"])
    assert "Ping clientId='ann [bold]'" in timeline.stdout
    assert "result=Success" in timeline.stdout
    everything = ask.invoke(app, ["replay-log", path, "--all"])
    assert re.search(r"event +Tick", everything.stdout)
    absent = ask.invoke(app, ["replay-log", path, "--client", "bob"])
    assert absent.exit_code == EXIT_ERROR
    assert "nothing in it is about the client 'bob'" in absent.stdout
    assert ask.invoke(app, ["replay-log", path, "--client", "bob", "--all"]).exit_code == EXIT_USAGE


def test_a_file_that_is_no_recording_is_refused_with_the_reason(
    tmp_path: Path, ask: CliRunner, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("no recording")
    assert ask.invoke(app, ["replay-log", str(tmp_path / "notes.txt")]).exit_code == EXIT_USAGE
    assert "notes.txt: no record begins at byte 0" in capfd.readouterr().err
    assert ask.invoke(app, ["replay-log", str(tmp_path / "absent")]).exit_code == EXIT_USAGE


def test_a_timeline_without_a_recording_does_not_start_a_broker() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "backtestr_broker", "--job", "b1"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == EXIT_USAGE
    assert "name one with --replay-log" in done.stderr


def test_a_recorder_that_has_failed_is_a_warning_and_the_broker_serves(recorded: RunningBroker) -> None:
    recorded.stop()
    recordings = recorded.data_dir / "recordings"
    shutil.rmtree(recordings)
    recordings.write_text("a file where the folder should be")
    recorded.start()
    with RawClient(recorded.connection_file) as raw_client:
        raw_client.hello()
        status = raw_client.subscribe("system", "system.status")
        assert status.until(lambda data: data["status"] == "warning")
        assert run_to_end(raw_client, SYNTH, "unrecorded")["status"] == "completed"
    recorded.wait_for_log("recorder_stopped")
    recorded.stop()
    recordings.unlink()


def test_nothing_is_recorded_by_default(broker: RunningBroker) -> None:
    assert not (broker.data_dir / "recordings").exists()
