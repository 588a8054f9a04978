"""Clients that come and go by the thousand, and hundreds at once: the broker holds afterwards what it held before.

    make chaos-connections
    make chaos-connections ARGS='--cycles 10000 --clients 900'

Every cycle is a new client on a new connection: Hello, a Ping, and away, every second time without a word. Half of the
cycles and a first crowd leave behind what a broker keeps within its bounds (remembered answers, counters, what the C
library does not give back); what is measured is growth from there, with the other half and a second crowd. Exits 1 when
file handles, memory or sessions are not back where they were.
"""

from __future__ import annotations

import argparse
import sys
import time

import psutil
import zmq

from harness import RunningBroker, Stranger, running_broker
from protocol.independent import Requests

# Handles that come and go with storage and logs.
MAX_MORE_HANDLES = 4
MAX_GROWTH_MB = 32.0
# How long ZeroMQ may take to notice that a peer has gone.
SETTLE_SECONDS = 20.0
CONFIG = {"broker.toml": "[limits]\nsession_timeout_ms = 2000\n[log]\nlevel = 'warning'\n"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cycles", type=int, default=2_000, help="clients that come and go (default 2,000)")
    parser.add_argument("--clients", type=int, default=500, help="clients at once (default 500)")
    arguments = parser.parse_args()
    with running_broker(CONFIG) as broker, Stranger(broker.connection_file, "watcher") as watcher:
        watcher.hello()
        before = handles(broker)
        cycles = come_and_go(watcher, arguments.cycles // 2, "first")
        crowd = all_at_once(watcher, arguments.clients)
        settle(broker, watcher, before)
        warm_handles, warm_mb = handles(broker), memory_mb(broker)
        cycles += come_and_go(watcher, arguments.cycles - arguments.cycles // 2, "second")
        crowd += all_at_once(watcher, arguments.clients)
        settle(broker, watcher, before)
        after_handles, grown = handles(broker), memory_mb(broker) - warm_mb
        status = watcher.ask("GetSystemStatus", {})
        print(f"answered: {cycles:,} of {arguments.cycles:,} cycles, {crowd:,} of {2 * arguments.clients:,} at once")
        print(f"handles: {before} before, {warm_handles} warm, {after_handles} after")
        print(f"memory: {warm_mb:.1f} MB warm, grown by {grown:.1f} MB; sessions {status['connectedClients']}")
        good = (
            cycles == arguments.cycles
            and crowd == 2 * arguments.clients
            and after_handles <= before + MAX_MORE_HANDLES
            and grown < MAX_GROWTH_MB
            and status["connectedClients"] == 1
        )
        print("the broker is as it was" if good else "the broker is NOT as it was")
        return 0 if good else 1


def come_and_go(watcher: Stranger, cycles: int, name: str) -> int:
    """Clients one after the other; returns how many were answered."""
    answered = 0
    for number in range(cycles):
        requests, dealer = visitor(watcher, f"{name} {number}")
        answered += served(requests, dealer)
        if number % 2:
            dealer.send_multipart(requests.make("Goodbye", {}))
            answered_goodbye(dealer)
        dealer.close()
    return answered


def all_at_once(watcher: Stranger, clients: int) -> int:
    """Clients that are all connected, and all ask, before any is answered; returns how many were."""
    visitors = [visitor(watcher, f"crowd {number}") for number in range(clients)]
    for requests, dealer in visitors:
        dealer.send_multipart(requests.hello())
    for requests, dealer in visitors:
        requests.welcomed(answer(requests, dealer))
    for requests, dealer in visitors:
        dealer.send_multipart(requests.make("Ping", {}))
    answered = sum("timestamp" in answer(requests, dealer) for requests, dealer in visitors)
    for _, dealer in visitors:
        dealer.close()
    return answered


def visitor(watcher: Stranger, client_id: str) -> tuple[Requests, zmq.Socket[bytes]]:
    dealer = watcher.context.socket(zmq.DEALER)
    dealer.linger = 0
    dealer.connect(watcher.connection["endpoints"]["requests"])
    return Requests(watcher.key, client_id, now_ms=lambda: time.time_ns() // 1_000_000), dealer


def served(requests: Requests, dealer: zmq.Socket[bytes]) -> bool:
    dealer.send_multipart(requests.hello())
    requests.welcomed(answer(requests, dealer))
    dealer.send_multipart(requests.make("Ping", {}))
    return "timestamp" in answer(requests, dealer)


def answer(requests: Requests, dealer: zmq.Socket[bytes]) -> dict[str, object]:
    """The data of the next answer, a failure's too; empty where none comes in time."""
    if not dealer.poll(20_000):
        return {"sessionId": ""}
    data: dict[str, object] = requests.answer(dealer.recv_multipart())[0]["payload"]["data"]
    return data


def answered_goodbye(dealer: zmq.Socket[bytes]) -> None:
    if dealer.poll(20_000):
        dealer.recv_multipart()


def settle(broker: RunningBroker, watcher: Stranger, before: int) -> None:
    """Until the broker has let go of who has gone, or it takes too long."""
    deadline = time.monotonic() + SETTLE_SECONDS
    watcher.hello()  # its session was silent meanwhile
    while time.monotonic() < deadline:
        alone = watcher.ask("GetSystemStatus", {})["connectedClients"] == 1
        if alone and handles(broker) <= before + MAX_MORE_HANDLES:
            return
        time.sleep(0.1)


def handles(broker: RunningBroker) -> int:
    count: int = psutil.Process(broker.process.pid).num_fds()
    return count


def memory_mb(broker: RunningBroker) -> float:
    return float(psutil.Process(broker.process.pid).memory_info().rss / 1e6)


if __name__ == "__main__":
    sys.exit(main())
