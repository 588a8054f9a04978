"""The examples run as a newcomer would run them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from support.harness import ROOT, RawClient, RunningBroker
from support.node_programs import BUILT_CLIENT, NODE, npm

EXAMPLES = ROOT / "examples"
SECONDS = 60


def run(broker: RunningBroker, *command: str, directory: Path = EXAMPLES) -> str:
    done = subprocess.run(
        command, cwd=directory, env=broker.environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def metrics_of_the_latest(raw_client: RawClient) -> dict[str, Any]:
    [latest] = raw_client.ask("ListBacktests", {"limit": 1})["backtests"]
    assert latest["status"] == "completed"
    metrics: dict[str, Any] = raw_client.ask("GetPerformanceMetrics", {"backtestId": latest["backtestId"]})["metrics"]
    return metrics


def printed_metrics(output: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output[output.index("{") :])
    return found


def test_the_script(broker: RunningBroker, raw_client: RawClient) -> None:
    output = run(broker, sys.executable, "quickstart.py", "SYNTH", "1d")
    metrics = metrics_of_the_latest(raw_client)
    assert f"final equity {metrics['finalEquity']:,.2f}" in output
    assert re.search(r"^100\.0 %", output, re.MULTILINE)


def test_the_script_says_what_is_wrong(broker: RunningBroker) -> None:
    with pytest.raises(AssertionError, match="unknown symbol 'SINTH'; did you mean 'SYNTH'"):
        run(broker, sys.executable, "quickstart.py", "SINTH")


def test_nothing_but_pyzmq_and_msgpack(broker: RunningBroker, raw_client: RawClient) -> None:
    file = EXAMPLES / "raw_pyzmq.py"
    source = file.read_text("utf-8")
    imported = set(re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE))
    assert imported - sys.stdlib_module_names == {"zmq", "msgpack"}
    assert len(source.splitlines()) < 65
    output = run(broker, sys.executable, file.name)
    assert "the last at 100.0 %" in output
    assert printed_metrics(output) == metrics_of_the_latest(raw_client)


def test_the_raw_client_over_tcp_finds_its_key(tcp_broker: RunningBroker) -> None:
    output = run(tcp_broker, sys.executable, "raw_pyzmq.py", "SYNTH", "1d")
    assert "the last at 100.0 %" in output


@pytest.mark.filterwarnings("ignore")  # of the notebook machinery's own
def test_the_notebook_gives_what_it_shows(broker: RunningBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in broker.environment.items():
        monkeypatch.setenv(name, value)
    saved, fresh = read_notebook(), read_notebook()
    nbclient.NotebookClient(fresh, timeout=SECONDS, kernel_name="python3").execute()
    assert [texts(cell) for cell in fresh.cells] == [texts(cell) for cell in saved.cells], (
        "with a fresh broker: jupyter execute --inplace examples/quickstart.ipynb"
    )
    assert any(texts(cell) for cell in saved.cells)


def read_notebook() -> Any:
    return nbformat.reads((EXAMPLES / "quickstart.ipynb").read_text("utf-8"), as_version=4)  # type: ignore[no-untyped-call]


def texts(cell: Any) -> list[str]:
    """Return what a cell shows, without the progress bar: text on stderr, or a widget where ipywidgets is installed."""
    shown = [
        output
        for output in cell.get("outputs", [])
        if output.get("name") != "stderr" and "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
    ]
    return [output["text"] if "text" in output else output["data"]["text/plain"] for output in shown]


@pytest.mark.timeout(300)
def test_node_through_zeromq_js(broker: RunningBroker, raw_client: RawClient, tmp_path: Path) -> None:
    directory = tmp_path / "zeromqjs"
    shutil.copytree(EXAMPLES / "zeromqjs", directory, ignore=shutil.ignore_patterns("node_modules"))
    npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", directory=directory)
    output = run(broker, str(NODE), "index.mjs", directory=directory)
    assert "the last at 100.0 %" in output
    assert printed_metrics(output) == metrics_of_the_latest(raw_client)


@pytest.mark.timeout(300)
def test_node_with_the_client(broker: RunningBroker, raw_client: RawClient, tmp_path: Path) -> None:
    """Run the 15 lines as a program that has installed the packed client."""
    assert (BUILT_CLIENT / "dist" / "index.mjs").is_file(), "run: make build-ts"
    npm("pack", "--pack-destination", str(tmp_path), directory=BUILT_CLIENT)
    [packed] = tmp_path.glob("*.tgz")
    directory = tmp_path / "node"
    shutil.copytree(EXAMPLES / "node", directory, ignore=shutil.ignore_patterns("node_modules"))
    assert len((directory / "index.mjs").read_text("utf-8").splitlines()) <= 16  # with the line that says how to run it
    npm("install", "--ignore-scripts", "--no-audit", "--no-fund", str(packed), directory=directory)
    output = run(broker, str(NODE), "index.mjs", directory=directory)
    metrics = metrics_of_the_latest(raw_client)
    assert "100.0 %" in output
    assert f"the equity ended at {metrics['finalEquity']:.2f}" in output
    assert printed_metrics(output) == metrics


def test_the_lock_file_names_no_registry() -> None:
    lock = (EXAMPLES / "zeromqjs" / "package-lock.json").read_text("utf-8")
    assert "http" not in lock
    assert json.loads(lock)["packages"][""]["dependencies"] == {"msgpackr": "2.1.3", "zeromq": "6.8.0"}
