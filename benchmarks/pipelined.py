"""This part measures requests a second with many in flight: Ping through the broker beside a raw echo, over ipc.

    make bench-pipelined

On either side one client keeps 100 requests in flight: it sends as many, and one more for every answer. Blocks of both
alternate. The broker is asked by the session that every client has, on one thread; by one thread with a pipeline of the
client; and by eight threads that share one client, each of which waits for its own answer.

"Messages alone" is what no broker in Python can do without: a process that verifies, decodes, encodes and signs Pings
as the protocol asks, with the product's frames and codec, and does nothing else; so does its client. It has no session,
no counters, no answers to remember and no limits.

Two cores are not enough for both processes and ZeroMQ's threads, so the processor time of a request (user and system)
is measured as well: that of this process, and that of the other one.
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from bare_messages import CLIENT_BURST, BareClient, BareSocket, bare_broker
from brokers import running_broker
from figures import Figure, Missing, Target, rounds, run_part
from floors import Context, Socket, floor
from machine import cpu_seconds
from round_trips import ECHO, PAYLOAD_BYTES, UNLIMITED, connect, dealer_to, own_context
from turns import Work, seconds

from backtestr.client import Client
from backtestr.core.effects import Answered, Failed, Send, SessionEffect, Welcomed
from backtestr.core.session import Session
from backtestr.io.connection_file import ConnectionFile
from backtestr_protocol.connection import Connection
from backtestr_protocol.messages import Nothing
from backtestr_protocol.zmq_frames import send

IN_FLIGHT = 100
REQUESTS = 4_000
BLOCKS = 20
THREADS = 8
LEAVING_MS = 1_000
ALONE = "messages alone"
SESSION = "session, one thread"
PIPELINE = "client.pipeline(), one thread"
SHARED = f"one client, {THREADS} threads"
PART = "Pipelined requests over ipc"


class PipelinedSession:
    """A session on a socket with requests in flight."""

    def __init__(self, context: Context, connection: Connection, client_id: str = "pipelined") -> None:
        self._socket = BareSocket(dealer_to(context, connection.endpoints.requests))
        self._session = Session(client_id, secrets.token_hex(8))
        self._send(self._session.connected(connection.signer(), time.monotonic(), _wall_ms()))
        while not self.receive(Welcomed):
            pass

    def ask(self) -> None:
        _, effects = self._session.request("Ping", Nothing(), time.monotonic(), _wall_ms(), 60.0)
        self._send(effects)

    def receive(self, kind: type = Answered) -> int:
        """Receive messages, and return how many effects of that kind they had."""
        effects: list[SessionEffect] = []
        for frames in self._socket.receive(CLIENT_BURST):
            effects += self._session.receive(frames, time.monotonic(), _wall_ms())
        if refused := [one for one in effects if isinstance(one, Failed)]:
            raise RuntimeError(f"the broker refused a Ping: {refused[0].error}")
        return sum(isinstance(effect, kind) for effect in effects)

    def run(self, requests: int, in_flight: int) -> None:
        for _ in range(in_flight):
            self.ask()
        answered, asked = 0, in_flight
        while answered < requests:
            answered += self.receive()
            while asked < min(requests, answered + in_flight):
                self.ask()
                asked += 1

    def leave(self) -> None:
        """Say Goodbye, as a client does that is closed: otherwise the session stays open until it has been silent."""
        self._socket.socket.linger = LEAVING_MS
        self._send(self._session.farewell(time.monotonic(), _wall_ms()))

    def _send(self, effects: Iterable[object]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                send(self._socket.socket, effect.frames)


def echoed(dealer: Socket) -> Work:
    payload = b"x" * PAYLOAD_BYTES

    def run() -> None:
        for _ in range(IN_FLIGHT):
            dealer.send(payload)
        for answered in range(1, REQUESTS + 1):
            dealer.recv()
            if answered <= REQUESTS - IN_FLIGHT:
                dealer.send(payload)

    return run


def by_pipeline(client: Client) -> Work:
    def run() -> None:
        with client.pipeline(window=IN_FLIGHT) as pipe:
            replies = [pipe.ping() for _ in range(REQUESTS)]
        for reply in replies:
            reply.result()

    return run


def by_threads(client: Client) -> Work:
    def ask() -> None:
        for _ in range(REQUESTS // THREADS):
            client.ping()

    def run() -> None:
        threads = [threading.Thread(target=ask) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


def measure(effort: float) -> list[Figure | Missing]:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bt-"))
        address = f"ipc://{folder}/echo"
        echo = stack.enter_context(floor("echo", address))
        bare = stack.enter_context(bare_broker(bare_address := f"ipc://{folder}/bare"))
        broker = stack.enter_context(running_broker(config=UNLIMITED))
        context = stack.enter_context(own_context())
        client = stack.enter_context(connect(broker))
        session = PipelinedSession(context, ConnectionFile(broker.connection_file).read())
        bare_client = BareClient(context, bare_address)
        works: dict[str, Work] = {
            ECHO: echoed(dealer_to(context, address)),
            ALONE: lambda: bare_client.run(REQUESTS, IN_FLIGHT),
            SESSION: lambda: session.run(REQUESTS, IN_FLIGHT),
            PIPELINE: by_pipeline(client),
            SHARED: by_threads(client),
        }
        others = dict.fromkeys(works, broker.pid) | {ECHO: echo.pid, ALONE: bare.pid}
        took: dict[str, list[Spent]] = {name: [] for name in works}
        for block in range(rounds(BLOCKS, effort) + 1):
            for name, work in works.items():
                spent = spend(work, others[name])
                if block:  # the first is for warming up
                    took[name].append(spent)
    targets = {SESSION: Target(0.6, "at least"), PIPELINE: Target(0.6, "at least"), SHARED: Target(0.15, "at least")}
    figures: list[Figure | Missing] = [
        Figure(
            part=PART,
            name=name,
            unit="1/s",
            values=[REQUESTS / one.seconds for one in values],
            beside=None if name == ECHO else ECHO,
            target=targets.get(name),
        )
        for name, values in took.items()
    ]
    for label, index in (("processor of this process", 1), ("processor of the other process", 2)):
        figures += [
            Figure(
                part=f"{PART}: {label}",
                name=name,
                unit="µs",
                values=[1e6 * one[index] / REQUESTS for one in values],
                beside=None if name == ECHO else ECHO,
            )
            for name, values in took.items()
        ]
    return figures


class Spent(NamedTuple):
    """The cost of one block: seconds, and seconds of the processor in this process and in the other one."""

    seconds: float
    here: float
    there: float


def spend(work: Work, other: int) -> Spent:
    here, there = time.process_time(), cpu_seconds(other)
    took = seconds(work)
    return Spent(took, time.process_time() - here, cpu_seconds(other) - there)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    run_part(__doc__, measure)
