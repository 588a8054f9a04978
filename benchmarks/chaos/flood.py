"""This program floods a broker with background and bulk requests, and measures the effect on another client.

    make chaos-flood
    make chaos-flood ARGS='--seconds 60 --flooders 2'

The other client pings all the time: alone, then by turns beside processes that only count, as many as a flood keeps
busy, and beside the flood. In the median of the turns its p99 in the flood must be at most a tenth above that of beside
the processes that count: what is left then is the work that the machine has, and none of it is the broker's. During the
last flood the other client stops a backtest, and runs one of its own while those of the flood are queued. The flooding
client is a process of its own that sends as fast as ZeroMQ accepts. The exit code is 1 if something is too late.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import zmq

from integration.test_end_to_end import SYNTH
from support.harness import RawClient, RunningBroker, running_broker
from support.protocol.independent import Fields

# The most that the p99 of a Ping may be, as a multiple of that of beside processes that count.
MAX_RATIO = 1.1
# Seconds between two pings: the client watches, and does not flood.
PING_PAUSE = 0.001
STOP_SECONDS = 5.0
# Seconds that the other client's own backtest may take: it waits for those that run, not for the whole queue.
OWN_SECONDS = 30.0
KINDS: tuple[tuple[str, Fields], ...] = (
    ("StartBacktest", SYNTH),
    ("ImportMarketData", {"path": "/nowhere.csv", "symbol": "FLOOD"}),
    ("NoSuchRequest", {}),
)
BURST = 64
CONFIG = {"broker.toml": "[workers]\ncompute = 1\n"}
# Processes that a flood keeps busy besides its clients: the broker and its compute worker.
OTHERS_BUSY = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=7.0, help="of pings in each turn (default 7)")
    parser.add_argument("--turns", type=int, default=5, help="turns of counting and flood (default 5)")
    parser.add_argument("--flooders", type=int, default=1, help="clients that flood (default 1)")
    parser.add_argument("--flood", type=Path, metavar="CONNECTION_FILE", help="be a client that floods, for --seconds")
    parser.add_argument("--name", default="flood", help="of that client")
    arguments = parser.parse_args()
    if arguments.flood:
        print(json.dumps(flood(arguments.flood, arguments.name, arguments.seconds)))
        return 0
    with running_broker(CONFIG) as broker, RawClient(broker.connection_file, "watcher") as watcher:
        watcher.hello()
        ping(watcher, 1.0)  # warm
        report("alone", ping(watcher, arguments.seconds))
        ratios: list[float] = []
        for turn in range(1, arguments.turns + 1):
            with counting(arguments.flooders + OTHERS_BUSY):
                beside = ping(watcher, arguments.seconds)
            report("counting", beside)
            # With a pace, so that it does not end before the pause.
            options = {"pace": 1_000, "streams": {"progressIntervalMs": 1000}}
            paused = watcher.ask("StartBacktest", {**SYNTH, "options": options})
            watcher.ask("PauseBacktest", {"backtestId": paused["backtestId"]})
            with flooding(broker, arguments.flooders, arguments.seconds + 10.0) as flooders:
                wait_for_queue(watcher)
                flooded = ping(watcher, arguments.seconds)
                report("flooded", flooded)
                stopped = timed_stop(watcher, paused["backtestId"])
                queued = watcher.ask("GetSystemStatus", {})["queuedRequests"]
                own = timed_backtest(watcher) if turn == arguments.turns else 0.0
            ratios.append(p99(flooded) / p99(beside))
            wait_for_queue(watcher, lambda queued: queued == 0)
        for name, process in flooders.items():
            print(f"{name}: {process.stdout.read().strip() if process.stdout else ''}")
        status = watcher.ask("GetSystemStatus", {})
        print(json.dumps({name: status.get(name) for name in ("status", "reasons", "connections", "throttle")}))
    ratio = statistics.median(ratios)
    print(f"p99 beside the flood: {ratio:.2f} times of beside processes that count (bound {MAX_RATIO:g})")
    print(f"StopBacktest took effect after {stopped:.3f} s (bound {STOP_SECONDS:g})")
    print(f"own backtest, with {queued} queued before it: {own:.1f} s (bound {OWN_SECONDS:g})")
    good = ratio <= MAX_RATIO and stopped <= STOP_SECONDS and own <= OWN_SECONDS
    print("the other client is served" if good else "the other client is NOT served")
    return 0 if good else 1


def flood(connection_file: Path, name: str, seconds: float) -> dict[str, int]:
    """Send without a pause for so long; return the numbers of requests sent and of answers by code."""
    counts: Counter[str] = Counter()
    with RawClient(connection_file, name) as raw_client:
        raw_client.hello()
        until = time.monotonic() + seconds
        number = 0
        while time.monotonic() < until:
            for _ in range(BURST):
                kind, data = KINDS[number % len(KINDS)]
                with contextlib.suppress(zmq.Again):
                    raw_client.dealer.send_multipart(raw_client.requests.make(kind, data), zmq.DONTWAIT)
                    counts["sent"] += 1
                number += 1
            while raw_client.dealer.poll(0):
                envelope, _ = raw_client.receive()
                payload = envelope["payload"]
                counts[payload["type"] if payload["type"] == "Success" else payload["data"]["code"]] += 1
    return dict(counts)


@contextlib.contextmanager
def flooding(broker: RunningBroker, clients: int, seconds: float) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Run clients that flood for the length of the block; each prints its counts when it ends."""
    processes: dict[str, subprocess.Popen[str]] = {}
    for number in range(1, clients + 1):
        name = f"flood-{number}"
        command = [sys.executable, __file__, "--flood", str(broker.connection_file), "--name", name]
        processes[name] = subprocess.Popen([*command, "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True)
    try:
        yield processes
    finally:
        for process in processes.values():
            process.wait()


@contextlib.contextmanager
def counting(processes: int) -> Iterator[None]:
    """Run processes that keep a core busy each, if there are as many cores."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def wait_for_queue(watcher: RawClient, is_reached: Callable[[int], bool] = lambda queued: queued >= 100) -> None:
    """Wait until the flood has filled the queues, or until they are as `is_reached` says."""
    deadline = time.monotonic() + 60.0
    while not is_reached(watcher.ask("GetSystemStatus", {})["queuedRequests"]):
        if time.monotonic() > deadline:
            raise RuntimeError("the queues are not as they were to be within a minute")
        time.sleep(0.05)


def ping(watcher: RawClient, seconds: float) -> list[float]:
    """Return the milliseconds of each Ping."""
    took = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        watcher.ask("Ping", {})
        took.append((time.perf_counter() - began) * 1000)
        time.sleep(PING_PAUSE)
    return took


def timed_stop(watcher: RawClient, backtest_id: str) -> float:
    began = time.monotonic()
    stopped = watcher.ask("StopBacktest", {"backtestId": backtest_id})
    took = time.monotonic() - began
    if stopped["status"] != "stopped":
        raise RuntimeError(f"StopBacktest answered {stopped}")
    return took


def timed_backtest(watcher: RawClient) -> float:
    """Return the seconds from StartBacktest to the end of the backtest."""
    began = time.monotonic()
    started = watcher.ask("StartBacktest", SYNTH)
    while watcher.ask("GetBacktestStatus", {"backtestId": started["backtestId"]})["status"] != "completed":
        time.sleep(0.01)
    return time.monotonic() - began


def p99(took: list[float]) -> float:
    return statistics.quantiles(took, n=100)[98]


def report(name: str, took: list[float]) -> None:
    print(
        f"{name:8} {len(took):7,} pings: median {statistics.median(took):7.2f} ms, p99 {p99(took):7.2f} ms, "
        f"worst {max(took):7.2f} ms",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
