"""An algorithm that takes too much memory or time ends with its backtest or its worker, and affects no other."""

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


def worker_pid(client: Client) -> int:
    return next(one.pid for one in client.status().workers if one.worker_id == "compute-1")


def test_an_algorithm_that_takes_too_much_memory_fails_and_its_worker_continues(client: Client) -> None:
    before = worker_pid(client)
    with pytest.raises(AlgorithmError, match=r"greedy raised \w*MemoryError"):
        client.backtest("greedy", "SYNTH", timeframe="1d", parameters={"gigabytes": 100}).result()
    assert client.backtest("greedy", "SYNTH", timeframe="1d", parameters={"gigabytes": 1}).wait().status == "completed"
    assert worker_pid(client) == before


@pytest.mark.timeout(180)
def test_a_calculation_that_blocks_all_threads_is_ended_by_the_system(
    client: Client, algorithms_broker: RunningBroker
) -> None:
    before = worker_pid(client)
    lost = algorithms_broker.log.count("worker_lost")
    stuck = client.backtest("holds_the_lock", "SYNTH", timeframe="1d", time_limit_ms=100)
    error = stuck.wait().error
    assert error is not None
    assert error.code == "TIMEOUT"
    algorithms_broker.wait_for_log("worker_lost", lost + 1)
    assert "SIGXCPU" in algorithms_broker.log
    assert algorithms_broker.log.count("worker_lost") == lost + 1, "it ends no second worker"
    assert client.backtest("sma_cross", "SYNTH", timeframe="1d").wait().status == "completed"
    assert worker_pid(client) != before
