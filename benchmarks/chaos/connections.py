"""This program connects thousands of clients, hundreds of them at once, and checks that the broker frees all again.

    make chaos-connections
    make chaos-connections ARGS='--cycles 10000 --clients 900'

Every cycle is a new client on a new connection: Hello, a Ping, and its end, every second time without Goodbye. If the
sessions of those reach the limit, the broker answers BUSY, and the client waits as long as the answer states. The first
rounds fill what a broker keeps within bounds (remembered answers, memory that the C library does not return); growth is
measured in the last one. The exit code is 1 if file handles, memory or sessions have not returned to their values.

Then a broker of each transport, with a limit of 1,024 file descriptors, gets more connections that say nothing: to each
socket, and to the port for metrics. The exit code is 1 if it ends, leaves a client without answers, admits no new one,
or goes on using the processor.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

import psutil
import zmq

from support.harness import RawClient, RunningBroker, running_broker, short_directory
from support.protocol.independent import Fields, Requests

# File handles that storage and logs open and close.
MAX_MORE_HANDLES = 4
MAX_GROWTH_MB = 8.0
# The seconds that ZeroMQ may take to detect that a peer has disconnected.
SETTLE_SECONDS = 20.0
ANSWER_MS = 20_000
# The usual limit on file descriptors, which a broker with a higher one would raise.
USUAL_LIMIT = 1_024
# Seconds of processor time in a second: a broker that tries to accept without end uses nearly all of it.
BUSY_SECONDS = 0.5
TRANSPORTS = {
    "ipc": "",
    "tcp": '[transport]\nkind = "tcp"\ntcp_readable_by_local_users = true\n',
    "tcp with CURVE": '[transport]\nkind = "tcp"\n',
}
CONFIG = {"broker.toml": "[limits]\nsession_timeout_ms = 2000\n[log]\nlevel = 'warning'\n"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--cycles", type=int, default=2_000, help="clients that come and go, in each round (default 2,000)"
    )
    parser.add_argument("--clients", type=int, default=500, help="clients at once, in each round (default 500)")
    parser.add_argument("--rounds", type=int, default=4, help="of which the last is measured (default 4)")
    parser.add_argument("--silent", type=int, default=1_100, help="silent connections to each socket (default 1,100)")
    arguments = parser.parse_args()
    raise_own_limit(8 * arguments.silent + 1_000)
    good = clients_leave_nothing(arguments)
    for name, config in TRANSPORTS.items():
        good = silent_connections_take_nothing(name, config, arguments.silent) and good
    return 0 if good else 1


def clients_leave_nothing(arguments: argparse.Namespace) -> bool:
    with running_broker(CONFIG) as broker, RawClient(broker.connection_file, "watcher") as watcher:
        watcher.hello()
        before = handles(broker)
        print(f"before:   {before} handles, {memory_mb(broker):6.1f} MB")
        grown = 0.0
        for number in range(1, arguments.rounds + 1):
            earlier = memory_mb(broker)
            come_and_go(watcher, arguments.cycles, f"round {number}")
            all_at_once(watcher, arguments.clients)
            settle(broker, watcher, before)
            grown = memory_mb(broker) - earlier
            print(f"round {number}:  {handles(broker)} handles, {memory_mb(broker):6.1f} MB", flush=True)
        left = watcher.ask("GetSystemStatus", {})["connectedClients"]
        each = f"{arguments.cycles:,} cycles and {arguments.clients:,} at once in each round"
        print(f"answered: {each}; sessions left: {left}")
        good = handles(broker) <= before + MAX_MORE_HANDLES and grown < MAX_GROWTH_MB and left == 1
        print("the broker is as it was" if good else "the broker is NOT as it was")
        return good


def silent_connections_take_nothing(name: str, config: str, count: int) -> bool:
    """Open silent connections to every socket of a broker with few descriptors, and print what that did to it."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    text = f"{config}[metrics]\nport = {port}\n[log]\nlevel = 'warning'\n"
    with short_directory() as home, contextlib.ExitStack() as started:
        broker = RunningBroker(home, {"broker.toml": text})
        broker.start(before=f"ulimit -n {USUAL_LIMIT}")
        started.push(broker)
        with RawClient(broker.connection_file, "watcher") as watcher:
            watcher.hello()
            endpoints = {**watcher.connection["endpoints"], "metrics": f"tcp://127.0.0.1:{port}"}
            longest, peak = 0.0, 0
            with contextlib.ExitStack() as stack:
                for endpoint in endpoints.values():
                    for number in range(count):
                        with contextlib.suppress(OSError):  # it was ended while it was made
                            stack.enter_context(silent(endpoint))
                        if number % 100 == 0:
                            longest, peak = max(longest, ping(watcher)), max(peak, handles(broker))
                used = processor_seconds(broker, watcher)
                with RawClient(broker.connection_file, "newcomer") as newcomer:
                    newcomer.hello()
                    longest = max(longest, ping(newcomer))
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
                    answer.read()
            deadline = time.monotonic() + SETTLE_SECONDS
            while watcher.ask("GetSystemStatus", {})["status"] != "healthy" and time.monotonic() < deadline:
                time.sleep(0.1)
            health = watcher.ask("GetSystemStatus", {})["status"]
        good = health == "healthy" and used < BUSY_SECONDS
        print(
            f"{name}: {count:,} silent connections to each socket; {peak} of {USUAL_LIMIT:,} handles, the longest Ping "
            f"{longest * 1000:.0f} ms, {used:.2f} s of processor time in a second afterwards, then {health}"
            f"{'' if good else ': NOT as it should be'}",
            flush=True,
        )
        return good


def raise_own_limit(wanted: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def silent(endpoint: str) -> socket.socket:
    """Open a connection that says nothing, not even ZeroMQ's greeting."""
    if endpoint.startswith("ipc://"):
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(1.0)
        peer.connect(endpoint.removeprefix("ipc://"))
        return peer
    url = urlsplit(endpoint)
    return socket.create_connection((url.hostname, url.port), 1.0)


def ping(client: RawClient) -> float:
    began = time.monotonic()
    client.ask("Ping", {})
    return time.monotonic() - began


def processor_seconds(broker: RunningBroker, watcher: RawClient) -> float:
    """Return the processor time that the broker uses in a second in which nothing is connected anew."""
    process = psutil.Process(broker.process.pid)
    ping(watcher)
    before = process.cpu_times()
    time.sleep(1.0)
    after = process.cpu_times()
    return float(after.user + after.system - before.user - before.system)


def come_and_go(watcher: RawClient, cycles: int, name: str) -> None:
    """Connect clients one after the other."""
    for number in range(cycles):
        with short_lived_client(watcher, f"{name}, {number}") as one:
            one.hello()
            one.ask("Ping")
            if number % 2:
                one.ask("Goodbye")


def all_at_once(watcher: RawClient, clients: int) -> None:
    """Connect clients that all send a request before any is answered."""
    with contextlib.ExitStack() as stack:
        connected = [stack.enter_context(short_lived_client(watcher, f"client {number}")) for number in range(clients)]
        for one in connected:
            one.hello()
        for one in connected:
            one.send("Ping")
        for one in connected:
            one.answer()


class ShortLivedClient:
    """A client on a connection of its own."""

    def __init__(self, watcher: RawClient, client_id: str) -> None:
        self.dealer = watcher.context.socket(zmq.DEALER)
        self.dealer.linger = 0
        self.dealer.connect(watcher.connection["endpoints"]["requests"])
        self._requests = Requests(watcher.key, client_id, now_ms=lambda: time.time_ns() // 1_000_000)

    def hello(self) -> None:
        while True:
            self.dealer.send_multipart(self._requests.hello())
            data = self._receive()["data"]
            if data.get("code") != "BUSY":
                self._requests.welcomed(data)
                return
            time.sleep(data["details"]["retryAfterMs"] / 1000)

    def send(self, request_type: str) -> None:
        self.dealer.send_multipart(self._requests.make(request_type, {}))

    def ask(self, request_type: str) -> None:
        self.send(request_type)
        self.answer()

    def answer(self) -> None:
        payload = self._receive()
        if payload["type"] != "Success":
            raise RuntimeError(f"answered with {payload}")

    def _receive(self) -> Fields:
        if not self.dealer.poll(ANSWER_MS):
            raise RuntimeError("no answer came")
        payload: Fields = self._requests.answer(self.dealer.recv_multipart())[0]["payload"]
        return payload


@contextlib.contextmanager
def short_lived_client(watcher: RawClient, client_id: str) -> Iterator[ShortLivedClient]:
    one = ShortLivedClient(watcher, client_id)
    try:
        yield one
    finally:
        one.dealer.close()


def settle(broker: RunningBroker, watcher: RawClient, before: int) -> None:
    """Wait until the broker has freed the disconnected clients, or it takes too long."""
    deadline = time.monotonic() + SETTLE_SECONDS
    watcher.hello()  # its own session may have ended meanwhile
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
