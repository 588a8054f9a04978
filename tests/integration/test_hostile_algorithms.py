"""Files that kill, and algorithms that spoil their process, cost a process, and nobody else anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import psutil
import pytest
from typer.testing import CliRunner

from backtestr.cli.app import app
from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_protocol.errors import AlgorithmError, DataError
from integration.conftest import ONE_WORKER, stopped_broker, with_algorithm
from support.harness import RawClient, RunningBroker, wait_until

HEAD = "import os, sys, threading, time\nfrom backtestr_engine.authoring import Int, Signals, algorithm\n\n"
LONG = "    return Signals.of(entries=bars.close > 0)\n"
GOOD = HEAD + '@algorithm("good")\ndef good(bars):\n' + LONG
# They spoil their process when they are run, not when they are loaded.
SPOILERS = (
    HEAD
    + (
        '@algorithm("leaks_threads")\ndef leaks_threads(bars):\n'
        "    for _ in range(20):\n        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        + LONG
    )
    + ('\n@algorithm("forks")\ndef forks(bars):\n    if os.fork() == 0:\n        time.sleep(600)\n' + LONG)
    + ('\n@algorithm("forks_twice")\ndef forks_twice(bars):\n    os.fork()\n' + LONG)
    + ('\n@algorithm("patches")\ndef patches(bars):\n    import numpy\n    numpy.isnan = numpy.isinf\n' + LONG)
    + (
        '\n@algorithm("sets_up")\ndef sets_up(bars):\n    import numpy, warnings\n    numpy.seterr(all="raise")\n'
        '    warnings.simplefilter("error")\n    os.chdir("/")\n    os.environ["MINE"] = "1"\n' + LONG
    )
    + (
        '\n@algorithm("ends_on_fewer")\ndef ends_on_fewer(bars):\n'
        "    if len(bars) < 1_000:\n        os._exit(7)\n" + LONG
    )
    + (
        '\n@algorithm("holds_the_lock")\ndef holds_the_lock(bars):\n    import re, subprocess\n'
        '    subprocess.Popen(["sleep", "601"])\n    re.match("(a+)+b", "a" * 64)\n'
    )
)
FILES = {
    "exits": "import os; os._exit(0)\n",
    "interrupts": "raise KeyboardInterrupt\n",
    "big": HEAD + '@algorithm("big", n=Int(2**70, low=0, high=2**71))\ndef big(bars, n):\n' + LONG,
    "named": HEAD + '@algorithm("x" * 100_000)\ndef named(bars):\n' + LONG,
    # It can be inspected, and ends every worker.
    "kills_workers": HEAD + 'if not any("source_inspector" in one for one in sys.orig_argv):\n    os._exit(0)\n\n'
    '@algorithm("kills_workers")\ndef kills_workers(bars):\n' + LONG,
    "good": GOOD,
    "spoilers": SPOILERS,
}
REASONS = {
    "exits.py": "it ended its process with exit code 0",
    "interrupts.py": "KeyboardInterrupt",
    "big.py": "the algorithm 'big' cannot be described",
    "named.py": "the name of an algorithm is 1 to 64 printable characters",
    "kills_workers.py": "3 workers in a row ended while they loaded it",
    "pipe.py": "it is a pipe, not a regular file",
    "damaged.json": "cannot be read",
    "numbers.json": "cannot be read",
    "link.json": "cannot be read",
}


@pytest.fixture(scope="module")
def hostile_broker() -> Iterator[RunningBroker]:
    """Run a broker whose folders have every kind of file that may kill."""
    with stopped_broker({"broker.toml": ONE_WORKER}) as broker:
        for name, text in FILES.items():
            with_algorithm(broker, name, text)
        os.mkfifo(broker.data_dir / "algorithms" / "pipe.py")
        registered = broker.data_dir / "algorithms-registered"
        registered.mkdir()
        (registered / "damaged.json").write_text('{"algorithmId": "dam')
        version = "0" * 16
        (registered / "numbers.json").write_text(
            f'{{"algorithmId":"numbers@{version}","name":"numbers","version":"{version}","description":"","parameters":'
            f'[{{"name":"n","type":"int","default":{2**70}}}]}}'
        )
        (registered / "link.json").symlink_to("nothing")
        broker.start()
        yield broker


@pytest.fixture
def client(hostile_broker: RunningBroker) -> Iterator[Client]:
    if not hostile_broker.is_running:
        hostile_broker.start()
    with Client(ConnectionFile(hostile_broker.connection_file).read()) as connected:
        wait_until(lambda: all(one.state == "idle" for one in connected.status().workers), 60)
        yield connected


def pids(client: Client) -> dict[str, int]:
    return {one.worker_id: one.pid for one in client.status().workers}


def run(client: Client, algorithm: str) -> str:
    return client.backtest(algorithm, "SYNTH", timeframe="1d", time_limit_ms=20_000).wait().status


def test_every_file_is_named_and_everything_else_serves(client: Client, hostile_broker: RunningBroker) -> None:
    with RawClient(hostile_broker.connection_file) as raw_client:
        raw_client.hello()
        answer = raw_client.ask("ListAlgorithms", {})
        reasons = raw_client.ask("GetSystemStatus", {})["reasons"]
    problems = {Path(one["file"]).name: one["message"] for one in answer["problems"]}
    assert problems.keys() == REASONS.keys()
    for name, reason in REASONS.items():
        assert reason in problems[name]
    assert {"good", "leaks_threads", "sma_cross"} <= {one["name"] for one in answer["algorithms"]}
    assert sum("an algorithm is not loaded: " in one for one in reasons) == 3
    assert "6 more files of algorithms are not loaded; see: backtestr algorithms" in reasons
    assert run(client, "good") == "completed"
    assert "crash" not in hostile_broker.log


def test_the_command_line_names_the_files_that_are_not_loaded(
    client: Client, hostile_broker: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in hostile_broker.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "250")
    shown = CliRunner().invoke(app, ["algorithms"])
    assert shown.exit_code == 0
    assert "sma_cross" in shown.stdout
    assert "exits.py" in shown.stderr
    assert "it ended its process with exit code 0" in shown.stderr
    assert "not loaded" not in shown.stdout


def test_a_registration_repairs_a_damaged_file(client: Client) -> None:
    client.register_algorithm(GOOD.replace('"good"', '"damaged"'))
    assert "damaged.json" not in {Path(one.file).name for one in client.algorithm_problems()}
    assert run(client, "damaged") == "completed"


def test_a_source_that_ends_its_process_is_refused_and_leaves_nothing(
    client: Client, hostile_broker: RunningBroker
) -> None:
    before = pids(client)
    with pytest.raises(AlgorithmError, match="its process was ended by SIGKILL"):
        client.register_algorithm("import os; os.kill(os.getpid(), 9)", "deadly")
    assert pids(client) == before
    assert not list((hostile_broker.data_dir / "algorithms-registered").glob("deadly*"))


@pytest.mark.parametrize(
    ("algorithm", "reason"),
    [
        ("leaks_threads", "20 threads were left running"),
        ("forks", "1 processes were left running"),
        ("patches", "numpy.isnan was replaced"),
    ],
)
def test_a_spoiled_worker_is_replaced_after_its_answer(
    algorithm: str, reason: str, client: Client, hostile_broker: RunningBroker
) -> None:
    before = client.status().workers[0]
    children = psutil.Process(before.pid)
    assert run(client, algorithm) == "completed"
    wait_until(lambda: client.status().workers[0].pid != before.pid, 30)
    wait_until(lambda: client.status().workers[0].state == "idle", 30)
    after = client.status().workers[0]
    assert (after.replacements, after.early_deaths) == (before.replacements + 1, before.early_deaths)
    assert f"it was replaced after a task: {reason}" in hostile_broker.log
    assert not children.is_running()
    assert leftovers(hostile_broker, client) == []
    assert run(client, "good") == "completed"


def test_a_look_ahead_check_that_ends_its_worker_costs_no_backtest(client: Client) -> None:
    """The backtest runs again, and its algorithm is not checked on its bars a second time."""
    before = client.status().workers[0]
    assert run(client, "ends_on_fewer") == "completed"
    wait_until(lambda: client.status().workers[0].state == "idle", 30)
    assert client.status().workers[0].pid != before.pid


def leftovers(broker: RunningBroker, client: Client) -> list[str]:
    """Return the processes below the broker that are neither workers nor its guardian."""
    known = set(pids(client).values())
    return [
        one.name()
        for one in psutil.Process(broker.process.pid).children(recursive=True)
        if one.pid not in known and one.name() != "sh" and one.status() != "zombie"
    ]


def test_a_forked_process_that_comes_back_never_serves(client: Client, hostile_broker: RunningBroker) -> None:
    before = pids(client)
    assert run(client, "forks_twice") == "completed"
    wait_until(lambda: leftovers(hostile_broker, client) == [], 10)
    assert pids(client) == before, "the process ended at once"


def test_what_can_be_put_back_costs_no_worker(client: Client) -> None:
    before = pids(client)
    for _ in range(2):
        assert run(client, "sets_up") == "completed"
    assert run(client, "good") == "completed"
    assert pids(client) == before


def test_damaged_tables_are_data_errors_and_cost_no_worker(client: Client, hostile_broker: RunningBroker) -> None:
    before = pids(client)
    path = hostile_broker.data_dir.parent / "bars.parquet"
    synthetic_bars("1m", 1_000).to_frame().write_parquet(path)
    assert client.import_market_data(path, "GOOD").bars == 1_000
    content = path.read_bytes()
    for damaged in (
        content[:-4] + b"PAR1"[::-1],
        content[:-8] + b"\xff\xff\xff\x7fPAR1",
        content[:100] + content[-300:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"bars\.parquet"):
            client.import_market_data(path, "BAD")
    stored = hostile_broker.data_dir / "catalog" / "GOOD" / "1m.parquet"
    stored.write_bytes(stored.read_bytes()[:-300] + content[-300:])
    with pytest.raises(DataError, match=r"GOOD/1m\.parquet cannot be read: .*backtestr data delete GOOD 1m"):
        client.market_data("GOOD", "1m")
    assert "GOOD" not in {one.symbol for one in client.list_market_data()}
    assert pids(client) == before
    assert pl.read_parquet(hostile_broker.data_dir / "catalog" / "SYNTH" / "1d.parquet").height == 1_000


def test_a_worker_that_is_stuck_and_what_it_started_end_with_a_killed_broker(
    client: Client, hostile_broker: RunningBroker
) -> None:
    client.backtest("holds_the_lock", "SYNTH", timeframe="1d", time_limit_ms=120_000)

    def sleeping() -> list[psutil.Process]:
        children = psutil.Process(hostile_broker.process.pid).children(recursive=True)
        return [one for one in children if one.name() == "sleep"]

    wait_until(lambda: len(sleeping()) == 1, 30)
    (left,) = sleeping()
    hostile_broker.kill()
    wait_until(lambda: not left.is_running(), 5)
