"""Workers of a real broker run the algorithms in the data directory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from backtestr_protocol.errors import AlgorithmError
from support.harness import RunningBroker


@pytest.fixture
def client(algorithms_broker: RunningBroker) -> Iterator[Client]:
    with Client(ConnectionFile(algorithms_broker.connection_file).read()) as connected:
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


def test_a_failure_points_into_the_file(client: Client, algorithms_broker: RunningBroker) -> None:
    with pytest.raises(AlgorithmError, match="fails raised AttributeError") as caught:
        client.backtest("fails", "SYNTH", timeframe="1d").result()
    assert caught.value.details is not None
    file = algorithms_broker.data_dir / "algorithms" / "own.py"
    _head, first, *_ = caught.value.details["traceback"].splitlines()
    assert first == f'  File "{file}", line 16, in fails', "no frame of the worker stands before it"
    assert "_queue.Empty" not in caught.value.details["traceback"]


def test_a_bad_file_is_named_in_the_log_once(client: Client, algorithms_broker: RunningBroker) -> None:
    assert "sma_cross" in [one.name for one in client.list_algorithms()]
    (interactive,) = (one for one in client.status().workers if one.worker_id == "interactive-1")
    algorithms_broker.wait_for_log("bad.py", 1 + (interactive.restarts or 0))
    logged = [line for line in algorithms_broker.log.splitlines() if "bad.py" in line]
    assert len(logged) == 1 + (interactive.restarts or 0), "once for each start, not for each worker"
    for line in logged:
        assert "an algorithm was not loaded" in line
        assert "bad.py:1: ModuleNotFoundError: No module named 'no_such_module'" in line


def test_an_endless_algorithm_fails_with_timeout_and_other_backtests_complete(client: Client) -> None:
    before = {worker.worker_id: worker.pid for worker in client.status().workers}
    endless = client.backtest("endless", "SYNTH", timeframe="1d", time_limit_ms=100)
    others = [client.backtest("sma_cross", "SYNTH", timeframe="1d") for _ in range(3)]
    error = endless.wait().error
    assert error is not None
    assert error.code == "TIMEOUT"
    assert [other.wait().status for other in others] == ["completed"] * 3
    after = {worker.worker_id: worker.pid for worker in client.status().workers}
    assert after["compute-1"] != before["compute-1"]
    assert after["interactive-1"] == before["interactive-1"]
