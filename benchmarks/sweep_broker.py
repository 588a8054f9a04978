"""This program measures sweeps through a broker: what they cost beside the engine alone, their memory, and who waits.

    make bench-sweep-broker                              # all parts
    make bench-sweep-broker ARGS='--parts workers'       # one of them: cost workers memory waits
    make bench-sweep-broker ARGS='--combinations 1000 1000000 --memory-bars 2000 --parts memory'

**cost** is the processor time of broker and worker, from the request until the rows are on disk, beside that of the
same rows by `run_block` in this process, in turn. **workers** is the wall time of one sweep with two workers and with
one; it says something only on a machine that does nothing else. **memory** is the peak of the one worker above what it
had when it was ready, kernels of sweeps and the bars included; each count has a broker of its own.
**waits** is how long a backtest that is started while a sweep runs waits from its acceptance to its first progress,
and how long a Ping takes, both also without a sweep, with one worker, and with one and a spare.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from brokers import Running, running_broker
from figures import percentile

from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from backtestr.sweep import Sweep
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.config import load_config
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import SYMBOL, synthetic_bars
from backtestr_engine.research.sweep_blocks import SweepWork, run_block
from backtestr_engine.research.sweep_plan import plan_sweep
from backtestr_protocol.messages import BacktestConfig

BARS = 100_000
PATIENCE = 7200.0
COST, WORKERS, MEMORY, WAITS = "cost", "workers", "memory", "waits"
COST_TO_REACH, WORKERS_TO_REACH, MEMORY_TO_REACH_MB, WAIT_TO_REACH_MS = 1.15, 1.8, 100.0, 300.0
PAIRS = 499 * 500
TOGETHER = 256
"""The combinations of a block of the engine alone: 150 ms of work on 100,000 bars."""


def space_of(combinations: int) -> dict[str, range]:
    """Return a space of about so many combinations: pairs of averages, all with a fast one below the slow one.

    Beyond all pairs a third parameter comes in, that of macd.
    """
    side = min(round(combinations**0.5), 499)
    slow = min(-(-combinations // side), 500)
    space = {"fast": range(2, 2 + side), "slow": range(501, 501 + slow)}
    return space if combinations <= PAIRS else space | {"signal": range(2, 2 + -(-combinations // PAIRS))}


def judged(value: float, to_reach: float, *, least: bool = False) -> str:
    passed = value >= to_reach if least else value <= to_reach
    return f"({'>=' if least else '<='} {to_reach:g}: {'pass' if passed else 'MISS'})"


@contextlib.contextmanager
def connected(
    home: Path, bars: int, workers: int, *, spares: int = 0, warm: bool = True
) -> Iterator[tuple[Running, Client]]:
    """Run a broker with so many compute workers and synthetic minutes, and connect to it once all are ready."""
    catalog = home / "data" / "catalog"
    if not catalog.exists():
        Catalog(catalog, cache_bytes=1 << 30).write(synthetic_bars("1m", bars))
    with (
        running_broker(home, workers=workers, spares=spares) as broker,
        Client(ConnectionFile(broker.connection_file).read()) as client,
    ):
        until = time.monotonic() + 300.0
        while (
            sorted(states := [one.state for one in client.status().workers])
            != ["idle"] * (workers + 1) + ["spare"] * spares
        ):
            if time.monotonic() > until:
                raise RuntimeError(f"the workers did not become ready: {states}")
            time.sleep(0.1)
        if warm:
            swept(client, 400, 4)  # each worker loads its kernels, and what a first sweep imports
        yield broker, client


def swept(client: Client, combinations: int, block_size: int | None = None) -> Sweep:
    """Run a sweep to its end."""
    sweep = started(client, combinations, block_size)
    status = sweep.wait(PATIENCE)
    if status.status != "completed":
        raise RuntimeError(f"the sweep is {status.status}: {status.error}")
    return sweep


def started(client: Client, combinations: int, block_size: int | None = None) -> Sweep:
    space, algorithm = space_of(combinations), "sma_cross" if combinations <= PAIRS else "macd"
    return client.sweep(algorithm, SYMBOL, timeframe="1m", space=space, commission=0.0005, block_size=block_size)


def engine_seconds(bars: int, combinations: int) -> float:
    """Return the processor time that the engine alone takes for the rows of a sweep."""
    config = BacktestConfig(
        algorithm_id="sma_cross",
        symbol=SYMBOL,
        initial_capital=10_000.0,
        timeframe="1m",
        commission=0.0005,
        slippage=0.0,
        parameters={},
    )
    plan = plan_sweep(config, BUILT_IN["sma_cross"], space_of(combinations), load_config(None).conventions)
    work = SweepWork(plan, BUILT_IN["sma_cross"], Panel.of([synthetic_bars("1m", bars)]))
    run_block(work, 0, 2)
    began = time.process_time()
    for first in range(0, plan.space.cells, TOGETHER):
        run_block(work, first, TOGETHER)
    return time.process_time() - began


def seconds_of(pid: int) -> float:
    """Return the processor time so far of a broker and its workers."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return float(sum(one.cpu_times().user + one.cpu_times().system for one in family))


def measure_cost(home: Path, combinations: int, rounds: int) -> None:
    ratios, own, through = list[float](), list[float](), list[float]()
    with connected(home, BARS, 1) as (broker, client):
        for _ in range(rounds):
            own.append(engine_seconds(BARS, combinations))
            before = seconds_of(broker.pid)
            swept(client, combinations).delete()
            through.append(seconds_of(broker.pid) - before)
            ratios.append(through[-1] / own[-1])
    ratio = statistics.median(ratios)
    print(
        f"  {combinations:,} combinations x {BARS:,} bars, processor time: engine {statistics.median(own):.2f} s, "
        f"with a broker {statistics.median(through):.2f} s; the ratio of a round is {ratio:.2f} "
        f"({min(ratios):.2f}..{max(ratios):.2f}) {judged(ratio, COST_TO_REACH)}",
        flush=True,
    )


def measure_workers(home: Path, combinations: int, rounds: int) -> None:
    took: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers, values in took.items():
            with connected(home, BARS, workers) as (_, client):
                began = time.perf_counter()
                swept(client, combinations).delete()
                values.append(time.perf_counter() - began)
    ratios = [one / two for one, two in zip(took[1], took[2], strict=True)]
    ratio = statistics.median(ratios)
    print(
        f"  {combinations:,} combinations x {BARS:,} bars, one worker {statistics.median(took[1]):.2f} s, two "
        f"{statistics.median(took[2]):.2f} s: {ratio:.2f} x as fast {judged(ratio, WORKERS_TO_REACH, least=True)}; "
        f"load {psutil.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores",
        flush=True,
    )


def status_mb(pid: int, name: str) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().partition(f"{name}:")[2].split()[0]) / 1024


def compute_worker(client: Client) -> int:
    """Return the process of the one compute worker."""
    (found,) = (one.pid for one in client.status().workers if one.worker_id.startswith("compute"))
    return found


def measure_memory(home: Path, bars: int, combinations: int) -> None:
    with connected(home, bars, 1, warm=False) as (_, client):
        pid = compute_worker(client)
        idle = status_mb(pid, "VmRSS")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
        began = time.perf_counter()
        swept(client, combinations).delete()
        seconds, peak, after = time.perf_counter() - began, status_mb(pid, "VmHWM"), status_mb(pid, "VmRSS")
    print(
        f"  {combinations:,} combinations x {bars:,} bars: {peak - idle:.0f} MB above {idle:.0f} MB "
        f"{judged(peak - idle, MEMORY_TO_REACH_MB)}, afterwards {after - idle:.0f} MB; {seconds:.0f} s",
        flush=True,
    )


def waits(client: Client, times: int) -> list[float]:
    """Return the milliseconds from the acceptance of a short backtest to its first progress."""
    found = []
    for _ in range(times):
        run = client.backtest(
            "sma_cross", SYMBOL, timeframe="1m", start="2024-01-02", end="2024-01-03", watch=("progress",)
        )
        began = time.perf_counter()
        for _ in run.progress():
            found.append(1e3 * (time.perf_counter() - began))
            break
        run.wait()
    return found


def pings(client: Client, times: int = 1000) -> list[float]:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        client.ping()
        found.append(1e3 * (time.perf_counter() - began))
    return found


def measure_waits(home: Path, times: int, spares: int) -> None:
    with connected(home, BARS, 1, spares=spares) as (_, client):
        alone, quiet = waits(client, times), pings(client)
        sweep = started(client, 200_000)
        time.sleep(5.0)  # its blocks have their size
        beside, noisy = waits(client, times), pings(client)
        status = sweep.status()
        if status.status != "running":
            raise RuntimeError(f"the sweep is {status.status}: it was to run")
        sweep.stop()
    worst = max(beside)
    print(
        f"  one worker and {spares} spare, {times} backtests: first progress after {statistics.median(alone):.0f} ms "
        f"(worst {max(alone):.0f}) without a sweep, {statistics.median(beside):.0f} ms (worst {worst:.0f}) while one "
        f"runs {judged(worst, WAIT_TO_REACH_MS)}",
        flush=True,
    )
    print(
        f"  a Ping: p50 {percentile(quiet, 50):.2f} and p99 {percentile(quiet, 99):.2f} ms without a sweep, "
        f"{percentile(noisy, 50):.2f} and {percentile(noisy, 99):.2f} ms while one runs",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--parts", nargs="*", choices=[COST, WORKERS, MEMORY, WAITS], help="all by default")
    parser.add_argument("--rounds", type=int, default=3, help="of cost and workers (default 3)")
    parser.add_argument("--sweep", type=int, default=10_000, help="combinations of cost and workers (default 10000)")
    parser.add_argument(
        "--combinations", type=int, nargs="*", default=[1_000, 10_000], help="of memory (default 1000 10000)"
    )
    parser.add_argument("--memory-bars", type=int, default=BARS, help=f"of memory (default {BARS})")
    parser.add_argument("--waits", type=int, default=40, help="backtests that are started (default 40)")
    arguments = parser.parse_args()
    parts = arguments.parts or [COST, WORKERS, MEMORY, WAITS]
    with tempfile.TemporaryDirectory(prefix="backtestr-bench-") as folder:
        homes = Path(folder)
        for part in parts:
            print(part)
            match part:
                case "cost":
                    measure_cost(homes / "long", arguments.sweep, arguments.rounds)
                case "workers":
                    measure_workers(homes / "long", arguments.sweep, arguments.rounds)
                case "memory":
                    for count in arguments.combinations:
                        measure_memory(homes / str(arguments.memory_bars), arguments.memory_bars, count)
                case "waits":
                    for spares in (0, 1):
                        measure_waits(homes / "long", arguments.waits, spares)


if __name__ == "__main__":
    main()
