"""This program measures how a backtest scales from 10,000 to 10M bars, its memory, and the start of a worker.

    make bench-engine

Bars are synthetic and stay in memory. Every round runs each kind of its table once, in turn; medians are compared. A
backtest in chunks is measured beside one at once.

Memory is that of a new process on Linux: its resident set before the backtest, after imports, warm-up and loading of
the bars, and the highest afterwards (`VmHWM`, which is reset before). It includes signals, averages, records, equity,
metrics, and the overhead of allocators. `ru_maxrss` would hide memory below an earlier peak, and `tracemalloc` that of
polars and numba.

A worker is started as a broker starts it, with kernels in the cache; the figure is the seconds from the start of its
process to its `Ready`. Its first backtest, on 20,000 bars, is beside later ones: it reads the bars, and compiles no
kernel.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import zmq
from subject import backtest, config
from turns import in_turn, ratios, seconds

from backtestr_engine.backtest.plan import Plan
from backtestr_engine.built_in import find_algorithm
from backtestr_engine.config import load_config
from backtestr_engine.data.bars import COLUMNS, Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import SYMBOL, synthetic_bars
from backtestr_engine.simulation.conventions import resolve_options
from backtestr_engine.worker.warm_up import warm
from backtestr_protocol.codec import Signer, encode
from backtestr_protocol.secret import Secret
from backtestr_protocol.worker_channel import (
    Assign,
    Beat,
    Finished,
    Published,
    Ready,
    ToBroker,
    WorkerSettings,
    decode_proof,
    decode_to_broker,
    encode_settings,
    encode_to_worker,
)

SIZES = {10_000: 60, 100_000: 30, 1_000_000: 7, 10_000_000: 1}
"""The numbers of bars, and how often a round runs a backtest on them."""
ROUNDS = 3
CHUNKED_ROUNDS = 31
CHUNKS = (65_536, 4_096)
CHUNKED_TO_REACH = 1.05
MEMORY_TO_REACH = 3.0
STARTS = 7
START_TO_REACH_SECONDS = 1.5
WORKER_BARS = 20_000
ANSWER_MS = 60_000


def plan_on(bars: Bars) -> Plan:
    algorithm = find_algorithm("sma_cross")
    parameters = algorithm.check(config().parameters)
    return Plan(config(), algorithm, parameters, resolve_options({}, load_config(None).conventions), Panel.of([bars]))


def cost_per_bar() -> None:
    plans = {count: plan_on(synthetic_bars("1m", count)) for count in SIZES}
    took: dict[int, list[float]] = {count: [] for count in SIZES}
    for _ in range(ROUNDS):
        for count, times in SIZES.items():
            took[count] += [1e3 * seconds(partial(backtest, plans[count])) for _ in range(times)]
    print(f"{'a backtest with its metrics':32}{'median ms':>10}{'least..most ms':>20}{'ns a bar':>10}")
    for count, values in took.items():
        median = statistics.median(values)
        spread = f"{min(values):.2f}..{max(values):.2f}"
        print(f"{f'  {count:,} bars':32}{median:10.2f}{spread:>20}{median * 1e6 / count:10.1f}")


def in_chunks() -> None:
    plan = plan_on(synthetic_bars("1m", 1_000_000))
    kinds = {"whole": partial(backtest, plan)} | {f"{size:,}": partial(backtest, plan, size) for size in CHUNKS}
    took = in_turn(kinds, CHUNKED_ROUNDS)
    for size in CHUNKS:
        slower = ratios(took[f"{size:,}"], took["whole"])
        tenths = statistics.quantiles(slower, n=10)
        print(
            f"1M bars in chunks of {size:,} ÷ at once: {statistics.median(slower):.3f} × "
            f"({tenths[0]:.2f}..{tenths[-1]:.2f}; to reach: {CHUNKED_TO_REACH} × at {CHUNKS[0]:,})"
        )


# --- memory ---


def resident(field: str) -> int:
    """Return the bytes of `VmRSS` (now) or `VmHWM` (the peak)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def measure_memory(folder: Path) -> None:
    """Print the bytes of the bars, and of the further memory of a backtest on them, in a process of its own."""
    conventions = load_config(None).conventions
    warm(conventions)
    columns = [np.fromfile(folder / name, dtype="i8" if name == "timestamp" else "f8") for name in COLUMNS]
    plan = plan_on(Bars(SYMBOL, "1m", *columns))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to the resident memory (proc(5))
    backtest(plan)
    print(sum(column.nbytes for column in columns), resident("VmHWM") - before)


def memory() -> None:
    if not Path("/proc/self/clear_refs").exists():
        print("memory of a 1M bar backtest: NOT MEASURED, since it needs Linux")
        return
    bars = synthetic_bars("1m", 1_000_000)
    with tempfile.TemporaryDirectory(prefix="backtestr-bench-") as folder:
        for name in COLUMNS:
            getattr(bars, name).tofile(Path(folder) / name)
        multiples = []
        for _ in range(3):
            command = [sys.executable, __file__, "--memory", folder]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            held, extra = map(int, answer.split())
            multiples.append(extra / held)
    print(
        f"memory that a 1M bar backtest takes at its peak ÷ its bars ({held / 1e6:.0f} MB): "
        f"{statistics.median(multiples):.2f} × ({min(multiples):.2f}..{max(multiples):.2f}; "
        f"to reach: {MEMORY_TO_REACH:.0f} ×)"
    )


# --- a worker's start ---


class Worker:
    """A worker process; this process takes the place of its broker."""

    def __init__(self, socket: zmq.Socket[bytes], endpoint: str, data_dir: Path) -> None:
        self._socket = socket
        key = secrets.token_bytes(32)
        self._signer = Signer(key)
        settings = WorkerSettings(worker_id="w", kind="compute", endpoint=endpoint, key=Secret(key))
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "backtestr_engine"],
            env={**os.environ, "BACKTESTR_DATA_DIR": str(data_dir)},
            stdin=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(encode_settings(settings))
        self._process.stdin.flush()
        self._receive(Ready)
        self.seconds_to_ready = time.perf_counter() - began

    def backtest(self, number: int) -> None:
        assign = Assign(task_id=f"00000000-0000-4000-8000-{number:012}", work="RunBacktest")
        self._socket.send_multipart([self._identity, *encode_to_worker(assign, [encode(config())])])
        finished = self._receive(Finished)
        if not isinstance(finished, Finished) or finished.outcome != "completed":
            raise RuntimeError(f"the backtest did not complete: {finished}")

    def _receive(self, kind: type[ToBroker]) -> ToBroker:
        """Return the next message of that kind; beats and messages to be published are skipped."""
        while self._socket.poll(ANSWER_MS):
            self._identity, *frames = self._socket.recv_multipart()
            message = decode_proof(self._signer, frames) if kind is Ready else decode_to_broker(frames)[0]
            if isinstance(message, kind):
                return message
            if not isinstance(message, Beat | Published):
                raise RuntimeError(f"the worker sent {message} instead of {kind.__name__}")
        raise RuntimeError(f"the worker did not send {kind.__name__} within {ANSWER_MS / 1000:.0f} s")

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def worker_start() -> None:
    starts, firsts, laters = [], [], []
    with tempfile.TemporaryDirectory(prefix="bt-") as folder, zmq.Context() as context:
        Catalog(Path(folder) / "catalog", cache_bytes=0).write(synthetic_bars("1m", WORKER_BARS))
        for start in range(STARTS):
            with context.socket(zmq.ROUTER) as socket:
                endpoint = f"ipc://{folder}/{start}"
                socket.bind(endpoint)
                worker = Worker(socket, endpoint, Path(folder))
                starts.append(worker.seconds_to_ready)
                took = [1e3 * seconds(partial(worker.backtest, number)) for number in range(6)]
                firsts.append(took[0])
                laters.append(statistics.median(took[1:]))
                worker.end()
    print(
        f"worker ready after {statistics.median(starts):.2f} s ({min(starts):.2f}..{max(starts):.2f}; "
        f"to reach: {START_TO_REACH_SECONDS} s); its first backtest took {statistics.median(firsts):.1f} ms "
        f"({min(firsts):.1f}..{max(firsts):.1f}), later ones {statistics.median(laters):.1f} ms "
        f"({min(laters):.1f}..{max(laters):.1f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--memory", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        measure_memory(arguments.memory)
        return
    warm(load_config(None).conventions)
    cost_per_bar()
    in_chunks()
    memory()
    worker_start()


if __name__ == "__main__":
    main()
