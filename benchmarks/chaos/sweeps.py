"""This program kills workers and brokers with `kill -9` during a sweep: only blocks that were being computed are lost.

    make chaos-sweeps           40 kills of workers, 10 of brokers
    make chaos-sweeps ARGS='--workers 3 --brokers 1 --seed 7'

At random moments a worker that computes a block is killed, or the broker, which is started again. The sweep must
complete by itself, with the rows of one that nobody disturbs, the failed ones included. What a client was told to be
done must still be done after each kill. Rows that were computed twice are counted: a kill costs the blocks that were
being computed at that moment at most. The exit code is 1 for a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator

import backtestr
from backtestr import Client
from backtestr.sweep import Sweep
from backtestr_engine.worker.sweeping.sweep_store import SWEEPS, SweepStore
from backtestr_protocol.errors import BacktestrError
from support.harness import RunningBroker, running_broker

COMPUTE = 2
CONFIG = {"broker.toml": f"[workers]\ncompute = {COMPUTE}\nspare = 1\n"}
# A combination takes two milliseconds, and every fiftieth fails, as some do in any real space.
ALGORITHM = """
import time

from backtestr_engine.authoring import Int, Signals, algorithm


@algorithm("unhurried", n=Int(10, 1, 1_000_000))
def unhurried(bars, n):
    time.sleep(0.002)
    if n % 50 == 49:
        raise ValueError(f"{n} is not for me")
    return Signals.of(bars.close > bars.open, bars.close < bars.open - n / 1000)
"""
BLOCK = 25
# Rows for each kill: two workers take half a second for so many, and a broker's start is in between.
ROWS_A_KILL = 500
# Seconds between two kills, at random.
CALM = (0.1, 0.6)
# Seconds within which the sweep must make progress again.
PATIENCE = 120.0


class Chaos:
    """A broker, the client that watches its sweep, and what went wrong."""

    def __init__(self, broker: RunningBroker, seed: int) -> None:
        self.broker = broker
        self.faults: list[str] = []
        self.told = 0  # rows of which a client was told that they are done
        self._generator = random.Random(seed)

    @contextlib.contextmanager
    def connected(self) -> Iterator[Client]:
        with backtestr.connect(connection_file=self.broker.connection_file, request_timeout=PATIENCE) as client:
            yield client

    def calm(self) -> float:
        return self._generator.uniform(*CALM)

    def order(self, workers: int, brokers: int) -> list[str]:
        """Return so many kills of each kind in a random order."""
        kinds = ["worker"] * workers + ["broker"] * brokers
        self._generator.shuffle(kinds)
        return kinds

    def kill_worker(self, client: Client) -> None:
        """Kill a worker while it computes a block."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            alive = [one for one in client.status().workers if one.worker_id.startswith("compute-")]
            if busy := [one.pid for one in alive if one.state == "busy"]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._generator.choice(busy), signal.SIGKILL)
                return
            time.sleep(0.005)
        self.faults.append(f"no worker computed a block for {PATIENCE:g} s")

    def goes_on(self, sweep: Sweep) -> None:
        """Wait until there is more than a client was told before, or the end."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(BacktestrError):
                status = sweep.status()
                if status.status in ("failed", "stopped"):
                    self.faults.append(f"the sweep {status.status}: {status.error}")
                    return
                if status.done > self.told or status.status == "completed":
                    if status.done < self.told:
                        self.faults.append(f"{status.done} rows are done, and {self.told} were")
                    self.told = status.done
                    return
            time.sleep(0.01)
        self.faults.append(f"nothing was done for {PATIENCE:g} s after {self.told} rows")


def start(client: Client, sweep_id: str, rows: int) -> Sweep:
    return client.sweep(
        "unhurried",
        "SYNTH",
        timeframe="1d",
        space={"n": range(1, rows + 1)},
        objective="total_return",
        sweep_id=sweep_id,
        block_size=BLOCK,
    )


def computed(broker: RunningBroker, sweep_id: str) -> int:
    """Return the rows in the files of a sweep, with those that were computed twice."""
    folder = broker.data_dir / SWEEPS / sweep_id
    store = SweepStore(folder.parent)
    return sum(block.facts.rows for path in sorted(folder.glob("*.rows")) for block in store._checked(path))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, default=40, help="kills of workers (default 40)")
    parser.add_argument("--brokers", type=int, default=10, help="kills of brokers (default 10)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default 1)")
    arguments = parser.parse_args()
    kills = arguments.workers + arguments.brokers
    rows = ROWS_A_KILL * (kills + 1)
    began = time.monotonic()
    with running_broker(CONFIG) as broker:
        chaos = Chaos(broker, arguments.seed)
        with chaos.connected() as client:
            client.register_algorithm(ALGORITHM)
            sweep = start(client, "disturbed", rows)
            for kind in chaos.order(arguments.workers, arguments.brokers):
                chaos.goes_on(sweep)
                if chaos.faults:
                    break
                time.sleep(chaos.calm())
                if kind == "worker":
                    chaos.kill_worker(client)
                else:
                    broker.kill()
                    broker.start()
            status = sweep.wait(PATIENCE + rows * 0.01)
            found = sweep.results()
            twice = computed(broker, "disturbed") - found.height
            expected = start(client, "undisturbed", rows)
            expected.wait(PATIENCE + rows * 0.01)
            if not found.equals(expected.results()):
                chaos.faults.append("the rows are not those of an undisturbed sweep")
        if status.done != rows or found.height != rows:
            chaos.faults.append(f"{found.height} rows, {status.done} done, and {rows} were asked for")
        if twice > kills * COMPUTE * BLOCK:
            chaos.faults.append(f"{twice} rows were computed twice, more than {COMPUTE} blocks a kill")
    print(
        f"{arguments.workers} kills of workers and {arguments.brokers} of brokers in {time.monotonic() - began:.0f} s: "
        f"{found.height:,} of {rows:,} rows, {status.failed:,} of them failed as expected, {twice:,} computed twice; "
        f"{len(chaos.faults)} faults"
    )
    for fault in chaos.faults[:20]:
        print(f"fault: {fault}")
    return 1 if chaos.faults else 0


if __name__ == "__main__":
    sys.exit(main())
