"""Starting a broker: what is said if it cannot be started. `integration/test_ui` starts one."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from backtestr.ui.io import broker_start
from backtestr.ui.io.broker_start import BrokerStart, missing_packages, running_broker
from backtestr_protocol.errors import InvalidConfiguration, SystemFault


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BACKTESTR_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("BACKTESTR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("BACKTESTR_CONNECTION_FILE", raising=False)
    return tmp_path


def test_nothing_is_missing_here_and_no_broker_runs() -> None:
    assert missing_packages() == []
    assert running_broker() is None


def test_the_brokers_own_reason_is_given(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKTESTR_CONFIG_DIR", str(home / "config"))
    (home / "config").mkdir()
    (home / "config" / "broker.toml").write_text("[limits]\nmax_connection = 1\n")
    with pytest.raises(SystemFault, match=r"the broker did not start: .*max_connection.*its log is .*broker\.log"):
        asyncio.run(BrokerStart().start())
    assert (home / "data" / "broker.log").stat().st_mode & 0o077 == 0


def test_a_broker_that_says_nothing_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SystemFault, match="it has said nothing"):
        asyncio.run(BrokerStart().start())


def test_a_broker_that_does_not_come_to_serve_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_start, "START_SECONDS", 0.0)
    start = BrokerStart()
    try:
        with pytest.raises(SystemFault, match="has not come to serve in 0 s"):
            asyncio.run(start.start())
    finally:
        assert start._process is not None
        start._process.terminate()
        start._process.wait(30)


def test_missing_packages_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_start, "missing_packages", lambda: ["numba"])
    with pytest.raises(
        InvalidConfiguration, match=r"needs numba; install it with: pip install 'backtestr\[broker,engine\]'"
    ):
        asyncio.run(BrokerStart().start())


def test_a_log_that_cannot_be_written_is_said(home: Path) -> None:
    (home / "data" / "broker.log").mkdir(parents=True)
    with pytest.raises(InvalidConfiguration, match=r"broker\.log cannot be written: Is a directory"):
        asyncio.run(BrokerStart().start())
