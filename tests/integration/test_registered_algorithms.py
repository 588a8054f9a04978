"""Registered algorithms run on a real broker, keep their versions, outlive it, and cannot block it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import backtestr
from backtestr.cli.app import app
from backtestr.cli.console import EXIT_ERROR, EXIT_USAGE
from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from backtestr.results import Results
from backtestr_protocol.errors import AlgorithmError, StateConflict, TimedOut, ValidationError
from integration.conftest import QUICK, with_algorithm
from integration.test_end_to_end import SYNTH, run_to_end
from support.harness import RawClient, RunningBroker, short_directory, wait_until

HEAD = "import numpy as np\nfrom backtestr_engine.authoring import Bars, Int, Signals, algorithm\n\n"
LONG = (
    HEAD
    + '''
@algorithm("mine", patience=Int(2, low=1, high=9))
def mine(bars, patience):
    """Always long."""
    return Signals.of(entries=bars.close > 0)
'''
)
FLAT = LONG.replace("Always long", "Never long").replace("> 0", "< 0")
PEEKS = HEAD + (
    '@algorithm("peeks")\ndef peeks(bars):\n'
    "    return Signals.of(entries=np.append(bars.close[1:] > bars.close[:-1], False))\n"
)
# It passes with its default, and prints so that its calls can be counted.
PEEKS_IF_TOLD = HEAD + (
    '@algorithm("peeks_if_told", lookahead=Int(0, low=0, high=9), said=Int(0, low=0, high=10**9))\n'
    "def peeks_if_told(bars, lookahead, said):\n"
    '    print(f"called {said} times {len(bars)}")\n'
    "    later = np.append(bars.close[lookahead:], np.full(lookahead, np.nan))\n"
    "    return Signals.of(entries=later > bars.open, exits=later < bars.open)\n"
)
# Fails where the bars are prices of SYNTH 1d, and not on the sample.
FAILS_LATER = HEAD + (
    '@algorithm("fails_later")\ndef fails_later(bars):\n'
    '    if bars.timeframe == "1d":\n        return bars.no_such_column\n'
    "    return Signals.of(entries=bars.close > 0)\n"
)
LOOPS = "def turn():\n    while True:\n        pass\n\nturn()\n"
SLEEPS = "import time\n\ntime.sleep(3600)\n"


@pytest.fixture
def client(algorithms_broker: RunningBroker) -> Iterator[Client]:
    with connected(algorithms_broker) as client:
        yield client


def connected(broker: RunningBroker) -> Client:
    return Client(ConnectionFile(broker.connection_file).read())


def listed(client: Client) -> dict[str, str]:
    found = client.list_algorithms()
    ids = {one.name: one.algorithm_id for one in found}
    assert len(ids) == len(found), "a name is listed twice"
    return ids


def workers(client: Client) -> dict[str, int]:
    return {one.worker_id: one.pid for one in client.status().workers}


# --- registering and running ---


def test_a_raw_client_registers_runs_and_reads_the_version(algorithms_broker: RunningBroker) -> None:
    source = LONG.replace('"mine"', '"from_the_page"')
    with RawClient(algorithms_broker.connection_file) as raw_client:
        raw_client.hello()
        info = raw_client.ask("RegisterAlgorithm", {"name": "from_the_page", "source": source})
        assert info["algorithmId"] == f"from_the_page@{info['version']}"
        assert (info["origin"], info["lookAhead"]["passed"]) == ("registered", True)
        assert raw_client.ask("RegisterAlgorithm", {"name": "from_the_page", "source": source}) == info
        (found,) = [one for one in raw_client.ask("ListAlgorithms", {})["algorithms"] if one["name"] == "from_the_page"]
        assert found == info
        config = SYNTH | {"algorithmId": "from_the_page", "parameters": {"patience": 3}}
        ended = run_to_end(raw_client, config)
        assert (ended["status"], ended["algorithmId"]) == ("completed", info["algorithmId"])
        results = raw_client.ask("GetBacktestResults", {"backtestId": ended["backtestId"]})
        assert results["config"]["algorithmId"] == info["algorithmId"]
        assert results["metrics"]["exposure"] > 0.9
        assert raw_client.ask("GetAlgorithmStatus", {"algorithmId": "from_the_page"})["activeBacktests"] == 0


def test_a_queued_backtest_runs_the_version_that_was_accepted(client: Client, algorithms_broker: RunningBroker) -> None:
    old = client.register_algorithm(LONG)
    busy = client.backtest("gated", "SYNTH", timeframe="1d", time_limit_ms=60_000)
    queued = client.backtest("mine", "SYNTH", timeframe="1d")
    new = client.register_algorithm(FLAT)
    assert queued.status().status == "queued"
    assert client.algorithm_status("mine").active_backtests == 1
    assert client.algorithm_status(new.algorithm_id).active_backtests == 0
    assert client.algorithm_status(old.algorithm_id).active_backtests == 1
    later = client.backtest("mine", "SYNTH", timeframe="1d")
    (algorithms_broker.data_dir.parent / "open").touch()

    results = [run.result() for run in (queued, later, client.backtest(old.algorithm_id, "SYNTH", timeframe="1d"))]
    assert busy.wait().status == "completed"
    assert [one.config["algorithmId"] for one in results] == [old.algorithm_id, new.algorithm_id, old.algorithm_id]
    exposures = [one.metrics.exposure for one in results if one.metrics is not None]
    assert exposures[0] == exposures[2] != exposures[1] == 0.0
    assert listed(client)["mine"] == new.algorithm_id


def test_an_algorithm_that_looks_ahead_is_kept_with_its_finding(client: Client) -> None:
    info = client.register_algorithm(PEEKS)

    assert info.look_ahead is not None
    assert not info.look_ahead.passed
    assert info.look_ahead.finding is not None
    (found,) = [one for one in client.list_algorithms() if one.name == "peeks"]
    assert found.look_ahead == info.look_ahead
    assert client.backtest("peeks", "SYNTH", timeframe="1d").wait().status == "completed"


def test_a_backtest_whose_parameters_alone_look_ahead_says_so(client: Client, algorithms_broker: RunningBroker) -> None:
    info = client.register_algorithm(PEEKS_IF_TOLD)
    assert info.look_ahead is not None
    assert info.look_ahead.passed

    def run(lookahead: int, *, check: bool) -> Results:
        told = {"lookahead": lookahead, "said": 7}
        return client.backtest(
            "peeks_if_told", "SYNTH", timeframe="1d", parameters=told, look_ahead_check=check
        ).result()

    honest, looking, unchecked = run(0, check=True), run(1, check=True), run(1, check=False)
    assert not any("looks ahead" in one for one in honest.warnings)
    (warning,) = [one for one in looking.warnings if "looks ahead" in one]
    assert warning.startswith(f"{info.algorithm_id} looks ahead, so these figures cannot be had in trading: entries of")
    assert "on the sample SYNTH 1d from " in warning
    assert "looks ahead" in str(looking)
    assert unchecked.config["options"]["lookAheadCheck"] is False
    assert not any("looks ahead" in one for one in unchecked.warnings)
    assert unchecked.trades.equals(looking.trades)
    algorithms_broker.wait_for_log("called 7 times 1000", 3)
    assert algorithms_broker.log.count("called 7 times") == 3, "the calls of the check are not heard"


def test_a_refused_registration_states_the_reason(client: Client) -> None:
    before = listed(client)
    with pytest.raises(AlgorithmError, match=r"^wrong\.py:2: SyntaxError: invalid syntax") as caught:
        client.register_algorithm("x = 1\ndef (\n", "wrong")
    assert caught.value.details is not None
    assert (caught.value.details["file"], caught.value.details["line"]) == ("wrong.py", 2)
    with pytest.raises(ValidationError, match="defines no algorithm 'yours', but 'mine'"):
        client.register_algorithm(LONG, "yours")
    with pytest.raises(ValidationError, match=r"^\$\.name: "):
        client.register_algorithm(LONG, "no name")
    for taken in ("sma_cross", "gated"):
        with pytest.raises(StateConflict, match=f"'{taken}' is "):
            client.register_algorithm(LONG.replace('"mine"', f'"{taken}"'))
    assert listed(client) == before


# --- what does not end ---


def test_a_source_that_loops_is_interrupted_in_its_worker(client: Client) -> None:
    before = workers(client)
    with pytest.raises(TimedOut, match=r"^loading loops\.py took longer than 3 s") as caught:
        client.register_algorithm(LOOPS, "loops")

    assert caught.value.details is not None
    assert 'File "loops.py", line' in caught.value.details["traceback"]
    assert workers(client) == before
    assert client.backtest("sma_cross", "SYNTH", timeframe="1d").wait().status == "completed"


def test_an_algorithm_that_loops_on_the_sample_is_interrupted(client: Client) -> None:
    source = HEAD + '@algorithm("spins")\ndef spins(bars):\n    while True:\n        pass\n'
    with pytest.raises(TimedOut, match=r"^the look-ahead check of spins took longer than 3 s"):
        client.register_algorithm(source)
    assert "spins" not in listed(client)


def test_a_source_that_cannot_be_interrupted_is_ended_with_its_process_alone(client: Client) -> None:
    before = workers(client)
    with pytest.raises(TimedOut, match=r"^loading sleeps\.py took longer than 3 s"):
        client.register_algorithm(SLEEPS, "sleeps")

    assert client.list_market_data()
    assert workers(client) == before
    assert "sleeps" not in listed(client)


def test_files_that_do_not_end_prevent_no_worker_from_starting() -> None:
    """Start two compute workers and an interactive one with a file that loops and one that sleeps."""
    with short_directory() as home:
        config = {
            "broker.toml": QUICK + "[workers]\ncompute = 2\n",
            "engine.toml": "[algorithms]\nload_time_limit_ms = 1000\n",
        }
        unstarted = RunningBroker(home, config)
        for name, text in (("a_loops", LOOPS), ("b_sleeps", SLEEPS), ("c_mine", LONG)):
            with_algorithm(unstarted, name, text)
        with unstarted as broker, connected(broker) as client:
            wait_until(lambda: all(one.state == "idle" for one in client.status().workers), 60)
            runs = [client.backtest("mine", "SYNTH", timeframe="1d") for _ in range(4)]
            assert [run.wait().status for run in runs] == ["completed"] * 4
            for name in ("a_loops.py", "b_sleeps.py"):
                broker.wait_for_log(name)
                (line,) = [line for line in broker.log.splitlines() if name in line]
                assert f"{name} took longer than 1 s; look for an endless loop" in line


# --- restarts ---


def test_registered_algorithms_outlive_the_broker_and_tracebacks_show_their_source(own_broker: RunningBroker) -> None:
    with connected(own_broker) as client:
        old, new = client.register_algorithm(LONG), client.register_algorithm(FLAT)
        fails = client.register_algorithm(FAILS_LATER)
        assert fails.look_ahead is not None
        assert fails.look_ahead.passed
        own_broker.kill()
    own_broker.start()
    with connected(own_broker) as client:
        found = {one.name: one for one in client.list_algorithms()}
        assert (found["mine"], found["fails_later"]) == (new, fails)
        assert client.algorithm_status(old.algorithm_id).description == "Always long."
        result = client.backtest(old.algorithm_id, "SYNTH", timeframe="1d").result()
        assert result.config["algorithmId"] == old.algorithm_id
        with pytest.raises(AlgorithmError, match="fails_later raised AttributeError") as caught:
            client.backtest("fails_later", "SYNTH", timeframe="1d").result()
        assert caught.value.details is not None
        traceback = caught.value.details["traceback"]
        file = own_broker.data_dir / "algorithms-registered" / f"{fails.algorithm_id}.py"
        assert f'File "{file}", line 7, in fails_later\n    return bars.no_such_column' in traceback
        for one in ("fails_later", fails.algorithm_id):
            error = client.algorithm_status(one).last_error
            assert error is not None
            assert error.code == "ALGORITHM_ERROR"


# --- the command line ---


@pytest.fixture
def runner(algorithms_broker: RunningBroker, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    for name, value in algorithms_broker.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")
    return CliRunner()


def test_a_file_is_registered_and_listed_with_its_finding(runner: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "whatever.py"
    file.write_text(PEEKS.replace("peeks", "typed") + PEEKS[len(HEAD) :].replace("peeks", "other"))

    several = runner.invoke(app, ["register", str(file)])
    assert several.exit_code == EXIT_USAGE
    assert "it declares 'typed', 'other'" in several.output
    done = runner.invoke(app, ["register", str(file), "--name", "typed"])
    assert done.exit_code == 0
    assert "typed@" in done.stdout
    assert "become known" in done.stdout
    info = json.loads(runner.invoke(app, ["register", str(file), "--name", "typed", "--json"]).stdout)
    assert info["lookAhead"]["passed"] is False
    rows = {line.split()[1]: line for line in runner.invoke(app, ["algorithms"]).stdout.splitlines() if "│" in line}
    assert "registered" in rows["typed"]
    assert "become" in rows["typed"]
    assert "folder" in rows["gated"]
    assert "built-in" in rows["sma_cross"]
    assert "not checked" in rows["gated"]


def test_a_refused_file_has_an_exit_code_and_its_line(runner: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("x = 1\ndef (\n")

    refused = runner.invoke(app, ["register", str(file)])
    assert refused.exit_code == EXIT_ERROR
    assert "broken.py:2: SyntaxError: invalid syntax" in refused.output
    assert runner.invoke(app, ["register", str(tmp_path / "absent.py")]).exit_code == EXIT_USAGE
    assert runner.invoke(app, ["register", str(tmp_path)]).exit_code == EXIT_USAGE


def test_checking_a_file_that_loops_ends_with_a_message(runner: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "loops.py"
    file.write_text(LOOPS)

    checked = runner.invoke(app, ["check", str(file), "--json"])
    assert checked.exit_code == EXIT_ERROR
    (problem,) = json.loads(checked.stdout)["problems"]
    assert problem.startswith(f"loading {file} took longer than 3 s; look for an endless loop")


def test_an_embedded_broker_registers_too(tmp_path: Path) -> None:
    with backtestr.embedded(tmp_path) as client:
        info = client.register_algorithm(LONG)
        assert client.backtest("mine", "SYNTH", timeframe="1d").result().config["algorithmId"] == info.algorithm_id


def test_a_source_that_ends_its_process_is_refused_and_no_worker_ends(own_broker: RunningBroker) -> None:
    lost = own_broker.log.count("worker_lost")
    with connected(own_broker) as client:
        with pytest.raises(
            AlgorithmError, match=r"^deadly\.py: it cannot be loaded: it ended its process with exit code 1"
        ):
            client.register_algorithm("import os\nos._exit(1)\n", "deadly")
        assert own_broker.log.count("worker_lost") == lost
        assert client.list_market_data()
