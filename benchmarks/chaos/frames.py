"""This program sends hostile frame lists to every bound socket: the broker stays up, and its memory does not grow.

    make chaos-frames            100,000 on each of seven sockets
    make chaos-frames ARGS='--lists 5000 --seed 7 --tcp'

It prints the broker's memory before and after, and the times of its answers meanwhile. The exit code is 1 if the broker
is not as before.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import psutil
import zmq
from brokers import Running, running_broker

from integration.test_end_to_end import SYNTH
from support.harness import RawClient
from support.protocol.hostile import hostile_lists

SOCKETS = ("requests", "engine", "prices", "progress", "orders", "positions", "system")
# A ping is sent every so many lists.
PING_EVERY = 1_000
# A smaller flood comes first: full queues, and above all frames of 17 and 33 MB, of which several are in transit at
# once, leave the C library with some 100 MB that it does not return. Growth is measured from there.
WARM_UP_SHARE = 5
MAX_GROWTH_MB = 96.0
MAX_LOG_MB = 1.0
# Seconds within which the broker must report that it is healthy again.
HEARTBEATS = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lists", type=int, default=100_000, help="frame lists per socket (default 100,000)")
    parser.add_argument("--seed", type=int, default=1, help="of the generator (default 1)")
    parser.add_argument("--tcp", action="store_true", help="over TCP instead of Unix sockets")
    arguments = parser.parse_args()
    config = '[transport]\nkind = "tcp"\n' if arguments.tcp else ""
    with running_broker(config=config) as broker, RawClient(broker.connection_file) as raw_client:
        raw_client.hello()
        print(f"{arguments.lists:,} lists on each socket, seed {arguments.seed}")
        print(f"{'socket':12}{'seconds':>9}{'before MB':>11}{'after MB':>10}{'pings ms: median':>19}{'worst':>8}")
        for name in SOCKETS:
            flood(broker, raw_client, name, arguments.lists // WARM_UP_SHARE, arguments.seed)
        first = memory_mb(broker)
        print(f"warm: {first:.1f} MB")
        for name in SOCKETS:
            flood(broker, raw_client, name, arguments.lists, arguments.seed + 1)
        grown, log_mb = memory_mb(broker) - first, broker.log.stat().st_size / 1e6
        status = raw_client.ask("GetSystemStatus", {})
        for _ in range(HEARTBEATS):  # the end of the flood may have delayed it beyond the limit of healthy
            if status["status"] != "healthy":
                time.sleep(1)
                status = raw_client.ask("GetSystemStatus", {})
        known = len(raw_client.ask("ListBacktests", {})["backtests"])
        print(f"grown by {grown:.1f} MB since warm; log {log_mb:.2f} MB; status {status['status']}; backtests {known}")
        good = status["status"] == "healthy" and known == 0 and grown < MAX_GROWTH_MB and log_mb < MAX_LOG_MB
        print("the broker is as it was" if good else "the broker is NOT as it was")
        return 0 if good else 1


def flood(broker: Running, raw_client: RawClient, name: str, lists: int, seed: int) -> None:
    """Send `lists` lists to one socket, ping the broker now and then, and print a line."""
    began, before = time.monotonic(), memory_mb(broker)
    good = raw_client.requests.make("StartBacktest", SYNTH, attachments=[b"attached"])
    socket = raw_client.open(zmq.DEALER if name in ("requests", "engine") else zmq.XSUB)
    socket.linger = 10_000
    socket.reconnect_ivl = 1
    where = f"ipc://{broker.runtime_dir}/engine" if name == "engine" else raw_client.connection["endpoints"][name]
    socket.connect(where)
    pings: list[float] = []
    for number, frames in enumerate(hostile_lists(seed, lists, good, raw_client.key)):
        socket.send_multipart(frames)
        if number % PING_EVERY == 0:
            asked = time.monotonic()
            raw_client.ask("Ping", {})
            pings.append((time.monotonic() - asked) * 1000)
    socket.close()
    raw_client.ask("Ping", {})
    print(
        f"{name:12}{time.monotonic() - began:9.1f}{before:11.1f}{memory_mb(broker):10.1f}"
        f"{statistics.median(pings):19.2f}{max(pings):8.1f}",
        flush=True,
    )


def memory_mb(broker: Running) -> float:
    return float(psutil.Process(broker.pid).memory_info().rss / 1e6)


if __name__ == "__main__":
    sys.exit(main())
