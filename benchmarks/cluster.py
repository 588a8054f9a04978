"""Measure what a cluster costs and how it scales: a real scheduler and workers on loopback, beside the model.

    make bench-cluster
    python benchmarks/cluster.py [--workers 1 2] [--rounds 3]

Combinations that sleep take no processor, so that several workers can be measured on few cores: what is seen is what
passes through scheduler and broker, and how full the workers are. Processor time is that of the processes themselves.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from backtestr_engine.cluster.scaling import ClusterCost, expected_seconds, most_workers
from support.dask_cluster import DaskCluster
from support.harness import RunningBroker

UNIT_SECONDS = 0.05
BLOCK = 5
# Workers of the broker that have spans computed beside each other, each in a process of its own, as the scheduler is.
COORDINATORS = 2
SLEEPING = f"""
import time

from backtestr_engine.authoring import Int, Signals, algorithm


@algorithm("sleeping", n=Int(10, 1, 1_000_000))
def sleeping(bars, n):
    time.sleep({UNIT_SECONDS})
    return Signals.of(bars.close > bars.open, bars.close < bars.open)
"""


class Used(NamedTuple):
    """Processor seconds of the scheduler, of the workers, and of the broker with its own workers."""

    scheduler: float
    workers: float
    broker: float


def processor(pids: list[int]) -> float:
    """Return the processor seconds of processes and all below them, those that have ended included."""
    family = {one.pid: one for pid in pids for one in (psutil.Process(pid), *psutil.Process(pid).children(True))}
    times = [one.cpu_times() for one in family.values()]
    return float(sum(one.user + one.system for one in times))


def used(cluster: DaskCluster, broker: RunningBroker) -> Used:
    return Used(processor([cluster.scheduler_pid]), processor(cluster.worker_pids), processor([broker.process.pid]))


@contextmanager
def running(home: Path, workers: int) -> Iterator[tuple[Client, DaskCluster, RunningBroker]]:
    broker = RunningBroker(home, {"broker.toml": f"[workers]\ncompute = {COORDINATORS}\n"})
    broker.environment["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    folder = broker.data_dir / "algorithms"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "sleeping.py").write_text(SLEEPING, "utf-8")
    cluster = DaskCluster(home / "dask", broker.environment)
    try:
        cluster.start_scheduler()
        for _ in range(workers):
            cluster.start_worker(nanny=False)
        with broker, Client(ConnectionFile(broker.connection_file).read()) as client:
            sweep(client, cluster.address, 40 * workers)  # all workers are warm, and the speed of a unit is known
            yield client, cluster, broker
    finally:
        cluster.stop()


def sweep(client: Client, scheduler: str, units: int, block: int | None = BLOCK) -> tuple[float, int]:
    """Run a sweep of combinations that sleep; return its seconds, and how many workers have computed."""
    began = time.monotonic()
    found = client.sweep(
        "sleeping",
        "SYNTH",
        timeframe="1d",
        space={"n": range(1, units + 1)},
        objective="total_return",
        scheduler=scheduler,
        block_size=block,
    )
    status = found.wait(600.0)
    assert status.status == "completed", status.error  # the broker's log says more
    return time.monotonic() - began, 0 if status.cluster is None else status.cluster.workers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--units", type=int, default=400, help="combinations for each worker")
    options = parser.parse_args()
    measured: dict[int, float] = {}
    passing: list[float] = []
    on_worker: list[float] = []
    load, cores = os.getloadavg()[0], os.cpu_count()
    print(f"load {load:.1f} on {cores} cores; units of {UNIT_SECONDS * 1000:g} ms, blocks of {BLOCK}")
    for workers in options.workers:
        with tempfile.TemporaryDirectory() as home, running(Path(home), workers) as (client, cluster, broker):
            units = options.units * workers
            seconds: list[float] = []
            for _ in range(options.rounds):
                before = used(cluster, broker)
                took, computing = sweep(client, cluster.address, units)
                after = used(cluster, broker)
                blocks = units / BLOCK
                each = [1000 * (late - early) / blocks for early, late in zip(before, after, strict=True)]
                passing.append(max(each[0], each[2] / COORDINATORS) / 1000)
                on_worker.append(each[1] / 1000)
                seconds.append(took)
                told = f"scheduler {each[0]:.1f}, workers {each[1]:.1f}, broker {each[2]:.1f}"
                print(f"{workers} workers ({computing} computed): {took:.2f} s; processor ms a block: {told}")
            measured[workers] = statistics.median(seconds)
    cost = ClusterCost(
        block=BLOCK * UNIT_SECONDS,
        on_worker=statistics.median(on_worker),
        in_passing=statistics.median(passing),
    )
    print(f"cost of a block: {1000 * cost.on_worker:.1f} ms on its worker, {1000 * cost.in_passing:.1f} ms in passing")
    for workers, took in measured.items():
        work = options.units * workers * UNIT_SECONDS
        by_model = expected_seconds(work, workers, cost)
        off = 100 * (took / by_model - 1)
        print(f"{workers} workers, {work:.1f} s of work: {took:.2f} s, {by_model:.2f} s by the model ({off:+.0f} %)")
    print(f"by the model all wait for what blocks pass through from {most_workers(cost)} workers on")
    for workers in (1, 2, 8, 64):
        hour = expected_seconds(3600.0, workers, cost)
        print(f"an hour of work on {workers}: {hour:,.0f} s")


if __name__ == "__main__":
    main()
