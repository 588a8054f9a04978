"""Own algorithms in the data directory, run by the workers of a real broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from backtestr_protocol.errors import AlgorithmError
from integration.conftest import QUICK
from support.harness import RunningBroker, short_directory

OWN = '''
from backtestr_engine.authoring import algorithm
from backtestr_engine.authoring import Int
from backtestr_engine.authoring import Signals


@algorithm("follow_the_hour", patience=Int(2, low=1, high=9))
def follow_the_hour(bars, patience):
    """Long while the last closed hour rose."""
    hour = bars.at("1h")
    return Signals.of(entries=hour.close > hour.open, exits=hour.close < hour.open)


@algorithm("fails")
def fails(bars):
    return bars.no_such_column


@algorithm("endless")
def endless(bars):
    while True:
        pass
'''


@pytest.fixture(scope="module")
def own() -> Iterator[RunningBroker]:
    with short_directory() as home:
        unstarted = RunningBroker(home, {"broker.toml": QUICK + "[workers]\ncompute = 1\n"})
        folder = unstarted.data_dir / "algorithms"
        folder.mkdir(parents=True)
        (folder / "own.py").write_text(OWN)
        (folder / "bad.py").write_text("import no_such_module\n")
        with unstarted as started:
            yield started


@pytest.fixture
def client(own: RunningBroker) -> Iterator[Client]:
    with Client(ConnectionFile(own.connection_file).read()) as connected:
        yield connected


def test_an_own_algorithm_runs_and_its_version_is_kept_with_the_result(client: Client) -> None:
    (info,) = [one for one in client.list_algorithms() if one.name == "follow_the_hour"]
    result = client.backtest("follow_the_hour", "SYNTH", timeframe="1m", parameters={"patience": 3}).result()

    assert info.description == "Long while the last closed hour rose."
    assert result.config["algorithmId"] == info.algorithm_id == f"follow_the_hour@{info.version}"
    assert result.config["parameters"] == {"patience": 3}
    assert result.metrics is not None
    assert result.metrics.total_trades is not None
    assert result.metrics.total_trades > 10


def test_a_failure_points_into_the_file(client: Client, own: RunningBroker) -> None:
    with pytest.raises(AlgorithmError, match="fails raised AttributeError") as caught:
        client.backtest("fails", "SYNTH", timeframe="1d").result()
    assert caught.value.details is not None
    assert f'File "{own.data_dir / "algorithms" / "own.py"}", line 16' in caught.value.details["traceback"]


def test_a_bad_file_is_named_in_the_log_once(client: Client, own: RunningBroker) -> None:
    assert "sma_cross" in [one.name for one in client.list_algorithms()]
    (told,) = [line for line in own.log.splitlines() if "bad.py" in line]
    assert "an algorithm was not loaded" in told
    assert "bad.py:1: ModuleNotFoundError: No module named 'no_such_module'" in told


def test_a_runaway_fails_with_timeout_and_the_others_go_on(client: Client) -> None:
    before = {worker.worker_id: worker.pid for worker in client.status().workers}
    runaway = client.backtest("endless", "SYNTH", timeframe="1d", time_limit_ms=100)
    others = [client.backtest("sma_cross", "SYNTH", timeframe="1d") for _ in range(3)]
    error = runaway.wait().error
    assert error is not None
    assert error.code == "TIMEOUT"
    assert [other.wait().status for other in others] == ["completed"] * 3
    after = {worker.worker_id: worker.pid for worker in client.status().workers}
    assert after["compute-1"] != before["compute-1"]
    assert after["interactive-1"] == before["interactive-1"]
