"""`backtestr top` shows a real broker once, on a terminal, and through the broker's restart."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from backtestr.cli.app import app
from backtestr.cli.console import EXIT_USAGE
from support.harness import RunningBroker

TOP = [sys.executable, "-m", "backtestr", "top"]


def test_once_for_people_and_for_programs(broker: RunningBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**broker.environment, "COLUMNS": "160"}.items():
        monkeypatch.setenv(name, value)
    runner = CliRunner()
    shown = runner.invoke(app, ["top", "--once"])
    assert (shown.exit_code, shown.stderr) == (0, "")
    for word in ("loop lag", "compute-1", "system.status", "subscribers"):
        assert word in shown.stdout
    said = runner.invoke(app, ["top", "--once", "--json"])
    answer = json.loads(said.stdout)
    assert (said.exit_code, answer["state"], answer["backtests"]) == (0, "ready", [])
    assert answer["status"]["streams"]["perTopic"]
    refused = runner.invoke(app, ["top"])
    assert refused.exit_code == EXIT_USAGE
    assert "use --once or --json" in refused.stderr
    assert runner.invoke(app, ["top", "--interval", "0"]).exit_code == EXIT_USAGE


def test_on_a_terminal_it_is_drawn_again_until_ctrl_c(broker: RunningBroker) -> None:
    ours, theirs = pty.openpty()
    environment = {**broker.environment, "TERM": "xterm", "COLUMNS": "160", "LINES": "50"}
    top = subprocess.Popen([*TOP, "--interval", "0.1"], env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    drawn = b""
    while drawn.count(b"loop lag") < 3:
        drawn += os.read(ours, 65_536)
    top.send_signal(signal.SIGINT)
    try:
        while part := os.read(ours, 65_536):
            drawn += part
    except OSError:  # the other end is closed: it has ended
        pass
    assert top.wait(20) == 0
    assert b"Traceback" not in drawn
    assert drawn.endswith(b"\x1b[?25h\x1b[?1049l"), "cursor and screen are back"
    os.close(ours)


def test_it_continues_after_a_restart_of_the_broker(own_broker: RunningBroker) -> None:
    top = subprocess.Popen(
        [*TOP, "--json", "--interval", "0.1"], env=own_broker.environment, stdout=subprocess.PIPE, text=True
    )
    assert top.stdout is not None
    stdout = top.stdout

    def until(state: str) -> dict[str, object]:
        while (said := json.loads(stdout.readline()))["state"] != state or (state == "ready") != ("status" in said):
            pass
        found: dict[str, object] = said
        return found

    until("ready")
    own_broker.stop()
    assert until("reconnecting") == {"state": "reconnecting"}
    own_broker.start()
    first = until("ready")
    assert first["rates"] == {"topics": {}, "classes": {}, "classBytes": {}, "clients": {}, "refused": None}
    while not json.loads(stdout.readline())["rates"]["topics"]:
        pass
    top.send_signal(signal.SIGINT)
    assert top.wait(20) == 0
    stdout.close()
