"""`backtestr stop` returns once the broker has withdrawn its connection file, and says when it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from backtestr.cli import stop as stop_module
from backtestr.cli.app import app
from backtestr.cli.console import EXIT_ERROR


class StoppedClient:
    """A client whose broker removes its connection file, or does not."""

    def __init__(self, file: Path, *, obeys: bool) -> None:
        self._file = file
        self._obeys = obeys
        self.asked = 0

    def __enter__(self) -> StoppedClient:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def stop_broker(self) -> None:
        self.asked += 1
        if self._obeys:
            self._file.unlink()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "connection.json"
    path.write_text("{}")
    monkeypatch.setenv("BACKTESTR_CONNECTION_FILE", str(path))
    monkeypatch.setattr(stop_module, "_PATIENCE", 0.3)
    return path


def run(client: StoppedClient, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.setattr(stop_module, "broker", lambda _as_json: client)
    done = CliRunner().invoke(app, ["stop", *arguments])
    assert client.asked == 1
    return done


def test_it_waits_for_the_end_and_says_so(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(StoppedClient(file, obeys=True), monkeypatch)
    assert (done.exit_code, done.stdout) == (0, "the broker has stopped\n")


def test_a_program_reads_json(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert '"stopped": true' in run(StoppedClient(file, obeys=True), monkeypatch, "--json").stdout


def test_a_broker_that_does_not_end_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(StoppedClient(file, obeys=False), monkeypatch)
    assert done.exit_code == EXIT_ERROR
    assert "has not ended within 0.3 s" in done.stderr
