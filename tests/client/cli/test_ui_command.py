"""`backtestr ui`: what it prints, which browser it opens, and what it refuses. `integration/test_ui` serves."""

from __future__ import annotations

import subprocess
import sys
import threading
import webbrowser
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from backtestr.cli.app import app
from backtestr.cli.exit_codes import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE
from backtestr.ui.io import broker_start, new_links
from backtestr.ui.io import server as server_module
from backtestr_protocol.errors import SystemFault
from backtestr_protocol.secret import Secret
from support.harness import wait_until


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BACKTESTR_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("BACKTESTR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("BACKTESTR_CONNECTION_FILE", raising=False)
    return tmp_path


class Opened:
    """Records what is opened in the browser."""

    def __init__(self) -> None:
        self.address = ""
        self.has_come = threading.Event()

    def open(self, address: str) -> bool:
        self.address = address
        self.has_come.set()
        return True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    one = Opened()
    monkeypatch.setattr(webbrowser, "get", lambda: one)
    return one


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[server_module.Server]:
    """Have servers end as soon as they would serve, and return them."""
    servers: list[server_module.Server] = []

    def run(server: server_module.Server) -> None:
        servers.append(server)
        server._listener.close()

    monkeypatch.setattr(server_module.Server, "run", run)
    return servers


def type_in(*words: str) -> Any:
    return CliRunner().invoke(app, ["ui", *words])


def test_the_link_is_printed_and_opened(served: list[server_module.Server], opened: Opened) -> None:
    done = type_in()
    assert done.exit_code == 0, done.output
    assert opened.has_come.wait(10)
    [server] = served
    assert opened.address.startswith(f"http://127.0.0.1:{server.port}/?token=")
    assert opened.address in done.stdout
    assert "No broker is running" in done.stdout


def test_without_a_browser_the_link_is_printed_alone(served: list[server_module.Server], opened: Opened) -> None:
    assert "?token=" in type_in("--no-browser").stdout
    assert len(served) == 1
    assert not opened.has_come.is_set()


@pytest.mark.parametrize("found", [webbrowser.GenericBrowser("w3m"), webbrowser.Error("there is none")])
def test_a_browser_that_takes_the_terminal_is_not_opened(
    served: list[server_module.Server], monkeypatch: pytest.MonkeyPatch, found: object
) -> None:
    def get() -> object:
        if isinstance(found, Exception):
            raise found
        return found

    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "get", get)
    monkeypatch.setattr(webbrowser.GenericBrowser, "open", lambda _self, address: opened.append(address))
    assert type_in().exit_code == 0
    wait_until(lambda: not any(one.name == "backtestr browser" for one in threading.enumerate()), 10)
    assert opened == []


def test_ctrl_c_before_it_serves_ends_it_without_a_traceback(
    served: list[server_module.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(_self: broker_start.BrokerStart) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(broker_start.BrokerStart, "start", start)
    assert type_in("--start", "--no-browser").exit_code == EXIT_INTERRUPTED
    assert served == []


def test_a_broker_is_started_where_it_is_asked_for(
    served: list[server_module.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = [True, False]

    async def start(_self: broker_start.BrokerStart) -> bool:
        return outcomes.pop(0)

    monkeypatch.setattr(broker_start.BrokerStart, "start", start)
    first, second = type_in("--start", "--no-browser"), type_in("--start", "--no-browser")
    assert first.stdout.startswith("Starting a broker; ")
    assert "It stays when this ends; stop it with: backtestr stop" in first.stdout
    assert "It stays" not in second.stdout  # another program was quicker
    assert len(served) == 2


def test_a_broker_that_does_not_start_ends_the_command(
    served: list[server_module.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(_self: broker_start.BrokerStart) -> bool:
        raise SystemFault("the broker did not start: because")

    monkeypatch.setattr(broker_start.BrokerStart, "start", start)
    done = type_in("--start", "--no-browser")
    assert (done.exit_code, done.stderr) == (EXIT_ERROR, "the broker did not start: because\n")
    assert served == []


def test_a_server_that_runs_is_asked_for_a_link(
    served: list[server_module.Server], opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = new_links.RunningServer(4321, 1, "", Secret(bytes(32)))
    monkeypatch.setattr(new_links, "running_server", lambda: running)
    monkeypatch.setattr(new_links, "ask_for_link", lambda _server: "fresh")
    done = type_in()
    assert "http://127.0.0.1:4321/?token=fresh" in done.stdout
    assert opened.address == "http://127.0.0.1:4321/?token=fresh"
    assert "at port 4321 already" in type_in("--port", "4322", "--no-browser").stderr
    assert served == []
    monkeypatch.setattr(new_links, "ask_for_link", lambda _server: None)  # it was killed
    assert type_in("--no-browser").exit_code == 0
    assert len(served) == 1


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    done = type_in()
    assert done.exit_code == EXIT_ERROR
    assert done.stderr == "the app needs uvicorn; install it with: pip install 'backtestr[ui]'\n"


@pytest.mark.parametrize("words", [("--port", "70000"), ("--upload-limit", "0"), ("--nonsense",)])
def test_wrong_usage_is_said(words: tuple[str, ...]) -> None:
    assert type_in(*words).exit_code == EXIT_USAGE


def test_it_is_started_without_what_other_commands_need() -> None:
    program = (
        "import sys; sys.argv = ['backtestr', 'ui', '--help']\n"
        "from backtestr.cli.entry import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "import backtestr.ui.io.server, backtestr.ui.io.new_links\n"
        "print(*sorted({'polars', 'numba', 'numpy', 'psutil', 'talib'} & sys.modules.keys()), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "--upload-limit" in done.stdout
    assert done.stderr == "\n"
