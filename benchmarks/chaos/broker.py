"""This program kills a broker with `kill -9` under load: nothing acknowledged is lost, and nothing is done twice.

    make chaos-broker           20 kills
    make chaos-broker ARGS='--kills 2 --seed 7'

Clients ping, change the shared state and run backtests all the time, and reconnect by themselves. A client that changes
a key of its own must see the versions 1, 2, 3 … without a gap: a missing one is a lost change, an additional one is a
change made twice. Every backtest must complete with the orders of an undisturbed one, and its result is written once.
The recorder is on, and the recordings of the killed brokers must play back. The program prints how long it took until
the broker served again, and until each client had its next answer. The exit code is 1 for a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import statistics
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import backtestr
from backtestr import Client
from backtestr_broker.recording.parts import parts_of
from backtestr_broker.recording.replay_log import replayed_log
from backtestr_protocol.errors import StateConflict
from support.harness import RunningBroker, running_broker

# In such small chunks a backtest takes half a second or more, so that most kills hit one.
CONFIG = {
    "broker.toml": "[workers]\ncompute = 1\n[recorder]\nenabled = true\n",
    "engine.toml": "[worker]\nchunk_bars = 20\n",
}
BACKTEST = ("sma_cross", "SYNTH")
RANGE: dict[str, Any] = {"start": "2024-01-01", "end": "2024-01-15"}
# Backtests at once: one runs, the others are queued.
MAX_BACKTESTS = 6
# Seconds between a recovery and the next kill, at random.
CALM = (0.3, 1.5)
# Seconds without an answer after which a client counts as stuck.
PATIENCE = 120.0


class Load:
    """A client on a thread of its own that repeats one kind of work."""

    def __init__(self, name: str, connection_file: Path, work: Callable[[Client], None], stop: threading.Event) -> None:
        self.name = name
        self.done = 0
        self.last_done = time.monotonic()
        self.fault: str | None = None
        self._connection_file = connection_file
        self._work = work
        self._stop = stop
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with backtestr.connect(
                connection_file=self._connection_file, client_id=self.name, request_timeout=PATIENCE
            ) as client:
                while not self._stop.is_set():
                    self._work(client)
                    self.done += 1
                    self.last_done = time.monotonic()
        except Exception as error:  # any error is a fault of the broker or the client
            self.fault = f"{self.name} failed after {self.done:,}: {type(error).__name__}: {error}"

    def join(self) -> None:
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self.fault = f"{self.name} is stuck after {self.done:,}"


class OwnKey:
    """Changes of a key that only this client changes: each makes the next version."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.version = 0

    def __call__(self, client: Client) -> None:
        made = client.update_state(self.key, self.version + 1).version
        if made != self.version + 1:
            raise AssertionError(f"{self.key} was at {self.version}, and was set to version {made}")
        self.version = made


class SharedKey:
    """Increments of a key that other clients increment, too."""

    def __init__(self) -> None:
        self.made = 0
        self._known = (0, 0)

    def __call__(self, client: Client) -> None:
        while True:
            version, value = self._known
            try:
                made = client.update_state("chaos.sum", value + 1, expected_version=version)
            except StateConflict as conflict:
                details = conflict.details or {}
                self._known = details["currentVersion"], details["currentValue"] or 0
            else:
                self._known = made.version, value + 1
                self.made += 1
                return


class Backtests:
    """Backtests up to a limit; at the limit, the next waits for the oldest."""

    def __init__(self, data_dir: Path) -> None:
        self.ids: list[str] = []
        self.faults: list[str] = []
        self.written: dict[str, int] = {}  # the time at which its result was written, as first seen
        self._data_dir = data_dir
        self._under_way: deque[str] = deque()

    def __call__(self, client: Client) -> None:
        if len(self._under_way) >= MAX_BACKTESTS:
            self._wait_for_oldest(client)
        backtest_id = str(uuid.uuid4())
        client.backtest(*BACKTEST, timeframe="1m", **RANGE, backtest_id=backtest_id, watch=()).abandon()
        self.ids.append(backtest_id)
        self._under_way.append(backtest_id)

    def wait_for_all(self, client: Client) -> None:
        while self._under_way:
            self._wait_for_oldest(client)

    def _wait_for_oldest(self, client: Client) -> None:
        run = client.run(self._under_way.popleft())
        status = run.wait(PATIENCE)
        if status.status != "completed":
            self.faults.append(f"backtest {run.id} is {status.status}: {status.error}")
        self.written[run.id] = self.result_of(run.id)

    def result_of(self, backtest_id: str) -> int:
        return (self._data_dir / "results" / backtest_id / "result.json").stat().st_mtime_ns


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=20, help="of the broker (default 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default 1)")
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    logging.getLogger("backtestr").setLevel(logging.ERROR)  # every client logs the broken connection at every kill
    with running_broker(CONFIG) as broker:
        expected_orders = orders_of_an_undisturbed_one(broker)
        stop = threading.Event()
        own = [OwnKey(f"chaos.own.{number}") for number in range(3)]
        shared = [SharedKey(), SharedKey()]
        with backtestr.connect(connection_file=broker.connection_file, request_timeout=PATIENCE) as client:
            backtests = Backtests(broker.data_dir)
            kinds: list[Callable[[Client], object]] = [lambda one: one.ping(), *own, *shared, backtests]
            loads = [
                Load(f"load-{number}", broker.connection_file, quietly(kind), stop) for number, kind in enumerate(kinds)
            ]
            serving, answered = [], []
            for _ in range(arguments.kills):
                time.sleep(generator.uniform(*CALM))
                served, clients = kill_and_start(broker, loads)
                serving.append(served)
                answered += clients
                if any(load.fault for load in loads):
                    break
            stop.set()
            for load in loads:
                load.join()
            faults = [load.fault for load in loads if load.fault]
            if not faults:
                backtests.wait_for_all(client)
                faults = [*backtests.faults, *found_wrong(client, own, shared, backtests, expected_orders)]
        replayed = [
            replayed_log(parts_of(one), None) for one in sorted((broker.data_dir / "recordings").iterdir())[:-1]
        ]
        for log in replayed:
            faults += [f"recording {log.files[0]}: {one}" for one in (*log.problems, log.contradiction) if one]
    changes = sum(one.version for one in own) + sum(one.made for one in shared)
    print(
        f"{len(serving)} kills; {loads[0].done:,} pings, {changes:,} changes of state, {len(backtests.ids)} backtests; "
        f"serving again after {seconds(serving)}, the clients' next answers after {seconds(answered)}; "
        f"{len(replayed)} recordings with {sum(log.events for log in replayed):,} events replayed; {len(faults)} faults"
    )
    for fault in faults[:20]:
        print(f"fault: {fault}")
    return 1 if faults else 0


def quietly(kind: Callable[[Client], object]) -> Callable[[Client], None]:
    def work(client: Client) -> None:
        kind(client)

    return work


def orders_of_an_undisturbed_one(broker: RunningBroker) -> int:
    with backtestr.connect(connection_file=broker.connection_file) as client:
        run = client.backtest(*BACKTEST, timeframe="1m", **RANGE)
        return run.result(PATIENCE).orders.height


def kill_and_start(broker: RunningBroker, loads: list[Load]) -> tuple[float, list[float]]:
    """Return the seconds from a kill until the broker serves again, and until each client has its next answer."""
    broker.process.kill()
    broker.process.wait()
    killed = time.monotonic()
    broker.start()
    served = time.monotonic() - killed
    deadline = killed + PATIENCE
    waiting = set(loads)
    answered = []
    while waiting and time.monotonic() < deadline and not any(load.fault for load in loads):
        for load in [one for one in waiting if one.last_done > killed]:
            waiting.remove(load)
            answered.append(load.last_done - killed)
        time.sleep(0.005)
    if time.monotonic() >= deadline:
        for load in waiting:
            load.fault = load.fault or f"{load.name} had no answer for {PATIENCE:g} s after a kill"
    return served, answered


def found_wrong(
    client: Client, own: list[OwnKey], shared: list[SharedKey], backtests: Backtests, expected_orders: int
) -> Iterator[str]:
    """Yield the differences between the state of the last broker and the expected state."""
    for one in own:
        entry = client.get_state(one.key)
        if (entry.version, entry.value) != (one.version, one.version):
            yield f"{one.key} was acknowledged at {one.version} and is {entry.value} at {entry.version}"
    total = sum(one.made for one in shared)
    entry = client.get_state("chaos.sum")
    if (entry.version, entry.value) != (total, total):
        yield f"{total} increments of the shared key were acknowledged, and it is {entry.value} at {entry.version}"
    known = {one.backtest_id: one.status for one in client.list_backtests()}
    if len(known) != len(backtests.ids) + 1:
        yield f"{len(backtests.ids) + 1} backtests were started, and {len(known)} are known"
    for backtest_id in backtests.ids:
        if known.get(backtest_id) != "completed":
            yield f"backtest {backtest_id} is {known.get(backtest_id)}"
            continue
        if backtests.result_of(backtest_id) != backtests.written[backtest_id]:
            yield f"the result of backtest {backtest_id} was written twice"
        orders = client.results(backtest_id, tables=("orders",)).orders
        if orders is None or orders.height != expected_orders:
            yield f"backtest {backtest_id} has other orders than an undisturbed one"


def seconds(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):.2f} s (median, worst {max(values):.2f} s)"


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
