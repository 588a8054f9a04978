"""What an algorithm takes from the machine ends with its backtest, or with its worker, and with nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from backtestr_protocol.errors import AlgorithmError
from integration.conftest import QUICK
from support.harness import RunningBroker, short_directory

GREEDY = """
import re

import numpy as np

from backtestr_engine.authoring import algorithm
from backtestr_engine.authoring import Int
from backtestr_engine.authoring import Signals


@algorithm("greedy", gigabytes=Int(1, low=1, high=1000))
def greedy(bars, gigabytes):
    kept = [np.ones(1 << 27) for _ in range(gigabytes)]
    return Signals.of(entries=bars.close > kept[0][0], exits=bars.close < 0)


@algorithm("holds_the_lock")
def holds_the_lock(bars):
    re.match("(a+)+b", "a" * 64)  # for ever, and no other thread of Python runs meanwhile
"""


@pytest.fixture(scope="module")
def own() -> Iterator[RunningBroker]:
    with short_directory() as home:
        config = {
            "broker.toml": QUICK + "[workers]\ncompute = 1\n",
            "engine.toml": f"[worker]\nmemory_limit_bytes = {3 << 30}\n",
        }
        unstarted = RunningBroker(home, config)
        folder = unstarted.data_dir / "algorithms"
        folder.mkdir(parents=True)
        (folder / "greedy.py").write_text(GREEDY)
        with unstarted as started:
            yield started


@pytest.fixture
def client(own: RunningBroker) -> Iterator[Client]:
    with Client(ConnectionFile(own.connection_file).read()) as connected:
        yield connected


def worker_pid(client: Client) -> int:
    return next(one.pid for one in client.status().workers if one.worker_id == "compute-1")


def test_an_algorithm_that_wants_too_much_memory_fails_and_its_worker_goes_on(client: Client) -> None:
    before = worker_pid(client)
    with pytest.raises(AlgorithmError, match=r"greedy raised \w*MemoryError"):
        client.backtest("greedy", "SYNTH", timeframe="1d", parameters={"gigabytes": 100}).result()
    assert client.backtest("greedy", "SYNTH", timeframe="1d", parameters={"gigabytes": 1}).wait().status == "completed"
    assert worker_pid(client) == before


@pytest.mark.timeout(180)
def test_a_calculation_that_lets_no_thread_run_is_ended_by_the_system(client: Client, own: RunningBroker) -> None:
    before = worker_pid(client)
    stuck = client.backtest("holds_the_lock", "SYNTH", timeframe="1d", time_limit_ms=100)
    error = stuck.wait().error
    assert error is not None
    assert error.code == "TIMEOUT"
    assert "SIGXCPU" in own.log
    assert own.log.count("worker_lost") == 1, "it ends no second worker"
    assert client.backtest("sma_cross", "SYNTH", timeframe="1d").wait().status == "completed"
    assert worker_pid(client) != before
