"""A real Dask scheduler and its workers compute sweeps of a real broker: the rows are the broker's own, as bytes."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from typing import Any

import polars as pl
import psutil
import pytest
from polars.testing import assert_frame_equal

from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from backtestr.sweep import Sweep
from backtestr_engine.backtest.tables import arrow_stream
from backtestr_protocol.errors import ClusterUnavailable, SystemFault
from integration.conftest import QUICK, stopped_broker, with_algorithm
from support.dask_cluster import DaskCluster
from support.harness import WITHOUT_EXTRAS, RunningBroker, wait_until

# A worker of the cluster takes four seconds of processor time to start, and tests may share two cores with many others.
END_SECONDS = 240.0

pytestmark = pytest.mark.timeout(600)
# A combination takes ten milliseconds, and one ends the process that computes it.
SLOW = """
import os
import time

from backtestr_engine.authoring import Int, Signals, algorithm


@algorithm("unhurried", n=Int(10, 1, 100_000), worst=Int(0, 0, 100_000))
def unhurried(bars, n, worst):
    time.sleep(0.01)
    if n == worst:
        os._exit(3)
    if n % 50 == 49:
        raise ValueError(f"{n} is not for me")
    return Signals.of(bars.close > bars.open, bars.close < bars.open - n / 1000)
"""
# What a worker with another processor would say.
OTHER_PROCESSOR = """
from backtestr_engine.worker.sweeping import cluster_blocks

facts = dict(cluster_blocks.process_facts())
facts["processor features"] = "sse2"
facts["numpy"] = "1.0"
cluster_blocks._process._facts = lambda: facts
"""


@pytest.fixture(scope="module")
def far_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """Start a broker; what processes of tests lack is hidden from it and its cluster, but for what Dask needs."""
    hidden = tmp_path_factory.mktemp("hidden")
    for file in WITHOUT_EXTRAS.glob("*.py"):
        if file.stem != "yaml":
            shutil.copy(file, hidden)
    with stopped_broker({"broker.toml": QUICK + "[workers]\ncompute = 2\n"}) as broker:
        broker.environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(hidden), os.environ.get("PYTHONPATH")]))
        with_algorithm(broker, "unhurried", SLOW)
        broker.start()
        yield broker


@pytest.fixture(scope="module")
def cluster(far_broker: RunningBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    found = DaskCluster(tmp_path_factory.mktemp("dask"), far_broker.environment)
    try:
        found.start_scheduler()
        for _ in range(2):
            found.start_worker()
        yield found
    finally:
        found.stop()


@pytest.fixture
def client(far_broker: RunningBroker) -> Iterator[Client]:
    with Client(ConnectionFile(far_broker.connection_file).read()) as connected:
        yield connected


def unhurried(client: Client, sweep_id: str, last: int, scheduler: str, **how: Any) -> Sweep:
    options: dict[str, Any] = {"block_size": 10, **how}
    return client.sweep(
        "unhurried",
        "SYNTH",
        timeframe="1d",
        space={"n": range(1, last)},
        objective="total_return",
        sweep_id=sweep_id,
        scheduler=scheduler,
        **options,
    )


def as_bytes(rows: pl.DataFrame) -> bytes:
    return arrow_stream(rows.sort("cell").rechunk())


def completed(found: Sweep) -> Any:
    status = found.wait(END_SECONDS)
    assert status.status == "completed", status.error
    return status


def test_rows_are_those_of_the_broker_s_own_workers(client: Client, cluster: DaskCluster) -> None:
    asked: dict[str, Any] = {
        "timeframe": "1h",
        "space": {"fast": range(5, 45), "slow": range(20, 200, 2)},
        "where": "fast < slow",
        "metrics": ["all"],
        "commission": 0.001,
    }
    far = client.sweep("sma_cross", "SYNTH", **asked, scheduler=cluster.address)
    near = client.sweep("sma_cross", "SYNTH", **asked)
    status = completed(far)
    assert status.cluster is not None
    assert status.cluster.scheduler == cluster.address
    assert status.cluster.workers >= 1
    assert status.cluster.refused == []
    assert completed(near).cluster is None
    assert status.done == near.status().done == far.results().height
    assert as_bytes(far.results()) == as_bytes(near.results())
    assert status.best == near.status().best


def test_a_worker_that_is_killed_costs_its_blocks_and_no_row(client: Client, cluster: DaskCluster) -> None:
    wait_until(lambda: len(worker_pids(cluster)) == 2, END_SECONDS)
    pids = worker_pids(cluster)
    far = unhurried(client, "killed", 1_000, cluster.address)
    wait_until(lambda: far.status().done >= 10, END_SECONDS)
    os.kill(pids[0], 9)
    assert far.status().done < 900, "it was killed in the middle"
    status = completed(far)
    near = unhurried(client, "not-killed", 1_000, "")
    completed(near)
    assert (status.done, status.failed) == (999, 20)
    assert as_bytes(far.results()) == as_bytes(near.results())


def test_a_combination_that_ends_its_worker_is_the_one_failed_row(client: Client, cluster: DaskCluster) -> None:
    far = unhurried(client, "fatal", 41, cluster.address, block_size=2, parameters={"worst": 17})
    status = completed(far)
    rows = far.results()
    assert (status.done, status.failed) == (40, 1)
    [row] = rows.filter(pl.col("failure").is_not_null()).to_dicts()
    assert row["n"] == 17
    assert "ended the worker of the cluster that computed it" in row["failure"]
    near = unhurried(client, "harmless", 41, "", parameters={"worst": 0})
    completed(near)
    others = pl.col("n") != 17
    assert_frame_equal(rows.filter(others), near.results().filter(others), check_exact=True)


def test_a_worker_that_would_compute_other_bits_gets_no_block_and_is_named(
    client: Client, cluster: DaskCluster, far_broker: RunningBroker
) -> None:
    cluster.start_worker(preload=OTHER_PROCESSOR, nanny=False)
    # It may register late: the sweep is long enough for that, and is told to end once the worker was seen.
    far = unhurried(client, "refusing", 90_000, cluster.address)
    wait_until(lambda: refusals(far) != [], END_SECONDS)
    [refused] = refusals(far)
    rows = far.status().done
    wait_until(lambda: far.status().done > rows, END_SECONDS)
    far.stop()
    assert "processor features: without" in refused
    assert "numpy: 1.0 there" in refused
    far_broker.wait_for_log("gets no block")


def test_a_scheduler_that_is_not_there_is_named_at_once(client: Client) -> None:
    with socket.socket() as silent:  # it is bound, so that nobody else takes the port, and does not listen
        silent.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(SystemFault, match=f"{address} does not answer") as refused:
            unhurried(client, "nowhere", 10, address)
    assert refused.value.to_data(component="client", timestamp=0).recovery_actions
    assert not [one for one in client.list_sweeps() if one.sweep_id == "nowhere"]
    assert ClusterUnavailable.code == refused.value.code


def test_a_lost_scheduler_pauses_the_sweep_until_it_is_resumed(client: Client, cluster: DaskCluster) -> None:
    far = unhurried(client, "paused", 900, cluster.address)
    wait_until(lambda: far.status().done >= 30, END_SECONDS)
    cluster.stop_scheduler()
    wait_until(lambda: far.status().status == "paused", END_SECONDS)
    status = far.status()
    assert status.error is not None
    assert cluster.address in status.error.message
    assert [one.description for one in status.error.recovery_actions]
    assert 30 <= status.done < 899
    cluster.stop_workers()
    cluster.start_scheduler(int(cluster.address.rpartition(":")[2]))
    cluster.start_worker(nanny=False)
    assert far.resume() in ("queued", "running")
    assert completed(far).done == 899
    assert far.status().error is None
    near = unhurried(client, "not-paused", 900, "")
    completed(near)
    assert as_bytes(far.results()) == as_bytes(near.results())


def worker_pids(cluster: DaskCluster) -> list[int]:
    """Return the processes that compute, below their nannies."""
    nannies = [psutil.Process(pid) for pid in cluster.worker_pids]
    return [child.pid for nanny in nannies for child in nanny.children() if "spawn_main" in " ".join(child.cmdline())]


def refusals(sweep: Sweep) -> list[str]:
    found = sweep.status().cluster
    return [] if found is None else found.refused
